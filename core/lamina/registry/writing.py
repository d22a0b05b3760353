"""Files that appear whole or not at all, and what is put aside on the way. Nothing of images.

A file being written has no name where the file system knows such files (O_TMPFILE), so that even a killed command leaves nothing.
"""

import contextlib
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from lamina.archive.compression import CHUNK_BYTES, Readable
from lamina.errors import IntegrityError, LaminaError, NotFoundError, UsageError
from lamina.linux.fs import fsync_path
from lamina.model.digest import Digest
from lamina.model.image import Descriptor
from lamina.registry.places import STANDARD_STREAM

_OPEN_FILES = 200
"""How many files without a name are held open at once; most limits are 1024."""
_HIDDEN = ".lamina-"
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


class NewFile:
    """A file in a directory that gets its name by `publish`. Use it as a context manager, or call `close`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._temporary = ""
        self._is_durable = False
        try:
            self.fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
            self._temporary = self._new_name()
            self.fd = os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)

    def _new_name(self) -> str:
        return os.path.join(self._directory, f"{_HIDDEN}{os.urandom(8).hex()}")

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Write all of it."""
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self.fd, left) :]
        except OSError as error:  # a full disk: say whose
            error.filename = self._directory
            raise
        return len(data)

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """Write all of it there; several threads may."""
        left = memoryview(data)
        while left:
            done = os.pwrite(self.fd, left, offset)
            offset += done
            left = left[done:]

    def finish(self) -> None:
        """Make the bytes durable. Nothing is written any more."""
        if not self._is_durable:
            os.fsync(self.fd)
            self._is_durable = True

    def park(self) -> None:
        """Give the descriptor back before the file is published; until then it has a hidden name."""
        self.finish()
        if not self._temporary:
            temporary = self._new_name()
            root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:  # with a descriptor Python calls linkat(2), which alone follows the link to the open file
                os.link(f"/proc/self/fd/{self.fd}", temporary, src_dir_fd=root_fd, follow_symlinks=True)
            finally:
                os.close(root_fd)
            self._temporary = temporary
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def publish(self, path: str) -> None:
        """Give the durable file its name, in place of what has it, and close it. `sync_directory` makes the name durable."""
        self.park()
        os.replace(self._temporary, path)
        self._temporary = ""

    def close(self) -> None:
        """Let go of the file; without a name it is gone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)
            self._temporary = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def blob_chunks(descriptor: Descriptor, content: Readable) -> Iterator[bytes]:
    """Give a blob's bytes. Raise IntegrityError unless they are as many as announced; never give more."""
    left = descriptor.size_bytes
    while data := content.read(min(CHUNK_BYTES, left + 1)):
        left -= len(data)
        if left < 0:
            raise IntegrityError(f"blob {descriptor.digest} has more than the {descriptor.size_bytes} bytes that were announced")
        yield data
    if left:
        raise IntegrityError(
            f"blob {descriptor.digest} has {descriptor.size_bytes - left} bytes where {descriptor.size_bytes} were announced"
        )


class Pending:
    """Blobs that have come and have no name yet: they get one all together, or are gone. Several threads may add at once."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._files: dict[Digest, NewFile] = {}

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._files

    def has_algorithm(self, algorithm: str) -> bool:
        """Whether a blob is named by this algorithm."""
        return any(digest.algorithm == algorithm for digest in self._files)

    def add(self, descriptor: Descriptor, content: Readable) -> None:
        """Take a blob in. Raise IntegrityError, and keep nothing, unless it has the size and the digest that were announced."""
        import hashlib

        found = hashlib.new(descriptor.digest.algorithm)
        with contextlib.ExitStack() as undo:
            file = NewFile(self._directory)
            undo.callback(file.close)
            for data in blob_chunks(descriptor, content):
                found.update(data)
                file.write(data)
            if found.hexdigest() != descriptor.digest.hex:
                raise _damaged(descriptor.digest, found.hexdigest())
            file.finish()
            if len(self._files) >= _OPEN_FILES:
                file.park()
            undo.pop_all()
        self._replace(descriptor.digest, file)

    def add_bytes(self, digest: Digest, content: bytes) -> None:
        """Take a small blob in."""
        file = NewFile(self._directory)
        file.write(content)
        self._replace(digest, file)

    def _replace(self, digest: Digest, file: NewFile) -> None:
        known = self._files.get(digest)
        self._files[digest] = file
        if known is not None:
            known.close()

    def publish(self, path_of: Callable[[Digest], str]) -> None:
        """Give every blob its name."""
        for digest, file in self._files.items():
            file.publish(path_of(digest))
        self._files.clear()

    def close(self) -> None:
        """Throw away what has no name."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def _damaged(digest: Digest, found_hex: str) -> IntegrityError:
    return IntegrityError(f"blob {digest} is damaged: its bytes have the digest {digest.algorithm}:{found_hex}")


class NewDirectory:
    """A directory to write into, made if it isn't there, and locked against others by `locked`."""

    def __init__(self, path: str, described: str) -> None:
        self.path, self._described = path, described
        self._made: list[str] = []
        with naming(described):
            self._make(os.path.abspath(path))

    def _make(self, path: str) -> None:
        if os.path.isdir(path):
            return
        self._make(os.path.dirname(path))
        try:
            os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
        else:
            self._made.append(path)

    def make_below(self, name: str) -> None:
        """Make a directory in it."""
        self._make(os.path.join(os.path.abspath(self.path), name))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold off others who write here by these means. The kernel lets go if this process is killed."""
        while True:
            self._make(os.path.abspath(self.path))  # one who failed may have taken it away, empty as it was
            with lock_directory(self.path, fcntl.LOCK_EX) as fd:
                if fd is not None and os.path.exists(self.path) and os.path.samestat(os.fstat(fd), os.stat(self.path)):
                    yield
                    return

    def remove_if_empty(self) -> None:
        """Take away what was made, as far as nothing is in it and nobody is about to write there."""
        for path in reversed(self._made):
            with contextlib.suppress(OSError), lock_directory(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                os.rmdir(path)
        self._made.clear()


@contextlib.contextmanager
def lock_directory(path: str, how: int) -> Iterator[int | None]:
    """Lock a directory (flock(2)) and give its descriptor; None if it isn't there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    try:
        fcntl.flock(fd, how)
        yield fd
    finally:
        os.close(fd)


def is_empty(path: str) -> bool:
    """Whether a directory has nothing in it but what somebody is writing by these means."""
    return all(name.startswith(_HIDDEN) for name in os.listdir(path))


def write_file(directory: str, name: str, content: bytes) -> None:
    """Write a small file whole."""
    with NewFile(directory) as file:
        file.write(content)
        file.publish(os.path.join(directory, name))


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fsync_path(path)


def is_stream(path: str) -> bool:
    """Whether an archive is written there as it is and replaces nothing: standard output, a pipe or a device."""
    try:
        return path == STANDARD_STREAM or not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def check_archive_path(path: str) -> None:
    """Raise UsageError or NotFoundError for a path at which no archive can be written."""
    if path == STANDARD_STREAM:
        if sys.stdout.isatty():
            raise UsageError("an archive isn't written to a terminal", hint="redirect it to a file, or give a path")
        return
    if os.path.isdir(path):
        raise UsageError(f"'{path}' is a directory", hint="give the name of a file")
    if not os.path.isdir(os.path.dirname(os.path.realpath(path))):
        raise NotFoundError(f"the directory '{os.path.dirname(path)}' doesn't exist", hint="a colon ends the path")


@contextlib.contextmanager
def new_archive(path: str) -> Iterator["NewFile | RawFile"]:
    """Write a file from beginning to end. A regular one replaces what is there at once, when it is whole and durable."""
    if path == STANDARD_STREAM:
        sys.stdout.flush()
        yield RawFile(sys.stdout.fileno())
    elif is_stream(path):
        with open(path, "wb", buffering=0) as raw:
            yield RawFile(raw.fileno())
    else:
        path = os.path.realpath(path)
        with NewFile(os.path.dirname(path)) as file:
            yield file
            file.publish(path)
        sync_directory(os.path.dirname(path))


class RawFile:
    """A descriptor of somebody else's, written to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes | memoryview, /) -> int:
        """Write all of it."""
        left = memoryview(data)
        while left:
            left = left[os.write(self._fd, left) :]
        return len(data)


@contextlib.contextmanager
def naming(shown: str) -> Iterator[None]:
    """Turn an error of the system into one that names the place that was written to."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        hint = "choose another place" if error.errno in {errno.EACCES, errno.EROFS, errno.ENOTDIR} else ""
        hint = "free some space, or choose another place" if error.errno in {errno.ENOSPC, errno.EDQUOT} else hint
        raise LaminaError(f"'{shown}' can't be written: {why}", hint=hint) from error
