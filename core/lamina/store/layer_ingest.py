"""A layer's tar on its way into the store: read once, checked, hashed on both sides, packed if it comes unpacked.

Not here: which image it belongs to, and its unpacking onto a driver. What comes as gzip or zstd is kept byte for byte, so that its
digest stays what its maker said; anything else is packed with gzip at isal's level 1, which costs least for what it saves.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

from lamina.archive.compression import CHUNK_BYTES, READ_BYTES, Compressed, Compression, Decompressed, Readable, Writable, detect
from lamina.archive.layer import LayerTar
from lamina.dataclasses import dataclass
from lamina.errors import ArchiveError, IntegrityError
from lamina.model.digest import Digest
from lamina.model.image import OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from lamina.store.content import BlobWriter, Ingest
from lamina.store.images import LayerBlob

DEFAULT_MAX_BYTES = 128 << 30
"""What an archive may unpack to unless a caller says otherwise: more than any image in use, less than a disk."""

Progress = Callable[[int], None]
"""Called now and then with the bytes of the input that are done."""

_MEDIA_TYPES = {Compression.GZIP: OCI_LAYER_GZIP, Compression.ZSTD: OCI_LAYER_ZSTD}
_QUEUED_CHUNKS = 16


@dataclass(slots=True, kw_only=True)
class Budget:
    """The limit on what an archive unpacks to, over all that is in it."""

    max_bytes: int
    left_bytes: int

    @classmethod
    def of(cls, max_bytes: int) -> "Budget":
        return cls(max_bytes=max_bytes, left_bytes=max_bytes)

    def spend(self, size_bytes: int) -> None:
        self.left_bytes -= size_bytes
        if self.left_bytes < 0:
            raise ArchiveError(
                f"the archive unpacks to more than the limit of {self.max_bytes} bytes",
                hint="raise the limit if it is to be trusted",
            )


@dataclass(slots=True, kw_only=True)
class IncomingLayer:
    """A layer that has been read whole and has no name in the store yet. `source_*` say how it came."""

    source_digest: Digest
    source_bytes: int
    layer: LayerBlob
    writer: BlobWriter | None
    """None when the store has the layer already."""

    def commit(self) -> LayerBlob:
        """Give the layer's blob its name."""
        if self.writer is not None:
            self.writer.commit(digest=self.layer.digest, size_bytes=self.layer.stored_bytes)
            self.writer = None
        return self.layer


class LayerWriter:
    """A writable that takes an uncompressed tar and makes a blob of it; packing and hashing run in a thread beside the writer's.

    Call `finish` at the end. Without it the blob goes when the `Ingest` ends, and `close` ends the thread.
    """

    def __init__(self, ingest: Ingest, *, progress: Progress | None = None) -> None:
        self._blob = ingest.writer()
        self._packed = Compressed(self._blob, compression=Compression.GZIP, level=1)
        self._progress = progress
        self._held = bytearray()
        self._done_bytes = 0
        self._failed: BaseException | None = None
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED_CHUNKS)
        self._thread = threading.Thread(target=self._run, name="pack layer", daemon=True)
        self._thread.start()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take bytes, which the caller may change afterwards. An error in the thread is raised by the next call.

        They are cut into chunks of one size, because the packed bytes depend on where the packer's input is cut.
        """
        self._held += data
        if len(self._held) >= CHUNK_BYTES:
            end = len(self._held) // CHUNK_BYTES * CHUNK_BYTES
            for at in range(0, end, CHUNK_BYTES):
                self._hand_over(bytes(self._held[at : at + CHUNK_BYTES]))
            del self._held[:end]
        return len(data)

    def _hand_over(self, chunk: bytes) -> None:
        if self._failed is not None:
            raise self._failed
        if chunk:
            self._queue.put(chunk)
        self._done_bytes += len(chunk)
        if self._progress is not None:
            self._progress(self._done_bytes)

    def _run(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if self._failed is None:
                try:
                    self._packed.write(chunk)
                except BaseException as error:  # noqa: BLE001  whatever it is, it belongs to the writer
                    self._failed = error  # and the queue is emptied on, so that the writer never waits for ever

    def close(self) -> None:
        """End the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def finish(self) -> IncomingLayer:
        """Complete the blob and say what it is."""
        self._hand_over(bytes(self._held))
        self.close()
        if self._failed is not None:
            raise self._failed
        self._packed.close()
        layer = LayerBlob(
            digest=Digest(self._packed.digest),
            media_type=OCI_LAYER_GZIP,
            stored_bytes=self._packed.compressed_bytes,
            diff_id=Digest(self._packed.diff_id),
            size_bytes=self._packed.size_bytes,
        )
        self._blob.close()
        return IncomingLayer(source_digest=layer.diff_id, source_bytes=layer.size_bytes, layer=layer, writer=self._blob)


class LayerStream:
    """A layer's tar as it comes, on its way into the store. Read it, then `finish`, which reads the rest; `close` in any case.

    `known` is a layer of the store that this one should be: then an unpacked one is only hashed.
    """

    def __init__(
        self, raw: Readable, ingest: Ingest, *, budget: Budget, known: LayerBlob | None = None, progress: Progress | None = None
    ) -> None:
        first = _read_first(raw)
        compression = detect(first)
        kept = compression in _MEDIA_TYPES
        self._budget, self._known = budget, known
        self._blob = ingest.writer() if kept else None
        self._tee = _Tee(first, raw, self._blob)
        self._plain = Decompressed(
            self._tee, compression=compression, limit_bytes=budget.left_bytes, hash_packed=not kept, threaded=kept
        )
        self._packer = LayerWriter(ingest, progress=progress) if not kept and known is None else None
        self._source: Readable = self._plain if self._packer is None else CopyingReader(self._plain, self._packer)
        self._is_spent = False

    def read(self, size: int = -1, /) -> bytes:
        """Give the next bytes of the tar."""
        return self._source.read(size)

    def finish(self) -> IncomingLayer:
        """Read what is left and say what has come. IntegrityError says that it isn't the layer that was known."""
        while self._source.read(READ_BYTES):
            pass
        self.close()
        plain, blob = self._plain, self._blob
        diff_id = Digest(plain.diff_id)
        if self._packer is not None:
            incoming = self._packer.finish()
            incoming.source_digest, incoming.source_bytes = Digest(plain.digest), self._tee.size_bytes
            return incoming
        if blob is None:
            assert self._known is not None
            if diff_id != self._known.diff_id:
                raise IntegrityError(f"a layer named {self._known.diff_id} has the digest {diff_id}")
            return IncomingLayer(
                source_digest=Digest(plain.digest), source_bytes=self._tee.size_bytes, layer=self._known, writer=None
            )
        blob.close()
        layer = LayerBlob(
            digest=blob.digest,
            media_type=_MEDIA_TYPES[plain.compression],
            stored_bytes=blob.size_bytes,
            diff_id=diff_id,
            size_bytes=plain.size_bytes,
        )
        return IncomingLayer(source_digest=blob.digest, source_bytes=blob.size_bytes, layer=layer, writer=blob)

    def close(self) -> None:
        """Count what was unpacked against the budget, and end the thread that unpacks."""
        self._plain.close()
        if not self._is_spent:
            self._is_spent = True
            self._budget.spend(self._plain.size_bytes)

    def abort(self) -> None:
        """Throw away what was kept of it."""
        if self._packer is not None:
            self._packer.close()
        if self._blob is not None:
            self._blob.abort()


@contextlib.contextmanager
def layer_stream(
    raw: Readable, ingest: Ingest, *, budget: Budget, known: LayerBlob | None = None, progress: Progress | None = None
) -> Iterator[LayerStream]:
    """Read a layer, packed in any way or not at all; the block calls `finish`. After an error nothing of the layer is kept."""
    stream = LayerStream(raw, ingest, budget=budget, known=known, progress=progress)
    try:
        try:
            yield stream
        finally:
            stream.close()
    except BaseException:
        stream.abort()
        raise


def read_layer(
    raw: Readable,
    ingest: Ingest,
    *,
    budget: Budget,
    known: LayerBlob | None = None,
    check: Callable[[Readable], None] | None = None,
    progress: Progress | None = None,
) -> IncomingLayer:
    """Read a layer to its end, as `layer_stream` does.

    `check` reads the tar and raises for what must not be in it; what it leaves unread is read afterwards.
    """
    with layer_stream(raw, ingest, budget=budget, known=known, progress=progress) as stream:
        if check is not None:
            check(stream)
        return stream.finish()


def check_layer(stream: Readable) -> None:
    """Read a layer's headers for damage and for what would lead out of the layer; contents are skipped.

    An end mark isn't asked for: some programs leave it out, and a digest says that the layer is whole.
    """
    for _ in LayerTar(stream, require_end=False):
        pass


def check_root(stream: Readable) -> None:
    """Read a tar that no digest vouches for: it must be whole, down to its end mark."""
    for _ in LayerTar(stream):
        pass


def _read_first(raw: Readable) -> bytes:
    first = b""
    while len(first) < CHUNK_BYTES and (more := raw.read(CHUNK_BYTES - len(first))):
        first += more
    return first


class _Tee:
    """A readable that keeps what is read of it in a blob."""

    def __init__(self, first: bytes, raw: Readable, out: BlobWriter | None) -> None:
        self._first, self._raw, self._out = first, raw, out
        self.size_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        if self._first:
            data, self._first = self._first, b""
        else:
            data = self._raw.read(size)
        self.size_bytes += len(data)
        if self._out is not None:
            self._out.write(data)
        return data


class CopyingReader:
    """A readable that writes what is read of it somewhere else too."""

    def __init__(self, source: Readable, out: Writable) -> None:
        self._source, self._out = source, out

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        if data:
            self._out.write(data)
        return data


class CountedReader:
    """A readable that tells how much was read of it."""

    def __init__(self, raw: Readable, progress: Progress | None) -> None:
        self._raw, self._progress, self._done_bytes = raw, progress, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._raw.read(size)
        self._done_bytes += len(data)
        if self._progress is not None:
            self._progress(self._done_bytes)
        return data
