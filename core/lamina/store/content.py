"""Content by digest, in an OCI image layout (image-layout.md) that skopeo and umoci read as it lies. Not what the content means.

    ROOT/image/oci-layout, index.json, blobs/ALGORITHM/HEX      ROOT/tmp/blob-…  what is being written

Who adds content does so in an `ingest()`, and keeps it open until a database row names what was added; who deletes content takes
`exclusive()`. So what a running operation has just written is never taken for garbage.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import IO, Self

from lamina.errors import IntegrityError, NotFoundError
from lamina.linux.fs import fsync_path
from lamina.model.digest import Digest
from lamina.model.image import Descriptor, Index

LAYOUT_DOCUMENT = b'{"imageLayoutVersion":"1.0.0"}'
_TEMPORARY_PREFIX = "blob-"
_LOCK = "image.lock"
PATIENCE_S = 10.0
_PAUSE_S = 0.01
_CHUNK_BYTES = 1 << 20


class ContentStore:
    """The blobs and the index of one root directory. Makes what is missing of the layout; several processes may use it at once."""

    def __init__(self, root_dir: str) -> None:
        self.image_dir = os.path.join(root_dir, "image")
        self.tmp_dir = os.path.join(root_dir, "tmp")
        self._root_dir = root_dir

    def prepare(self) -> None:
        """Make the empty layout if it isn't there. Cheap, and harmless again."""
        if os.path.exists(os.path.join(self.image_dir, "index.json")):
            return
        os.makedirs(os.path.join(self.image_dir, "blobs", "sha256"), exist_ok=True)
        os.makedirs(self.tmp_dir, mode=0o700, exist_ok=True)
        with self.index_lock():
            if not os.path.exists(os.path.join(self.image_dir, "index.json")):
                self._replace("oci-layout", LAYOUT_DOCUMENT)
                self.write_index([])

    def blob_path(self, digest: Digest) -> str:
        return os.path.join(self.image_dir, "blobs", digest.algorithm, digest.hex)

    def exists(self, digest: Digest) -> bool:
        return os.path.exists(self.blob_path(digest))

    def size_bytes(self, digest: Digest) -> int:
        try:
            return os.stat(self.blob_path(digest)).st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def open(self, digest: Digest, *, verify: bool = False) -> IO[bytes]:
        """Open a blob. With `verify`, reading its last bytes raises IntegrityError unless all bytes together have the digest."""
        try:
            file = open(self.blob_path(digest), "rb")  # noqa: SIM115  the caller closes it
        except FileNotFoundError:
            raise _missing(digest) from None
        return VerifyingReader(file, digest) if verify else file  # type: ignore[return-value]

    def read(self, digest: Digest) -> bytes:
        """Read a small blob whole, verified."""
        with self.open(digest) as file:
            content = file.read()
        if digest.algorithm == "sha256":
            found = Digest.of(content).hex
        else:
            import hashlib  # OpenSSL with it, 3 ms

            found = hashlib.new(digest.algorithm, content).hexdigest()
        if found != digest.hex:
            raise IntegrityError(f"blob {digest} is damaged", hint="remove the image and load it again")
        return content

    def walk(self) -> Iterator[Digest]:
        """List the blobs that are there. A file that isn't named as a blob is passed over."""
        for algorithm in ("sha256", "sha512"):
            try:
                names = os.listdir(os.path.join(self.image_dir, "blobs", algorithm))
            except FileNotFoundError:
                continue
            for name in names:
                with contextlib.suppress(Exception):
                    yield Digest(f"{algorithm}:{name}")

    def delete(self, digest: Digest) -> int:
        """Delete a blob, under `exclusive()`. Return the bytes that this frees, 0 if it has gone already."""
        path = self.blob_path(digest)
        try:
            size_bytes = os.stat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        return size_bytes

    def write_index(self, descriptors: Sequence[Descriptor]) -> None:
        """Replace `index.json` at once and durably. The caller holds `index_lock`."""
        self._replace("index.json", Index(manifests=tuple(descriptors)).to_bytes())

    def layout_is_whole(self, descriptors: Sequence[Descriptor]) -> bool:
        """Whether the layout's two documents say what they should. The caller holds `index_lock`."""
        wanted = {"oci-layout": LAYOUT_DOCUMENT, "index.json": Index(manifests=tuple(descriptors)).to_bytes()}
        for name, content in wanted.items():
            try:
                with open(os.path.join(self.image_dir, name), "rb") as file:
                    if file.read() != content:
                        return False
            except FileNotFoundError:
                return False
        return True

    def write_layout(self) -> None:
        """Write `oci-layout` again. The caller holds `index_lock`."""
        self._replace("oci-layout", LAYOUT_DOCUMENT)

    def _replace(self, name: str, content: bytes) -> None:
        temporary_path = os.path.join(self.tmp_dir, f"{name}.new")  # one name: what a killed writer leaves, the next one takes
        with open(temporary_path, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary_path, os.path.join(self.image_dir, name))
        fsync_path(self.image_dir)

    def index_lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold off other writers of `index.json`, from reading what it should say until it says so."""
        return self._locked("image-index.lock", fcntl.LOCK_EX)

    @contextlib.contextmanager
    def ingest(self) -> Iterator["Ingest"]:
        """Add content. Until the block ends nobody deletes any content; what was begun and not committed is then gone."""
        self.prepare()
        with self._locked(_LOCK, fcntl.LOCK_SH):
            ingest = Ingest(self)
            try:
                yield ingest
            finally:
                ingest.abort()

    @contextlib.contextmanager
    def exclusive(self, *, wait: bool = True) -> Iterator[bool]:
        """Hold off every `ingest()`. Yield whether that succeeded: without `wait` it is False while one is running.

        With it that is tried for `PATIENCE_S`, no longer: some ingest may always be running, as they don't wait for each other.
        Leavings of ingests that were killed are deleted on the way. Who deletes all that nobody has calls `forget_garbage` first.
        """
        self.prepare()
        with contextlib.ExitStack() as undo:
            give_up_s = time.monotonic() + (PATIENCE_S if wait else 0)
            while True:
                try:
                    undo.enter_context(self._locked(_LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB))
                    break
                except BlockingIOError:
                    if time.monotonic() >= give_up_s:
                        yield False
                        return
                    time.sleep(_PAUSE_S)
            for name in os.listdir(self.tmp_dir):
                if name.startswith(_TEMPORARY_PREFIX):
                    _unlink(os.path.join(self.tmp_dir, name))
            yield True

    @property
    def has_garbage(self) -> bool:
        """Whether there is content to delete: who let go of it is on the way, or could not. Then the lock's file isn't empty."""
        try:
            return os.stat(self._lock_path).st_size > 0
        except FileNotFoundError:
            return False

    def note_garbage(self) -> None:
        """Say that content has lost its last record, or is just about to: whoever next can deletes it."""
        with contextlib.suppress(OSError):  # a full disk: then the next removal finds it
            with open(self._lock_path, "r+b") as file:
                file.write(b"g")

    def forget_garbage(self) -> None:
        """Take that back, under `exclusive()`, before looking for what is to be deleted."""
        with contextlib.suppress(OSError):
            os.truncate(self._lock_path, 0)

    @property
    def _lock_path(self) -> str:
        return os.path.join(self._root_dir, _LOCK)

    @contextlib.contextmanager
    def _locked(self, name: str, how: int) -> Iterator[None]:
        fd = os.open(os.path.join(self._root_dir, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, how)
            yield
        finally:
            os.close(fd)


class Ingest:
    """One operation's additions. Not for two threads at once; each of its writers may be in a thread of its own."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._open: set[BlobWriter] = set()
        self._dirs: set[str] = set()

    def writer(self) -> "BlobWriter":
        writer = BlobWriter(self._store, self)
        self._open.add(writer)
        return writer

    def put(self, content: bytes) -> Digest:
        """Add a small blob that is in memory."""
        with self.writer() as writer:
            writer.write(content)
            return writer.commit()

    def flush(self) -> None:
        """Make the names of all committed blobs durable. To be called before a database row names them."""
        for directory in sorted(self._dirs):
            fsync_path(directory)
        self._dirs.clear()

    def abort(self) -> None:
        """Take away what wasn't committed."""
        for writer in list(self._open):
            writer.abort()

    def _committed(self, writer: "BlobWriter", directory: str) -> None:
        self._open.discard(writer)
        self._dirs.add(directory)

    def _aborted(self, writer: "BlobWriter") -> None:
        self._open.discard(writer)


class BlobWriter:
    """A blob being written: `write` it, then `commit` it. Leaving the `with` block without a commit takes it away.

    Outside a `with` block it stays until its `Ingest` ends, so that a whole archive can be read before the first blob is committed.
    """

    def __init__(self, store: ContentStore, ingest: Ingest) -> None:
        import tempfile  # 5 ms, and most commands make no blob

        self._store, self._ingest = store, ingest
        fd, self._path = tempfile.mkstemp(prefix=_TEMPORARY_PREFIX, dir=store.tmp_dir)
        self._file: IO[bytes] | None = open(fd, "wb", buffering=_CHUNK_BYTES)  # noqa: SIM115  commit and abort close it
        import hashlib

        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        if self._file is None:
            raise ValueError("the blob is complete")
        self._hash.update(data)
        self.size_bytes += len(data)
        return self._file.write(data)

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        return Digest("sha256:" + self._hash.hexdigest())

    def close(self) -> None:
        """Write the last bytes durably and give the descriptor back; `commit` may follow."""
        if self._file is not None:
            file, self._file = self._file, None
            with file:
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())

    def flush(self) -> None:
        """Let those see all that was written who read it while it grows."""
        if self._file is not None:
            self._file.flush()

    def open_growing(self) -> int:
        """Give a descriptor, the caller's to close, to read what `flush` has let be seen, now and after the commit."""
        return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def read_back(self) -> IO[bytes]:
        """Open what was written, before its commit."""
        self.close()
        return open(self._path, "rb")

    def commit(self, *, digest: Digest | None = None, size_bytes: int | None = None) -> Digest:
        """Give the blob its name. Raise IntegrityError, and leave nothing, if it has another digest or size than expected.

        `Ingest.flush` makes the name durable. A blob that is there already is replaced by the same bytes.
        """
        written = self.digest
        if (digest is not None and digest != written) or (size_bytes is not None and size_bytes != self.size_bytes):
            self.abort()
            if digest is not None and digest != written:
                raise IntegrityError(f"content has the digest {written} where {digest} was expected")
            raise IntegrityError(f"content has {self.size_bytes} bytes where {size_bytes} were expected")
        self.close()
        path = self._store.blob_path(written)
        os.rename(self._path, path)
        self._path = ""
        self._ingest._committed(self, os.path.dirname(path))
        return written

    def abort(self) -> None:
        """Take away what was written. No error after a commit or another abort."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # a full disk is no reason not to delete
                file.close()
        if self._path:
            _unlink(self._path)
            self._path = ""
            self._ingest._aborted(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.abort()


class VerifyingReader:
    """A readable file that raises IntegrityError at its end unless all of it was read in order and has the digest."""

    def __init__(self, file: IO[bytes], digest: Digest) -> None:
        self._file, self._digest = file, digest
        import hashlib

        self._hash = hashlib.new(digest.algorithm)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        if size != 0 and (size < 0 or len(data) < size) and self._hash.hexdigest() != self._digest.hex:
            raise IntegrityError(f"blob {self._digest} is damaged", hint="remove the image and load it again")
        return data

    def readinto(self, buffer: memoryview | bytearray) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _missing(digest: Digest) -> NotFoundError:
    return NotFoundError(f"blob {digest} is missing from the image store", hint="load or pull the image again")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
