"""Which paths of a tree a source of COPY or ADD means, and what each of them is.

A tree is the build context, or a stage's or image's root. Source names are resolved in it component by component, symlinks
included, and never lead out of it; what is below a source is walked by descriptors and nothing there is followed. So it makes no
difference what a context that was sent by somebody holds. Rules: Docker's (BuildKit's `solver/llbsolver/file` and `fsutil/copy`).
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lamina.archive import paths
from lamina.build.contenthash import ContentHashes, facts
from lamina.errors import LaminaError, NotFoundError, UsageError
from lamina.linux.fs import open_in_root

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIN = os.O_PATH | os.O_NOFOLLOW
_MAX_SYMLINKS = 40  # as the kernel's (path_resolution(7))


def never(_path: str) -> bool:
    """Hide nothing."""
    return False


def always(_path: str) -> bool:
    """The answer that is right for every tree, and costs a look into each hidden directory."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTree:
    """A directory that sources are looked for in: the context, a stage's or image's mounted tree, or what was downloaded."""

    path: str
    described: str
    """What messages call it, such as `the build context`."""
    hides: Callable[[str], bool] = never
    """Whether a path (relative, no leading slash) isn't there as far as a build is concerned: .dockerignore."""
    may_unhide_below: Callable[[str], bool] = always
    """Whether there could be a path below a hidden directory that isn't hidden."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One path: `path` below the source that it belongs to ("" is the source itself), `source` in the tree."""

    path: str
    source: str
    mode: int
    """With the file's type, as stat gives it."""
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    device: int
    content: str
    """A file's digest, a symlink's text."""
    capability: bytes
    link: str | None
    """The path of which this is another name."""
    facts: tuple[int, int, int, int, int]

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


class Filter:
    """Which paths below a source are copied: `--exclude`, and with `--parents` the pattern. Paths are relative to the source."""

    def __init__(self, *, excludes: Sequence[str] = (), include: str = "") -> None:
        from lamina.dockerfile.errors import DockerfileError
        from lamina.dockerfile.globs import Glob
        from lamina.dockerfile.ignore import Ignore

        # Docker reads both as lines of .dockerignore, where `#` would begin a comment.
        lines = [f"./{pattern}" if pattern.startswith("#") else pattern for pattern in excludes]
        try:
            self._excludes = Ignore.parse("\n".join(lines), file_name="--exclude") if lines else None
        except DockerfileError as error:
            raise UsageError(error.message.replace(f"--exclude:{error.line}:", "--exclude:"), hint=error.hint) from None
        self._include = Glob.parse(include) if include else None
        self._include_parts = include.split("/")

    def excludes(self, path: str) -> bool:
        """Whether `--exclude` names a path, or what it is in."""
        return self._excludes is not None and self._excludes.hides(path)

    def may_unexclude_below(self, path: str) -> bool:
        """Whether a `!` of `--exclude` may bring something back below an excluded directory."""
        return self._excludes is not None and self._excludes.may_unhide_below(path)

    def includes(self, path: str) -> bool:
        """Whether a path is meant by itself; what is below one that is, is meant too."""
        return self._include is None or self._include.matches(path)

    def may_include_below(self, path: str) -> bool:
        """Whether something below a directory that isn't meant itself may be."""
        from lamina.dockerfile.ignore import glob_match

        for wanted, part in zip(self._include_parts, path.split("/"), strict=False):
            if "**" in wanted or "[" in wanted:  # a set may match a slash
                return True
            if not glob_match(wanted, part):
                return False
        return len(self._include_parts) > path.count("/") + 1


class Selector:
    """Finds and reads paths of one tree. Close it, or use it as a context manager."""

    def __init__(self, tree: SourceTree, hashes: ContentHashes) -> None:
        self.tree = tree
        self._hashes = hashes
        self._root_fd = os.open(tree.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the tree."""
        os.close(self._root_fd)

    def __enter__(self) -> "Selector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def real_path(self, path: str) -> str:
        """Resolve symlinks inside the tree. Raises `NotFoundError` for what isn't there, or hidden."""
        at, links = "", 0
        todo = [part for part in reversed(path.split("/")) if part]
        last_link = ""
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                at = paths.split(at)[0]
                continue
            inner = paths.join(at, part)
            try:
                fd = open_in_root(self._root_fd, inner, _PIN)
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
                    raise
                raise self._missing(path, at, part, last_link) from None
            try:
                found = os.fstat(fd)
                if self._is_hidden(inner, found):
                    raise NotFoundError(
                        f"'{paths.shown(path)}' isn't in {self.tree.described}", hint="it is there, but .dockerignore leaves it out"
                    )
                if not stat.S_ISLNK(found.st_mode):
                    if todo and not stat.S_ISDIR(found.st_mode):
                        raise self._missing(path, at, part, last_link)
                    at = inner
                    continue
                links += 1
                last_link = f"'{paths.shown(inner)}' is a symlink to '{paths.shown(text := os.readlink('', dir_fd=fd))}'"
            finally:
                os.close(fd)
            if links > _MAX_SYMLINKS:
                raise NotFoundError(f"'{paths.shown(path)}' leads through too many symlinks in {self.tree.described}")
            if text.startswith("/"):
                at = ""
            todo.extend(reversed(text.split("/")))
        return at

    def matching(self, prefix: str, pattern: str) -> list[str]:
        """List the paths below the real directory `prefix` that a pattern fits (Go's filepath.Match), none below such a one."""
        from lamina.dockerfile.ignore import glob_match

        parts = pattern.split("/")
        matches: list[str] = []
        todo = [("", prefix)]
        while todo:
            inner, source = todo.pop()
            depth = inner.count("/") + 1 if inner else 0
            if depth:
                fits = glob_match("/".join(parts[:depth]), inner)
                if not fits:
                    continue
                if depth == len(parts):
                    found = self._stat(source)
                    if found is not None and (not self._is_hidden(source, found) or self._shows_something(source, found)):
                        matches.append(paths.join(prefix, inner))
                    continue
            for name in self._names(source):
                todo.append((paths.join(inner, name), paths.join(source, name)))
        return sorted(matches, key=paths.sort_key)

    def walk(self, source: str, only: Filter) -> Iterator[Found]:
        """Give a source and all that is below it, by order of names, directories before what is in them.

        A directory that is hidden, excluded or not included is given only if something in it is; its parents come with it.
        """
        links: dict[tuple[int, int], str] = {}
        found = self._stat(source)
        if found is None:
            raise NotFoundError(f"'{paths.shown(source)}' has just gone from {self.tree.described}")
        if not stat.S_ISDIR(found.st_mode):
            head, name = paths.split(source)
            dir_fd = open_in_root(self._root_fd, head, os.O_RDONLY | os.O_DIRECTORY)
            try:
                yield self._found((dir_fd, name), "", source, found, links)
            finally:
                os.close(dir_fd)
            return
        top_fd = open_in_root(self._root_fd, source, _DIRECTORY)
        stack: list[tuple[int, str, str, list[str], bool]] = [(top_fd, "", source, [], False)]
        held: list[Found] = []  # directories that are given once something below them is
        try:
            stack[0][3].extend(_names(top_fd))
            yield self._directory(top_fd, "", source)
            while stack:
                dir_fd, path, real, names, included_above = stack[-1]
                if not names:
                    os.close(stack.pop()[0])
                    if held and held[-1].path == path:
                        held.pop()
                    continue
                name = names.pop()
                inner, inner_real = paths.join(path, name), paths.join(real, name)
                try:
                    found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                is_included = included_above or only.includes(inner)
                given = is_included and not only.excludes(inner) and not self.tree.hides(inner_real)
                if stat.S_ISDIR(found.st_mode):
                    if not given and not self._may_hold(inner, inner_real, only, is_included=is_included):
                        continue
                    if len(stack) >= paths.MAX_DEPTH:
                        raise LaminaError(f"'{paths.shown(inner_real)}' lies deeper than {paths.MAX_DEPTH} directories")
                    fd = os.open(name, _DIRECTORY, dir_fd=dir_fd)
                    stack.append((fd, inner, inner_real, [], is_included))
                    stack[-1][3].extend(_names(fd))
                    directory = self._directory(fd, inner, inner_real)
                    if not given:
                        held.append(directory)
                        continue
                    yield from _released(held)
                    yield directory
                elif given and not stat.S_ISSOCK(found.st_mode):
                    yield from _released(held)
                    yield self._found((dir_fd, name), inner, inner_real, found, links)
        finally:
            for each in stack:
                os.close(each[0])

    def _may_hold(self, path: str, real: str, only: Filter, *, is_included: bool) -> bool:
        """Whether there may be something to give below a directory that isn't given itself."""
        if not is_included and not only.may_include_below(path):
            return False
        if only.excludes(path) and not only.may_unexclude_below(path):
            return False
        return not self.tree.hides(real) or self.tree.may_unhide_below(real)

    def _missing(self, path: str, at: str, part: str, link: str) -> NotFoundError:
        if link:
            return NotFoundError(
                f"'{paths.shown(path)}' isn't in {self.tree.described}: {link}",
                hint="symlinks are followed inside it only",
            )
        import difflib

        names = [name for name in self._names(at) if not self.tree.hides(paths.join(at, name))]
        near = difflib.get_close_matches(part, names, n=1)
        hint = f"did you mean '{paths.shown(paths.join(at, near[0]))}'?" if near else ""
        return NotFoundError(f"'{paths.shown(path)}' isn't in {self.tree.described}", hint=hint)

    def _is_hidden(self, path: str, found: os.stat_result) -> bool:
        if not self.tree.hides(path):
            return False
        return not self._shows_something(path, found)

    def _shows_something(self, path: str, found: os.stat_result) -> bool:
        """Whether a hidden directory has something in it that isn't hidden: then the directory is there, too."""
        if not stat.S_ISDIR(found.st_mode) or not self.tree.may_unhide_below(path):
            return False
        todo = [path]
        while todo:
            at = todo.pop()
            for name in self._names(at):
                inner = paths.join(at, name)
                if not self.tree.hides(inner):
                    return True
                below = self._stat(inner)
                if below is not None and stat.S_ISDIR(below.st_mode) and self.tree.may_unhide_below(inner):
                    todo.append(inner)
        return False

    def _stat(self, path: str) -> os.stat_result | None:
        try:
            fd = open_in_root(self._root_fd, path, _PIN)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return None
            raise
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _names(self, path: str) -> list[str]:
        """List a directory, nothing for what isn't one."""
        try:
            fd = open_in_root(self._root_fd, path, _DIRECTORY)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return []
            raise
        try:
            return _names(fd)
        finally:
            os.close(fd)

    def _directory(self, fd: int, path: str, real: str) -> Found:
        found = os.fstat(fd)
        return _found(found, path, real)

    def _found(self, at: tuple[int, str], path: str, real: str, found: os.stat_result, links: dict[tuple[int, int], str]) -> Found:
        """Read what has the name `at[1]` in the open directory `at[0]`."""
        dir_fd, name = at
        kind = stat.S_IFMT(found.st_mode)
        link = None
        if found.st_nlink > 1:
            first = links.setdefault((found.st_dev, found.st_ino), path)
            link = first if first != path else None
        content, capability = "", b""
        if kind == stat.S_IFSOCK:
            raise LaminaError(f"'{paths.shown(real)}' is a socket, which can't be copied")
        if kind == stat.S_IFCHR and found.st_rdev == 0:
            raise LaminaError(f"the device node '{paths.shown(real)}' can't be in a layer: 0:0 is overlayfs's whiteout")
        if kind == stat.S_IFLNK:
            content = os.readlink(name, dir_fd=dir_fd)
        elif kind == stat.S_IFREG:
            content, capability = self._hashes.of(dir_fd, name, found, real)
        return _found(found, path, real, content=content, capability=capability, link=link)


def _found(
    found: os.stat_result, path: str, real: str, *, content: str = "", capability: bytes = b"", link: str | None = None
) -> Found:
    kind = stat.S_IFMT(found.st_mode)
    return Found(
        path=path,
        source=real,
        mode=found.st_mode,
        uid=found.st_uid,
        gid=found.st_gid,
        size_bytes=found.st_size if kind == stat.S_IFREG else 0,
        mtime_ns=found.st_mtime_ns,
        device=found.st_rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0,
        content=content,
        capability=capability,
        link=link,
        facts=facts(found),
    )


def _released(held: list[Found]) -> Sequence[Found]:
    directories = list(held)
    held.clear()
    return directories


def _names(fd: int) -> list[str]:
    """List a directory, the last name first."""
    return sorted(os.listdir(fd), key=os.fsencode, reverse=True)
