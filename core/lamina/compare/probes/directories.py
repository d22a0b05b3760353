"""Directories: reading, emptying, deleting and making them again, and what that leaves on disk."""

import os
import stat

from lamina.compare.catalogue import inside, outside
from lamina.compare.lab import Lab, names_of
from lamina.compare.probes.renames import remove_d1
from lamina.linux.fs import read_xattrs


@inside(
    "Deleting files while the directory is being read",
    why="rm -r and log cleaners do it; if reading skips names, files stay and the directory can't be removed.",
    plain="all are seen",
)
def read_while_deleting() -> str:
    with os.scandir("many") as entries:
        for entry in entries:
            os.unlink(entry.path)
    left = len(os.listdir("many"))
    return "all are seen" if not left else f"{left} are missed"


@inside(
    "A directory opened before a file in it was deleted",
    why="File managers and servers that keep a directory open show what is no longer there.",
    plain="shows what is there",
)
def old_listing() -> str:
    fd = os.open("d1", os.O_RDONLY | os.O_DIRECTORY)
    before = sorted(os.listdir(fd))
    os.unlink("d1/a")
    os.lseek(fd, 0, os.SEEK_SET)
    after = sorted(os.listdir(fd))
    return "shows what is there" if "a" in before and "a" not in after else "shows what was there"


@inside(
    "Removing a directory of the image after every name in it was deleted",
    why="It looks empty and is full of marks on disk; rmdir must see it as the user does.",
    plain="ok",
)
def remove_emptied() -> str:
    os.unlink("d1/sub/deep/e")
    os.rmdir("d1/sub/deep")
    return "ok" if os.listdir("d1/sub") == ["c"] else "is still there"


@inside(
    "Removing a directory of the image that isn't empty",
    why="rmdir's refusal is how many scripts find out whether something is left.",
    plain="ENOTEMPTY",
)
def remove_full() -> str:
    os.rmdir("d1")
    return "removes it"


@inside(
    "A directory of the image that is deleted and made again",
    why="Package managers and `rm -rf build && mkdir build` do it; old files must not show through.",
    plain="is empty",
)
def remade() -> str:
    remove_d1()
    os.mkdir("d1")
    return "is empty" if not os.listdir("d1") else "shows the old files"


@outside(
    "A directory that was deleted and made again, after the container was started again",
    why="The mark that hides the old files has to be on disk, or a restart undoes the deletion.",
    plain="is empty",
)
def remade_remount(lab: Lab) -> str:
    lab.inside(remade)
    lab.restart()
    return "is empty" if not lab.inside(os.listdir, "d1") else "shows the old files"


@inside(
    "The working directory after it was removed",
    why="Shells and daemons whose directory is removed have to get an error and not another directory.",
    plain="ENOENT",
)
def removed_working_directory() -> str:
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")
    return os.getcwd()


@inside(
    "A file made in a setgid directory of the image",
    why="Its group must be the directory's, which is how teams share a tree.",
    plain="has its group",
)
def setgid_directory() -> str:
    os.chown("d1/sub", -1, 55)
    os.chmod("d1/sub", 0o2775)
    with open("d1/sub/new", "w", encoding="utf-8"):
        pass
    return "has its group" if os.stat("d1/sub/new").st_gid == 55 else "has the user's group"


@inside(
    "A user who isn't root changes his own file of the image",
    why="Containers that don't run as root work on files that the image gave them.",
    plain="ok",
    user="1000:1001",
)
def own_file() -> str:
    with open("f1", "a", encoding="utf-8") as file:
        file.write("mine\n")
    found = os.stat("f1")
    return "ok" if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1000, 1001, 0o640) else "its owner changes"


@inside(
    "A user who isn't root deletes another's file from a directory of the image that is his",
    why="The right to delete is the directory's; it has to hold for files of layers that belong to root.",
    plain="ok",
    user="1000:1001",
)
def others_file() -> str:
    os.unlink("d1/a")
    return "ok" if not os.path.exists("d1/a") else "is still there"


def _mark(directory: str, name: str) -> str:
    """Say how a directory on disk tells that `name` is deleted."""
    if f".wh.{name}" in names_of(directory):
        return f"a file .wh.{name}"
    try:
        found = os.lstat(f"{directory}/{name}")
    except FileNotFoundError:
        return "nothing: it isn't there"
    return "a device 0:0" if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0 else "the old file"


@outside(
    "What a deleted file leaves in the container's layer on disk",
    why="Tools that read layers from the host (scanners, backups) must know the form, and each mark takes an inode.",
    plain="nothing: it isn't there",
)
def whiteout_on_disk(lab: Lab) -> str:
    lab.inside(os.unlink, "f1")
    lab.stop()
    upper = lab.upper_dir()
    return "nothing: it isn't there" if upper is None else _mark(upper, "f1")


@outside(
    "What a directory that was deleted and made again leaves on disk",
    why="The same tools: whoever misses this mark sees files that are deleted.",
    plain="nothing: it is a new directory",
)
def opaque_on_disk(lab: Lab) -> str:
    lab.inside(remade)
    lab.stop()
    upper = lab.upper_dir()
    if upper is None:
        return "nothing: it is a new directory"
    if ".wh..wh..opq" in names_of(f"{upper}/d1"):
        return "a file .wh..wh..opq in it"
    marks = [name for name in read_xattrs(f"{upper}/d1") if name.endswith(".opaque")]
    return f"an xattr {marks[0]}" if marks else "nothing: it is a new directory"
