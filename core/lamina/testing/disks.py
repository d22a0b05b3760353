"""Small file systems for a moment: one in memory that is soon full, one in a file whose power can be cut.

They are mounted in the check's own mount namespace, at places below its directory.
"""

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Iterator, Sequence

from lamina.linux import mount as lm
from lamina.linux.fs import fsync_path
from lamina.testing.check import Failed, Skipped

_MAKERS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
_SIZES = {"ext4": 64 << 20, "xfs": 320 << 20, "btrfs": 256 << 20}


@contextlib.contextmanager
def memory_disk(place: str, *, size_bytes: int, inodes: int = 0) -> Iterator[None]:
    """Mount a tmpfs at `place`, which is made."""
    os.makedirs(place, exist_ok=True)
    options: list[tuple[str, str | None]] = [("size", str(size_bytes)), ("mode", "0755")]
    if inodes:
        options.append(("nr_inodes", str(inodes)))
    fd = lm.fsmount("tmpfs", tuple(options))
    try:
        lm.move_mount(fd, place)
    finally:
        os.close(fd)
    try:
        yield
    finally:
        lm.unmount(place, detach=True)


def limit_inodes(place: str, inodes: int) -> None:
    """Change how many inodes a memory disk may have."""
    lm.mount("none", place, None, lm.MS_REMOUNT, f"nr_inodes={inodes}")


def free(place: str, *, patience_s: float = 20) -> tuple[int, int]:
    """Say how many bytes and inodes of a memory disk are free, once nothing that was deleted is held open any more.

    A server of FUSE ends some time after its mount did. Until then the kernel doesn't make the disk read-only (mount(2), EBUSY),
    which is how one waits for it.
    """
    end = time.monotonic() + patience_s
    while True:
        try:
            lm.mount("none", place, None, lm.MS_REMOUNT | lm.MS_RDONLY)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if time.monotonic() > end:
                raise Failed(f"files that were deleted are held open for more than {patience_s} s") from error
            time.sleep(0.02)
        else:
            lm.mount("none", place, None, lm.MS_REMOUNT)
            found = os.statvfs(place)
            return found.f_bfree * found.f_frsize, found.f_ffree


def make_image(path: str, fstype: str, more: Sequence[str] = ()) -> None:
    """Make a file with an empty file system; `more` are words for its mkfs."""
    maker = _MAKERS.get(fstype)
    if maker is None:
        raise Skipped(f"the kit can't make a file system of the type {fstype}")
    with open(path, "wb") as file:
        file.truncate(_SIZES[fstype])
    run([*maker, *more, path])


def run(words: list[str]) -> None:
    """Run a program of a file system's; skip the check if it isn't installed."""
    try:
        subprocess.run(words, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise Skipped(f"the program {words[0]} is not installed") from error


def mount_image(path: str, place: str, *, fstype: str = "", options: str = "") -> None:
    """Mount a file's file system at `place`, which is made; the loop device goes with the mount (mount(8), "loop")."""
    os.makedirs(place, exist_ok=True)
    # a copy of an XFS has the original's UUID, which the kernel may not have forgotten yet
    words = ["mount", "-o", options or ("loop,nouuid" if fstype == "xfs" else "loop"), path, place]
    done = subprocess.run(words, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Skipped(f"no file can be mounted here: {done.stderr.strip()}")


_QUOTAS = {
    "ext4": (["-O", "quota,project"], "loop,prjquota", []),
    "xfs": ([], "loop,nouuid,pquota", []),
    "btrfs": ([], "loop", ["btrfs", "quota", "enable"]),
}
"""How a file system gets quotas: what to make it with, what to mount it with, what to run on it then."""


@contextlib.contextmanager
def disk_with_quotas(place: str, fstype: str) -> Iterator[None]:
    """Mount a file system with quotas, in a file, at `place`, which is made."""
    makes, options, then = _QUOTAS[fstype]
    make_image(f"{place}.image", fstype, makes)
    mount_image(f"{place}.image", place, options=options)
    try:
        if then:
            run([*then, place])
        yield
    finally:
        lm.unmount(place, detach=True)


class Disk:
    """A file system in a file, mounted at `place`, until its power is cut."""

    def __init__(self, directory: str, fstype: str) -> None:
        self.fstype = fstype
        self.place = f"{directory}/disk"
        self._image = f"{directory}/image"
        make_image(self._image, fstype)
        fsync_path(self._image)
        mount_image(self._image, self.place, fstype=fstype)

    def cut_power(self) -> None:
        """Let what has reached the disk until now be all there is, and come up again at the same place.

        What the kernel still held in memory goes, after the copy, to the original, which nobody looks at again.
        """
        rest = f"{self._image}.rest"
        subprocess.run(["cp", "--sparse=always", "--reflink=never", self._image, rest], check=True, capture_output=True)
        lm.unmount(self.place)
        os.unlink(self._image)
        os.rename(rest, self._image)
        mount_image(self._image, self.place, fstype=self.fstype)


@contextlib.contextmanager
def disk_in_a_file(directory: str, fstype: str) -> Iterator[Disk]:
    """Give a disk below the directory, unmounted at the end."""
    disk = Disk(directory, fstype)
    try:
        yield disk
    finally:
        lm.unmount(disk.place, detach=True)
