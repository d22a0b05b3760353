"""Tar read: every dialect's numbers, names, times, xattrs and holes; and whatever the bytes are, nothing but `ArchiveError`."""

import io
import struct
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.api.entries import Entry, EntryKind
from lamina.archive import paths, pax, tarheader
from lamina.archive.layer import LayerTar
from lamina.archive.tarheader import Member
from lamina.archive.tarstream import TarReader
from lamina.errors import ArchiveError

END = bytes(1024)


def block(name: bytes, kind: bytes = b"0", data: bytes = b"", **fields) -> bytes:
    fields = {"mode": 0o644, "uid": 0, "gid": 0, "mtime_s": 0, "size": len(data)} | fields
    return tarheader.build(name=name, kind=kind, **fields) + data + bytes(-len(data) % 512)


def records(*found: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    return block(b"pax", kind, pax.build_records(list(found)))


def read(archive: bytes) -> list[tuple[Member, bytes]]:
    reader = TarReader(io.BytesIO(archive))
    return [(member, reader.open().read()) for member in reader]


def entries(archive: bytes, **limits) -> list[Entry]:
    return list(LayerTar(io.BytesIO(archive), **limits))


class Dribble(io.RawIOBase):
    def __init__(self, data: bytes, step: int) -> None:
        self._inner, self._step = io.BytesIO(data), step

    def read(self, size: int = -1, /) -> bytes:
        return self._inner.read(self._step)


@pytest.mark.parametrize("step", [1, 13, 511, 512, 513, 4096])
def test_chunks_of_any_size_give_the_same(step: int) -> None:
    archive = (
        records((b"path", b"long/" * 40 + b"x"), (b"mtime", b"1.5")) + block(b"x", data=b"abc" * 700) + block(b"y", data=b"1") + END
    )
    reader = TarReader(Dribble(archive, step))
    found = [(member.name, reader.open().read()) for member in reader]
    assert found == [("long/" * 40 + "x", b"abc" * 700), ("y", b"1")]


def test_a_member_that_is_not_read_is_skipped() -> None:
    reader = TarReader(io.BytesIO(block(b"a", data=b"1" * 5000) + block(b"b", data=b"2") + END))
    assert [member.name for member in reader] == ["a", "b"]


def test_global_records_hold_until_others_overrule_them() -> None:
    archive = (
        records((b"mtime", b"7"), (b"uid", b"5"), kind=b"g")
        + block(b"a")
        + records((b"mtime", b"8.25"))
        + block(b"b")
        + block(b"c")
    )
    found = [(member.name, member.uid, member.mtime_ns) for member, _ in read(archive + END)]
    assert found == [("a", 5, 7 * 10**9), ("b", 5, 8_250_000_000), ("c", 5, 7 * 10**9)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [(b"0", 0), (b"1.5", 1_500_000_000), (b"-1.5", -1_500_000_000), (b"1.0000000019", 1_000_000_001), (b".5", 500_000_000)],
)
def test_times_keep_their_nanoseconds(text: bytes, wanted: int) -> None:
    ((member, _),) = read(records((b"mtime", text)) + block(b"a") + END)
    assert member.mtime_ns == wanted


@given(st.integers(-(10**19), 10**19))
def test_times_are_written_as_they_are_read(ns: int) -> None:
    assert pax.seconds_to_ns(pax.ns_to_seconds(ns), "") == ns


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=9).filter(lambda key: b"=" not in key), st.binary(max_size=200)), max_size=5)
)
def test_records_are_read_as_they_are_written(found: list[tuple[bytes, bytes]]) -> None:
    assert pax.parse_records(pax.build_records(found), "")[0] == dict(found)


def test_base_256_numbers_and_negative_times() -> None:
    header = bytearray(block(b"a"))
    header[136:148] = (-5 + (1 << 96)).to_bytes(12, "big")
    header[108:116] = b"\x80" + (3_000_000_000).to_bytes(7, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    ((member, _),) = read(bytes(header) + END)
    assert (member.mtime_ns, member.uid) == (-5 * 10**9, 3_000_000_000)


def test_xattrs_of_star_and_of_libarchive() -> None:
    archive = records((b"SCHILY.xattr.user.a%3Db", b"x=\n\0"), (b"LIBARCHIVE.xattr.user.c%20d", b"AAEC")) + block(b"f") + END
    ((member, _),) = read(archive)
    assert member.xattrs == {"user.a=b": b"x=\n\0", "user.c d": b"\0\1\2"}


def test_old_gnu_sparse_with_more_extents_than_fit_the_header() -> None:
    extents = [(offset * 1024, 512) for offset in range(30)]
    numbers = [b"%011o\0" % number for pair in extents for number in pair]
    header = bytearray(block(b"s", b"S", size=512 * 30))
    header[257:265] = b"ustar  \0"
    header[345:512] = bytes(167)
    header[386:482] = b"".join(numbers[:8])
    header[482] = 1
    header[483:495] = b"%011o\0" % (64 * 1024)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    more = b"".join(numbers[8:50]).ljust(504, b"\0") + b"\1" + bytes(7)
    last = b"".join(numbers[50:]).ljust(512, b"\0")
    ((member, data),) = read(bytes(header) + more + last + b"d" * 512 * 30 + END)
    assert (member.size_bytes, len(data)) == (64 * 1024, 64 * 1024)
    assert data == b"".join(b"d" * 512 + bytes(512) for _ in range(30)) + bytes(34 * 1024)


def test_a_directory_of_old_tar_is_one_by_its_slash() -> None:
    assert entries(block(b"old/", b"\0") + END)[0].kind is EntryKind.DIRECTORY


@pytest.mark.parametrize(
    ("name", "kind", "path"),
    [
        ("a/.wh.b", EntryKind.WHITEOUT, "a/b"),
        ("./a//./.wh..b", EntryKind.WHITEOUT, "a/.b"),
        (".wh....", EntryKind.WHITEOUT, "..."),
        ("a/.wh..wh..opq", EntryKind.OPAQUE, "a"),
        (".wh..wh..opq", EntryKind.OPAQUE, ""),
        ("/usr/bin/", EntryKind.DIRECTORY, "usr/bin"),
        (".whx", EntryKind.FILE, ".whx"),
        ("x.wh.y", EntryKind.FILE, "x.wh.y"),
    ],
)
def test_names_are_made_plain_and_whiteouts_understood(name: str, kind: EntryKind, path: str) -> None:
    (entry,) = entries(block(name.encode(), b"5" if kind is EntryKind.DIRECTORY else b"0") + END)
    assert (entry.kind, entry.path) == (kind, path)


@pytest.mark.parametrize("name", [".wh..wh.aufs", ".wh..wh.plnk/1.2", "a/.wh..wh.orph", ".wh..wh."])
def test_what_aufs_keeps_for_itself_is_skipped(name: str) -> None:
    assert entries(block(name.encode()) + END) == []


def test_an_end_mark_may_be_waived() -> None:
    assert len(entries(block(b"a"), require_end=False)) == 1
    with pytest.raises(ArchiveError):
        entries(block(b"a"))


def test_a_file_object_of_a_member_dies_with_it() -> None:
    reader = TarReader(io.BytesIO(block(b"a", data=b"1" * 3000) + block(b"b", data=b"2" * 3000) + END))
    members = iter(reader)
    next(members)
    opened = reader.open()
    next(members)
    with pytest.raises(ValueError, match="moved on"):
        opened.read()


def test_paths_are_ordered_by_components() -> None:
    assert sorted(["a-b", "a/b", "a", "a/b/c", "a.b"], key=paths.sort_key) == ["a", "a/b", "a/b/c", "a-b", "a.b"]


# Whatever the bytes are.


def _valid() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for index, kind in enumerate([tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]):
            member = tarfile.TarInfo(f"{'é' * index}/{index}")
            member.type, member.linkname, member.mtime, member.devmajor = kind, "x" * 40 * index, 1.5, 1
            member.pax_headers = {"SCHILY.xattr.user.x": "1", "comment": "c" * 300}
            archive.addfile(member)
    sparse = records(
        (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"s"), (b"GNU.sparse.realsize", b"4096")
    )
    data = b"2\n0\n5\n1000\n5\n".ljust(512, b"\0") + b"helloworld"
    return sparse + block(b"s", data=data) + block(b"x", b"L", b"long\0" * 30) + block(b"l", data=b"z" * 700) + out.getvalue()


VALID = _valid()


def test_the_archive_that_is_mutated_is_valid() -> None:
    assert len(entries(VALID)) == 7


def _drain(archive: bytes) -> None:
    reader = LayerTar(io.BytesIO(archive), limit_bytes=1 << 20)
    try:
        for entry in reader:
            assert ".." not in entry.path.split("/")
            assert not entry.path.startswith("/")
            if entry.kind is EntryKind.FILE:
                reader.open().read()
    except ArchiveError as error:
        assert error.message.isprintable(), error.message


@given(st.binary(max_size=3000))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    _drain(data)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=12)), max_size=4),
    st.integers(0, len(VALID)),
    st.booleans(),
)
def test_mutated_archives_raise_nothing_else(changes: list[tuple[int, bytes]], length: int, cut: bool) -> None:
    archive = bytearray(VALID)
    for at, value in changes:
        archive[at : at + len(value)] = value
        for start in range(0, len(archive) - 511, 512):
            if start <= at < start + 512 and archive[start + 257 : start + 262] == b"ustar":
                archive[start + 148 : start + 156] = b" " * 8
                archive[start + 148 : start + 156] = b"%06o\0 " % sum(archive[start : start + 512])
    _drain(bytes(archive[:length] if cut else archive))


@given(st.binary(max_size=600))
def test_random_pax_headers_raise_nothing_else(data: bytes) -> None:
    _drain(block(b"p", b"x", data) + block(b"f", data=b"1") + END)


@given(st.dictionaries(st.sampled_from(
    [b"path", b"linkpath", b"size", b"uid", b"mtime", b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.map",
     b"GNU.sparse.size", b"GNU.sparse.realsize", b"GNU.sparse.name", b"LIBARCHIVE.xattr.user.x", b"SCHILY.devmajor"]),
    st.one_of(st.binary(max_size=20), st.from_regex(rb"[0-9,.\-]{0,20}", fullmatch=True))))  # fmt: skip
def test_random_values_of_known_pax_keys_raise_nothing_else(values: dict[bytes, bytes]) -> None:
    for kind in (b"0", b"1", b"2", b"3", b"5"):
        _drain(records(*values.items()) + block(b"f", kind, data=b"1\n0\n" + bytes(600) if kind == b"0" else b"") + END)


@given(st.binary(min_size=96, max_size=96), st.binary(min_size=12, max_size=12))
def test_random_old_sparse_maps_raise_nothing_else(numbers: bytes, size: bytes) -> None:
    header = bytearray(block(b"s", b"S", size=512))
    header[345:512] = struct.pack("41x96sB12s17x", numbers, 0, size)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    _drain(bytes(header) + bytes(512) + END)
