"""Files: opening beneath a root, cloning and copying bytes, holes, extended attributes, durability.

Sources: openat2(2), ioctl_ficlone(2), copy_file_range(2), lseek(2) (SEEK_DATA), syncfs(2), xattr(7).
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator

from lamina.linux.libc import SYS_OPENAT2, c_int, c_ulong, failed, libc, syscall

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x01, 0x02, 0x04, 0x08, 0x10
FICLONE = 0x40049409
SYS_GETDENTS64 = {"x86_64": 217}.get(os.uname().machine, 61)  # 61 in asm-generic/unistd.h
_COPY_CHUNK_BYTES = 1 << 30
_SUBVOLUME_INODE = 256  # the top directory of every btrfs subvolume; other file systems may have a directory of this number, too
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0, *, resolve: int = 0) -> int:
    """Open a path as a process whose root is `root_fd` would: symlinks and `..` can't lead out of it (RESOLVE_IN_ROOT).

    `resolve` are more of the RESOLVE_* flags.

    Magic links (/proc/PID/fd/N) are refused with ELOOP. EAGAIN, by which the kernel says that something was renamed meanwhile, is
    tried again.
    """
    return openat2(root_fd, path or ".", flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve, mode)


def openat2(dir_fd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2): open as RESOLVE_* allow, close-on-exec. EAGAIN is tried again."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(128):
        fd = libc.openat2(SYS_OPENAT2, dir_fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return int(fd)
        if ctypes.get_errno() != errno.EAGAIN:
            break
    raise failed("openat2", path)


def read_bytes(path: str) -> bytes:
    """Read a small file whole, such as one of the kernel's, in a third of the calls that `open` and a file object make."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while chunk := os.read(fd, 1 << 16):
            content += chunk
        return content
    finally:
        os.close(fd)


def clone_file(source_fd: int, target_fd: int) -> bool:
    """Make the target share the source's blocks (FICLONE). False if the file system or the pair of files can't."""
    try:
        fcntl.ioctl(target_fd, FICLONE, source_fd)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ETXTBSY, errno.EPERM}:
            return False
        raise
    return True


def open_unnamed(directory: str, mode: int = 0o600) -> int:
    """Open a new file for reading and writing that has no name and is gone when it is closed (O_TMPFILE)."""
    return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode)


def can_clone(directory: str) -> bool:
    """Try whether files in a directory can share blocks (FICLONE), on two files without a name: nothing is left behind."""
    try:
        source_fd = open_unnamed(directory)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT}:
            return False  # a file system without O_TMPFILE: none of those can clone
        raise
    try:
        target_fd = open_unnamed(directory)
        try:
            os.write(source_fd, bytes(4096))
            return clone_file(source_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def nearest_directory(path: str) -> str:
    """The path itself if it is a directory, else the nearest one above it that is."""
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "."
    return path


def mount_id(fd: int) -> int:
    """Tell which mount an open file was reached through: its number in mountinfo (proc_pid_fdinfo(5))."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


def mount_of(path: str) -> int:
    """Tell which mount a path is on: its number in mountinfo."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return mount_id(fd)
    finally:
        os.close(fd)


def filesystem_type(path: str) -> str:
    """Name the file system that a path is on, as mount(8) does ("ext4", "fuse.sshfs"), by the mount that it is opened through."""
    beginning = b"%d " % mount_of(path)
    found = next((line for line in read_bytes("/proc/self/mountinfo").split(b"\n") if line.startswith(beginning)), b"")
    return found.partition(b" - ")[2].partition(b" ")[0].decode("utf-8", "surrogateescape")


def tells_types(directory: str) -> bool:
    """Whether reading the directory says of each entry what it is (`d_type` other than DT_UNKNOWN, getdents64(2))."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        entries = ctypes.create_string_buffer(1024)
        length = syscall(SYS_GETDENTS64, c_int(fd), entries, c_ulong(len(entries)))
        if length < 0:
            raise failed("getdents64", directory)
        return length > 18 and entries.raw[18] != 0  # struct linux_dirent64: ino, off, reclen, type
    finally:
        os.close(fd)


def copy_range(source_fd: int, target_fd: int, offset: int, size_bytes: int) -> None:
    """Copy bytes at the same offset in both files, in the kernel where it can (copy_file_range), else through memory."""
    end = offset + size_bytes
    while offset < end:
        want = min(end - offset, _COPY_CHUNK_BYTES)
        try:
            done = os.copy_file_range(source_fd, target_fd, want, offset, offset)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.ETXTBSY}:
                raise
            done = os.pwrite(target_fd, os.pread(source_fd, min(want, 1 << 20), offset), offset)
        if done == 0:
            return  # the source became shorter while it was read
        offset += done


def copy_contents(source_fd: int, target_fd: int, size_bytes: int) -> None:
    """Give an empty target the source's first `size_bytes`, by reflink if possible; holes stay holes."""
    if size_bytes == 0 or clone_file(source_fd, target_fd):
        return
    os.ftruncate(target_fd, size_bytes)
    for start, length in data_extents(source_fd, size_bytes):
        copy_range(source_fd, target_fd, start, length)


def data_extents(fd: int, size_bytes: int) -> list[tuple[int, int]]:
    """List where a file has data, as (offset, length); what lies between is holes. One extent if the file system can't tell."""
    extents, offset = [], 0
    while offset < size_bytes:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            if error.errno == errno.EINVAL:
                return [(0, size_bytes)]
            raise
        if start >= size_bytes:
            break
        extents.append((start, min(end, size_bytes) - start))
        offset = end
    return extents


SELINUX_LABEL = "security.selinux"


def read_xattrs(path: str | int, *, follow_symlinks: bool = False) -> dict[str, bytes]:
    """Read every extended attribute of a path or descriptor; none where the file system has no such thing.

    But for `SELINUX_LABEL`, which every file has on a machine with SELinux: it is the machine's affair and no file's content.
    """
    try:
        names = os.listxattr(path) if isinstance(path, int) else os.listxattr(path, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOSYS}:
            return {}
        raise
    found = {}
    for name in names:
        if name == SELINUX_LABEL:
            continue
        try:
            found[name] = (
                os.getxattr(path, name) if isinstance(path, int) else os.getxattr(path, name, follow_symlinks=follow_symlinks)
            )
        except OSError as error:
            if error.errno not in {errno.ENODATA, errno.EOPNOTSUPP}:
                raise
    return found


def syncfs(path: str) -> None:
    """Write everything of the file system that `path` is on to its disk, and learn of write errors (syncfs(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.syncfs(fd) < 0:
            raise failed("syncfs", path)
    finally:
        os.close(fd)


def fsync_path(path: str) -> None:
    """Make a file's bytes, or a directory's names, durable (fsync(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_tree(path: str) -> None:
    """Delete a file or a whole tree, never following a symlink and never crossing a mount or into another file system.

    No error for what has gone meanwhile: several processes may delete one tree together. A mount point raises EBUSY: what is
    mounted there isn't ours to delete. Immutable and append-only flags are cleared. Takes three descriptors, whatever the depth.
    """
    try:
        os.rmdir(path)  # often it is empty, or gone
        return
    except FileNotFoundError:
        return
    except OSError:
        pass  # whatever it is, it is found again, and said, below
    head, name = os.path.split(path.rstrip("/"))
    try:
        parent_fd = os.open(head or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode) and _unlink(parent_fd, name):
            return
        if stat.S_ISDIR(found.st_mode) and found.st_ino == _SUBVOLUME_INODE and _destroyed(parent_fd, name):
            return
        removal = _Removal(parent_fd=parent_fd, name=name, device=found.st_dev)
        try:
            removal.run()
        finally:
            removal.leave()
    except FileNotFoundError:
        pass
    finally:
        os.close(parent_fd)


def _destroyed(parent_fd: int, name: str) -> bool:
    """Delete a subvolume of btrfs at once; False if it is none, or one on which something is mounted or that has others in it."""
    from lamina.linux.btrfs import destroy_subvolume  # only stores on btrfs pay for it
    from lamina.linux.mountinfo import mounts

    fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    try:
        place = os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    if any(mount.target == place or mount.target.startswith(f"{place}/") for mount in mounts()):
        return False  # the kernel would take the mounts away without a word
    return destroy_subvolume(parent_fd, name)


class _Removal:
    """One directory on its way out, depth first.

    Going up is `..`, so that neither the limit of open files nor that of a path's length binds the depth. A directory that is
    moved meanwhile must not lead us elsewhere: what `..` is must be what we came from; if it isn't, we begin again at the top.
    """

    def __init__(self, *, parent_fd: int, name: str, device: int) -> None:
        self._parent_fd = parent_fd
        self._name = name
        self._device = device
        self._fd = -1
        self._above: list[tuple[str, int, list[str]]] = []
        """From the top down to where `_fd` is open: name, inode, the directories in it that are still to do."""
        self._tries = 100
        """How often a directory may be found not empty after it was emptied, before that is an error."""

    def leave(self) -> None:
        """Close what is open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def run(self) -> None:
        """Delete it. Raises FileNotFoundError if it isn't there (any more)."""
        while True:
            self.leave()
            self._above = []
            self._enter(self._name, self._parent_fd)
            while self._above:
                todo = self._above[-1][2]
                if todo:
                    try:
                        self._enter(todo.pop(), self._fd)
                    except FileNotFoundError:
                        pass
                elif not self._finish():
                    break
            else:
                return

    def _enter(self, name: str, dir_fd: int) -> None:
        """Go into a directory and delete what is in it and is none itself."""
        try:
            fd = openat2(dir_fd, name, _DIRECTORY, RESOLVE_NO_XDEV)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise OSError(errno.EBUSY, "something is mounted there", name) from None
            if error.errno in {errno.ENOTDIR, errno.ELOOP} and _unlink(dir_fd, name):
                return  # another thing was put in its place
            raise
        found = os.fstat(fd)
        if found.st_dev != self._device:
            os.close(fd)
            if found.st_ino != _SUBVOLUME_INODE:
                raise OSError(errno.EBUSY, "another file system begins there", name)
            remove_tree(f"/proc/self/fd/{dir_fd}/{name}")  # a subvolume of the same one: nothing is mounted
            return
        self.leave()
        self._fd = fd
        todo: list[str] = []
        self._above.append((name, found.st_ino, todo))
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) or not _unlink(fd, entry.name):
                        todo.append(entry.name)
        except FileNotFoundError:
            pass  # it was deleted by another process

    def _finish(self) -> bool:
        """Go up and delete the directory that was left; False if up isn't where we came from."""
        name = self._above.pop()[0]
        if not self._above:
            self.leave()
            if not _rmdir(self._parent_fd, name):
                self._count(name)
                return False
            return True
        try:
            fd = openat2(self._fd, "..", _DIRECTORY, RESOLVE_NO_XDEV)
        except FileNotFoundError:
            return False
        self.leave()
        self._fd = fd
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != (self._device, self._above[-1][1]):
            self._count(name)
            return False
        if not _rmdir(fd, name):
            self._count(name)
            self._above[-1][2].append(name)  # somebody put something in
        return True

    def _count(self, name: str) -> None:
        self._tries -= 1
        if self._tries < 0:
            raise OSError(errno.ENOTEMPTY, "others put files there as fast as they are deleted", name)


@contextlib.contextmanager
def removed_on_error(path: str) -> Iterator[None]:
    """Remove what is at `path` if the block raises; a failure to do so becomes a note on the block's error."""
    try:
        yield
    except BaseException as error:
        try:
            remove_tree(path)
        except OSError as second:
            error.add_note(f"and '{path}' could not be removed: {second}")
        raise


def _unlink(dir_fd: int, name: str) -> bool:
    """Delete what isn't a directory; no error if it has gone. False for a directory."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        return False
    except PermissionError:
        _clear_immutable(dir_fd, name)
        try:
            os.unlink(name, dir_fd=dir_fd)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            return False
    return True


def _rmdir(dir_fd: int, name: str) -> bool:
    """Delete an empty directory; no error if it has gone. False if it isn't empty, or is no directory."""
    try:
        try:
            os.rmdir(name, dir_fd=dir_fd)
        except PermissionError:
            _clear_immutable(dir_fd, name)
            os.rmdir(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            return False
        raise
    return True


def _clear_immutable(dir_fd: int, name: str) -> None:
    """Take the immutable and append-only flags (chattr +i, +a) from a file and its directory, so that it can be deleted."""
    get_flags, set_flags, immutable = (
        0x80086601,
        0x40086602,
        0x10 | 0x20,
    )  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL | FS_APPEND_FL
    for path, flags in ((".", os.O_DIRECTORY), (name, os.O_NOFOLLOW | os.O_NONBLOCK)):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=dir_fd)
        except OSError:
            continue
        try:
            word = bytearray(8)
            fcntl.ioctl(fd, get_flags, word)
            value = int.from_bytes(word[:4], "little") & ~immutable
            fcntl.ioctl(fd, set_flags, value.to_bytes(8, "little"))
        except OSError:
            pass
        finally:
            os.close(fd)
