"""Which names a file may have, and what the file system says of itself."""

import os

from lamina.compare.catalogue import inside, outside
from lamina.compare.lab import Lab
from lamina.linux import uncommon

MAGIC = {
    0x794C7630: "overlay", 0x61756673: "aufs", 0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0x01021994: "tmpfs",
    0x65735546: "fuse", 0x2FC12FC1: "zfs",
}  # fmt: skip
"""linux/magic.h."""


@inside(
    "Making a file whose name begins with .wh.",
    why="Such names mean a deletion in a layer; whoever runs a container engine or unpacks images in a container makes them.",
    plain="ok",
)
def whiteout_name() -> str:
    with open(".wh.mine", "w", encoding="utf-8"):
        pass
    return "ok" if ".wh.mine" in os.listdir(".") else "made, but not listed"


@outside(
    "A file whose name begins with .wh., after the container was started again",
    why="If a driver takes it for its own the file is gone, or another one with it.",
    plain="is there",
)
def whiteout_name_remount(lab: Lab) -> str:
    lab.inside(whiteout_name)
    lab.restart()
    return "is there" if ".wh.mine" in lab.inside(os.listdir, ".") else "is gone"


def _make_named(length: int) -> bool:
    try:
        with open("n" * length, "w", encoding="utf-8"):
            return True
    except OSError:
        return False


@inside(
    "The longest name of a file",
    why="Browsers' caches, Nix stores and archives in Asian scripts come near the limit of 255 bytes.",
    plain="255 bytes",
)
def longest_name() -> str:
    for length in range(255, 0, -1):
        if _make_named(length):
            return f"{length} bytes"
    return "none"


@outside(
    "Deleting a file of the image with a name of 255 bytes",
    why="What can't be marked as deleted comes back; a name in an image may be longer than what can be made in a container.",
    plain="ok",
)
def delete_longest_name(lab: Lab) -> str:
    lab.inside(_make_longest)
    lab.restart()
    lab.inside(os.unlink, "n" * 255)
    lab.restart()
    return "comes back" if "n" * 255 in lab.inside(os.listdir, ".") else "ok"


def _make_longest() -> None:
    with open("n" * 255, "w", encoding="utf-8"):
        pass


@inside(
    "What statfs(2) says the longest name is",
    why="Programs that cut names to fit ask it; a wrong answer makes them fail or cut too much.",
    plain="true",
)
def told_longest_name() -> str:
    told = os.statvfs(".").f_namemax
    makes, too_long = _make_named(told), _make_named(told + 1)
    return "true" if makes and not too_long else f"{told} bytes, which isn't true"


def _magic(path: str) -> int:
    return uncommon.filesystem_magic(path)


@outside(
    "Which file system statfs(2) says it is",
    why="PostgreSQL, RocksDB, Java and container engines choose how they write by it, and some refuse what they don't know.",
    plain="that of the disk",
)
def told_type(lab: Lab) -> str:
    told = int(lab.inside(_magic, "."))
    return "that of the disk" if told == uncommon.filesystem_magic(lab.home_dir()) else MAGIC.get(told, f"0x{told:x}")


@inside(
    "Names with a line break, a backslash and bytes that are no UTF-8",
    why="File servers and archives of old systems have them; a driver that writes lists of names must not stumble.",
    plain="ok",
)
def odd_names() -> str:
    for name in (b"line\nbreak", b"back\\slash", b"\xff\xfe", b"comma,colon:equals=", b" "):
        with open(name, "w", encoding="utf-8"):
            pass
        os.unlink(name)
    return "ok"
