"""By what a program knows a file again: device and inode numbers, link counts."""

import os

from lamina.compare.catalogue import inside, outside
from lamina.compare.lab import Lab


def _changed(before: os.stat_result, after: os.stat_result) -> str:
    device, inode = before.st_dev != after.st_dev, before.st_ino != after.st_ino
    return {
        (False, False): "both stay", (False, True): "the inode changes", (True, False): "the device changes",
        (True, True): "both change",
    }[device, inode]  # fmt: skip


@inside(
    "Device and inode of a file, before and after its first write",
    why="tar, rsync, git and find take a file with new numbers for another file, and read it again or warn that it changed.",
    plain="both stay",
)
def file_identity() -> str:
    before = os.stat("f1")
    with open("f1", "a", encoding="utf-8") as file:
        file.write("more\n")
    return _changed(before, os.stat("f1"))


@inside(
    "Device and inode of a directory, before and after it gets its first new file",
    why="Programs that walk a tree compare a directory's numbers to see loops and to go back; find and rm refuse when they change.",
    plain="both stay",
)
def directory_identity() -> str:
    before = os.stat("d1")
    with open("d1/new", "w", encoding="utf-8"):
        pass
    return _changed(before, os.stat("d1"))


@inside(
    "Device and inode of a symlink, before and after its owner is changed",
    why="Backup programs that keep an index by inode, such as borg and restic, store the link anew.",
    plain="both stay",
)
def symlink_identity() -> str:
    before = os.lstat("ln")
    os.lchown("ln", 7, 8)
    return _changed(before, os.lstat("ln"))


def _inode(path: str) -> int:
    return os.stat(path).st_ino


def _append(path: str, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


@outside(
    "The inode of a file that nobody wrote to, after the container was started again",
    why="Backup programs that keep an index by inode read the whole image again after each start if the numbers are new.",
    plain="stays",
)
def inode_over_remount(lab: Lab) -> str:
    before = [lab.inside(_inode, path) for path in ("f1", "d1/b", "d1")]
    lab.restart()
    return "stays" if [lab.inside(_inode, path) for path in ("f1", "d1/b", "d1")] == before else "changes"


@outside(
    "The inode of a file that was written to, after the container was started again",
    why="The same programs store it a second time, and databases that check their files by inode refuse to go on.",
    plain="stays",
)
def written_inode_over_remount(lab: Lab) -> str:
    lab.inside(_append, "f1", "more\n")
    before = lab.inside(_inode, "f1")
    lab.restart()
    return "stays" if lab.inside(_inode, "f1") == before else "changes"


@inside(
    "Device numbers of the image's files, new files and directories",
    why="du -x, find -xdev and rm --one-file-system stop at what has another device number and silently leave it out.",
    plain="one device",
)
def one_device() -> str:
    with open("d1/new", "w", encoding="utf-8") as file:
        file.write("x")
    devices = {os.stat(path).st_dev for path in (".", "f1", "d1", "d1/x", "d1/a", "d1/new")}
    return "one device" if len(devices) == 1 else "several devices"


@inside(
    "The link count of a directory that several layers have",
    why="find and fts without the leaf optimisation switched off skip subdirectories by this count; 1 says that it can't be used.",
    plain="counts its subdirectories",
)
def directory_links() -> str:
    count = os.stat("d1").st_nlink
    return {3: "counts its subdirectories", 1: "always 1"}.get(count, f"{count} for one subdirectory")


@inside(
    "The link count of a hard link's other names after one was deleted",
    why="Mail servers and package managers take a count above one as the sign that another name is still there.",
    plain="goes down",
)
def links_after_unlink() -> str:
    os.unlink("h1")
    count = os.stat("h2").st_nlink
    return {2: "goes down", 3: "stays too high"}.get(count, f"is {count}")
