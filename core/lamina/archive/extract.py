"""Entries laid down as ordinary files in a directory that is in use: what `cp` does. Whiteouts mean nothing here.

Unlike `apply`, which makes a layer that nobody else sees, this works where others may be at work, in a running container or on the
host: a directory is never replaced by something else nor something else by a directory, and a file that is there is replaced by a
new one, never written into. No symlink is followed below the directory; where an archive needs one (`place` has a root), it is
followed as a process in that root would, by the kernel (openat2(2), RESOLVE_IN_ROOT).
"""

import errno
import os
import stat
from dataclasses import dataclass, replace

from lamina.api.entries import Entry, EntryKind, LayerReader
from lamina.archive import attributes, paths
from lamina.errors import ArchiveError, ConflictError, LaminaError
from lamina.linux.fs import mount_id, open_in_root

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {EntryKind.CHAR_DEVICE: stat.S_IFCHR, EntryKind.BLOCK_DEVICE: stat.S_IFBLK, EntryKind.FIFO: stat.S_IFIFO}
_SET_ID = stat.S_ISUID | stat.S_ISGID
_RETRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The directory that is extracted into: a descriptor, what messages call it, and perhaps the root that it lies in.

    With a root (`root_fd`), `path` is the directory's path in it, and a symlink on an entry's way is followed inside that root.
    """

    fd: int
    shown: str
    root_fd: int = -1
    path: str = ""


def extract(entries: LayerReader, place: Place, *, owner: tuple[int, int] | None = None) -> int:
    """Lay the entries down; gives the bytes of all files. Everything belongs to `owner`, or to whom the entries say.

    Where `owner` is another than the entry's, setuid, setgid and file capabilities are dropped, as chown(2) does: they were the
    other's to give. Raises `ConflictError` for a directory in a file's place and the other way round, `ArchiveError`, `OSError`.
    """
    run = _Extraction(place, owner)
    try:
        for entry in entries:
            try:
                run.put(entry, entries)
            except OSError as error:
                raise _explained(error, run.shown(entry.path)) from error
        run.finish()
    finally:
        run.close()
    return run.size_bytes


def _explained(error: OSError, shown: str) -> Exception:
    if error.errno == errno.EBUSY:
        return ConflictError(f"'{shown}' can't be replaced: something is mounted on it")
    if error.errno == errno.EROFS:
        return ConflictError(f"'{shown}' can't be written: it is read-only there")
    return OSError(error.errno, error.strerror, shown)


class _Extraction:
    def __init__(self, place: Place, owner: tuple[int, int] | None) -> None:
        self._place = place
        self._owner = owner
        self._open: list[tuple[str, int]] = [("", os.open(".", _OPEN_DIRECTORY, dir_fd=place.fd))]
        self._times: dict[str, int] = {}
        self.size_bytes = 0

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop()[1])

    def shown(self, path: str) -> str:
        return paths.shown(f"{self._place.shown.rstrip('/')}/{path}")

    def put(self, entry: Entry, reader: LayerReader) -> None:
        if self._owner is not None:
            entry = _given_to(entry, self._owner)
        if not entry.path:
            return  # the directory itself, which stays as it is
        head, name = paths.split(entry.path)
        dir_fd = self._directory(head)
        if entry.kind is EntryKind.DIRECTORY:
            self._put_directory(dir_fd, name, entry)
            return
        for attempt in range(_RETRIES):
            self._make_room(dir_fd, name, entry)
            try:
                self._make(dir_fd, name, entry, reader)
                return
            except FileExistsError:  # somebody was faster
                if attempt == _RETRIES - 1:
                    raise

    def finish(self) -> None:
        """Set the directories' times, which what was made in them has changed."""
        for path in sorted(self._times, key=lambda path: path.count("/"), reverse=True):
            try:
                os.utime(self._directory(path, make=False), ns=(self._times[path], self._times[path]))
            except (OSError, ArchiveError) as error:
                if isinstance(error, OSError) and error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                    raise  # else somebody has taken the directory away

    def _directory(self, path: str, *, make: bool = True) -> int:
        """Open a directory by way of those above it, which stay open for what comes next."""
        while self._open[-1][0] and not (path + "/").startswith(self._open[-1][0] + "/"):
            os.close(self._open.pop()[1])
        at, fd = self._open[-1]
        for part in path[len(at) :].split("/"):
            if part:
                at = paths.join(at, part)
                fd = self._step(fd, part, at, make=make)
                self._open.append((at, fd))
        return fd

    def _step(self, dir_fd: int, part: str, path: str, *, make: bool) -> int:
        try:
            return os.open(part, _OPEN_DIRECTORY, dir_fd=dir_fd)
        except FileNotFoundError:
            if not make:
                raise
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            if self._place.root_fd >= 0 and stat.S_ISLNK(os.stat(part, dir_fd=dir_fd, follow_symlinks=False).st_mode):
                whole = f"{self._place.path}/{path}"
                return open_in_root(self._place.root_fd, whole, os.O_RDONLY | os.O_DIRECTORY)
            raise ArchiveError(f"'{self.shown(path)}' is not a directory, but something is to be put below it") from error
        os.mkdir(part, 0o755, dir_fd=dir_fd)
        fd = os.open(part, _OPEN_DIRECTORY, dir_fd=dir_fd)
        os.fchmod(fd, 0o755)  # mkdir(2) takes the umask away
        return fd

    def _put_directory(self, dir_fd: int, name: str, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        except FileExistsError:
            found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                raise ConflictError(
                    f"can't overwrite '{self.shown(entry.path)}', which is no directory, with a directory"
                ) from None
        fd = self._directory(entry.path, make=False)
        attributes.drop_inherited(fd, entry.xattrs)
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        attributes.set_xattrs(fd, entry.xattrs, entry.path)
        self._times[entry.path] = entry.mtime_ns

    def _make_room(self, dir_fd: int, name: str, entry: Entry) -> None:
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        except FileNotFoundError:
            return
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise ConflictError(f"can't overwrite the directory '{self.shown(entry.path)}' with a {entry.kind.value}")
            # unlink(2) refuses a mount point of the caller's mount namespace alone; in a container's it takes the mount away.
            if mount_id(fd) != mount_id(dir_fd):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
        finally:
            os.close(fd)
        if entry.kind is not EntryKind.HARD_LINK or entry.path != entry.link:
            try:
                os.unlink(name, dir_fd=dir_fd)
            except FileNotFoundError:
                pass

    def _make(self, dir_fd: int, name: str, entry: Entry, reader: LayerReader) -> None:
        kind = entry.kind
        if kind is EntryKind.FILE:
            self._make_file(dir_fd, name, entry, reader)
        elif kind is EntryKind.SYMLINK:
            os.symlink(entry.link, name, dir_fd=dir_fd)
            attributes.set_on_name(dir_fd, name, entry, symlink=True)
        elif kind is EntryKind.HARD_LINK:
            self._make_link(name, entry)
        elif kind in _NODES:
            os.mknod(name, _NODES[kind] | 0o600, os.makedev(entry.major, entry.minor), dir_fd=dir_fd)
            self._set_on_node(dir_fd, name, entry)
        else:
            raise LaminaError(f"'{self.shown(entry.path)}' is a {kind.value}, which can't be copied")

    def _set_on_node(self, dir_fd: int, name: str, entry: Entry) -> None:
        """Like `set_on_name`, but chmod(2) would follow a symlink that is put in the node's place: by a descriptor."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) != _NODES[entry.kind]:
                return
            pinned = f"/proc/self/fd/{fd}"
            os.chown(pinned, entry.uid, entry.gid)
            os.chmod(pinned, entry.mode)
            for key, value in entry.xattrs.items():
                os.setxattr(pinned, key, value)
            os.utime(pinned, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _make_file(self, dir_fd: int, name: str, entry: Entry, reader: LayerReader) -> None:
        fd = os.open(name, _CREATE, 0o600, dir_fd=dir_fd)
        try:
            if entry.size_bytes:
                reader.copy_to(fd)
            attributes.drop_inherited(fd, entry.xattrs)
            attributes.set_on_descriptor(fd, entry)
        except BaseException:
            try:
                os.unlink(name, dir_fd=dir_fd)
            except OSError:
                pass  # the first error is what counts
            raise
        finally:
            os.close(fd)
        self.size_bytes += entry.size_bytes

    def _make_link(self, name: str, entry: Entry) -> None:
        head, old_name = paths.split(entry.link)
        if entry.path == entry.link:
            return
        source_fd = os.dup(self._directory(head, make=False))
        try:
            os.link(
                old_name, name, src_dir_fd=source_fd, dst_dir_fd=self._directory(paths.split(entry.path)[0]), follow_symlinks=False
            )
        except FileNotFoundError:
            raise ArchiveError(
                f"the hard link '{self.shown(entry.path)}' points to '{paths.shown(entry.link)}', which isn't there"
            ) from None
        finally:
            os.close(source_fd)


def _given_to(entry: Entry, owner: tuple[int, int]) -> Entry:
    if (entry.uid, entry.gid) == owner or entry.kind is EntryKind.HARD_LINK:
        return replace(entry, uid=owner[0], gid=owner[1])
    mode = entry.mode if entry.kind is EntryKind.DIRECTORY else entry.mode & ~_SET_ID
    xattrs = {key: value for key, value in entry.xattrs.items() if key != "security.capability"}
    return replace(entry, uid=owner[0], gid=owner[1], mode=mode, xattrs=xattrs)
