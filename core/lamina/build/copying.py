"""What COPY and ADD put into an image: which files (`gather`), under which digest, and as which entries of a layer.

The order of work: `gather` finds the sources and reads them, so that the digest says all that the step depends on;
`Gathered.entries` lays them out over the image's tree, only if the step isn't in the cache. What the layer then gets is checked
against what was read before: a context that changes meanwhile is an error, never a layer under a wrong digest.

Here are the parts of a step and their digest. `selection.py` finds paths, `contenthash.py` reads them, `copylayer.py` makes the
entries, `layout.py` knows where they come to lie, `unpacking.py` and `download.py` are ADD's.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from lamina.archive import paths
from lamina.build.contenthash import ContentHashes
from lamina.build.selection import Filter, Found, Selector, SourceTree
from lamina.build.sources import check_climb, is_called_directory, is_remote, plain, shown_url, split_wildcards
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.instructions import Copy
from lamina.errors import LaminaError, UsageError
from lamina.linux.fs import open_in_root
from lamina.model.digest import Digest

if TYPE_CHECKING:
    from lamina.api.entries import LayerReader

_VERSION = b"lamina copy 1\n"
"""Changes when the same sources would make another layer."""

__all__ = ["Gathered", "Part", "PartKind", "SourceTree", "gather"]


class PartKind(Enum):
    """How one source comes into the image."""

    FILE = "file"
    """Something that is no directory: to the destination, or into it."""
    CONTENTS = "contents"
    """What a directory has in it: into the destination."""
    ARCHIVE = "archive"
    """What an archive has in it: into the destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One source, found and read."""

    kind: PartKind
    name: str
    """What a file is called if it is put into a directory."""
    tree: SourceTree
    found: tuple[Found, ...]
    """The source itself first, then what is below it."""
    document: bytes | None = None
    """A heredoc's content; then there is no tree to read from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """All that one COPY or ADD brings. Valid as long as its trees are there."""

    copy: Copy
    parts: tuple[Part, ...]
    file_name: str
    digest: Digest
    """Of names, kinds, contents, modes, owners, file capabilities, link targets and the instruction's flags; not of any time."""

    @property
    def size_bytes(self) -> int:
        """What the files have in them, archives packed."""
        return sum(one.size_bytes for part in self.parts for one in part.found if one.link is None)

    def entries(self, *, base_root: str | None, working_dir: str, mtime_limit_ns: int | None) -> "LayerReader":
        """Give the layer. Errors (`DockerfileError`) come while it is read; then what was written of it is worth nothing.

        `base_root` is the image's tree so far, None with --link: then nothing is known to be there. `working_dir` is what a
        relative destination begins with. No time in the layer is later than `mtime_limit_ns`.
        """
        from lamina.build.copylayer import CopyLayer

        return CopyLayer(self, base_root=base_root, working_dir=working_dir, mtime_limit_ns=mtime_limit_ns)

    def error(self, message: str, hint: str = "") -> DockerfileError:
        """Make an error of this instruction."""
        return DockerfileError(message, file_name=self.file_name, line=self.copy.line, instruction=self.copy.name, hint=hint)


def gather(
    copy: Copy, tree: SourceTree, *, downloads_dir: str = "", cache_path: str = "", file_name: str = "Dockerfile"
) -> Gathered:
    """Find and read the sources of an instruction, whose variables are replaced already.

    `tree` is what local sources are in; downloads go below `downloads_dir`. `cache_path` is where digests of files are
    remembered, a file that may be deleted at any time. Raises `DockerfileError` for everything that the instruction or its
    sources have wrong.
    """
    try:
        with ContentHashes(cache_path) as hashes:
            parts = tuple(_Gathering(copy, tree, hashes, downloads_dir).parts())
    except LaminaError as error:
        raise DockerfileError(error.message, file_name=file_name, line=copy.line, instruction=copy.name, hint=error.hint) from error
    except OSError as error:
        where = f" '{paths.shown(os.fsdecode(error.filename))}'" if isinstance(error.filename, str | bytes) else ""
        raise DockerfileError(
            f"a source can't be read:{where} {os.strerror(error.errno or 0).lower()}",
            file_name=file_name,
            line=copy.line,
            instruction=copy.name,
        ) from error
    return Gathered(copy=copy, parts=parts, file_name=file_name, digest=_digest(copy, parts))


class _Gathering:
    """One instruction's sources on their way to parts."""

    def __init__(self, copy: Copy, tree: SourceTree, hashes: ContentHashes, downloads_dir: str) -> None:
        self._copy = copy
        self._tree = tree
        self._hashes = hashes
        self._downloads_dir = downloads_dir

    def parts(self) -> Iterator[Part]:
        copy = self._copy
        self._check()
        empty: list[str] = []
        local = 0
        with Selector(self._tree, self._hashes) as selector:
            for source in copy.sources:
                if is_remote(source):
                    yield from self._remote(source)
                    continue
                local += 1
                found = list(self._local(selector, source))
                if not found:
                    empty.append(source)
                yield from found
        for heredoc in copy.heredocs:
            yield _document(heredoc.name, heredoc.content)
        if empty and len(empty) == len(copy.sources) + len(copy.heredocs):
            raise UsageError(
                f"nothing in {self._tree.described} matches {' or '.join(repr(source) for source in empty)}",
                hint="a pattern that may match nothing can stand beside a source that is there",
            )

    def _check(self) -> None:
        copy = self._copy
        if not copy.destination:
            raise UsageError("the destination is empty")
        if len(copy.sources) + len(copy.heredocs) > 1 and not is_called_directory(copy.destination):
            raise UsageError(
                f"with more than one source the destination '{copy.destination}' must be a directory", hint="end it with a slash"
            )
        if copy.chown:
            from lamina.build.ownership import check_chown

            check_chown(copy.chown)
        if copy.chmod:
            from lamina.build.filemode import FileMode

            FileMode.parse(copy.chmod)
        if copy.checksum and (len(copy.sources) != 1 or copy.heredocs or not is_remote(copy.sources[0])):
            raise UsageError("--checksum is for a single source that is downloaded")

    def _local(self, selector: Selector, source: str) -> Iterator[Part]:
        copy = self._copy
        if not source:
            raise UsageError("a source is empty", hint="write . for everything")
        if "\0" in source:
            raise UsageError(f"the source '{paths.shown(source)}' has a zero byte in it")
        check_climb(source, self._tree.described)
        if copy.parents:
            yield from self._with_parents(selector, source)
            return
        prefix, pattern = split_wildcards(plain(source))
        only = Filter(excludes=copy.exclude)
        if not pattern:
            yield from self._part(selector, prefix, only)
            return
        for path in selector.matching(selector.real_path(prefix), pattern):
            yield from self._part(selector, path, only)

    def _part(self, selector: Selector, path: str, only: Filter) -> Iterator[Part]:
        real = selector.real_path(path)
        found = tuple(selector.walk(real, only))
        name = paths.split(path)[1]
        if found[0].is_directory:
            yield Part(kind=PartKind.CONTENTS, name=name, tree=self._tree, found=found)
        elif not only.excludes(name):
            unpack = self._copy.is_add if self._copy.unpack is None else self._copy.unpack
            kind = PartKind.ARCHIVE if unpack and found[0].is_file and _is_archive(self._tree, real) else PartKind.FILE
            yield Part(kind=kind, name=name, tree=self._tree, found=found)

    def _with_parents(self, selector: Selector, source: str) -> Iterator[Part]:
        """Take a source with the directories that it is in, up to `/./` if that is in it."""
        above, pivot, below = source.partition("/./")
        if not pivot:
            above, below = "", source
        pattern = plain(below)
        prefix, wild = split_wildcards(plain(above))
        tops = selector.matching(selector.real_path(prefix), wild) if wild else [prefix]
        has_wildcards = bool(wild or split_wildcards(pattern)[1])
        for top in tops:
            real = selector.real_path(top)
            found = tuple(selector.walk(real, Filter(excludes=self._copy.exclude, include=pattern)))
            if not found[0].is_directory:
                continue
            if len(found) == 1 and pattern:
                if not has_wildcards:
                    selector.real_path(paths.join(real, pattern))  # says what is missing
                continue
            yield Part(kind=PartKind.CONTENTS, name="", tree=self._tree, found=found)

    def _remote(self, source: str) -> Iterator[Part]:
        copy = self._copy
        if not copy.is_add:
            raise UsageError(f"the source '{shown_url(source)}' is a URL, which COPY doesn't take", hint="use ADD")
        if not self._downloads_dir:
            raise UsageError(f"'{shown_url(source)}' can't be downloaded here")
        from lamina.build.download import fetch  # urllib.parse, and more

        place = fetch(source, self._downloads_dir, checksum=copy.checksum, keep_git_dir=copy.keep_git_dir)
        tree = SourceTree(path=place.directory, described=f"'{shown_url(source)}'")
        with Selector(tree, self._hashes) as selector:
            found = tuple(selector.walk(selector.real_path(place.path), Filter(excludes=copy.exclude)))
        if found[0].is_directory:
            yield Part(kind=PartKind.CONTENTS, name="", tree=tree, found=found)
            return
        if not place.name and is_called_directory(copy.destination):
            raise UsageError(f"'{shown_url(source)}' doesn't say what the file is called", hint="name the file in the destination")
        kind = PartKind.ARCHIVE if copy.unpack and _is_archive(tree, place.path) else PartKind.FILE
        yield Part(kind=kind, name=place.name, tree=tree, found=found)


def _document(name: str, content: str) -> Part:
    import time

    data = content.encode("utf-8", "surrogateescape")
    found = Found(
        path="", source="", mode=0o100644, uid=0, gid=0, size_bytes=len(data), mtime_ns=time.time_ns(), device=0,
        content=Digest.of(data).hex, capability=b"", link=None, facts=(0, 0, 0, 0, 0),
    )  # fmt: skip
    return Part(kind=PartKind.FILE, name=name, tree=SourceTree(path="", described="the Dockerfile"), found=(found,), document=data)


def _is_archive(tree: SourceTree, path: str) -> bool:
    from lamina.build.unpacking import is_archive  # decompression

    with _opened(tree, path) as fd:
        return is_archive(fd)


@contextmanager
def _opened(tree: SourceTree, path: str) -> Iterator[int]:
    root_fd = os.open(tree.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    finally:
        os.close(root_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _digest(copy: Copy, parts: tuple[Part, ...]) -> Digest:
    """Digest the flags and every path, written so that no two lists of paths look alike: `ascii` quotes what is in a text."""
    from hashlib import sha256

    flags = (copy.name, copy.destination, copy.chown, copy.chmod, copy.link, copy.parents, copy.keep_git_dir, len(parts))
    digest = sha256(_VERSION + ascii(flags).encode())
    for part in parts:
        digest.update(ascii((part.kind.value, part.name, len(part.found))).encode())
        for one in part.found:
            is_top = part.kind is PartKind.CONTENTS and not one.path  # what a destination is doesn't depend on it
            shape = () if is_top else (one.mode, one.uid, one.gid)
            digest.update(ascii((one.path, shape, one.device, one.content, one.capability, one.link)).encode())
    return Digest(f"sha256:{digest.hexdigest()}")
