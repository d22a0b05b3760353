"""Gathered sources as a layer's entries, laid out over the image's tree by Docker's rules.

Those rules (BuildKit's `fsutil/copy`): a source directory is merged into the destination, file by file, and what is in it brings
its own attributes along, also to directories that are there; the destination itself keeps its own if it is there, or is made with
0755 (or --chmod's digits) and --chown's owner, as all directories above it that are missing. A file takes a file's place, never a
directory's, nor a directory a file's. An archive is different: there whatever is in the way is replaced, and it says whose its
files are, unless --chown does.
"""

import contextlib
import io
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from lamina.api.entries import Entry, EntryKind
from lamina.archive import attributes, paths
from lamina.build.contenthash import CAPABILITY, CHUNK_BYTES, facts
from lamina.build.filemode import FileMode
from lamina.build.layout import Layout
from lamina.build.ownership import resolve_owner
from lamina.build.selection import Found
from lamina.dockerfile.errors import DockerfileError
from lamina.errors import LaminaError, UsageError
from lamina.linux.fs import copy_contents, open_in_root

if TYPE_CHECKING:
    from lamina.archive.layer import LayerTar
    from lamina.build.copying import Gathered, Part

_WHITEOUT_HINT = "rename it: in a layer such a name means that another file is deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """An entry, and what its bytes are read from if they aren't an archive's."""

    entry: Entry
    part: "Part | None" = None
    found: Found | None = None


class CopyLayer:
    """The layer of one COPY or ADD, as `lamina.api.entries.LayerReader`. It is iterated once."""

    def __init__(self, gathered: "Gathered", *, base_root: str | None, working_dir: str, mtime_limit_ns: int | None) -> None:
        self._gathered = gathered
        self._copy = gathered.copy
        self._base_root = base_root
        self._destination = _destination(gathered.copy.destination, working_dir)
        self._limit_ns = mtime_limit_ns
        self._owner: tuple[int, int] | None = None
        self._mode = FileMode.parse(gathered.copy.chmod) if gathered.copy.chmod else None
        self._now_ns = time.time_ns()
        self._layout: Layout
        self._current: _Placed | None = None
        self._tar: LayerTar | None = None
        self._roots: dict[str, int] = {}

    def __iter__(self) -> Iterator[Entry]:
        from lamina.build.copying import PartKind

        self._layout = Layout(self._base_root)
        try:
            with self._explaining():
                if self._copy.chown:
                    self._owner = resolve_owner(self._copy.chown, self._base_root)
                placed: Iterable[_Placed] = self._placed()
                if all(part.kind is not PartKind.ARCHIVE for part in self._gathered.parts):
                    placed = _settled(list(placed))
                for one in placed:
                    self._current = one
                    yield self._limited(one.entry)
        finally:
            self._current = None
            self._layout.close()
            for fd in self._roots.values():
                os.close(fd)
            self._roots.clear()

    def copy_to(self, fd: int) -> None:
        """Write the current file's bytes to a descriptor, holes left as holes."""
        if self._tar is not None:
            with self._explaining():
                self._tar.copy_to(fd)
            return
        part, one = self._now()
        if part.document is not None:
            data = part.document
            while data:
                data = data[os.write(fd, data) :]
            return
        source = self._opened(part, one)
        try:
            if facts(os.fstat(source)) != one.facts:
                raise self._changed(one)
            copy_contents(source, fd, one.size_bytes)
            if facts(os.fstat(source)) != one.facts:
                raise self._changed(one)
        finally:
            os.close(source)

    def open(self) -> IO[bytes]:
        """Read the current file's bytes instead of copying them.

        They are what they were when they were gathered, or the end raises an error.
        """
        if self._tar is not None:
            return io.BufferedReader(_Explained(self._tar.open(), self._explaining), CHUNK_BYTES)
        part, one = self._now()
        if part.document is not None:
            return io.BytesIO(part.document)
        return io.BufferedReader(_Checked(self._opened(part, one), one, self._changed(one)), CHUNK_BYTES)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Say of what is wrong in an archive which instruction it is for."""
        try:
            yield
        except DockerfileError:
            raise
        except LaminaError as error:
            raise self._gathered.error(error.message, error.hint) from error

    def _now(self) -> "tuple[Part, Found]":
        now = self._current
        if now is None or now.part is None or now.found is None:
            raise ValueError("there is no current file")
        return now.part, now.found

    def _opened(self, part: "Part", one: Found) -> int:
        """Open a file that was gathered."""
        path = part.tree.path
        if path not in self._roots:
            self._roots[path] = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return open_in_root(self._roots[path], one.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise self._changed(one) from error

    def _changed(self, one: Found) -> LaminaError:
        return self._gathered.error(
            f"'{paths.shown(one.source)}' was changed while it was being copied", "build again when nothing writes there"
        )

    def _placed(self) -> Iterator[_Placed]:
        from lamina.build.copying import PartKind

        kinds = {PartKind.FILE: self._file, PartKind.CONTENTS: self._contents, PartKind.ARCHIVE: self._archive}
        for part in self._gathered.parts:
            yield from kinds[part.kind](part)

    def _file(self, part: "Part") -> Iterator[_Placed]:
        if self._destination.endswith("/"):
            yield from self._make_directories(self._layout.resolve(self._destination))
        target = self._layout.resolve(self._destination)
        found = self._layout.look(target)
        if found is not None and found.is_directory:
            if not part.name:
                raise UsageError(f"'/{target}' is a directory, and the source has no name", hint="name the file in the destination")
            target = paths.join(target, part.name)
        yield from self._make_directories(paths.split(target)[0])
        yield from self._put(part, part.found[0], target, {})

    def _contents(self, part: "Part") -> Iterator[_Placed]:
        target = self._layout.resolve(self._destination)
        yield from self._make_directories(target, mtime_ns=part.found[0].mtime_ns)
        made: dict[str, str] = {}
        for one in part.found[1:]:
            yield from self._put(part, one, paths.join(target, one.path), made)

    def _put(self, part: "Part", one: Found, target: str, made: dict[str, str]) -> Iterator[_Placed]:
        """Put one path of a source at a real path of the image, whose directory is there."""
        there = self._layout.look(target)
        kind = attributes.KINDS[stat.S_IFMT(one.mode)]
        if there is not None and there.is_directory != one.is_directory:
            if one.is_directory:
                raise UsageError(
                    f"the directory '{paths.shown(one.source)}' can't be copied to '/{paths.shown(target)}', which is no directory"
                )
            raise UsageError(
                f"'{paths.shown(one.source or part.name)}' can't be copied to '/{paths.shown(target)}': that is a directory"
            )
        mode, (uid, gid) = stat.S_IMODE(one.mode), self._owner or self._own_owner(one)
        if kind is EntryKind.SYMLINK:
            mode = 0o777
        elif self._mode is not None:
            mode = self._mode.apply(mode, is_directory=one.is_directory)
        entry = Entry(
            path=target, kind=kind, mode=mode, uid=uid, gid=gid, mtime_ns=one.mtime_ns, size_bytes=one.size_bytes,
            link=one.content if kind is EntryKind.SYMLINK else "", major=os.major(one.device), minor=os.minor(one.device),
            xattrs={CAPABILITY: one.capability} if one.capability else {},
        )  # fmt: skip
        if one.link is not None and one.link in made:
            entry = replace(entry, kind=EntryKind.HARD_LINK, link=made[one.link], size_bytes=0, xattrs={})
        made[one.path] = target
        yield from self._given(entry, part, one)

    def _own_owner(self, one: Found) -> tuple[int, int]:
        """Whose a file is without --chown: root's if it comes from the context, else whose it was."""
        return (one.uid, one.gid) if self._copy.from_ else (0, 0)

    def _archive(self, part: "Part") -> Iterator[_Placed]:
        from lamina.build.unpacking import opened_archive
        from lamina.store.layer_ingest import DEFAULT_MAX_BYTES

        one = part.found[0]
        top = self._layout.resolve(self._destination)
        yield from self._make_directories(top)
        with opened_archive(part.tree.path, one.source, limit_bytes=DEFAULT_MAX_BYTES) as tar:
            self._tar = tar
            try:
                for entry in tar:
                    yield from self._unpacked(entry, top)
            finally:
                self._tar = None
        fd = self._opened(part, one)
        try:
            if facts(os.fstat(fd)) != one.facts:
                raise self._changed(one)
        finally:
            os.close(fd)

    def _unpacked(self, entry: Entry, top: str) -> Iterator[_Placed]:
        head, name = paths.split(entry.path)
        directory = self._layout.resolve(head, root=top)
        if head:
            missing = self._layout.missing_directories(directory)
            for path in missing:
                yield from self._given(Entry(path=path, kind=EntryKind.DIRECTORY, mode=0o755, mtime_ns=self._now_ns))
        target = paths.join(directory, name) if name else top
        link = entry.link
        if entry.kind is EntryKind.HARD_LINK:
            link_head, link_name = paths.split(entry.link)
            link = paths.join(self._layout.resolve(link_head, root=top), link_name)
            there = self._layout.look(link)
            if there is None or there.is_directory:
                raise UsageError(
                    f"the archive's hard link '{paths.shown(entry.path)}' points to '{paths.shown(entry.link)}', which is no file"
                )
            if link == target:
                return
        uid, gid = self._owner or (entry.uid, entry.gid)
        xattrs = {key: value for key, value in entry.xattrs.items() if key == CAPABILITY}
        yield from self._given(replace(entry, path=target, link=link, uid=uid, gid=gid, xattrs=xattrs))

    def _make_directories(self, path: str, mtime_ns: int | None = None) -> Iterator[_Placed]:
        """Make a directory and those above it, so far as they aren't there. `mtime_ns` is the last one's time."""
        mode = 0o755 if self._mode is None or self._mode.octal is None else self._mode.octal & 0o777
        uid, gid = self._owner or (0, 0)
        for missing in self._layout.missing_directories(path):
            time_ns = mtime_ns if mtime_ns is not None and missing == path else self._now_ns
            yield from self._given(Entry(path=missing, kind=EntryKind.DIRECTORY, mode=mode, uid=uid, gid=gid, mtime_ns=time_ns))

    def _given(self, entry: Entry, part: "Part | None" = None, found: Found | None = None) -> Iterator[_Placed]:
        """Give an entry, and before it those of the base's directories that it lies in."""
        if any(name.startswith(paths.WHITEOUT_PREFIX) for name in entry.path.split("/")):
            raise UsageError(f"'/{paths.shown(entry.path)}' can't be in an image", hint=_WHITEOUT_HINT)
        if len(os.fsencode(entry.path)) > paths.MAX_PATH_BYTES:
            raise UsageError(f"'/{paths.shown(entry.path)}' is a longer path than the kernel takes")
        for above in self._layout.unwritten_directories(entry.path):
            yield _Placed(entry=above)
        hides = bool(entry.path) and self._layout.put(entry.path, entry.kind, entry.link)
        if entry.kind is EntryKind.DIRECTORY:
            self._layout.written(entry.path)
        yield _Placed(entry=entry, part=part, found=found)
        if hides:
            yield _Placed(entry=Entry(path=entry.path, kind=EntryKind.OPAQUE))

    def _limited(self, entry: Entry) -> Entry:
        if self._limit_ns is None or entry.mtime_ns <= self._limit_ns:
            return entry
        return replace(entry, mtime_ns=self._limit_ns)


def _settled(placed: list[_Placed]) -> Iterator[_Placed]:
    """Leave out what a later source replaces, but not the bytes that hard links have; a directory stays before what is in it."""
    last = {one.entry.path: one for one in placed}
    linked = {one.entry.link for one in placed if one.entry.kind is EntryKind.HARD_LINK}
    given: set[str] = set()
    for one in placed:
        path = one.entry.path
        if one.entry.kind is EntryKind.DIRECTORY:
            if path not in given:
                given.add(path)
                yield last[path]
        elif last[path] is one or path in linked:
            yield one


class _Explained(io.RawIOBase):
    """An archive's member, whose errors say which instruction they are for."""

    def __init__(self, inner: IO[bytes], explaining: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        super().__init__()
        self._inner = inner
        self._explaining = explaining

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        with self._explaining():
            return self._inner.readinto(buffer)  # type: ignore[attr-defined, no-any-return]

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()


class _Checked(io.RawIOBase):
    """A file that must have, byte for byte, what was read when it was gathered."""

    def __init__(self, fd: int, one: Found, error: LaminaError) -> None:
        from hashlib import sha256

        super().__init__()
        self._fd = fd
        self._one = one
        self._error = error
        self._hash = sha256()
        self._left = one.size_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        if self._left == 0:
            return 0
        view = memoryview(buffer).cast("B")[: self._left]  # type: ignore[arg-type]
        count = os.readv(self._fd, [view])
        self._hash.update(view[:count])
        self._left -= count
        if count == 0 or (self._left == 0 and (self._hash.hexdigest() != self._one.content or os.read(self._fd, 1))):
            raise self._error
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def _destination(path: str, working_dir: str) -> str:
    """Make the destination absolute; a slash at its end stays, and says that it is a directory."""
    import posixpath

    whole = posixpath.normpath(posixpath.join("/", working_dir, path))
    whole = "/" + whole.lstrip("/")
    is_directory = path in {"", ".", ".."} or path.endswith(("/", "/.", "/.."))
    return whole + "/" if is_directory and whole != "/" else whole
