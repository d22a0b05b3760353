"""A file or a tree that exists, read as entries: what `LayerTar` is for an archive, for the files themselves.

The tree may belong to a running container that swaps its names while it is read. Each name is pinned by a descriptor first (O_PATH,
O_NOFOLLOW), and all that is told of it, and its bytes, come through that descriptor: what was a file when it was looked at can't
be a symlink, a fifo or a device when it is read.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import IO

from lamina.api.entries import Entry, EntryKind
from lamina.archive import attributes, paths
from lamina.errors import LaminaError
from lamina.linux.fs import copy_contents, read_xattrs

PIN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = frozenset([errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE])


class TreeReader:
    """What the descriptor `fd` (O_PATH) stands for, under the name `name`, as `lamina.api.entries.LayerReader`.

    With the name "" it must be a directory and its contents are the archive's. `is_closed` is asked of the descriptor of each
    directory on another device than the one above; one that it is true for is given without what is in it. Sockets, which an
    archive can't hold, and what has gone meanwhile are left out.
    """

    def __init__(self, fd: int, name: str, *, is_closed: Callable[[int], bool] = lambda _fd: False) -> None:
        self._top_fd = fd
        self._name = name
        self._is_closed = is_closed
        self._links: dict[tuple[int, int], str] = {}
        self._file_fd = -1
        self._size_bytes = 0

    def __iter__(self) -> Iterator[Entry]:
        yield from self._walk(self._top_fd, self._name)

    def copy_to(self, fd: int) -> None:
        """Write the current file's bytes to a descriptor, holes left as holes."""
        source = self._opened()
        try:
            copy_contents(source, fd, self._size_bytes)
        finally:
            os.close(source)

    def open(self) -> IO[bytes]:
        """Read the current file's bytes instead of copying them."""
        return os.fdopen(self._opened(), "rb")

    def _opened(self) -> int:
        # The link in /proc/self/fd leads to the pinned file itself, whatever its name stands for by now.
        return os.open(f"/proc/self/fd/{self._file_fd}", os.O_RDONLY | os.O_CLOEXEC)

    def _walk(self, top_fd: int, top_path: str) -> Iterator[Entry]:
        entry = self._entry(top_fd, top_path)
        if entry is None:
            raise LaminaError(f"'{paths.shown(top_path)}' is a socket, which can't be copied")
        yield entry
        if entry.kind is not EntryKind.DIRECTORY:
            return
        # A stack rather than recursion: one descriptor and one list of names for each level.
        stack = [(os.dup(top_fd), top_path, os.fstat(top_fd).st_dev, _names(top_fd))]
        try:
            while stack:
                dir_fd, path, device, names = stack[-1]
                if not names:
                    os.close(stack.pop()[0])
                    continue
                name = names.pop()
                try:
                    fd = os.open(name, PIN, dir_fd=dir_fd)
                except OSError as error:
                    if error.errno in _GONE:
                        continue
                    raise
                try:
                    inner = paths.join(path, name)
                    entry = self._entry(fd, inner)
                    if entry is None:
                        continue
                    yield entry
                    if entry.kind is EntryKind.DIRECTORY:
                        if len(stack) >= paths.MAX_DEPTH:
                            raise LaminaError(f"'{paths.shown(inner)}' lies deeper than {paths.MAX_DEPTH} directories")
                        inner_device = os.fstat(fd).st_dev
                        if inner_device == device or not self._is_closed(fd):
                            stack.append((os.dup(fd), inner, inner_device, _names(fd)))
                finally:
                    os.close(fd)
        finally:
            for each in stack:
                os.close(each[0])

    def _entry(self, fd: int, path: str) -> Entry | None:
        found = os.fstat(fd)
        kind = attributes.KINDS.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            return None
        link = os.readlink("", dir_fd=fd) if kind is EntryKind.SYMLINK else ""
        if kind is not EntryKind.DIRECTORY and found.st_nlink > 1:
            first = self._links.setdefault((found.st_dev, found.st_ino), path)
            if first != path:
                kind, link = EntryKind.HARD_LINK, first
        self._file_fd, self._size_bytes = fd, found.st_size
        return Entry(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
            mtime_ns=found.st_mtime_ns,
            size_bytes=found.st_size if kind is EntryKind.FILE else 0,
            link=link,
            major=os.major(found.st_rdev),
            minor=os.minor(found.st_rdev),
            xattrs=_xattrs(fd) if kind is not EntryKind.HARD_LINK else {},
        )


def _xattrs(fd: int) -> dict[str, bytes]:
    """Read the xattrs of what is pinned: flistxattr(2) takes no O_PATH descriptor, but listxattr(2) its link in /proc."""
    found = read_xattrs(f"/proc/self/fd/{fd}", follow_symlinks=True)
    return {name: value for name, value in found.items() if attributes.is_kept(name)}


def _names(fd: int) -> list[str]:
    """List a directory that is pinned, the last name first."""
    try:
        opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise
    try:
        return sorted(os.listdir(opened), key=os.fsencode, reverse=True)
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise
    finally:
        os.close(opened)
