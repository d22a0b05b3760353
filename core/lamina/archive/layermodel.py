"""What an image's layers come to, worked out in memory from their entries: the truth that an unpacked layer is checked against.

Nothing is written and nothing is mounted, so it works on a disk that is full or read-only. It follows `apply` entry by entry; what
is compared with it is read by `treefacts`. Times of directories that no entry names are `apply`'s: kept as they were.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from typing import IO

from lamina.api.entries import Entry, EntryKind, LayerReader
from lamina.api.types import WhiteoutFormat
from lamina.archive import attributes, paths
from lamina.archive.treefacts import CHUNK_BYTES, PathFacts, difference, read_tree
from lamina.archive.upper import pick_upper
from lamina.errors import ArchiveError, LaminaError

UNKNOWN_TIME_NS = -1
_TYPES = {kind: type_ for type_, kind in attributes.KINDS.items()}
_MAX_SYMLINKS = 40


class LayerModel:
    """The tree that the layers given to `lay` so far make together, the base first.

    Two paths whose values are one object are two names of one inode. With `full_trees` a layer is a whole tree, where a hard link
    to a lower file keeps that file's other names; in an upper directory they are lost (`apply`, `_copy_up`).
    """

    def __init__(self, *, full_trees: bool) -> None:
        self.full_trees = full_trees
        self.tree: dict[str, PathFacts] = {"": _implied(UNKNOWN_TIME_NS)}
        self.below: dict[str, PathFacts] = {}
        """The tree without the last layer."""
        self.brought: set[str] = set()
        """Real paths that the last layer has put there, and the directories above them."""
        self._copied_up: set[str] = set()
        self._children: dict[str, set[str]] = {"": set()}

    def copy(self) -> "LayerModel":
        """Give another one, for another layer on top."""
        other = LayerModel(full_trees=self.full_trees)
        other.tree = dict(self.tree)
        other._children = {path: set(names) for path, names in self._children.items()}
        return other

    def lay(self, layer: LayerReader) -> None:
        """Lay the next layer on top."""
        self.below = dict(self.tree)
        self.brought, self._copied_up = set(), set()
        for entry in layer:
            self._put(entry, layer)

    def _put(self, entry: Entry, layer: LayerReader) -> None:
        if entry.kind is EntryKind.WHITEOUT:
            head, name = paths.split(entry.path)
            directory = self._real(head)
            if directory is not None:
                self._hide(paths.join(directory, name))
            return
        if entry.kind is EntryKind.OPAQUE:
            directory = self._real(entry.path)
            if directory is not None:
                self._hide_children(directory)
            return
        if not entry.path:
            self.tree[""] = _facts(entry, "")
            self.brought.add("")
            return
        head, name = paths.split(entry.path)
        directory = self._real(head, make_ns=entry.mtime_ns)
        if directory is None:
            raise ArchiveError(f"there is no place for '{paths.shown(entry.path)}'")
        path = paths.join(directory, name)
        if entry.kind is EntryKind.HARD_LINK:
            self._link(path, entry)
        elif entry.kind is EntryKind.DIRECTORY:
            found = self.tree.get(path)
            if found is None or not found.is_directory:
                self._remove(path)
            self._add(path, _facts(entry, ""))
        else:
            content = entry.link if entry.kind is EntryKind.SYMLINK else ""
            if entry.kind is EntryKind.FILE:
                content = _digest(layer.open()) if entry.size_bytes else sha256().hexdigest()
            self._remove(path)
            self._add(path, _facts(entry, content))
        self._bring(path)
        self._copied_up.discard(path)

    def _link(self, path: str, entry: Entry) -> None:
        head, name = paths.split(entry.link)
        directory = self._real(head)
        source = paths.join(directory, name) if directory is not None else ""
        found = self.tree.get(source) if directory is not None else None
        if found is None or found.is_directory:
            raise ArchiveError(
                f"the hard link '{paths.shown(entry.path)}' points to '{paths.shown(entry.link)}', which isn't there"
            )
        if source == path:
            return
        if not self.full_trees and source not in self.brought and source not in self._copied_up:
            found = replace(found)  # another inode: the copy
            self.tree[source] = found
            self._copied_up.add(source)
        self._remove(path)
        self._add(path, found)

    def _real(self, path: str, *, make_ns: int | None = None) -> str | None:
        """Find a directory's path without symlinks, the container's own view of them; with `make_ns` make what is missing."""
        found = self.tree.get(path)
        if found is not None and found.is_directory:
            return path
        current, todo, links = "", path.split("/")[::-1], 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                current = paths.split(current)[0]
                continue
            inner = paths.join(current, part)
            found = self.tree.get(inner)
            if found is None:
                if make_ns is None:
                    return None
                self._add(inner, _implied(make_ns))
            elif stat.S_ISLNK(found.type):
                links += 1
                if links > _MAX_SYMLINKS:
                    raise ArchiveError(f"the directory '{paths.shown(path)}' leads through more than {_MAX_SYMLINKS} symlinks")
                current = "" if found.content.startswith("/") else current
                todo.extend(reversed(found.content.split("/")))
                continue
            elif not found.is_directory:
                return None
            current = inner
        return current

    def _bring(self, path: str) -> None:
        while path not in self.brought:
            self.brought.add(path)
            if not path:
                return
            path = paths.split(path)[0]

    def _add(self, path: str, facts: PathFacts) -> None:
        self.tree[path] = facts
        if facts.is_directory:
            self._children.setdefault(path, set())
        head, name = paths.split(path)
        self._children[head].add(name)

    def _remove(self, path: str) -> None:
        if self.tree.pop(path, None) is None:
            return
        for name in self._children.pop(path, ()):
            self._remove(paths.join(path, name))
        head, name = paths.split(path)
        if head in self._children:
            self._children[head].discard(name)

    def _hide(self, path: str) -> None:
        if path not in self.brought:
            self._remove(path)
        elif path in self._children:
            self._hide_children(path)

    def _hide_children(self, path: str) -> None:
        for name in list(self._children.get(path, ())):
            self._hide(paths.join(path, name))

    # Comparing

    def differs_from_tree(self, root: str) -> str | None:
        """Say in what a full tree differs from the model; None if in nothing."""
        return _said(difference(_linked(self.tree), _timeless_root(read_tree(root), self.tree)))

    def differs_from_union(self, root: str) -> str | None:
        """Say in what a union, as it is mounted, differs from the model, the files' bytes and links aside."""
        expected = {path: _outline(facts) for path, facts in self.tree.items()}
        found = {path: _outline(facts) for path, facts in _timeless_root(read_tree(root, contents=()), self.tree).items()}
        return _said(difference(expected, found))

    def differs_from_upper(self, upper_dir: str, whiteouts: WhiteoutFormat) -> str | None:
        """Say in what an upper directory differs from what the last layer should be there; None if in nothing.

        What it brings must be there with every attribute and byte; nothing else may be but directories as they are below; and with
        its whiteouts it must show, over the layers below, the model's tree.
        """
        try:
            picks = pick_upper(upper_dir, whiteouts)
        except LaminaError as error:
            return error.message
        marks = {kind: {each.path for each in picks.picked if each.mark is kind} for kind in (EntryKind.WHITEOUT, EntryKind.OPAQUE)}
        gone, opaque = marks[EntryKind.WHITEOUT], marks[EntryKind.OPAQUE]
        upper = {path: facts for path, facts in read_tree(upper_dir).items() if not _is_mark(path, gone, whiteouts)}
        upper = _timeless_root(upper, self.tree)
        expected = _linked({path: self.tree[path] for path in self.brought | self._copied_up if path in self.tree})
        for path, facts in upper.items():
            if path not in expected and facts.is_directory and path in self.tree:
                expected[path] = self.tree[path]  # made on the way to a whiteout, or by no need: it hides nothing
        expected.setdefault("", self.tree[""])
        return _said(difference(expected, upper)) or _said(self._unhidden(upper, gone, opaque))

    def _unhidden(self, upper: dict[str, PathFacts], gone: set[str], opaque: set[str]) -> tuple[str, str] | None:
        """Find a path that the upper directory lets be seen from below and shouldn't, or hides and shouldn't."""
        for path in sorted(self.below.keys() | self.tree.keys(), key=paths.sort_key):
            if path in upper:
                continue
            seen = path in self.below and not _is_hidden(path, upper, gone, opaque)
            if seen != (path in self.tree):
                return path, "existence"
        return None


def _is_hidden(path: str, upper: dict[str, PathFacts], gone: set[str], opaque: set[str]) -> bool:
    """Whether an upper directory that doesn't have the path itself hides a lower layer's."""
    if path in gone:
        return True
    while path:
        path = paths.split(path)[0]
        if path in gone or path in opaque or (path in upper and not upper[path].is_directory):
            return True
    return False


def _is_mark(path: str, gone: set[str], whiteouts: WhiteoutFormat) -> bool:
    if whiteouts is WhiteoutFormat.OVERLAY:
        return path in gone
    return any(part.startswith(paths.WHITEOUT_PREFIX) for part in path.split("/"))


def _timeless_root(found: dict[str, PathFacts], model: dict[str, PathFacts]) -> dict[str, PathFacts]:
    if model[""].mtime_ns == UNKNOWN_TIME_NS and "" in found:
        found[""] = replace(found[""], mtime_ns=UNKNOWN_TIME_NS)
    return found


def _linked(tree: dict[str, PathFacts]) -> dict[str, PathFacts]:
    """Fill in `links`: names whose facts are one object are one inode's."""
    names: dict[int, list[str]] = {}
    for path, facts in tree.items():
        names.setdefault(id(facts), []).append(path)
    linked = dict(tree)
    for several in names.values():
        if len(several) > 1:
            links = tuple(sorted(several, key=paths.sort_key))
            for path in several:
                linked[path] = replace(tree[path], links=links)
    return linked


def _outline(facts: PathFacts) -> PathFacts:
    return replace(facts, content=facts.content if stat.S_ISLNK(facts.type) else "", links=())


def _said(found: tuple[str, str] | None) -> str | None:
    return None if found is None else f"'/{paths.shown(found[0])}' differs in its {found[1]}"


def _implied(mtime_ns: int) -> PathFacts:
    return PathFacts(
        type=stat.S_IFDIR, mode=0o755, owner=(0, 0), mtime_ns=mtime_ns, size_bytes=0, device=0, content="", xattrs=()
    )  # fmt: skip


def _facts(entry: Entry, content: str) -> PathFacts:
    kind = _TYPES[entry.kind]
    is_link = entry.kind is EntryKind.SYMLINK
    return PathFacts(
        type=kind,
        mode=0 if is_link else entry.mode,
        owner=(entry.uid, entry.gid),
        mtime_ns=entry.mtime_ns,
        size_bytes=len(os.fsencode(entry.link)) if is_link else entry.size_bytes,
        device=os.makedev(entry.major, entry.minor) if entry.kind in {EntryKind.CHAR_DEVICE, EntryKind.BLOCK_DEVICE} else 0,
        content=content,
        xattrs=tuple(sorted((name, value) for name, value in entry.xattrs.items() if attributes.is_kept(name))),
    )


def _digest(file: IO[bytes]) -> str:
    """Digest as `treefacts` does: the chunks that aren't all zeros, with where they stand."""
    digest, at = sha256(), 0
    with file:
        for data in _chunks(file.read):
            if data.strip(b"\0"):
                digest.update(b"%d:" % at + data)
            at += len(data)
    return digest.hexdigest()


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Cut what is read into chunks of one size, however little a call gives."""
    while True:
        parts, left = [], CHUNK_BYTES
        while left and (data := read(left)):
            parts.append(data)
            left -= len(data)
        if parts:
            yield b"".join(parts)
        if left:
            return
