"""The trees that checks are made with: a small root file system, and one sample for everything that a layer has to keep."""

from collections.abc import Callable
from dataclasses import dataclass

from lamina.api.types import Fidelity
from lamina.testing.check import Claim
from lamina.testing.tree import ACCESS_ACL, ACL, DEFAULT_ACL, FILE_CAPABILITY, Directory, File, Kind, Link, Special, Symlink, Tree

BASE: Tree = {
    "file": File("file"),
    "script": File("#!/bin/sh\nexit 7\n", mode=0o755),
    "dir/one": File("dir/one"),
    "dir/two": File("dir/two"),
    "dir/sub/three": File("dir/sub/three"),
    "dir/sub/deep/four": File("dir/sub/deep/four"),
    "a/x": File("a/x"),
    "a-b/x": File("a-b/x"),
    "empty": Directory(),
    "link": Symlink("dir/one"),
    "linkdir": Symlink("dir"),
    "names/first": File("names"),
    "names/second": Link("names/first"),
    "big": File(b"0123456789abcdef" * 4096),
}
"""What most checks have below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A tree that has one thing to keep, and what a driver claims that keeps it."""

    tree: Tree
    claim: Claim | None = None
    has_hole: bool = False
    in_archive: bool = True
    """Whether a tar archive can hold it."""


def _named(name: str) -> Sample:
    return Sample(tree={name: File("named"), f"{name}.d/{name}": File("in a directory")})


def _mode(path_mode: int, directory_mode: int) -> Sample:
    return Sample(tree={"f": File("x", mode=path_mode), "d": Directory(mode=directory_mode)}, claim=Fidelity.MODE)


def _time(time_ns: int) -> Sample:
    tree: Tree = {
        "f": File("x", mtime_ns=time_ns), "d": Directory(mtime_ns=time_ns), "s": Symlink("f", mtime_ns=time_ns),
    }  # fmt: skip
    return Sample(tree=tree, claim=Fidelity.NANOSECONDS if time_ns % 10**9 else None)


def _xattr(name: str, value: bytes, claim: Claim) -> Sample:
    return Sample(tree={"f": File("x", xattrs={name: value})}, claim=claim)


def _special(kind: Kind, claim: Claim | None, device: tuple[int, int] = (0, 0)) -> Sample:
    tree: Tree = {"node": Special(kind, device=device, mode=0o620, uid=3, gid=4)}
    return Sample(tree=tree, claim=claim, in_archive=kind is not Kind.SOCKET)


SAMPLES: dict[str, Sample] = {
    "setuid and setgid": _mode(0o6755, 0o2775),
    "sticky": _mode(0o1644, 0o1777),
    "no permissions": _mode(0o000, 0o000),
    "owner": Sample(tree={"f": File("x", uid=1, gid=2), "d": Directory(uid=3, gid=4), "s": Symlink("f", uid=5, gid=6)},
                    claim=Fidelity.OWNER),
    "large owner": Sample(tree={"f": File("x", uid=4_000_000_000, gid=3_000_000_000)}, claim=Fidelity.OWNER),
    "nanoseconds": _time(1_234_567_890_987_654_321),
    "year 1970": _time(0),
    "year 2100": _time(4_102_444_800_000_000_000),
    "symlinks": Sample(tree={"f": File("x"), "relative": Symlink("f"), "absolute": Symlink("/etc/passwd"),
                             "dangling": Symlink("no"), "loop": Symlink("loop"), "up": Symlink("../../..")}),
    "long symlink": Sample(tree={"s": Symlink("x/" * 2000)}),
    "hard links": Sample(tree={"one": File("x"), "d/two": Link("one"), "d/e/three": Link("one")}),
    "hard-linked symlinks": Sample(tree={"one": Symlink("x"), "two": Link("one")}),
    "fifo": _special(Kind.FIFO, None),
    "socket": _special(Kind.SOCKET, Fidelity.SOCKETS),
    "character device": _special(Kind.CHAR_DEVICE, Fidelity.DEVICES, (1, 3)),
    "block device": _special(Kind.BLOCK_DEVICE, Fidelity.DEVICES, (7, 200)),
    "large device numbers": _special(Kind.CHAR_DEVICE, Fidelity.DEVICES, (511, 1_000_000)),
    "user xattr": _xattr("user.name", b"value", Fidelity.USER_XATTRS),
    "binary xattr": _xattr("user.binary", bytes(range(256)), Fidelity.USER_XATTRS),
    "large xattr": _xattr("user.large", b"x" * 3000, Fidelity.USER_XATTRS),
    "directory xattr": Sample(tree={"d": Directory(xattrs={"user.name": b"value"})}, claim=Fidelity.USER_XATTRS),
    "trusted xattr": _xattr("trusted.name", b"value", Fidelity.TRUSTED_XATTRS),
    "symlink xattr": Sample(tree={"s": Symlink("x", xattrs={"trusted.name": b"value"})}, claim=Fidelity.TRUSTED_XATTRS),
    "security xattr": _xattr("security.lamina", b"value", Fidelity.TRUSTED_XATTRS),
    "file capability": _xattr("security.capability", FILE_CAPABILITY, Fidelity.FILE_CAPABILITIES),
    "access ACL": Sample(tree={"f": File("x", mode=0o675, xattrs={ACCESS_ACL: ACL}),
                               "d": Directory(mode=0o775, xattrs={ACCESS_ACL: ACL})}, claim=Fidelity.ACLS),
    "default ACL": Sample(tree={"d": Directory(xattrs={DEFAULT_ACL: ACL}), "d/f": File("x", xattrs={})}, claim=Fidelity.ACLS),
    "holes": Sample(tree={"f": File("end", at=(8 << 20) - 3, size_bytes=8 << 20)}, claim=Fidelity.HOLES, has_hole=True),
    "more than 4 GiB": Sample(tree={"f": File("end", at=4 << 30, size_bytes=(4 << 30) + 10)}, claim=Fidelity.HOLES, has_hole=True,
                              in_archive=False),
    "empty file": Sample(tree={"f": File("")}),
    "name of 240 bytes": Sample(tree={"n" * 240: File("x")}),
    "name not in UTF-8": _named("caf\udce9"),
    "name with a line break": _named("two\nlines"),
    "name with a colon and a comma": _named("a:b,c=d"),
    "name with a backslash": _named("a\\b\\"),
    "name with quotes and blanks": _named(" 'a' \"b\" "),
    "name with a dash": _named("-rf"),
    "names of one letter in two cases": Sample(tree={"a": File("small"), "A": File("capital")}),
    "names in two Unicode forms": Sample(tree={"\u00e9": File("composed"), "e\u0301": File("decomposed")}),
    "names that drivers use": Sample(tree={name: Directory() for name in ("diff", "work", "merged", "lower", "trash", "l", "dir",
                                                                         "lost+found", ".wh", "layers", "mnt")}),
    "deep": Sample(tree={"/".join(["d"] * 120) + "/f": File("deep")}),
    "wide": Sample(tree={f"d/{number:04}": File("") for number in range(400)}),
}  # fmt: skip

ARCHIVED = {name: sample for name, sample in SAMPLES.items() if sample.in_archive}


def claim_of(sample: Sample) -> Claim | None:
    """What a driver claims that keeps the sample."""
    return sample.claim


Filler = Callable[[str], object]
