"""Where copied files come to lie in an image: the tree that is there, and what the new layer has put over it so far.

A destination is resolved as a process in the image would, component by component: symlinks are followed inside the root, what is
missing stays as it is written. The image's own tree is only looked at; what is asked of it is remembered.
"""

import errno
import os
import stat
from dataclasses import dataclass

from lamina.api.entries import Entry, EntryKind
from lamina.archive import attributes, paths
from lamina.errors import UsageError
from lamina.linux.fs import open_in_root

_PIN = os.O_PATH | os.O_NOFOLLOW
_MAX_SYMLINKS = 40  # as the kernel's (path_resolution(7))


@dataclass(frozen=True, slots=True, kw_only=True)
class There:
    """What a path of the image is."""

    kind: EntryKind | None
    """None for a socket."""
    link: str = ""
    is_own: bool = False
    """The new layer has put it there."""

    @property
    def is_directory(self) -> bool:
        return self.kind is EntryKind.DIRECTORY


class Layout:
    """The image's tree under a new layer. Without a `base_root` nothing is known to be there."""

    def __init__(self, base_root: str | None) -> None:
        self._base_fd = -1 if base_root is None else os.open(base_root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._own: dict[str, There] = {}
        self._covered: set[str] = set()  # paths below which nothing of the base is seen any more
        self._base: dict[str, There | None] = {}
        self._written: set[str] = {""}

    def close(self) -> None:
        """Close the tree."""
        if self._base_fd >= 0:
            os.close(self._base_fd)
            self._base_fd = -1

    def look(self, path: str) -> There | None:
        """Tell what a real path is, without following it; None for nothing."""
        if not path:
            return There(kind=EntryKind.DIRECTORY)
        own = self._own.get(path)
        if own is not None:
            return own
        if self._covered and self._is_covered(path):
            return None
        if path not in self._base:
            self._base[path] = self._look_below(path)
        return self._base[path]

    def resolve(self, path: str, *, root: str = "", follow: bool = True) -> str:
        """Give the real path of one that a process whose root is the directory `root` would use; `follow` its last name, too.

        Raises `UsageError` for too many symlinks.
        """
        at, links = root, 0
        todo = [part for part in reversed(path.split("/")) if part]
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                at = paths.split(at)[0] if at != root else at
                continue
            inner = paths.join(at, part)
            found = self.look(inner) if follow or todo else None
            if found is None or found.kind is not EntryKind.SYMLINK:
                at = inner
                continue
            links += 1
            if links > _MAX_SYMLINKS:
                raise UsageError(f"'/{paths.shown(path)}' leads through too many symlinks in the image")
            if found.link.startswith("/"):
                at = root
            todo.extend(reversed(found.link.split("/")))
        return at

    def put(self, path: str, kind: EntryKind, link: str = "") -> bool:
        """Note that the layer puts something at a real path; True if a directory of the base must be hidden there."""
        before = self.look(path)
        self._own[path] = There(kind=kind, link=link, is_own=True)
        if kind is EntryKind.DIRECTORY:
            if before is not None and not before.is_directory:
                self._covered.add(path)
                self._forget_below(path)
                below = self._look_below(path)
                return before.is_own and below is not None and below.is_directory
        elif before is not None and before.is_directory:
            self._covered.add(path)
            self._forget_below(path)
        return False

    def missing_directories(self, path: str) -> list[str]:
        """List the directories that aren't there, of a real path and those above it. Raises `UsageError` for a file on the way."""
        missing: list[str] = []
        at = ""
        for part in path.split("/") if path else ():
            at = paths.join(at, part)
            found = self.look(at)
            if found is None:
                missing.append(at)
            elif not found.is_directory:
                raise UsageError(f"'/{paths.shown(at)}' is in the image and is no directory")
        return missing

    def unwritten_directories(self, path: str) -> list[Entry]:
        """Give entries for the base's directories on the way to a real path that the layer has none for yet.

        Docker's layers have them, too: a program that unpacks a layer by itself would make them up.
        """
        entries: list[Entry] = []
        at = ""
        for part in path.split("/")[:-1]:
            at = paths.join(at, part)
            if at not in self._written:
                self._written.add(at)
                entry = self._base_entry(at) if at not in self._own else None
                if entry is not None:
                    entries.append(entry)
        return entries

    def written(self, path: str) -> None:
        """Note that the layer has an entry for a directory."""
        self._written.add(path)

    def _base_entry(self, path: str) -> Entry | None:
        if self._base_fd < 0:
            return None
        try:
            fd = open_in_root(self._base_fd, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return None
            raise
        try:
            entry = attributes.entry_of(os.fstat(fd), path, attributes.content_xattrs(fd))
        finally:
            os.close(fd)
        entry.kind, entry.size_bytes, entry.major, entry.minor = EntryKind.DIRECTORY, 0, 0, 0
        return entry

    def _is_covered(self, path: str) -> bool:
        head = paths.split(path)[0]
        while head:
            if head in self._covered:
                return True
            head = paths.split(head)[0]
        return False

    def _forget_below(self, path: str) -> None:
        for other in [other for other in self._own if other.startswith(path + "/")]:
            del self._own[other]
            self._written.discard(other)

    def _look_below(self, path: str) -> There | None:
        if self._base_fd < 0:
            return None
        try:
            fd = open_in_root(self._base_fd, path, _PIN)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
                return None
            raise
        try:
            kind = attributes.KINDS.get(stat.S_IFMT(os.fstat(fd).st_mode))
            return There(kind=kind, link=os.readlink("", dir_fd=fd) if kind is EntryKind.SYMLINK else "")
        finally:
            os.close(fd)
