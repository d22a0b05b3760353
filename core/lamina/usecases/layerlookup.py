"""One path in a stack of layers: what each layer has there, which of them is seen, and what the others are to it.

Two kinds of stack. Layers of changes lie over each other: what a layer hides (whiteouts, opaque directories, a file where a
directory was) is read in its whiteout format. Full trees hold everything: what a layer did is found by comparing it with the one
below. Only directories' own files are read; nothing is mounted here and nothing changed.
"""

import contextlib
import filecmp
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lamina.api.types import WhiteoutFormat
from lamina.errors import LaminaError
from lamina.linux.fs import read_xattrs

_AUFS_PREFIX, _AUFS_OPAQUE = ".wh.", ".wh..wh..opq"
_OVERLAY_OPAQUE = "trusted.overlay.opaque"
_LINKS_MAX = 40
"""How many symlinks a path may lead through, as in the kernel (path_resolution(7))."""


class Has(StrEnum):
    """What a layer has at a path."""

    NOTHING = "nothing"
    FILE = "file"
    DIRECTORY = "directory"
    OPAQUE = "opaque directory"
    """A directory that hides all of the ones below it."""
    SYMLINK = "symlink"
    DEVICE = "device"
    FIFO = "fifo"
    SOCKET = "socket"
    WHITEOUT = "whiteout"
    """It says that the name is gone."""
    DELETED = "deleted"
    """A full tree in which the name isn't any more."""
    SAME = "same as below"
    """A full tree's copy of what the layer below has."""


class Role(StrEnum):
    """What a layer's entry is to the one who looks."""

    SEEN = "seen"
    MERGED = "merged"
    """A directory below the one that is seen: its names are seen too."""
    HIDDEN = "hidden"
    HIDES = "hides"
    """Nothing is seen, and this layer is why."""
    COPY = "copy"
    NONE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlace:
    """Where a layer can be read: its directory of changes, or its whole tree."""

    key: str
    directory: str
    form: WhiteoutFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one layer has at a path."""

    key: str
    has: Has
    role: Role = Role.NONE
    found: os.stat_result | None = None
    host_path: str = ""
    link: str = ""
    hides_below: bool = False
    by: str = ""
    """The path at which it hides, if that is one further up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """A path's whole story, the topmost layer first. `path` has no symlink in it but perhaps its last name."""

    path: str
    layers: tuple[Found, ...]

    @property
    def seen(self) -> Found | None:
        """The layer's entry that is seen, None if there is nothing at the path."""
        return next((each for each in self.layers if each.role is Role.SEEN), None)


def look_up(places: Sequence[LayerPlace], path: str) -> Lookup:
    """Look a path up, the symlinks on the way followed within the layers. Raises `LaminaError` for a loop of them."""
    todo = [part for part in path.split("/") if part and part != "."][::-1]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            done = done[:-1]
            continue
        if todo:
            seen = Lookup(path="", layers=_layers(places, (*done, part))).seen
            if seen is not None and seen.has is Has.SYMLINK:
                links += 1
                if links > _LINKS_MAX:
                    raise LaminaError(f"'{path}' leads through too many symlinks")
                if seen.link.startswith("/"):
                    done = []
                todo += [each for each in seen.link.split("/") if each and each != "."][::-1]
                continue
        done.append(part)
    return Lookup(path="/" + "/".join(done), layers=_layers(places, tuple(done)))


def _layers(places: Sequence[LayerPlace], parts: tuple[str, ...]) -> tuple[Found, ...]:
    looked = [_look(place, parts) for place in places]
    return _of_trees(looked, places) if places and places[0].form is WhiteoutFormat.NONE else _of_changes(looked)


def _of_changes(looked: Sequence[Found]) -> tuple[Found, ...]:
    """Say what each layer of changes is to the looker, from the top down."""
    result: list[Found] = []
    seen: Found | None = None
    hidden = False
    for each in looked:
        role = Role.NONE
        if each.has not in {Has.NOTHING, Has.WHITEOUT}:
            if hidden:
                role = Role.HIDDEN
            elif seen is None:
                role, seen = Role.SEEN, each
            elif is_directory(seen) and is_directory(each):
                role = Role.MERGED
            else:
                role, hidden = Role.HIDDEN, True  # a directory over something else
        elif each.hides_below:
            role = Role.HIDDEN if hidden else Role.HIDES
        hidden = hidden or each.hides_below
        result.append(replace(each, role=role))
    return tuple(result)


def _of_trees(looked: Sequence[Found], places: Sequence[LayerPlace]) -> tuple[Found, ...]:
    """Say the same of full trees, from the bottom up: what a layer did is what differs from the one below."""
    result: list[Found] = []
    below = Found(key="", has=Has.NOTHING)
    for each in reversed(looked):
        now = each
        if each.has is Has.NOTHING and below.has is not Has.NOTHING:
            now = replace(each, has=Has.DELETED, hides_below=True)
        elif each.has is not Has.NOTHING and _same(each, below):
            now = replace(each, has=Has.SAME, role=Role.COPY)
        result.insert(0, now)
        below = each
    gone = looked[0].has is Has.NOTHING if looked else True
    seen = False
    for index, each in enumerate(result):
        if each.has in {Has.NOTHING, Has.SAME}:
            continue
        if each.has is Has.DELETED:
            role = Role.HIDES if gone and not seen else Role.HIDDEN
        else:
            role = Role.HIDDEN if gone or seen else Role.SEEN
        seen = seen or role in {Role.SEEN, Role.HIDES}
        result[index] = replace(each, role=role)
    del places
    return tuple(result)


def is_directory(found: Found) -> bool:
    """Whether it is a directory, opaque or not."""
    return found.found is not None and stat.S_ISDIR(found.found.st_mode)


def _look(place: LayerPlace, parts: Sequence[str]) -> Found:
    """See what one layer has by itself, and whether it hides what lies below."""
    hides, by = False, ""
    with contextlib.ExitStack() as stack:
        fd = os.open(place.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        found, has = os.fstat(fd), Has.DIRECTORY
        for index, part in enumerate(parts):
            path, is_last = "/" + "/".join(parts[: index + 1]), index == len(parts) - 1
            if _is_whiteout(fd, part, place.form):
                return Found(
                    key=place.key, has=Has.WHITEOUT if is_last else Has.NOTHING, hides_below=True, by="" if is_last else path
                )
            try:
                found = os.stat(part, dir_fd=fd, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                return Found(key=place.key, has=Has.NOTHING, hides_below=hides, by=by)
            has = _kind(found)
            if has is not Has.DIRECTORY:
                if not is_last:  # a file, or a symlink, where the layers below may have a directory
                    return Found(key=place.key, has=Has.NOTHING, hides_below=True, by=path)
                link = os.readlink(part, dir_fd=fd) if has is Has.SYMLINK else ""
                return Found(key=place.key, has=has, found=found, link=link, hides_below=True, host_path=f"{place.directory}{path}")
            fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            stack.callback(os.close, fd)
            if _is_opaque(fd, place.form):
                hides, by = True, "" if is_last else path
                has = Has.OPAQUE
    return Found(
        key=place.key, has=has, found=found, hides_below=hides, by=by,
        host_path=place.directory + "".join(f"/{part}" for part in parts),
    )  # fmt: skip


def _kind(found: os.stat_result) -> Has:
    kinds = {
        stat.S_IFREG: Has.FILE, stat.S_IFDIR: Has.DIRECTORY, stat.S_IFLNK: Has.SYMLINK, stat.S_IFIFO: Has.FIFO,
        stat.S_IFSOCK: Has.SOCKET,
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(found.st_mode), Has.DEVICE)


def _is_whiteout(fd: int, name: str, form: WhiteoutFormat) -> bool:
    try:
        if form is WhiteoutFormat.AUFS:
            os.stat(_AUFS_PREFIX + name, dir_fd=fd, follow_symlinks=False)
            return True
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:  # not there, or too long with the prefix
        return False
    return form is WhiteoutFormat.OVERLAY and stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _is_opaque(fd: int, form: WhiteoutFormat) -> bool:
    if form is WhiteoutFormat.OVERLAY:
        return read_xattrs(fd).get(_OVERLAY_OPAQUE) == b"y"
    if form is WhiteoutFormat.AUFS:
        with contextlib.suppress(FileNotFoundError):
            os.stat(_AUFS_OPAQUE, dir_fd=fd, follow_symlinks=False)
            return True
    return False


def _same(one: Found, other: Found) -> bool:
    """Whether two trees have the same thing: by attributes, xattrs and bytes. A directory's mtime moves with its names."""
    if one.found is None or other.found is None or one.has is not other.has or one.link != other.link:
        return False
    names = ["st_mode", "st_uid", "st_gid"]
    names += [] if is_directory(one) else ["st_mtime_ns", "st_size", "st_rdev"]
    if any(getattr(one.found, name) != getattr(other.found, name) for name in names):
        return False
    if read_xattrs(one.host_path) != read_xattrs(other.host_path):
        return False
    return one.has is not Has.FILE or filecmp.cmp(one.host_path, other.host_path, shallow=False)


def other_names(directory: str, found: os.stat_result, path: str) -> Iterator[str]:
    """Find the other names of a file in a layer, by its inode."""
    left = found.st_nlink - 1
    for folder, _directories, files in os.walk(directory):
        if left <= 0:
            return
        for name in files:
            host_path = os.path.join(folder, name)
            inner = host_path[len(directory) :]
            with contextlib.suppress(OSError):
                if inner != path and os.lstat(host_path).st_ino == found.st_ino:
                    left -= 1
                    if not name.startswith(".wh.."):
                        yield inner
