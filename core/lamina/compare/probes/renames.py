"""rename(2) and renameat2(2), of what is new and of what is the image's."""

import os

from lamina.compare.catalogue import inside
from lamina.linux import uncommon


def _touch(path: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write("x")


def remove_d1() -> None:
    """Delete `d1` and all that is in it."""
    for directory, directories, files in os.walk("d1", topdown=False):
        for name in files:
            os.unlink(os.path.join(directory, name))
        for name in directories:
            os.rmdir(os.path.join(directory, name))
    os.rmdir("d1")


@inside(
    "Renaming a file of the image",
    why="Editors and package managers replace files by renaming; the content and its numbers have to come along.",
    plain="ok",
)
def rename_file() -> str:
    before = os.stat("f1").st_ino
    os.rename("f1", "g1")
    if os.path.exists("f1"):
        return "the old name is still there"
    return "ok" if os.stat("g1").st_ino == before else "ok, with a new inode"


@inside(
    "Renaming a new file over one of the image",
    why="Every careful save (write to a temporary name, rename) does this, and it must be one step.",
    plain="ok",
)
def rename_over() -> str:
    _touch("tmp")
    os.rename("tmp", "d1/a")
    with open("d1/a", encoding="utf-8") as file:
        return "ok" if file.read() == "x" and not os.path.exists("tmp") else "wrong content"


@inside(
    "Renaming a directory of the image",
    why="npm, pip, dpkg and apt rename directories when they upgrade; on EXDEV they fail or copy the whole tree.",
    plain="ok",
)
def rename_directory() -> str:
    os.rename("d1", "d2")
    return "ok" if sorted(os.listdir("d2")) == ["a", "b", "h3", "sub", "x"] else "wrong content"


@inside(
    "Renaming an empty directory of the image",
    why="The same programs, in the case that a driver could serve without copying anything.",
    plain="ok",
)
def rename_empty_directory() -> str:
    os.rename("empty", "e2")
    return "ok"


@inside(
    "Renaming a directory made in the container",
    why="Builds and package managers unpack beside and rename into place.",
    plain="ok",
)
def rename_new_directory() -> str:
    os.mkdir("n1")
    _touch("n1/f")
    os.rename("n1", "n2")
    return "ok" if os.listdir("n2") == ["f"] else "wrong content"


@inside(
    "Renaming a new directory onto an empty one of the image",
    why="rename(2) promises it; installers that prepare a directory under another name rely on it.",
    plain="ok",
)
def rename_onto_empty() -> str:
    os.mkdir("n1")
    _touch("n1/f")
    os.rename("n1", "empty")
    return "ok" if os.listdir("empty") == ["f"] else "wrong content"


@inside(
    "Renaming a directory that replaced one of the image",
    why="An upgrade that deletes a directory, makes it anew and moves it must not bring the old files back.",
    plain="ok",
)
def rename_replaced_directory() -> str:
    remove_d1()
    os.mkdir("d1")
    _touch("d1/f")
    os.rename("d1", "d2")
    return "ok" if os.listdir("d2") == ["f"] and not os.path.exists("d1") else "old files show"


@inside(
    "Renaming a directory of the image in which a file was made",
    why="A program that has written into its directory, and then moves it, as version managers do.",
    plain="ok",
)
def rename_changed_directory() -> str:
    _touch("d1/n")
    os.rename("d1", "d2")
    return "ok" if "n" in os.listdir("d2") else "wrong content"


@inside(
    "Exchanging two files of the image (RENAME_EXCHANGE)",
    why="ostree, Nix and systemd swap versions in one step with it, and have no other way that is as safe.",
    plain="ok",
)
def rename_exchange() -> str:
    uncommon.rename("f1", "f2", uncommon.RENAME_EXCHANGE)
    with open("f2", encoding="utf-8") as file:
        return "ok" if file.read() == "f1-from-ro2\n" else "wrong content"


@inside(
    "Renaming without replacing (RENAME_NOREPLACE) onto a file of the image",
    why="Mail delivery and systemd take a name only if it is free; to replace would lose a message.",
    plain="EEXIST",
)
def rename_noreplace() -> str:
    uncommon.rename("f1", "f2", uncommon.RENAME_NOREPLACE)
    return "replaces it"


@inside(
    "Renaming and leaving a whiteout (RENAME_WHITEOUT)",
    why="A union file system needs it to be stacked on this one: container engines inside containers.",
    plain="ok",
)
def rename_whiteout() -> str:
    _touch("z")
    uncommon.rename("z", "zz", uncommon.RENAME_WHITEOUT)
    return "ok"


@inside(
    "A rename that changes only a letter's case",
    why="git on a case-sensitive file system, and every project with a Makefile beside a makefile, takes the two for two names.",
    plain="ok",
)
def rename_case() -> str:
    os.rename("f1", "F1")
    return "ok" if os.path.exists("F1") and not os.path.exists("f1") else "one name"


@inside(
    "Moving a file of the image into another directory and back",
    why="Configuration managers move files aside and restore them; nothing may be left of it.",
    plain="ok",
)
def rename_there_and_back() -> str:
    os.rename("f1", "d1/sub/f1")
    os.rename("d1/sub/f1", "f1")
    with open("f1", encoding="utf-8") as file:
        return "ok" if file.read() == "f1-from-ro2\n" and not os.path.exists("d1/sub/f1") else "wrong content"
