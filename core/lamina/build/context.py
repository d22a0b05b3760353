"""The build context: a directory, or an archive that is unpacked for as long as the build takes; the Dockerfile, and what is
ignored.

Whatever is read in the context is opened beneath it: a context may come from somebody else, with symlinks to anywhere. Not here:
which of its files are copied (`selection.py`), and what the Dockerfile says (`lamina.dockerfile`).
"""

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from lamina.archive import paths
from lamina.dataclasses import dataclass
from lamina.errors import ArchiveError, LaminaError, NotFoundError, UsageError
from lamina.linux.fs import open_in_root

if TYPE_CHECKING:
    from lamina.build.selection import SourceTree
    from lamina.dockerfile.ignore import Ignore

MAX_DOCKERFILE_BYTES = 16 << 20
_STDIN_NAME = "<stdin>"
_MISSING = frozenset([errno.ENOENT, errno.ENOTDIR, errno.ELOOP])
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


class Readable(Protocol):
    """Standard input: `read` gives up to so many bytes, perhaps fewer, and none at the end."""

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """What a build is made from."""

    directory: str
    dockerfile: bytes
    dockerfile_name: str
    """What messages call it."""
    ignore: "Ignore"

    def hides(self, path: str) -> bool:
        """Whether a path isn't there for COPY and ADD. The Dockerfile and .dockerignore are, unless they are ignored as others."""
        return self.ignore.hides(path)

    @property
    def tree(self) -> "SourceTree":
        """The context as what COPY and ADD take their sources from."""
        from lamina.build.selection import SourceTree

        return SourceTree(
            path=self.directory,
            described="the build context",
            hides=self.ignore.hides,
            may_unhide_below=self.ignore.may_unhide_below,
        )


@contextlib.contextmanager
def open_context(source: str, *, dockerfile: str = "", stdin: Readable, spool_dir: str) -> Iterator[BuildContext]:
    """Open what `lamina build SOURCE` names: a directory, a tar archive (packed or not), or `-` for standard input.

    On standard input may come an archive, or a Dockerfile alone, whose context is empty. `dockerfile` is `-f`: a path (in an
    archive one of the archive's), or `-` for standard input. What has to be unpacked lies below `spool_dir` while the block runs.
    Raises `NotFoundError`, `UsageError`, `ArchiveError`.
    """
    if source == "-" and dockerfile == "-":
        raise UsageError("context and Dockerfile can't both come from standard input", hint="give one of them a path")
    if not source:
        raise UsageError("the build context is empty", hint="write . for this directory")
    if "://" in source or source.startswith("git@"):
        raise UsageError(f"the context '{paths.shown(source[:200])}' is a URL", hint="download it, and give its directory or '-'")
    with contextlib.ExitStack() as stack:
        if source == "-":
            yield _from_stream(stack, stdin, dockerfile, spool_dir)
            return
        if os.path.isdir(source):
            yield _from_directory(source, dockerfile, stdin)
            return
        try:
            archive = stack.enter_context(open(source, "rb", buffering=0))
        except FileNotFoundError:
            raise NotFoundError(f"the context '{source}' doesn't exist") from None
        except OSError as error:
            raise LaminaError(f"the context '{source}' can't be read: {os.strerror(error.errno or 0).lower()}") from error
        from lamina.build.unpacking import is_archive

        if not stat.S_ISREG(os.fstat(archive.fileno()).st_mode) or not is_archive(archive.fileno()):
            raise UsageError(
                f"the context '{source}' is neither a directory nor a tar archive", hint="a Dockerfile is given with -f, or as -"
            )
        archive.seek(0)
        directory = stack.enter_context(_unpacked(archive, spool_dir, f"'{source}'"))
        yield _inside(directory, dockerfile, stdin)


class _Peeked:
    """A stream whose beginning was looked at."""

    def __init__(self, first: bytes, rest: Readable) -> None:
        self._first = first
        self._rest = rest

    def read(self, size: int = -1, /) -> bytes:
        if not self._first:
            return self._rest.read(size)
        if size < 0:
            data, self._first = self._first, b""
            return data + self._rest.read(-1)
        data, self._first = self._first[:size], self._first[size:]
        return data


def _from_stream(stack: contextlib.ExitStack, stdin: Readable, dockerfile: str, spool_dir: str) -> BuildContext:
    from lamina.archive.compression import Compression, detect
    from lamina.archive.tarheader import BLOCK_BYTES, ZERO_BLOCK, parse

    first = b""
    while len(first) < BLOCK_BYTES and (more := stdin.read(BLOCK_BYTES - len(first))):
        first += more
    is_archive = detect(first) is not Compression.NONE or first == ZERO_BLOCK
    if not is_archive and len(first) == BLOCK_BYTES:
        try:
            parse(first, 0)
            is_archive = True
        except ArchiveError:
            pass
    stream = _Peeked(first, stdin)
    if is_archive:
        return _inside(stack.enter_context(_unpacked(stream, spool_dir, "standard input")), dockerfile, stdin)
    if dockerfile:
        raise UsageError(f"a Dockerfile comes from standard input, and -f names '{dockerfile}', too", hint="leave one of them out")
    content = _read_stream(stream)
    if not content.strip():
        raise UsageError("nothing came from standard input", hint="send a Dockerfile or a tar archive")
    from lamina.dockerfile.ignore import Ignore

    directory = stack.enter_context(_spooled(spool_dir))
    return BuildContext(directory=directory, dockerfile=content, dockerfile_name=_STDIN_NAME, ignore=Ignore())


def _from_directory(source: str, dockerfile: str, stdin: Readable) -> BuildContext:
    directory = os.path.realpath(source)
    if not dockerfile or dockerfile == "-":
        return _inside(directory, dockerfile, stdin)
    given = os.path.abspath(dockerfile)
    # Beneath the context it is opened as all that is in it; elsewhere it is the caller's own file.
    parent = os.path.realpath(os.path.dirname(given))
    whole = os.path.join(parent, os.path.basename(given))
    if whole.startswith(directory.rstrip("/") + "/"):
        return _inside(directory, whole[len(directory.rstrip("/")) + 1 :], stdin, shown=dockerfile)
    content = _read_file(whole, None, dockerfile)
    if content is None:
        raise NotFoundError(
            f"the Dockerfile '{paths.shown(dockerfile)}' doesn't exist", hint="-f is a path from here, not from the context"
        )
    own = _read_file(whole + ".dockerignore", None, dockerfile + ".dockerignore")
    return _with_ignore(directory, content, dockerfile, own, dockerfile + ".dockerignore")


def _inside(directory: str, dockerfile: str, stdin: Readable, shown: str = "") -> BuildContext:
    """Read Dockerfile and .dockerignore of a context directory; `dockerfile` is a path in it, "" or "-"."""
    if dockerfile == "-":
        return _with_ignore(directory, _read_stream(stdin), _STDIN_NAME, None, "")
    root_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in [posixpath.normpath("/" + dockerfile).lstrip("/")] if dockerfile else ["Dockerfile", "dockerfile"]:
            content = _read_file(name, root_fd, shown or name)
            if content is not None:
                own = _read_file(name + ".dockerignore", root_fd, (shown or name) + ".dockerignore")
                return _with_ignore(directory, content, shown or name, own, (shown or name) + ".dockerignore")
    finally:
        os.close(root_fd)
    raise NotFoundError(
        f"there is no '{paths.shown(shown or dockerfile or 'Dockerfile')}' in the build context", hint="name the Dockerfile with -f"
    )


def _with_ignore(directory: str, dockerfile: bytes, name: str, own: bytes | None, own_name: str) -> BuildContext:
    """Put it together: the Dockerfile's own ignore file counts, else the context's."""
    from lamina.dockerfile.ignore import Ignore

    text, ignore_name = own, own_name
    if text is None:
        ignore_name = ".dockerignore"
        root_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            text = _read_file(ignore_name, root_fd, ignore_name)
        finally:
            os.close(root_fd)
    ignore = Ignore.parse(text.decode("utf-8", "surrogateescape"), file_name=ignore_name) if text else Ignore()
    return BuildContext(directory=directory, dockerfile=dockerfile, dockerfile_name=name, ignore=ignore)


def _read_file(path: str, root_fd: int | None, shown: str) -> bytes | None:
    """Read a regular file, beneath a root if one is given; None if it isn't there."""
    try:
        fd = os.open(path, _READ | os.O_CLOEXEC) if root_fd is None else open_in_root(root_fd, path, _READ)
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise LaminaError(f"'{paths.shown(shown)}' can't be read: {os.strerror(error.errno or 0).lower()}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"'{paths.shown(shown)}' is not a regular file")
    with os.fdopen(fd, "rb", buffering=0) as file:
        return _limited(file, shown)


def _read_stream(stream: Readable) -> bytes:
    return _limited(stream, "standard input")


def _limited(stream: Readable, shown: str) -> bytes:
    data = bytearray()
    while more := stream.read(1 << 16):
        data += more
        if len(data) > MAX_DOCKERFILE_BYTES:
            raise UsageError(f"'{paths.shown(shown)}' has more than {MAX_DOCKERFILE_BYTES} bytes, too many for what it should be")
    return bytes(data)


@contextlib.contextmanager
def _spooled(spool_dir: str) -> Iterator[str]:
    """Make a directory that is gone at the end."""
    from tempfile import mkdtemp  # 5 ms, and only what is unpacked needs it

    from lamina.linux.fs import remove_tree

    os.makedirs(spool_dir, mode=0o700, exist_ok=True)
    directory = mkdtemp(prefix="context-", dir=spool_dir)
    try:
        yield directory
    finally:
        remove_tree(directory)


@contextlib.contextmanager
def _unpacked(stream: Readable, spool_dir: str, shown: str) -> Iterator[str]:
    from lamina.archive.compression import Decompressed
    from lamina.archive.extract import Place, extract
    from lamina.archive.layer import LayerTar
    from lamina.store.layer_ingest import DEFAULT_MAX_BYTES

    with _spooled(spool_dir) as directory:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with Decompressed(stream, limit_bytes=DEFAULT_MAX_BYTES, hashed=False, threaded=True) as plain:
                entries = LayerTar(plain, limit_bytes=DEFAULT_MAX_BYTES, require_end=False, whiteouts=False)
                extract(entries, Place(fd=fd, shown="the context", root_fd=fd))
                plain.finish()  # whoever writes the archive must not be stopped by a closed pipe before its end
        except LaminaError as error:
            error.message = f"the build context in {shown}: {error.message}"
            raise
        except OSError as error:
            place = f"'{paths.shown(str(error.filename))}' " if error.filename else ""
            why = os.strerror(error.errno or 0).lower()
            raise LaminaError(f"the build context in {shown}: {place}can't be unpacked: {why}") from error
        finally:
            os.close(fd)
        yield directory
