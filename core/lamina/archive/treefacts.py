"""All that a layer has to keep of every path of a tree, read for a comparison: the proof that two trees are the same.

More than `changes` asks: sockets, which inodes have several names, the root's own time. Not here: what a layer changes
(`changes`), and reading a tree as entries (`treereader`, `picked`).
"""

import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256

from lamina.archive import attributes, paths
from lamina.errors import LaminaError
from lamina.linux.fs import data_extents

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFacts:
    """One path. The field names are the words in which a difference is said."""

    type: int
    """As `stat.S_IFMT` gives it."""
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    size_bytes: int
    device: int
    content: str
    """A file's digest, a symlink's text."""
    xattrs: tuple[tuple[str, bytes], ...]
    links: tuple[str, ...] = ()
    """All names of an inode that has several in the tree, its own among them; of any other none."""

    @property
    def is_socket(self) -> bool:
        return stat.S_ISSOCK(self.type)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.type)


def read_tree(root: str, *, contents: Collection[str] | None = None) -> dict[str, PathFacts]:
    """Read every path below `root`, "" for itself, by descriptors, nothing followed.

    `contents` are the files whose bytes matter, None for all; the others aren't opened. The tree must not change meanwhile.
    """
    return _Reading(contents=contents).read(root)


def digest_of(facts: Mapping[str, PathFacts]) -> str:
    """One digest for a whole tree: equal trees have the same."""
    digest = sha256()
    for path in sorted(facts, key=os.fsencode):
        digest.update(os.fsencode(f"{path}\0{facts[path]!r}\n"))
    return digest.hexdigest()


def difference(one: Mapping[str, PathFacts], other: Mapping[str, PathFacts]) -> tuple[str, str] | None:
    """Find the first path, by order of names, in which two trees differ: the path, and in what. None if they are equal."""
    for path in sorted(one.keys() | other.keys(), key=paths.sort_key):
        mine, its = one.get(path), other.get(path)
        if mine is None or its is None:
            return path, "existence"
        if mine != its:
            words = [each.name for each in fields(PathFacts) if getattr(mine, each.name) != getattr(its, each.name)]
            return path, " and ".join(words)
    return None


class _Reading:
    """One walk."""

    def __init__(self, *, contents: Collection[str] | None) -> None:
        self._contents = contents
        self._facts: dict[str, PathFacts] = {}
        self._names: dict[tuple[int, int], list[str]] = {}
        self._digests: dict[tuple[int, int], str] = {}

    def read(self, root: str) -> dict[str, PathFacts]:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # One descriptor and one list of names for each level, as everywhere here: recursion would bind the depth.
        stack = [("", fd, _names(fd))]
        try:
            self._add("", os.fstat(fd), fd, "")
            while stack:
                path, fd, names = stack[-1]
                if not names:
                    os.close(stack.pop()[1])
                    continue
                name = names.pop()
                inner = paths.join(path, name)
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                self._add(inner, found, fd, name)
                if stat.S_ISDIR(found.st_mode):
                    if len(stack) >= paths.MAX_DEPTH:
                        raise LaminaError(f"'{paths.shown(inner)}' lies deeper than {paths.MAX_DEPTH} directories")
                    inner_fd = os.open(name, _DIRECTORY, dir_fd=fd)
                    stack.append((inner, inner_fd, _names(inner_fd)))
        finally:
            for _path, fd, _left in stack:
                os.close(fd)
        return self._linked()

    def _linked(self) -> dict[str, PathFacts]:
        from dataclasses import replace

        for names in self._names.values():
            if len(names) > 1:
                links = tuple(sorted(names, key=paths.sort_key))
                for name in names:
                    self._facts[name] = replace(self._facts[name], links=links)
        return self._facts

    def _add(self, path: str, found: os.stat_result, dir_fd: int, name: str) -> None:
        kind = stat.S_IFMT(found.st_mode)
        inode = (found.st_dev, found.st_ino)
        several = kind != stat.S_IFDIR and found.st_nlink > 1
        content = ""
        if kind == stat.S_IFLNK:
            content = os.readlink(name, dir_fd=dir_fd)
        elif kind == stat.S_IFREG and (self._contents is None or path in self._contents):
            content = (self._digests.get(inode, "") if several else "") or _digest(dir_fd, name, found.st_size)
        if several:
            self._names.setdefault(inode, []).append(path)
            self._digests[inode] = content
        xattrs = attributes.content_xattrs(f"/proc/self/fd/{dir_fd}/{name}" if name else dir_fd)
        self._facts[path] = PathFacts(
            type=kind,
            mode=stat.S_IMODE(found.st_mode) if kind != stat.S_IFLNK else 0,
            owner=(found.st_uid, found.st_gid),
            mtime_ns=found.st_mtime_ns,
            size_bytes=found.st_size if kind in {stat.S_IFREG, stat.S_IFLNK} else 0,
            device=found.st_rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0,
            content=content,
            xattrs=tuple(sorted(xattrs.items())),
        )


def _names(fd: int) -> list[str]:
    return sorted(os.listdir(fd), key=os.fsencode, reverse=True)


def _digest(dir_fd: int, name: str, size_bytes: int) -> str:
    """Digest a file's data and where it stands: a hole of any size costs nothing, and equals zeros."""
    digest = sha256()
    fd = os.open(name, _FILE, dir_fd=dir_fd)
    try:
        done = 0
        for start, length in data_extents(fd, size_bytes):
            at = max(done, start - start % CHUNK_BYTES)
            while at < start + length:
                data = os.pread(fd, CHUNK_BYTES, at)
                if data.strip(b"\0"):
                    digest.update(b"%d:" % at + data)
                at += CHUNK_BYTES
            done = at
    finally:
        os.close(fd)
    return digest.hexdigest()
