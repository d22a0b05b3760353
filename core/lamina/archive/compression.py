"""Compression: what a stream is packed with, unpacking it within a limit, and packing; hashed on the way, in one pass.

Not here: what is in the stream. Unpacking runs in a thread of its own if asked, because isal and hashlib let go of the
interpreter's lock: one core unpacks and hashes while the other writes files.

Sources: RFC 1952 (gzip: members may follow each other), RFC 8878 (zstd: so may frames), OCI image-spec layer.md (media types).
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol, Self

from lamina.archive.readahead import ReadAhead
from lamina.errors import ArchiveError

CHUNK_BYTES = 1 << 18
READ_BYTES = 1 << 19
"""How much is unpacked at a time. What is packed must keep to `CHUNK_BYTES`: its bytes depend on where the input is cut."""
DETECT_BYTES = 6


class Readable(Protocol):
    """What a stream must have: `read` gives up to so many bytes, perhaps fewer, and none at the end."""

    def read(self, size: int = -1, /) -> bytes: ...


class Writable(Protocol):
    """What an output must have."""

    def write(self, data: bytes, /) -> Any: ...


class Compression(StrEnum):
    """What a stream is packed with. Layers are none, gzip or zstd; `import` takes the others too."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


_MAGIC = {
    b"\x1f\x8b": Compression.GZIP,
    b"\x28\xb5\x2f\xfd": Compression.ZSTD,
    b"BZh": Compression.BZIP2,
    b"\xfd7zXZ\x00": Compression.XZ,
}


def detect(first_bytes: bytes) -> Compression:
    """Tell the compression from a stream's first bytes (`DETECT_BYTES` are enough).

    zstd's skippable frames (magic 0x184D2A50 to 5F) count as zstd: zstd:chunked layers may begin with one.
    """
    for magic, compression in _MAGIC.items():
        if first_bytes.startswith(magic):
            return compression
    if first_bytes[1:4] == b"\x2a\x4d\x18" and 0x50 <= first_bytes[0] <= 0x5F:
        return Compression.ZSTD
    return Compression.NONE


class _Zlib:
    """The standard library's zlib with the interface that bz2, lzma, zstd and isal share."""

    def __init__(self) -> None:
        import zlib

        self._inner = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail


def _codec(compression: Compression) -> tuple[Callable[[], Any], tuple[type[Exception], ...]]:
    """Return what makes a decompressor of one member, and the exceptions by which it says that the data is bad."""
    common = (EOFError, ValueError, OSError)
    if compression is Compression.GZIP:
        try:
            from isal import igzip_lib
        except ImportError:  # no wheel and no compiler: slower, not worse
            import zlib

            return _Zlib, (*common, zlib.error)
        bad: Any = igzip_lib.IsalError  # its stub calls it an instance
        return lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), (*common, bad)
    if compression is Compression.ZSTD:
        zstd = _zstd()
        return zstd.ZstdDecompressor, (*common, zstd.ZstdError)
    if compression is Compression.BZIP2:
        import bz2

        return bz2.BZ2Decompressor, common
    import lzma

    # The memory limit stops a header that asks for gigabytes of dictionary; xz -9 needs 65 MiB.
    return lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=1 << 28), (*common, lzma.LZMAError)


def _zstd() -> Any:
    from importlib import import_module

    try:
        return import_module("compression.zstd")
    except ImportError:
        pass
    try:
        return import_module("backports.zstd")
    except ImportError as error:
        raise ArchiveError("zstd is not available in this python", hint="install the package backports.zstd") from error


class Decompressed:
    """A stream unpacked as it is read, both sides hashed.

    `read` may give fewer bytes than asked for. `digest` (of the packed bytes), `diff_id` (of the unpacked ones) and the two sizes
    are complete once `read` has given b"", which `finish` sees to. Everything bad in the data is an `ArchiveError`; an `OSError`
    is the raw stream's own. `hash_packed` is False for who hashes the packed bytes anyway. With `threaded`,
    use it as a context manager or call `close`, which ends the thread.
    """

    def __init__(
        self,
        raw: Readable,
        *,
        compression: Compression | None = None,
        limit_bytes: int | None = None,
        limit_hint: str = "raise the limit if the archive is to be trusted",
        hashed: bool = True,
        hash_packed: bool = True,
        threaded: bool = False,
    ) -> None:
        from hashlib import sha256  # 4 ms, and only who unpacks needs it

        self._raw = raw
        self._first = b""
        if compression is None:
            while len(self._first) < DETECT_BYTES and (more := raw.read(CHUNK_BYTES)):
                self._first += more
            compression = detect(self._first)
        self.compression = compression
        self.compressed_bytes = 0
        self.size_bytes = 0
        self._limit_bytes = limit_bytes
        self._limit_hint = limit_hint
        self._packed_hash = sha256() if hashed and hash_packed and compression is not Compression.NONE else None
        self._plain_hash = sha256() if hashed else None
        self._make: Callable[[], Any] | None = None
        self._errors: tuple[type[Exception], ...] = ()
        if compression is not Compression.NONE:
            self._make, self._errors = _codec(compression)
        self._inner: Any = None
        self._at_start = True
        self._primed = b""  # packed bytes that are hashed already: what followed the last member
        self._ended = False
        self._ahead = ReadAhead(self._produce, READ_BYTES) if threaded else None

    def read(self, size: int = -1, /) -> bytes:
        """Give the next unpacked bytes, at most `size`, or all that is left for -1; b"" at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK_BYTES), b""))
        if self._ahead is not None:
            return self._ahead.read(size)
        return self._produce(size)

    def finish(self) -> None:
        """Read to the end and throw it away, so that digests and sizes cover everything."""
        while self.read(READ_BYTES):
            pass

    @property
    def digest(self) -> str:
        """The packed bytes' digest."""
        if self._packed_hash is None and self.compression is not Compression.NONE:
            raise ValueError("the stream was opened without hashing what is packed")
        return f"sha256:{self._packed_hash.hexdigest()}" if self._packed_hash is not None else self.diff_id

    @property
    def diff_id(self) -> str:
        """The unpacked bytes' digest."""
        if self._plain_hash is None:
            raise ValueError("the stream was opened without hashing")
        return f"sha256:{self._plain_hash.hexdigest()}"

    def close(self) -> None:
        """End the thread. The raw stream stays open: it is its owner's."""
        if self._ahead is not None:
            self._ahead.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_raw(self) -> bytes:
        data, self._first = self._first or self._raw.read(CHUNK_BYTES), b""
        self.compressed_bytes += len(data)
        if self._packed_hash is not None:
            self._packed_hash.update(data)
        return data

    def _produce(self, size: int) -> bytes:
        if self._ended or size == 0:
            return b""
        data = self._slice_raw(size) if self._make is None else self._unpack(size)
        if not data:
            self._ended = True
            return b""
        self.size_bytes += len(data)
        if self._limit_bytes is not None and self.size_bytes > self._limit_bytes:
            raise ArchiveError(f"the archive unpacks to more than the limit of {self._limit_bytes} bytes", hint=self._limit_hint)
        if self._plain_hash is not None:
            self._plain_hash.update(data)
        return data

    def _slice_raw(self, size: int) -> bytes:
        """Without compression, give less than a chunk and keep the rest; it was not counted yet."""
        data = self._first or self._raw.read(CHUNK_BYTES)
        data, self._first = data[:size], data[size:]
        self.compressed_bytes += len(data)
        return data

    def _unpack(self, size: int) -> bytes:
        assert self._make is not None
        while True:
            data = b""
            wants_input = self._inner is None or self._inner.needs_input
            if wants_input:
                data, self._primed = self._primed or self._read_raw(), b""
            if self._inner is None:
                if not data:
                    if self._at_start:
                        raise ArchiveError(f"the {self.compression} stream is empty")
                    return b""
                self._inner, self._at_start = self._make(), False
            try:
                out: bytes = self._inner.decompress(data, size)
            except self._errors as error:
                raise ArchiveError(
                    f"the {self.compression} stream is corrupt within its first {self.compressed_bytes} bytes: {error}"
                ) from error
            if self._inner.eof:
                rest: bytes = self._inner.unused_data
                self._inner = None
                while len(rest) < DETECT_BYTES and (more := self._read_raw()):
                    rest += more
                if rest and detect(rest) is not self.compression:
                    raise ArchiveError(f"there is garbage after the end of the {self.compression} stream")
                self._primed = rest
            elif wants_input and not data and not out:  # zstd may give nothing once, and only then want more
                raise ArchiveError(f"the {self.compression} stream is truncated after {self.compressed_bytes} bytes")
            if out:
                return out


class Compressed:
    """A stream packed as it is written, both sides hashed; the same input gives the same bytes (no time, no name).

    Call `close` at the end, which completes the stream and leaves `out` open. Then `digest`, `diff_id`, `compressed_bytes` and
    `size_bytes` hold.
    """

    def __init__(self, out: Writable, *, compression: Compression = Compression.GZIP, level: int | None = None) -> None:
        from hashlib import sha256

        self._out = out
        self.compression = compression
        self.compressed_bytes = 0
        self.size_bytes = 0
        self._packed_hash, self._plain_hash = sha256(), sha256()
        self._inner = _compressor(compression, level)
        self._held: list[bytes] = []
        self._held_bytes = 0

    def write(self, data: bytes, /) -> int:
        """Take bytes, and pack them in chunks of one size: what isal gives depends on where its input is cut."""
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= CHUNK_BYTES:
            whole = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            end = len(whole) // CHUNK_BYTES * CHUNK_BYTES
            for at in range(0, end, CHUNK_BYTES):
                self._pack(whole[at : at + CHUNK_BYTES])
            self._held, self._held_bytes = [whole[end:]], len(whole) - end
        return len(data)

    def close(self) -> None:
        """Write what is held and the stream's end."""
        self._pack(b"".join(self._held))
        self._held, self._held_bytes = [], 0
        if self._inner is not None:
            self._emit(self._inner.flush())

    @property
    def digest(self) -> str:
        """The packed bytes' digest."""
        return f"sha256:{self._packed_hash.hexdigest()}" if self._inner is not None else self.diff_id

    @property
    def diff_id(self) -> str:
        """The unpacked bytes' digest."""
        return f"sha256:{self._plain_hash.hexdigest()}"

    def _pack(self, data: bytes) -> None:
        self.size_bytes += len(data)
        self._plain_hash.update(data)
        self._emit(data if self._inner is None else self._inner.compress(data))

    def _emit(self, data: bytes) -> None:
        if data:
            self.compressed_bytes += len(data)
            if self._inner is not None:
                self._packed_hash.update(data)
            self._out.write(data)


def _compressor(compression: Compression, level: int | None) -> Any:
    if compression is Compression.NONE:
        return None
    if compression is Compression.ZSTD:
        return _zstd().ZstdCompressor(level=3 if level is None else level)
    if compression is not Compression.GZIP:
        raise ValueError(f"nothing is written in {compression}")
    try:
        from isal import isal_zlib
    except ImportError:
        import zlib

        return zlib.compressobj(level=1 if level is None else level, wbits=31)
    return isal_zlib.compressobj(level=1 if level is None else level, wbits=31)
