"""Copying files between a container and the host, by the rules of `docker cp`: what is copied where, and under which name.

Both sides are a root descriptor and a path in it: the host's root is "/", a container's is `ContainerRoots`'s. Paths are resolved
by the kernel beneath the descriptor (openat2(2), RESOLVE_IN_ROOT), so that in a container's path no symlink, not even one that is
swapped in meanwhile, leads out of it (CVE-2018-15664 in other engines). Reading is `archive.treereader`, writing `archive.extract`.
"""

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lamina.api.entries import LayerReader
from lamina.archive.compression import Decompressed, Readable, Writable
from lamina.archive.extract import Place, extract
from lamina.archive.layer import LayerTar
from lamina.archive.shifted import ShiftedOwners
from lamina.archive.treereader import PIN, TreeReader
from lamina.archive.writer import write_entries
from lamina.errors import ConflictError, LaminaError, NotFoundError, UsageError
from lamina.linux.fs import mount_id, open_in_root, syncfs
from lamina.model.container import Container
from lamina.usecases.containerroot import ContainerRoot, ContainerRoots

_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_MAX_SYMLINKS = 40  # as the kernel's (path_resolution(7))
_ST_RDONLY = os.ST_RDONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A root and a path in it. `shown` is what messages call it: the path, with the container's name before it."""

    root_fd: int
    path: str
    shown: str
    root: ContainerRoot | None = None

    @property
    def is_called_directory(self) -> bool:
        """Whether the path says itself that it is a directory: it ends with / or /. ."""
        return self.path.endswith(("/", "/."))

    def check_is_files(self, fd: int) -> None:
        """Refuse what is the kernel's: what lies there is made up while it is read, and isn't the container's."""
        if self.root is not None and self.root.is_kernels(fd):
            raise LaminaError(
                f"'{self.shown}' is the kernel's, not a file of the container, and can't be copied",
                hint="run a command such as `cat` in the container by `lamina exec`",
            )


class Copying:
    """Copies files."""

    def __init__(self, roots: ContainerRoots) -> None:
        self.roots = roots

    def copy_in(self, container: Container, source: str, path: str, *, keep_owner: bool, follow: bool) -> int:
        """Copy a file or a directory of the host into a container; gives the bytes of the files."""
        with _host(source) as host, _pinned(host, follow=follow) as (source_fd, name):
            with self._side(container, path, writing=True) as side:
                root = side.root.first_id if side.root is not None else 0
                return _copy(source_fd, name, side, owner=None if keep_owner else (root, root))

    def copy_in_archive(self, container: Container, archive: Readable, path: str) -> int:
        """Extract a tar archive, plain or packed, in a container's directory; owners are those that it says."""
        with self._side(container, path, writing=True) as side:
            try:
                fd = open_in_root(side.root_fd, side.path, _DIRECTORY)
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                    raise
                raise NotFoundError(f"the destination '{side.shown}' must be a directory") from error
            with contextlib.ExitStack() as stack:
                stack.callback(os.close, fd)
                _check_writable(side, fd)
                plain = stack.enter_context(Decompressed(archive, hashed=False))
                entries = _inward(LayerTar(plain, require_end=False, whiteouts=False), side)
                size_bytes = extract(entries, Place(fd=fd, shown=side.shown, root_fd=side.root_fd, path=side.path))
                syncfs(f"/proc/self/fd/{fd}")
                plain.finish()  # whoever writes the archive must not be stopped by a closed pipe before its end
                return size_bytes

    def copy_out(self, container: Container, path: str, destination: str, *, keep_owner: bool, follow: bool) -> int:
        """Copy a file or a directory of a container to the host; gives the bytes of the files."""
        with _host(destination) as host:
            _check_parent(host)
            with self._side(container, path, writing=False) as side, _pinned(side, follow=follow) as (source_fd, name):
                closed = side.root.is_kernels if side.root is not None else lambda _fd: False
                owner = None if keep_owner else (os.geteuid(), os.getegid())
                return _copy(source_fd, name, host, owner=owner, is_closed=closed, out_of=side)

    def copy_out_archive(self, container: Container, path: str, out: Writable, *, follow: bool) -> None:
        """Write a file or a directory of a container as a tar archive."""
        with self._side(container, path, writing=False, streaming=True) as side, _pinned(side, follow=follow) as (fd, name):
            closed = side.root.is_kernels if side.root is not None else lambda _fd: False
            write_entries(out, _outward(TreeReader(fd, name, is_closed=closed), side))

    @contextlib.contextmanager
    def _side(self, container: Container, path: str, *, writing: bool, streaming: bool = False) -> Iterator[Side]:
        if not path:
            raise UsageError("the container's path is empty", hint="write CONTAINER:PATH")
        with self.roots.opened(container, writing=writing, streaming=streaming) as root:
            yield Side(root_fd=root.fd, path=_absolute(path, "/"), shown=f"{container.name}:{path}", root=root)


@contextlib.contextmanager
def _host(path: str) -> Iterator[Side]:
    if not path:
        raise UsageError("the path on the host is empty")
    fd = os.open("/", _DIRECTORY | os.O_CLOEXEC)
    try:
        yield Side(root_fd=fd, path=_absolute(path, os.getcwd()), shown=path)
    finally:
        os.close(fd)


def _absolute(path: str, directory: str) -> str:
    """Make a path absolute and plain as docker does, by its text alone; a / or /. at its end, which means something, stays."""
    plain = "/" + posixpath.normpath(posixpath.join(directory, path)).lstrip("/")
    if path == "." or path.endswith("/."):
        return plain.rstrip("/") + "/."
    return plain.rstrip("/") + "/" if path.endswith("/") or plain == "/" else plain


@contextlib.contextmanager
def _pinned(side: Side, *, follow: bool) -> Iterator[tuple[int, str]]:
    """Open (O_PATH) what is to be copied; gives the descriptor and its name, which is "" for a directory's contents alone."""
    name = posixpath.basename(side.path.removesuffix("/"))
    if name == ".":
        name = ""
    fd = -1
    try:
        try:
            if side.is_called_directory:
                fd = open_in_root(side.root_fd, side.path, _DIRECTORY)
            elif follow:
                fd = open_in_root(side.root_fd, side.path, os.O_PATH)
            else:
                parent_fd = open_in_root(side.root_fd, posixpath.dirname(side.path), _DIRECTORY)
                try:
                    fd = os.open(name, PIN, dir_fd=parent_fd)
                finally:
                    os.close(parent_fd)
        except OSError as error:
            raise _explained(error, side) from error
        side.check_is_files(fd)
        yield fd, name
    finally:
        if fd >= 0:
            os.close(fd)


def _explained(error: OSError, side: Side) -> Exception:
    if error.errno == errno.ENOENT:
        return NotFoundError(f"no such file or directory: '{side.shown}'")
    if error.errno == errno.ENOTDIR:
        return NotFoundError(f"not a directory: '{side.shown}'")
    if error.errno == errno.ELOOP:
        return NotFoundError(f"'{side.shown}' leads through too many symlinks, or one of the kernel's own")
    return OSError(error.errno, error.strerror, side.shown)


def _copy(
    source_fd: int, name: str, side: Side, *, owner: tuple[int, int] | None, is_closed: Callable[[int], bool] = lambda _fd: False,
    out_of: Side | None = None,
) -> int:  # fmt: skip
    """Copy what is pinned to the destination, by the table in docker cp's manual."""
    is_directory = stat.S_ISDIR(os.fstat(source_fd).st_mode)
    directory_fd, new_name = _destination(side, source_is_directory=is_directory)
    try:
        _check_writable(side, directory_fd)
        shown = side.shown
        if new_name is None:
            new_name = name
        else:
            shown = posixpath.dirname(shown.rstrip("/").removesuffix("/.").rstrip("/")) or ("/" if shown.startswith("/") else ".")
        entries: LayerReader = TreeReader(source_fd, new_name, is_closed=is_closed)
        entries = _inward(entries, side) if out_of is None else _outward(entries, out_of)
        size_bytes = extract(entries, Place(fd=directory_fd, shown=shown), owner=owner)
        if side.root is not None:
            syncfs(f"/proc/self/fd/{directory_fd}")  # a container is durable; on the host the user says when, as after cp(1)
        return size_bytes
    finally:
        os.close(directory_fd)


def _inward(entries: LayerReader, side: Side) -> LayerReader:
    """Give the entries the owners by which the host knows the container's users."""
    first_id = side.root.first_id if side.root is not None else 0
    return ShiftedOwners(entries, first=0, to=first_id) if first_id else entries


def _outward(entries: LayerReader, side: Side) -> LayerReader:
    """Give the entries the owners that they have in the container."""
    first_id = side.root.first_id if side.root is not None else 0
    return ShiftedOwners(entries, first=first_id, to=0) if first_id else entries


def _destination(side: Side, *, source_is_directory: bool) -> tuple[int, str | None]:
    """Find the directory that is written into, opened, and the name that is made there; None for the source's own name."""
    try:
        return open_in_root(side.root_fd, side.path, _DIRECTORY), None
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise _explained(error, side) from error
    path = side.path.removesuffix(".").rstrip("/")
    for _ in range(_MAX_SYMLINKS):
        head, name = posixpath.split(path)
        try:
            parent_fd = open_in_root(side.root_fd, head, _DIRECTORY)
        except OSError as error:
            if side.is_called_directory and not source_is_directory:
                raise NotFoundError(f"no such directory: '{side.shown}'") from error
            if error.errno in {errno.ENOENT, errno.ENOTDIR}:
                raise NotFoundError(
                    f"no such directory for '{side.shown}'", hint="the directory above the destination must exist"
                ) from error
            raise _explained(error, side) from error
        try:
            link = os.readlink(name, dir_fd=parent_fd)
        except FileNotFoundError:
            found = None
        except OSError as error:
            if error.errno != errno.EINVAL:
                os.close(parent_fd)
                raise _explained(error, side) from error
            found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        else:
            os.close(parent_fd)
            path = posixpath.join(head, link).rstrip("/")
            continue
        try:
            _check_destination(side, found, source_is_directory=source_is_directory)
        except LaminaError:
            os.close(parent_fd)
            raise
        return parent_fd, name
    raise NotFoundError(f"'{side.shown}' leads through too many symlinks")


def _check_destination(side: Side, found: os.stat_result | None, *, source_is_directory: bool) -> None:
    if found is None:
        if side.is_called_directory and not source_is_directory:
            raise NotFoundError(f"no such directory: '{side.shown}'")
        return
    if source_is_directory:
        raise ConflictError(f"can't copy a directory to '{side.shown}', which is a file")
    if side.is_called_directory:
        raise NotFoundError(f"not a directory: '{side.shown}'")
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        raise ConflictError(f"the destination '{side.shown}' must be a directory or a regular file, and is a device")


def _check_parent(host: Side) -> None:
    """Docker's rule: the directory above a destination on the host must exist, whatever the source is."""
    try:
        os.close(open_in_root(host.root_fd, posixpath.dirname(host.path.removesuffix(".").rstrip("/")), _DIRECTORY))
    except OSError as error:
        raise NotFoundError(
            f"no such directory for '{host.shown}'", hint="the directory above the destination must exist"
        ) from error


def _check_writable(side: Side, fd: int) -> None:
    side.check_is_files(fd)
    if side.root is not None and os.fstatvfs(fd).f_flag & _ST_RDONLY:
        if mount_id(fd) == mount_id(side.root_fd):
            raise ConflictError(f"the root of container '{side.root.container.name}' is read-only")
        raise ConflictError(f"the volume at '{side.shown}' is mounted read-only")
