"""An image's layer laid down: what each kind of entry does on top of the layers below. OCI image-spec, layer.md."""

import io
import os
import subprocess
import tarfile
import time
from dataclasses import dataclass

from lamina.api.types import Fidelity
from lamina.errors import LaminaError
from lamina.linux import mount as lm
from lamina.testing import disks, tree
from lamina.testing.bench import Bench, Layer
from lamina.testing.check import Skipped, check, require, same
from lamina.testing.checks.fidelity import plain, require_equal
from lamina.testing.checks.life_cycle import inodes_below
from lamina.testing.samples import ARCHIVED, BASE, Sample, claim_of
from lamina.testing.tar import Entry, archive, archive_of, entry, opaque, whiteout
from lamina.testing.tree import ACL, DEFAULT_ACL, Directory, File, Kind, Link, Node, Special, Symlink


@check("apply", params=ARCHIVED, claims=claim_of)
def kept_when_unpacked(bench: Bench, sample: Sample) -> None:
    """Whatever an archive holds is on disk as it says, and in a layer on top, too."""
    wanted = plain(bench, sample.tree)
    layer = bench.applied(archive_of(sample.tree))
    require_equal(bench.tree(layer), wanted, "in the layer")
    require_equal(bench.tree(bench.made(below=layer)), wanted, "in a child")


def below(bench: Bench) -> Layer:
    """The layer that most checks unpack on."""
    return bench.applied(archive_of(BASE))


def paths(bench: Bench, layer: Layer, under: str = "") -> list[str]:
    """What is seen under a directory."""
    return [path for path in bench.tree(layer) if path.startswith(f"{under}/" if under else "") and path]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whiteout:
    entries: tuple[Entry, ...]
    gone: frozenset[str] = frozenset()
    new: frozenset[str] = frozenset()


def _of(directory: str) -> frozenset[str]:
    return frozenset(path for path in _ALL if path == directory or path.startswith(f"{directory}/"))


_ALL = frozenset({*BASE, "dir", "dir/sub", "dir/sub/deep", "a", "a-b", "names"})
_WHITEOUTS = {
    "a file": _Whiteout(entries=(whiteout("file"),), gone=frozenset({"file"})),
    "a file in a directory": _Whiteout(entries=(whiteout("dir/one"),), gone=frozenset({"dir/one"})),
    "a directory": _Whiteout(entries=(whiteout("dir"),), gone=_of("dir")),
    "a symlink and not its target": _Whiteout(entries=(whiteout("linkdir"),), gone=frozenset({"linkdir"})),
    "one of two names": _Whiteout(entries=(whiteout("names/first"),), gone=frozenset({"names/first"})),
    "a name that another begins with": _Whiteout(entries=(whiteout("a"),), gone=_of("a")),
    "a name that isn't there": _Whiteout(entries=(whiteout("no"), whiteout("dir/no"), whiteout("no/no"))),
    "a name in a file": _Whiteout(entries=(whiteout("file/no"),)),
    "before its own entry": _Whiteout(entries=(whiteout("file"), entry("file", File("new")))),
    "after its own entry": _Whiteout(entries=(entry("file", File("new")), whiteout("file"))),
    "of a directory that is brought again": _Whiteout(
        entries=(whiteout("dir"), entry("dir/", Directory()), entry("dir/new", File("x"))), gone=_of("dir") - {"dir"},
        new=frozenset({"dir/new"}),
    ),
    "of a directory, after it was brought again": _Whiteout(
        entries=(entry("dir/", Directory()), entry("dir/new", File("x")), whiteout("dir")), gone=_of("dir") - {"dir"},
        new=frozenset({"dir/new"}),
    ),
    "opaque": _Whiteout(entries=(entry("dir/", Directory()), opaque("dir")), gone=_of("dir") - {"dir"}),
    "opaque before what is brought": _Whiteout(
        entries=(opaque("dir"), entry("dir/new", File("x"))), gone=_of("dir") - {"dir"}, new=frozenset({"dir/new"})
    ),
    "opaque after what is brought": _Whiteout(
        entries=(entry("dir/new", File("x")), entry("dir/one", File("y")), opaque("dir")), gone=_of("dir") - {"dir", "dir/one"},
        new=frozenset({"dir/new"}),
    ),
    "opaque further down": _Whiteout(
        entries=(opaque("dir/sub"), entry("dir/sub/deep/", Directory())), gone=_of("dir/sub") - {"dir/sub", "dir/sub/deep"}
    ),
    "opaque root": _Whiteout(entries=(opaque(""), entry("file", File("x"))), gone=_ALL - {"file"}),
    "opaque of a directory that isn't there": _Whiteout(
        entries=(entry("new/", Directory()), opaque("new"), entry("new/f", File("x"))), new=frozenset({"new", "new/f"})
    ),
    "aufs's bookkeeping": _Whiteout(entries=(entry(".wh..wh.aufs", File("")), entry(".wh..wh.plnk/", Directory()),
                                             entry(".wh..wh.plnk/1.2", File("x")))),
}  # fmt: skip


@check("apply", params=_WHITEOUTS)
def whiteout_of(bench: Bench, case: _Whiteout) -> None:
    """It hides what the layers below have, wherever it stands, and never what its own layer brings."""
    base = below(bench)
    layer = bench.applied(archive(*case.entries), base)
    wanted = sorted(_ALL - case.gone | case.new)
    same(sorted(paths(bench, layer)), wanted, "what is seen")
    same(sorted(paths(bench, bench.made(below=layer))), wanted, "what is seen one layer up")
    same(sorted(paths(bench, base)), sorted(_ALL), "what is seen below")


_KINDS: dict[str, Node] = {
    "file": File("new"), "directory": Directory(), "symlink": Symlink("x"), "fifo": Special(Kind.FIFO), "hard link": Link("script"),
}  # fmt: skip
_TYPES = {f"{old} by {new}": (old, new) for old in ("file", "dir", "link") for new in _KINDS}


@check("apply", params=_TYPES)
def entry_replaces(bench: Bench, case: tuple[str, str]) -> None:
    """layer.md: a directory over a directory sets its attributes; everything else replaces what is there."""
    old, new = case
    base = below(bench)
    layer = bench.applied(archive(entry(f"{old}/" if new == "directory" else old, _KINDS[new])), base)
    found = bench.tree(layer)
    same(found[old].kind, Kind.FILE if new == "hard link" else _KINDS[new].kind, "its kind")
    inside = [path for path in found if path.startswith("dir/")]
    if (old, new) == ("dir", "directory"):
        same(inside, [path for path in bench.tree(base) if path.startswith("dir/")], "what is in the directory")
    elif old == "dir":
        same(inside, [], "what is in it")
    if new == "hard link":
        same(found[old].names, tuple(sorted((old, "script"))), "names of the linked file")


@check("apply")
def a_directorys_attributes_are_replaced(bench: Bench) -> None:
    """All of them: an xattr that the entry doesn't have is gone, and so is an ACL."""
    try:
        base = bench.applied(archive(entry("d/", Directory(mode=0o700, uid=1, xattrs={"user.a": b"1", DEFAULT_ACL: ACL})),
                                     entry("d/f", File("x"))))  # fmt: skip
    except (OSError, LaminaError) as error:
        raise Skipped(f"the file system has no xattrs: {error}") from error
    layer = bench.applied(archive(entry("d/", Directory(mode=0o2711, uid=2, gid=3, xattrs={"user.b": b"2"}))), base)
    found = bench.tree(layer)["d"]
    same((found.mode, found.uid, found.gid, dict(found.xattrs)), (0o2711, 2, 3, {"user.b": b"2"}), "mode, owner and xattrs")
    require("d/f" in bench.tree(layer), "what was in it is gone")


@check("apply")
def a_file_in_a_directory_with_a_default_ACL_has_only_its_own(bench: Bench) -> None:
    """acl(5): new files inherit; an archive's entries say all that they have."""
    try:
        base = bench.applied(archive(entry("d/", Directory(xattrs={DEFAULT_ACL: ACL}))))
    except (OSError, LaminaError) as error:
        raise Skipped(f"the file system has no ACLs: {error}") from error
    found = bench.tree(bench.applied(archive(entry("d/f", File("x", mode=0o640)), entry("d/e/", Directory())), base))
    same((found["d/f"].xattrs, found["d/f"].mode, found["d/e"].xattrs), ((), 0o640, ()), "xattrs, mode")


@check("apply")
def the_last_of_several_entries_of_one_path_counts(bench: Bench) -> None:
    """Duplicates must not be, and are."""
    of_x = [
        entry("x", File("1")),
        entry("x", Symlink("2")),
        entry("x/", Directory()),
        entry("x/y", File("3")),
        entry("x", File("4")),
    ]
    of_z = [entry("z/", Directory(mode=0o700)), entry("z/f", File("x")), entry("z/", Directory(mode=0o711))]
    layer = bench.applied(archive(*of_x, *of_z), below(bench))
    found = bench.tree(layer)
    same((found["x"].kind, found["x"].size_bytes), (Kind.FILE, 1), "the last")
    require("x/y" not in found and "z/f" in found, f"what is in them: {sorted(path for path in found if path[:1] in 'xz')}")
    same(found["z"].mode, 0o711, "the mode of the directory")


@check("apply")
def a_hard_link_may_point_to_a_file_of_a_layer_below(bench: Bench) -> None:
    """The file comes up whole, with its attributes; below, nothing changes."""
    base = bench.applied(archive_of({"f": File("content", mode=0o4711, uid=7, xattrs={"user.a": b"1"}), "d/g": File("g")}))
    before = bench.tree(base)
    layer = bench.applied(archive(entry("d/new", Link("f"))), base)
    found = bench.tree(layer)
    same(found["d/new"].names, ("d/new", "f"), "names")
    words = tree.differences({"f": found["f"]}, {"f": before["f"]}, ignore=frozenset({"names"}))
    require(not words, "; ".join(words))
    require_equal(bench.tree(base), before, "below")


@check("apply")
def a_hard_link_may_point_to_what_a_later_whiteout_hides(bench: Bench) -> None:
    """docker build makes such layers of `mv`: the link is there, the old name gone."""
    layer = bench.applied(archive(entry("new", Link("file")), whiteout("file")), below(bench))
    found = bench.tree(layer)
    require("file" not in found, "the old name is still there")
    same(found["new"].names, ("new",), "names")


@check("apply")
def directories_that_the_archive_lacks_are_made(bench: Bench) -> None:
    """Without losing what is below: an entry deep in a directory of the parents."""
    base = below(bench)
    layer = bench.applied(archive(entry("dir/sub/deep/new", File("x")), entry("p/q/r", File("y"))), base)
    found = bench.tree(layer)
    same(found["p/q"].mode, 0o755, "the mode of a directory that was made")
    wanted = bench.tree(base)
    for path in ("dir", "dir/sub"):
        one, other = ((each[path].mode, each[path].uid, each[path].mtime_ns) for each in (found, wanted))
        same(one, other, f"mode, owner and time of '{path}'")
    require("dir/sub/deep/four" in found and "dir/one" in found, "what was there is hidden")


@check("apply")
def a_directorys_time_is_its_entrys_though_files_follow(bench: Bench) -> None:
    """What is made in a directory changes its time."""
    directories = [entry("d/", Directory(mtime_ns=111)), entry("d/e/", Directory(mtime_ns=222))]
    found = bench.tree(bench.applied(archive(*directories, entry("d/e/f", File("x")), entry("d/g", File("x")))))
    same((found["d"].mtime_ns, found["d/e"].mtime_ns), (111, 222), "times")


@check("apply", params={"ustar": tarfile.USTAR_FORMAT, "GNU": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT})
def format_is_read(bench: Bench, form: int) -> None:
    """Each tool writes its own; long names in each's way."""
    long_name = "/".join(["directory-with-a-long-name"] * (4 if form == tarfile.USTAR_FORMAT else 12)) + "/file"
    declared = {
        long_name: File("long", mtime_ns=10**18),
        "f": File("x" * 1000, mtime_ns=10**18),
        "s": Symlink("f", mtime_ns=10**18),
    }
    found = bench.tree(bench.applied(archive_of(declared, form=form)))
    same(sorted(path for path in found if path in declared), sorted(declared), "paths")
    same((found["f"].size_bytes, found["f"].mtime_ns), (1000, 10**18), "size and time")


@check("apply")
def names_begin_with_a_dot_a_slash_or_neither(bench: Bench) -> None:
    """`./etc/`, `/etc/` and `etc/` are one place."""
    layer = bench.applied(
        archive(entry("./", Directory(mode=0o711)), entry("./a", File("x")), entry("/b", File("x")), entry("c//d", File("x")))
    )
    found = bench.tree(layer)
    same(sorted(found), ["", "a", "b", "c", "c/d"], "paths")
    same(found[""].mode, 0o711, "the root's mode")


@check("apply")
def global_headers_are_understood(bench: Bench) -> None:
    """`git archive` writes one."""
    layer = bench.applied(archive(entry("f", File("x")), pax={"comment": "a commit's id"}))
    same(sorted(bench.tree(layer)), ["", "f"], "paths")


_BROKEN = {
    "cut off in a file": archive(entry("f", File("x" * 5000)))[:2000],
    "cut off between entries": archive(entry("f", File("x")), entry("g", File("x")))[:1024],
    "not an archive": b"not an archive at all" * 200,
    "a wrong checksum": bytes(each ^ (number == 148) for number, each in enumerate(archive(entry("f", File("x"))))),
    "a bare whiteout": archive(entry(".wh.", File(""))),
    "a whiteout of dots": archive(entry("d/.wh...", File(""))),
    "a link to nothing": archive(entry("f", Link("no"))),
    "a link to a directory": archive(entry("d/", Directory()), entry("f", Link("d"))),
    "a whiteout device": archive(entry("f", Special(Kind.CHAR_DEVICE, device=(0, 0)))),
    "a name that is too long": archive(entry("n" * 300, File("x"))),
    "a zero byte in a name": archive(entry("f", File("x"), pax={"path": "a\0b"})),
}


@check("apply", params=_BROKEN)
def refused(bench: Bench, data: bytes) -> None:
    """An error in words, the parents as before; and after the discard, nothing is left."""
    base = below(bench)
    before = bench.tree(base)
    empty = inodes_below(bench.driver.home)
    layer = bench.prepare(base)
    try:
        bench.apply(layer, data)
    except LaminaError:
        pass
    else:
        require(False, "it was taken")
    bench.discard(layer)
    require_equal(bench.tree(base), before, "the parent")
    same({path for path in inodes_below(bench.driver.home) - empty if "trash" not in path.rpartition("/")[2]}, set(), "left behind")


@check("apply", limit_s=60)
def a_full_disk_is_an_error_and_can_be_tidied(bench: Bench) -> None:
    """In the middle of a file, and with no inode left: what was there stays, and the space comes back."""
    if bench.filesystem:
        raise Skipped(f"needs a memory disk, and the driver needs {bench.filesystem}")
    place = f"{bench.dir}/small"
    with disks.memory_disk(place, size_bytes=4 << 20, inodes=400), bench.elsewhere(f"{place}/{bench.name}") as small:
        base = small.applied(archive_of({"f": File("x")}))
        small.discard(small.made(below=base))
        before, free = small.tree(base), disks.free(place)
        for data in (
            archive(entry("a", File("x")), entry("big", File(b"x" * (5 << 20)))),
            archive(*(entry(f"f{number}", File("")) for number in range(500))),
        ):
            layer = small.prepare(base)
            try:
                small.apply(layer, data)
                small.driver.seal(layer.key)
            except (OSError, LaminaError) as error:
                require("space" in str(error).lower() or getattr(error, "errno", 0) == 28, f"the error doesn't say so: {error}")
            else:
                require(False, "more than the disk holds was taken")
            small.discard(layer)
            require_equal(small.tree(base), before, "the layer that was there")
            same(disks.free(place), free, "free bytes and inodes")


@check("apply")
def a_layer_of_many_files_is_unpacked(bench: Bench) -> None:
    """1500 files in 50 directories, hidden ones among them; how long that took is recorded."""
    data = archive(whiteout("dir"), *(entry(f"many/{number % 50}/{number}", File("x")) for number in range(1500)))
    layer = bench.prepare(below(bench))
    started = time.monotonic()
    bench.apply(layer, data)
    bench.note(f"{time.monotonic() - started:.2f} s for 1500 files")
    with bench.reading(layer) as root:
        same(sum(len(files) for _, _, files in os.walk(f"{root}/many")), 1500, "files")


@check("apply", params={"GNU": "gnu", "pax": "posix"})
def a_sparse_archive_is_read(bench: Bench, form: str) -> None:
    """As GNU tar writes them with --sparse: the bytes at their places, the holes as holes."""
    place = f"{bench.dir}/sparse"
    os.mkdir(place)
    tree.make(place, {"f": File("end", at=(8 << 20) - 3, size_bytes=9 << 20)})
    words = ["tar", f"--format={form}", "--sparse", "--create", "--directory", place, "f"]
    try:
        data = subprocess.run(words, check=True, capture_output=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise Skipped(f"GNU tar is needed to write one: {error}") from error
    layer = bench.applied(data)
    wanted = tree.read(place)["f"]
    found = bench.tree(layer)["f"]
    same((found.size_bytes, found.content), (wanted.size_bytes, wanted.content), "size and content")
    if Fidelity.HOLES in bench.claims.preserves:
        with bench.reading(layer) as root:
            require(os.stat(f"{root}/f").st_blocks * 512 < 1 << 20, "its hole was filled")


@check("apply")
def an_xattr_that_can_not_be_kept_is_an_error(bench: Bench) -> None:
    """moby's vfs: an image's file capabilities, lost in silence, are a service that doesn't start."""
    place = f"{bench.dir}/plain-fs"
    os.mkdir(place)
    fd = lm.fsmount("ramfs")
    lm.move_mount(fd, place)
    os.close(fd)
    try:
        with bench.elsewhere(f"{place}/{bench.name}") as small:
            layer = small.prepare()
            try:
                small.apply(layer, archive_of({"f": File("x", xattrs={"user.a": b"1"})}))
            except LaminaError as error:
                require("user.a" in str(error), f"the error doesn't name the attribute: {error}")
            else:
                same(small.tree(layer)["f"].xattrs, (("user.a", b"1"),), "xattrs on a file system without them")
    finally:
        lm.unmount(place, detach=True)


@check("apply")
def a_file_longer_than_a_buffer_is_whole(bench: Bench) -> None:
    """9 MiB of what doesn't repeat."""
    content = os.urandom(9 << 20)
    layer = bench.applied(archive(entry("big", File(content))))
    with bench.reading(layer) as root, open(f"{root}/big", "rb") as file:
        require(file.read() == content, "it came back changed")


@check("apply")
def entries_may_be_read_as_files_too(bench: Bench) -> None:
    """A driver's own `storage_apply` gets entries and may copy or read each: the result is the same as by the default."""
    data = archive_of({"f": File("content"), "d/g": File("x" * 100_000)})
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        sizes = {member.name: member.size for member in tar if member.isfile()}
    found = bench.tree(bench.applied(data))
    same({path: facts.size_bytes for path, facts in found.items() if facts.kind is Kind.FILE}, sizes, "sizes")
