"""Files with several names."""

import os

from lamina.compare.catalogue import inside, outside
from lamina.compare.lab import Lab


def _write_h1() -> None:
    with open("h1", "a", encoding="utf-8") as file:
        file.write("more\n")


def _group() -> str:
    told = set()
    for name in ("h1", "h2", "d1/h3"):
        with open(name, encoding="utf-8") as file:
            told.add(file.read())
    return "all names see it" if told == {"hard\nmore\n"} else "the link breaks"


def _write_and_look() -> str:
    _write_h1()
    return _group()


@inside(
    "Writing to a hard-linked file of the image through one of its names",
    why="git, pnpm and package managers link files; what one name says must be what the others say.",
    plain="all names see it",
)
def write_one_name() -> str:
    return _write_and_look()


@outside(
    "Writing to one name of a hard-linked file, read by the others after the container was started again",
    why="A link that holds only until the next start is worse than none: the change is lost long after it was made.",
    plain="all names see it",
)
def write_one_name_remount(lab: Lab) -> str:
    lab.inside(_write_h1)
    lab.restart()
    return str(lab.inside(_group))


def _link() -> None:
    os.link("f1", "d1/l1")


def _one_file() -> str:
    with open("d1/l1", "a", encoding="utf-8") as file:
        file.write("M")
    with open("f1", encoding="utf-8") as file:
        seen = file.read().endswith("M")
    return "one file" if seen and os.stat("f1").st_ino == os.stat("d1/l1").st_ino else "two files"


def _link_and_look() -> str:
    _link()
    return _one_file()


@inside(
    "Giving a file of the image one more name (link(2))",
    why="Backups by hard link (rsnapshot), ccache and mail delivery need one file under two names.",
    plain="one file",
)
def link_file() -> str:
    return _link_and_look()


@outside(
    "One more name for a file of the image, written to after the container was started again",
    why="The two names must still be one file then, or a cache serves what is outdated.",
    plain="one file",
)
def link_file_remount(lab: Lab) -> str:
    lab.inside(_link)
    lab.restart()
    return str(lab.inside(_one_file))


@inside(
    "A file without a name (O_TMPFILE) that is given one",
    why="systemd, GLib and Samba write new files this way, so that nobody ever sees a half-written one.",
    plain="ok",
)
def unnamed_file() -> str:
    fd = os.open("d1", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"x")
    with_directory = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    os.link(str(fd), "d1/named", src_dir_fd=with_directory)  # only with a directory does it follow the link: AT_SYMLINK_FOLLOW
    return "ok" if os.stat("d1/named").st_size == 1 else "wrong content"


@inside(
    "A file without a name (O_TMPFILE) used as scratch space",
    why="Compilers and databases spill into such files; where it is refused they fall back to names in /tmp.",
    plain="ok",
)
def unnamed_scratch() -> str:
    fd = os.open("d1", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"x")
    return "ok" if os.pread(fd, 1, 0) == b"x" else "wrong content"
