"""Hostile archives, laid down in each whiteout format: refused with one clear error, or confined to the layer.

Each runs beside a canary, a directory outside that symlinks of the layer and of the layers below point to, by absolute and by
relative paths. Whatever happens, neither the canary nor the layers below change in any respect that stat(2) shows.
"""

import gzip
import io
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lamina.api.types import WhiteoutFormat
from lamina.archive import pax, tarheader
from lamina.archive.apply import apply_layer
from lamina.archive.compression import Decompressed
from lamina.archive.layer import LayerTar
from lamina.errors import ArchiveError

END = bytes(1024)


def member(name: str | bytes, kind: bytes = b"0", data: bytes = b"", *, size: int | None = None, **fields) -> bytes:
    fields = {"mode": 0o644, "uid": 0, "gid": 0, "mtime_s": 1_500_000_000} | fields
    if isinstance(fields.get("link"), str):
        fields["link"] = os.fsencode(fields["link"])
    header = tarheader.build(name=os.fsencode(name), kind=kind, size=len(data) if size is None else size, **fields)
    return header + data + bytes(-len(data) % 512)


def file(name: str | bytes, data: bytes = b"evil") -> bytes:
    return member(name, b"0", data)


def folder(name: str) -> bytes:
    return member(name, b"5", mode=0o755)


def symlink(name: str, to: str) -> bytes:
    return member(name, b"2", link=to)


def link(name: str, to: str) -> bytes:
    return member(name, b"1", link=to)


def described(records: list[tuple[bytes, bytes]], what: bytes, kind: bytes = b"x") -> bytes:
    return member("pax", kind, pax.build_records(records)) + what


def checked(block: bytes, at: int, value: bytes) -> bytes:
    """Change a header and make its sum right again."""
    new = bytearray(block)
    new[at : at + len(value)] = value
    new[148:156] = b" " * 8
    new[148:156] = b"%06o\0 " % sum(new[:512])
    return bytes(new)


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """An archive, by what it tries. `refused` is part of the message; without it the archive is laid down and confined."""

    parts: bytes
    refused: str = ""
    there: tuple[str, ...] = ()
    """Paths that must be in the layer afterwards, without following symlinks."""
    end: bytes = END


def corpus(outside: str) -> dict[str, Hostile]:
    deep = "/".join(["d"] * 300)
    return {
        "dot-dot at the start": Hostile(parts=file("../outside/evil"), refused="'..' in its path"),
        "dot-dot in the middle": Hostile(parts=file("a/../../outside/evil"), refused="'..' in its path"),
        "dot-dot at the end": Hostile(parts=folder("a/.."), refused="'..' in its path"),
        "dot-dot by pax path": Hostile(parts=described([(b"path", b"../evil")], file("ok")), refused="'..' in its path"),
        "dot-dot by global pax path": Hostile(parts=described([(b"path", b"../evil")], file("ok"), b"g"), refused="'..' in"),
        "dot-dot by GNU long name": Hostile(parts=member("x", b"L", b"../evil\0") + file("ok"), refused="'..' in its path"),
        "dot-dot in a hard link": Hostile(parts=link("l", "../outside/secret"), refused="'..' in its path"),
        "dot-dot in a whiteout": Hostile(parts=file("../outside/.wh.secret"), refused="'..' in its path"),
        "absolute name": Hostile(parts=file(f"{outside}/evil"), there=(f"{outside[1:]}/evil",)),
        "absolute name of many slashes": Hostile(parts=file("///etc//./evil"), there=("etc/evil",)),
        "through an absolute symlink of this layer": Hostile(parts=symlink("s", outside) + file("s/evil")),
        "through a relative symlink of this layer": Hostile(
            parts=symlink("s", "../outside") + file("s/evil"), there=("outside/evil",)
        ),
        "through a symlink to the root": Hostile(parts=symlink("s", "/") + file("s/evil"), there=("evil",)),
        "through an absolute symlink below": Hostile(parts=file("out/evil")),
        "through a relative symlink below": Hostile(parts=file("up/evil"), there=("outside/evil",)),
        "through a symlink to a symlink": Hostile(parts=symlink("a", outside) + symlink("b", "a") + file("b/evil")),
        "through a loop of symlinks": Hostile(parts=symlink("a", "b") + symlink("b", "a") + file("a/evil"), refused="40 symlinks"),
        "over a symlink to outside": Hostile(parts=symlink("s", f"{outside}/secret") + file("s"), there=("s",)),
        "a directory over a symlink to outside": Hostile(
            parts=symlink("s", outside) + folder("s") + file("s/evil"), there=("s/evil",)
        ),
        "a directory swapped for a symlink between two of its files": Hostile(
            parts=folder("d") + file("d/one") + symlink("d", outside) + file("d/evil")
        ),
        "attributes through a symlink": Hostile(
            parts=symlink("s", f"{outside}/secret") + member("s", b"2", link=f"{outside}/secret", mode=0o777, uid=5)
        ),
        "hard link to a host file": Hostile(parts=link("l", f"{outside}/secret"), refused="isn't there"),
        "hard link through a symlink of this layer": Hostile(
            parts=symlink("s", outside) + link("l", "s/secret"), refused="isn't there"
        ),
        "hard link through a symlink below": Hostile(parts=link("l", "out/secret"), refused="isn't there"),
        "hard link to a symlink, then written": Hostile(
            parts=symlink("s", f"{outside}/secret") + link("l", "s") + file("l"), there=("l", "s")
        ),
        "hard link to a directory": Hostile(parts=folder("d") + link("l", "d"), refused="points to the directory"),
        "hard link to the root": Hostile(parts=link("l", "/"), refused="points to the root"),
        "hard link to nothing": Hostile(parts=link("l", "nothing"), refused="isn't there"),
        "hard link to itself": Hostile(parts=link("l", "l"), refused="isn't there"),
        "hard link to a whiteout": Hostile(parts=file(".wh.file") + link("l", ".wh.file"), refused="isn't there"),
        "device 0:0": Hostile(parts=member("w", b"3", major=0, minor=0), refused="overlayfs's whiteout"),
        "device number too large": Hostile(parts=checked(member("w", b"3"), 329, b"7777777\0"), refused="device number"),
        "whiteout of nothing": Hostile(parts=file(".wh."), refused="names nothing"),
        "whiteout of dot": Hostile(parts=file("dir/.wh.."), refused="names nothing"),
        "whiteout of dot-dot": Hostile(parts=file("dir/.wh..."), refused="names nothing"),
        "whiteout through a symlink to outside": Hostile(parts=symlink("s", outside) + file("s/.wh.secret")),
        "whiteout through a symlink below to outside": Hostile(parts=file("out/.wh.secret")),
        "opaque through a symlink to outside": Hostile(parts=symlink("s", outside) + file("s/.wh..wh..opq")),
        "opaque through a symlink below": Hostile(parts=file("out/.wh..wh..opq")),
        "opaque root": Hostile(parts=file(".wh..wh..opq") + file("x"), there=("x",)),
        "below a whiteout": Hostile(parts=folder(".wh.dir") + file(".wh.dir/x"), refused="below a whiteout"),
        "aufs bookkeeping": Hostile(
            parts=file(".wh..wh.aufs") + folder(".wh..wh.plnk") + file(".wh..wh.plnk/1.2") + file("x"), there=("x",)
        ),
        "a whiteout that is a symlink": Hostile(parts=symlink(".wh.file", outside)),
        "overlay xattrs": Hostile(
            parts=described(
                [(b"SCHILY.xattr.trusted.overlay.redirect", b"/../../outside"), (b"SCHILY.xattr.trusted.overlay.opaque", b"y")],
                folder("dir"),
            ),
            there=("dir",),
        ),
        "another machine's label": Hostile(
            parts=described([(b"SCHILY.xattr.security.selinux", b"system_u:object_r:shadow_t:s0\0")], folder("dir")),
            there=("dir",),
        ),
        "twice the same name": Hostile(parts=file("x", b"one") + file("x", b"two"), there=("x",)),
        "every kind at one name": Hostile(
            parts=file("x") + folder("x") + file("x/in") + symlink("x", outside) + member("x", b"6") + folder("x") + file("x/last"),
            there=("x/last",),
        ),
        "a file as a directory": Hostile(parts=file("f") + file("f/x"), refused="is not a directory"),
        "a lower file as a directory": Hostile(parts=file("file/x"), refused="is not a directory"),
        "the root by the name dot": Hostile(parts=folder("./"), there=("",)),
        "the root by the name slash": Hostile(parts=folder("/"), there=("",)),
        "the root as a file": Hostile(parts=file("./"), refused="makes the root a file"),
        "the root as a symlink": Hostile(parts=symlink("/", outside), refused="makes the root a symlink"),
        "a name of line breaks": Hostile(parts=file("a\nb\x1b[31m"), there=("a\nb\x1b[31m",)),
        "a name of 255 bytes": Hostile(parts=described([(b"path", b"n" * 255)], file("n")), there=("n" * 255,)),
        "a name of 256 bytes": Hostile(parts=described([(b"path", b"n" * 256)], file("n")), refused="more than 255 bytes"),
        "a path of 5000 bytes": Hostile(parts=described([(b"path", b"nnnn/" * 1000)], folder("n")), refused="deeper than 256"),
        "a path of 300 directories": Hostile(parts=described([(b"path", deep.encode())], file("n")), refused="deeper than 256"),
        "a deep path by way of symlinks": Hostile(
            parts=described([(b"path", b"/".join([b"d"] * 200))], folder("n"))
            + described([(b"linkpath", b"/".join([b"d"] * 200))], symlink("s", "d"))
            + described([(b"path", b"s/" + b"/".join([b"e"] * 200))], folder("n")),
            refused="deeper than 256",
        ),
        "a name that isn't UTF-8": Hostile(parts=file(b"caf\xe9\xff"), there=(os.fsdecode(b"caf\xe9\xff"),)),
        "a name with a zero byte": Hostile(parts=described([(b"path", b"a\0b")], file("n")), refused="a zero byte"),
        "a symlink without a text": Hostile(parts=symlink("s", ""), refused="no symlink can have"),
        "an empty name": Hostile(parts=file(""), refused="makes the root a file"),
        "a negative size": Hostile(parts=checked(member("x"), 124, b"\xff" * 12), refused="has a size of -1 bytes"),
        "a size beyond 63 bits": Hostile(parts=checked(member("x"), 124, b"\x80" + b"\x7f" * 11), refused="has a size of"),
        "a size beyond the archive": Hostile(parts=member("x", size=1 << 20), refused="truncated", end=b""),
        "an owner of minus one": Hostile(parts=described([(b"uid", b"4294967295")], file("x")), refused="has the uid 4294967295"),
        "a time beyond all bounds": Hostile(parts=described([(b"mtime", b"9" * 18)], file("x")), refused="time that doesn't fit"),
        "a time that is none": Hostile(parts=described([(b"mtime", b"now")], file("x")), refused="the time b'now'"),
        "a wrong checksum": Hostile(parts=bytes(148) + b"000000\0 " + file("x")[156:512], refused="checksum is wrong"),
        "junk": Hostile(parts=b"junk" * 256, refused="no number", end=b""),
        "an unknown type": Hostile(parts=member("x", b"Z"), refused="unknown type"),
        "nothing at all": Hostile(parts=b"", refused="without an end mark", end=b""),
        "an end without a mark": Hostile(parts=file("x"), refused="without an end mark", end=b""),
        "half an end mark": Hostile(parts=file("x"), refused="only half there", end=bytes(512)),
        "data after the end mark's first half": Hostile(parts=file("x") + bytes(512) + file("y"), refused="zero block"),
        "a pax header of 1 GiB": Hostile(parts=member("x", b"x", size=1 << 30), refused="is the limit", end=b""),
        "a long name of 1 GiB": Hostile(parts=member("x", b"L", size=1 << 30), refused="is the limit", end=b""),
        "a pax header of nothing": Hostile(
            parts=member("pax", b"x", pax.build_records([(b"path", b"y")])), refused="nothing that it describes"
        ),
        "a pax record of wrong length": Hostile(parts=member("p", b"x", b"99 path=x\n") + file("x"), refused="is corrupt"),
        "a pax record that never goes on": Hostile(parts=member("p", b"x", b"9 path=x\nnothing") + file("x"), refused="is corrupt"),
        "a pax record without an end": Hostile(parts=member("p", b"x", b"9 path=xy") + file("x"), refused="is corrupt"),
        "a sparse file of 1 TB beyond the limit": Hostile(
            parts=described(
                [(b"GNU.sparse.size", b"%d" % (1 << 40)), (b"GNU.sparse.numblocks", b"0"), (b"GNU.sparse.map", b"")], member("x")
            ),
            refused="more than the limit",
        ),
        "a sparse map out of order": Hostile(
            parts=described([(b"GNU.sparse.size", b"4096"), (b"GNU.sparse.map", b"100,2,0,2")], file("x")), refused="out of order"
        ),
        "a sparse map beyond the file": Hostile(
            parts=described([(b"GNU.sparse.size", b"16"), (b"GNU.sparse.map", b"100,4")], file("x")), refused="beyond the file"
        ),
        "a sparse map of more than is stored": Hostile(
            parts=described([(b"GNU.sparse.size", b"9000"), (b"GNU.sparse.map", b"0,512")], file("x")), refused="are stored"
        ),
        "a sparse map that never ends": Hostile(
            parts=described(
                [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")],
                file("x", b"99999\n" + b"1\n" * 250),
            ),
            refused="sparse map",
        ),
        "more entries than the limit": Hostile(
            parts=b"".join(file(f"f{index}") for index in range(101)), refused="more than 100 entries"
        ),
        "files larger than the limit": Hostile(parts=file("x", bytes(3 << 20)), refused="more than the limit"),
    }


NAMES = list(corpus("/outside"))
LIMIT_BYTES = 2 << 20


def everything(path: str) -> dict[str, tuple[object, ...]]:
    """All that stat shows of a tree, ctime and link count included, with the files' bytes."""
    found = {}
    for at, folders, files in [("", [], [""]), *os.walk(path)]:
        for name in folders + files:
            each = os.path.join(at, name) or path
            info = os.lstat(each)
            data = (
                Path(each).read_bytes() if stat.S_ISREG(info.st_mode) else os.readlink(each) if stat.S_ISLNK(info.st_mode) else None
            )
            xattrs = tuple(
                sorted((key, os.getxattr(each, key, follow_symlinks=False)) for key in os.listxattr(each, follow_symlinks=False))
            )
            found[each] = (*info[:7], info.st_mtime_ns, info.st_ctime_ns, data, xattrs)
    return found


@dataclass(frozen=True, kw_only=True)
class World:
    outside: str
    lower: str
    into: str
    whiteouts: WhiteoutFormat

    def apply(self, archive: bytes, **limits) -> None:
        limits = {"max_entries": 100, "limit_bytes": LIMIT_BYTES} | limits
        reader = LayerTar(io.BytesIO(archive), **limits)
        apply_layer(reader, into=self.into, whiteouts=self.whiteouts, parent=lambda: self.lower)


@pytest.fixture(params=list(WhiteoutFormat), ids=str)
def world(request: pytest.FixtureRequest, root_dir: str) -> World:
    outside, lower, into = (os.path.join(root_dir, name) for name in ("outside", "lower", "into"))
    for path in (f"{outside}/kept", f"{lower}/dir/child", f"{lower}/usr/lib", f"{lower}/etc"):
        os.makedirs(path)
    for path in (f"{outside}/secret", f"{lower}/file", f"{lower}/usr/lib/libc", f"{lower}/etc/passwd"):
        Path(path).write_text("original")
    os.symlink(outside, f"{lower}/out")
    os.symlink("../outside", f"{lower}/up")
    os.symlink("usr/lib", f"{lower}/lib")
    if request.param is WhiteoutFormat.NONE:
        shutil.copytree(lower, into, symlinks=True)
    else:
        os.mkdir(into)
    return World(outside=outside, lower=lower, into=into, whiteouts=request.param)


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_archive_is_refused_or_confined(world: World, name: str) -> None:
    hostile = corpus(world.outside)[name]
    canary, lower = everything(world.outside), everything(world.lower)
    open_before = len(os.listdir("/proc/self/fd"))
    try:
        world.apply(hostile.parts + hostile.end)
    except ArchiveError as error:
        assert hostile.refused, f"it was refused: {error.message}"
        assert hostile.refused in error.message
        assert "\n" not in error.message
    else:
        assert not hostile.refused, "it was not refused"
        for path in hostile.there:
            assert os.path.lexists(os.path.join(world.into, path)), os.listdir(world.into)
    assert len(os.listdir("/proc/self/fd")) == open_before, "descriptors were left open"
    assert everything(world.outside) == canary
    assert everything(world.lower) == lower
    if world.whiteouts is WhiteoutFormat.OVERLAY:
        _has_no_orders_to_the_kernel(world.into, name)


def _has_no_orders_to_the_kernel(into: str, name: str) -> None:
    for at, folders, _ in os.walk(into):
        for each in folders:
            xattrs = os.listxattr(os.path.join(at, each), follow_symlinks=False)
            assert "trusted.overlay.redirect" not in xattrs
            assert "security.selinux" not in xattrs
            assert "trusted.overlay.opaque" not in xattrs or "opaque" in name or "kind" in name


def test_what_a_name_outside_means_is_inside_the_layer(world: World) -> None:
    world.apply(symlink("s", world.outside) + file("s/evil", b"x") + END)
    assert Path(world.into + world.outside, "evil").read_bytes() == b"x"


@pytest.mark.parametrize("cut", [1, 100, 511, 512, 513, 1000, 1536])
def test_a_truncated_archive_is_an_error_that_says_where(world: World, cut: int) -> None:
    archive = file("one", b"1" * 700) + file("two", b"2" * 700)
    with pytest.raises(ArchiveError, match="truncated"):
        world.apply(archive[: len(archive) - cut])


def test_a_bomb_stops_at_the_limit_and_the_error_says_how_to_raise_it(world: World) -> None:
    bomb = gzip.compress(file("zeros", bytes(64 << 20)) + END)
    assert len(bomb) < 100_000
    stream = Decompressed(io.BytesIO(bomb), limit_bytes=LIMIT_BYTES, limit_hint="set max_unpacked_bytes")
    with pytest.raises(ArchiveError, match=f"more than the limit of {LIMIT_BYTES} bytes") as caught:
        apply_layer(LayerTar(stream), into=world.into, whiteouts=world.whiteouts, parent=lambda: None)
    assert caught.value.hint == "set max_unpacked_bytes"
    assert os.stat(f"{world.into}/zeros").st_size <= LIMIT_BYTES


def test_a_sparse_file_within_no_limit_takes_no_disk(world: World) -> None:
    records = [(b"GNU.sparse.size", b"%d" % (1 << 40)), (b"GNU.sparse.map", b"%d,4" % (1 << 39))]
    world.apply(described(records, file("sparse", b"here")) + END, limit_bytes=None)
    found = os.stat(f"{world.into}/sparse")
    assert found.st_size == 1 << 40
    assert found.st_blocks < 100
    with open(f"{world.into}/sparse", "rb") as opened:
        opened.seek(1 << 39)
        assert opened.read(5) == b"here\0"


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_whiteout_never_hides_what_its_own_layer_brings(world: World, order: str) -> None:
    parts = [folder("dir") + file("dir/new") + file("file", b"new"), file(".wh.dir") + file(".wh.file")]
    world.apply(b"".join(parts if order == "after" else reversed(parts)) + END)
    assert Path(world.into, "dir/new").read_bytes() == b"evil"
    assert Path(world.into, "file").read_bytes() == b"new"
    if world.whiteouts is WhiteoutFormat.NONE:
        assert os.listdir(f"{world.into}/dir") == ["new"]
    elif world.whiteouts is WhiteoutFormat.OVERLAY:
        assert os.getxattr(f"{world.into}/dir", "trusted.overlay.opaque") == b"y"
    else:
        assert sorted(os.listdir(f"{world.into}/dir")) == [".wh..wh..opq", "new"]
        assert sorted(os.listdir(world.into)) == ["dir", "file"]


def _overlay_mark(path: str) -> bool:
    return stat.S_ISCHR(os.lstat(path).st_mode) and os.lstat(path).st_rdev == 0


def _aufs_mark(path: str) -> bool:
    head, name = os.path.split(path)
    found = os.lstat(f"{head}/.wh.{name}")
    return stat.S_IMODE(found.st_mode) == 0o444 and found.st_size == 0 and found.st_uid == 0


GONE: dict[WhiteoutFormat, Callable[[str], bool]] = {
    WhiteoutFormat.OVERLAY: _overlay_mark,
    WhiteoutFormat.AUFS: _aufs_mark,
    WhiteoutFormat.NONE: lambda path: not os.path.lexists(path),
}


def test_a_whiteout_through_a_lower_symlink_works_where_the_container_sees_it(world: World) -> None:
    world.apply(file("lib/.wh.libc") + file("lib/new") + END)
    assert GONE[world.whiteouts](f"{world.into}/usr/lib/libc")
    assert Path(world.into, "usr/lib/new").read_bytes() == b"evil"


def test_a_whiteout_of_nothing_leaves_nothing(world: World) -> None:
    before = sorted(os.listdir(world.into))
    world.apply(file(".wh.never") + file("no/such/.wh.folder") + END)
    assert sorted(os.listdir(world.into)) == before


def test_a_link_to_a_lower_file_brings_all_of_it(world: World) -> None:
    os.chmod(f"{world.lower}/file", 0o4711)
    os.setxattr(f"{world.lower}/file", "user.note", b"kept")
    os.utime(f"{world.lower}/file", ns=(1, 1_234_567_890_123_456_789))
    if world.whiteouts is WhiteoutFormat.NONE:
        shutil.copy2(f"{world.lower}/file", f"{world.into}/file")
    world.apply(link("other", "file") + END)
    found = os.stat(f"{world.into}/other")
    assert (found.st_ino, found.st_nlink) == (os.stat(f"{world.into}/file").st_ino, 2)
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o4711, 1_234_567_890_123_456_789)
    assert os.getxattr(f"{world.into}/other", "user.note") == b"kept"
    assert Path(world.into, "other").read_text() == "original"


def test_a_directory_that_the_layer_only_passes_through_looks_as_below(world: World) -> None:
    os.chmod(f"{world.lower}/usr/lib", 0o2750)
    os.chown(f"{world.lower}/usr/lib", 7, 8)
    os.chmod(f"{world.lower}/usr/lib", 0o2750)
    os.setxattr(f"{world.lower}/usr/lib", "user.note", b"kept")
    os.utime(f"{world.lower}/usr/lib", ns=(5, 1_000_000_005))
    if world.whiteouts is WhiteoutFormat.NONE:
        shutil.rmtree(world.into)
        os.system(f"cp -a {world.lower} {world.into}")
    world.apply(file("usr/lib/new") + END)
    found = os.stat(f"{world.into}/usr/lib")
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns) == (0o2750, 7, 8, 1_000_000_005)
    assert os.getxattr(f"{world.into}/usr/lib", "user.note") == b"kept"
    assert os.stat(f"{world.into}/usr/lib/new").st_gid == 0, "a setgid directory must not give its group to what an archive brings"


@pytest.mark.parametrize("parts", [("dir/.wh.child", "dir/.wh..wh..opq"), ("dir/.wh.child", ".wh.dir")], ids=str)
def test_below_a_hidden_directory_no_whiteout_is_left(world: World, parts: tuple[str, ...]) -> None:
    world.apply(b"".join(file(part) for part in parts) + folder("dir") + file("dir/new") + END)
    assert set(os.listdir(f"{world.into}/dir")) - {".wh..wh..opq"} == {"new"}


def test_a_directory_after_a_file_of_its_name_does_not_show_the_lower_one_again(world: World) -> None:
    world.apply(file("dir") + folder("dir") + END)
    if world.whiteouts is WhiteoutFormat.OVERLAY:
        assert os.getxattr(f"{world.into}/dir", "trusted.overlay.opaque") == b"y"
    else:
        assert os.listdir(f"{world.into}/dir") == ([".wh..wh..opq"] if world.whiteouts is WhiteoutFormat.AUFS else [])
