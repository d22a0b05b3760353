"""Streams unpacked within a limit and hashed on the way; damaged ones are errors; packing is the same each time."""

import bz2
import gzip
import io
import lzma
import random
import sys
import threading
import zlib
from hashlib import sha256
from importlib import import_module

import pytest

from lamina.archive import compression
from lamina.archive.compression import Compressed, Compression, Decompressed, detect
from lamina.errors import ArchiveError

DATA = random.Random(1).randbytes(300_000) + b"text " * 200_000
ZSTD = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
PACKED = {
    Compression.NONE: DATA,
    Compression.GZIP: gzip.compress(DATA, mtime=0),
    Compression.ZSTD: ZSTD.compress(DATA),
    Compression.BZIP2: bz2.compress(DATA),
    Compression.XZ: lzma.compress(DATA),
}
PACKINGS = [each for each in Compression if each is not Compression.NONE]


class Dribble(io.RawIOBase):
    """A stream that gives a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step, self._at = data, step, 0

    def read(self, size: int = -1, /) -> bytes:
        step = self._step if size < 0 else min(size, self._step)
        part = self._data[self._at : self._at + step]
        self._at += len(part)
        return part


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("kind", list(Compression))
def test_each_packing_is_detected_unpacked_and_hashed(kind: Compression, threaded: bool) -> None:
    packed = PACKED[kind]
    assert detect(packed[:6]) is kind
    with Decompressed(io.BytesIO(packed), threaded=threaded) as stream:
        assert stream.read() == DATA
        assert stream.compression is kind
        assert stream.digest == f"sha256:{sha256(packed).hexdigest()}"
        assert stream.diff_id == f"sha256:{sha256(DATA).hexdigest()}"
        assert (stream.compressed_bytes, stream.size_bytes) == (len(packed), len(DATA))
        assert stream.read(10) == b""


@pytest.mark.parametrize("kind", list(Compression))
def test_small_reads_from_a_slow_pipe_give_the_same(kind: Compression) -> None:
    stream = Decompressed(Dribble(PACKED[kind], 997))
    parts = []
    while part := stream.read(1000):
        assert len(part) <= 1000
        parts.append(part)
    assert b"".join(parts) == DATA
    assert stream.digest == f"sha256:{sha256(PACKED[kind]).hexdigest()}"


@pytest.mark.parametrize("kind", PACKINGS)
@pytest.mark.parametrize("step", [1, 100_000, 1 << 20])
def test_members_one_after_the_other_are_one_stream(kind: Compression, step: int) -> None:
    if step == 1:
        small = {Compression.GZIP: gzip.compress, Compression.ZSTD: ZSTD.compress, Compression.BZIP2: bz2.compress}
        packed = small.get(kind, lzma.compress)(b"one") + small.get(kind, lzma.compress)(b"two")
        assert Decompressed(Dribble(packed, 1)).read() == b"onetwo"
        return
    stream = Decompressed(Dribble(PACKED[kind] * 3, step))
    assert stream.read() == DATA * 3
    assert stream.digest == f"sha256:{sha256(PACKED[kind] * 3).hexdigest()}"


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("kind", PACKINGS)
def test_a_truncated_stream_is_an_error(kind: Compression, threaded: bool) -> None:
    for cut in (1, 4, 1000, len(PACKED[kind]) - 7):
        with (
            Decompressed(io.BytesIO(PACKED[kind][:-cut]), threaded=threaded) as stream,
            pytest.raises(ArchiveError, match=r"truncated|empty"),
        ):
            stream.read()


@pytest.mark.parametrize("kind", PACKINGS)
@pytest.mark.parametrize("garbage", [b"x", b"garbage" * 1000, b"\0\0"])
def test_garbage_after_the_end_is_an_error(kind: Compression, garbage: bytes) -> None:
    with pytest.raises(ArchiveError, match="garbage after the end"):
        Decompressed(io.BytesIO(PACKED[kind] + garbage)).read()


@pytest.mark.parametrize("kind", PACKINGS)
def test_a_changed_byte_is_an_error(kind: Compression) -> None:
    packed = bytearray(PACKED[kind])
    packed[len(packed) // 2] ^= 0x55
    stream = Decompressed(io.BytesIO(bytes(packed)))
    try:
        assert stream.read() != DATA
    except ArchiveError as error:
        assert "corrupt" in error.message or "truncated" in error.message
    else:
        assert kind is Compression.ZSTD, "only a zstd frame without a checksum may hide it"


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("kind", list(Compression))
def test_the_limit_holds_and_says_how_to_raise_it(kind: Compression, threaded: bool) -> None:
    with Decompressed(io.BytesIO(PACKED[kind]), limit_bytes=len(DATA), threaded=threaded) as stream:
        stream.finish()
    with Decompressed(io.BytesIO(PACKED[kind]), limit_bytes=len(DATA) - 1, limit_hint="how", threaded=threaded) as stream:
        with pytest.raises(ArchiveError, match=f"more than the limit of {len(DATA) - 1} bytes") as caught:
            stream.finish()
        assert caught.value.hint == "how"


def test_a_bomb_is_not_unpacked_beyond_the_limit() -> None:
    bomb = gzip.compress(bytes(200 << 20))
    stream = Decompressed(io.BytesIO(bomb), limit_bytes=1 << 20)
    with pytest.raises(ArchiveError):
        stream.finish()
    assert stream.size_bytes <= (1 << 20) + compression.READ_BYTES


def test_leaving_a_threaded_stream_early_ends_its_thread() -> None:
    before = threading.active_count()
    with Decompressed(io.BytesIO(PACKED[Compression.GZIP] * 20), threaded=True) as stream:
        stream.read(10)
    assert threading.active_count() == before


def test_an_error_of_the_raw_stream_comes_through() -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            raise OSError(5, "the disk is broken")

    with pytest.raises(OSError, match="the disk is broken"):
        Decompressed(Broken(), compression=Compression.NONE).read()


def test_gzip_works_without_isal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    for step in (997, 1 << 20):
        assert Decompressed(Dribble(PACKED[Compression.GZIP] * 2, step)).read() == DATA * 2
        small = Decompressed(Dribble(PACKED[Compression.GZIP], step))
        assert b"".join(iter(lambda: small.read(700), b"")) == DATA  # noqa: B023
    with pytest.raises(ArchiveError, match="truncated"):
        Decompressed(io.BytesIO(PACKED[Compression.GZIP][:-1])).read()
    out = io.BytesIO()
    packer = Compressed(out)
    packer.write(DATA)
    packer.close()
    assert gzip.decompress(out.getvalue()) == DATA


@pytest.mark.parametrize("kind", [Compression.NONE, Compression.GZIP, Compression.ZSTD])
def test_packing_is_hashed_and_the_same_however_it_is_cut(kind: Compression) -> None:
    results = set()
    for step in (len(DATA), 1000, 300_001):
        out = io.BytesIO()
        packer = Compressed(out, compression=kind)
        for at in range(0, len(DATA), step):
            packer.write(DATA[at : at + step])
        packer.close()
        assert packer.digest == f"sha256:{sha256(out.getvalue()).hexdigest()}"
        assert packer.diff_id == f"sha256:{sha256(DATA).hexdigest()}"
        assert (packer.compressed_bytes, packer.size_bytes) == (len(out.getvalue()), len(DATA))
        assert Decompressed(io.BytesIO(out.getvalue())).read() == DATA
        results.add(out.getvalue())
    assert len(results) == 1


def test_gzip_output_has_neither_a_name_nor_a_time() -> None:
    out = io.BytesIO()
    Compressed(out).close()
    assert out.getvalue()[3:8] == bytes(5)
    assert zlib.decompress(out.getvalue(), wbits=31) == b""
