"""What WORKDIR finds or makes in a stage's tree."""

import os
import posixpath
import stat
from collections.abc import Iterator
from typing import IO

from lamina.api.entries import Entry, EntryKind
from lamina.errors import UsageError
from lamina.linux.fs import open_in_root

_MOST_LINKS = 40
"""MAXSYMLINKS of Linux (include/linux/namei.h)."""


def missing_directories(root: str | None, path: str) -> list[str]:
    """List the directories that must be made so that `path` is one, parents first, by their real paths; none if it is one already.

    Symlinks are followed within the tree, also to where nothing is yet: that is made. Raises `UsageError` if something else is in
    the way.
    """
    root_fd = None if root is None else os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _missing(root_fd, path)
    finally:
        if root_fd is not None:
            os.close(root_fd)


def _missing(root_fd: int | None, path: str) -> list[str]:
    """Walk a path, its own dots taken out, as the kernel does (path_resolution(7)), beneath a root that may not be there."""
    waiting = posixpath.normpath(f"/{path}").split("/")[::-1]
    real: list[str] = []  # where the walk is: no symlinks, no dots
    missing: dict[str, None] = {}
    links = 0
    while waiting:
        part = waiting.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            real = real[:-1]
            continue
        target = _look(root_fd, "/".join([*real, part]))
        if target:
            links += 1
            if links > _MOST_LINKS:
                raise UsageError(f"'{path}' leads through too many symlinks")
            waiting += target.split("/")[::-1]
            real = [] if target.startswith("/") else real
            continue
        real = [*real, part]
        if target is None:
            missing["/".join(real)] = None
    return list(missing)


def _look(root_fd: int | None, path: str) -> str | None:
    """Tell what is there: a symlink's target, "" for a directory, None for nothing."""
    if root_fd is None:
        return None
    try:
        fd = open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            return os.readlink("", dir_fd=fd)
        if not stat.S_ISDIR(mode):
            raise UsageError(f"'/{path}' is a file, not a directory")
        return ""
    finally:
        os.close(fd)


class NewDirectories:
    """A layer of nothing but new directories."""

    def __init__(self, paths: list[str], *, uid: int, gid: int, mtime_ns: int) -> None:
        self._entries = [
            Entry(path=path, kind=EntryKind.DIRECTORY, mode=0o755, uid=uid, gid=gid, mtime_ns=mtime_ns) for path in paths
        ]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def copy_to(self, fd: int) -> None:
        raise NotImplementedError("there are no files")

    def open(self) -> IO[bytes]:
        raise NotImplementedError("there are no files")
