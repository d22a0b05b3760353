"""Chosen paths of a tree as a layer's entries (`lamina.api.entries.LayerReader`), with no archive between.

It is what moves a layer from one driver to another.

Not here: which paths (`usecases/migrate.py`, `store/docker_data.py`), and laying them down (`apply`). Sockets have no entry;
whoever picks makes them afterwards, by `make_sockets`.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from lamina.api.entries import Entry, EntryKind
from lamina.archive import attributes, paths
from lamina.errors import LaminaError
from lamina.linux.fs import copy_contents

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """One path: as the tree has it, or as another name of the path `link`, or a mark (`WHITEOUT`, `OPAQUE`)."""

    path: str
    link: str = ""
    mark: EntryKind | None = None


class PickedEntries:
    """Reads the paths in the order given; those above a path must be real directories of the tree."""

    def __init__(self, root: str, picked: Sequence[Picked]) -> None:
        self._root = root
        self._picked = picked
        self._open: list[tuple[str, int]] = []
        self._name, self._size_bytes = "", 0

    def __iter__(self) -> Iterator[Entry]:
        self._open = [("", os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))]
        try:
            for one in self._picked:
                if one.mark is not None:
                    yield Entry(path=one.path, kind=one.mark)
                else:
                    yield self._entry(one)
        finally:
            for _path, fd in self._open:
                os.close(fd)
            self._open.clear()

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
        return os.open(self._name, _FILE, dir_fd=self._open[-1][1])

    def _entry(self, one: Picked) -> Entry:
        head, name = paths.split(one.path)
        dir_fd = self._directory(head)
        self._name = name or "."
        found = os.stat(self._name, dir_fd=dir_fd, follow_symlinks=False)
        kind = EntryKind.HARD_LINK if one.link else attributes.KINDS.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            raise LaminaError(f"'{paths.shown(one.path)}' is a socket, which has no entry")
        xattrs = {} if one.link else attributes.content_xattrs(f"/proc/self/fd/{dir_fd}/{name}" if name else dir_fd)
        entry = attributes.entry_of(found, one.path, xattrs)
        entry.kind = kind
        entry.link = os.readlink(name, dir_fd=dir_fd) if kind is EntryKind.SYMLINK else one.link
        self._size_bytes = found.st_size
        if kind is not EntryKind.FILE:
            entry.size_bytes = 0
        return entry

    def _directory(self, path: str) -> int:
        """Open a directory by way of those above it, which stay open for what comes next."""
        while self._open[-1][0] and not (path + "/").startswith(self._open[-1][0] + "/"):
            os.close(self._open.pop()[1])
        at, fd = self._open[-1]
        for part in path[len(at) :].split("/"):
            if part:
                fd = os.open(part, _DIRECTORY, dir_fd=fd)
                at = paths.join(at, part)
                self._open.append((at, fd))
        return fd


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """A socket to be made: its attributes, the time of the directory that it is in, and the name of which it is another, if any."""

    path: str
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    directory_mtime_ns: int
    xattrs: tuple[tuple[str, bytes], ...] = ()
    link: str = ""


def make_sockets(root: str, sockets: Sequence[Socket]) -> None:
    """Make sockets in a tree, and put the times of their directories back."""
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for each in sockets:
            head, name = paths.split(each.path)
            dir_fd = _open_below(root_fd, head)
            try:
                if each.link:
                    link_head, link_name = paths.split(each.link)
                    link_fd = _open_below(root_fd, link_head)
                    try:
                        os.link(link_name, name, src_dir_fd=link_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
                    finally:
                        os.close(link_fd)
                else:
                    os.mknod(name, stat.S_IFSOCK | 0o600, dir_fd=dir_fd)
                    entry = Entry(
                        path=each.path,
                        kind=EntryKind.FIFO,  # any that is no symlink
                        mode=each.mode,
                        uid=each.owner[0],
                        gid=each.owner[1],
                        mtime_ns=each.mtime_ns,
                        xattrs=dict(each.xattrs),
                    )
                    attributes.drop_inherited(f"/proc/self/fd/{dir_fd}/{name}", entry.xattrs)
                    attributes.set_on_name(dir_fd, name, entry)
                os.utime(dir_fd, ns=(each.directory_mtime_ns, each.directory_mtime_ns))
            finally:
                os.close(dir_fd)
    finally:
        os.close(root_fd)


def _open_below(root_fd: int, path: str) -> int:
    fd = os.dup(root_fd)
    for part in path.split("/") if path else ():
        deeper = os.open(part, _DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    return fd
