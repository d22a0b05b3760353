"""Files of /proc, opened so that they are what they are called: nothing that is mounted over them, and no link to another.

A container that shares a mount with another process can have something else mounted in /proc just when the engine writes there, and
so turn a write of a label or a setting into one to /proc/sysrq-trigger or to a file of its own (CVE-2025-52881 in other engines).
Sources: openat2(2) (RESOLVE_NO_XDEV), statfs(2), fs/proc/root.c (the root's inode is 1).
"""

import ctypes
import errno
import os

from lamina.linux.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from lamina.linux.libc import failed, libc

PROC_SUPER_MAGIC = 0x9FA0
_ROOT_INODE = 1
_StatFs = ctypes.c_long * 32
"""As large as struct statfs at least, whose first field is the number."""


def filesystem_magic(fd: int) -> int:
    """What kind of file system an open file is on, by the kernel's number (statfs(2)); O_PATH will do."""
    buffer = _StatFs()
    if libc.fstatfs(fd, buffer) < 0:
        raise failed("fstatfs", f"/proc/self/fd/{fd}")
    return buffer[0]


def open_in_proc(path: str, flags: int) -> int:
    """Open a file of the /proc that this process sees, such as "sys/kernel/shmmax" or "self/attr/exec"; returns a descriptor.

    Raises `OSError`: EXDEV if something is mounted over a part of the way, ELOOP for a link on it, ENODEV if /proc isn't a procfs.
    """
    proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if filesystem_magic(proc_fd) != PROC_SUPER_MAGIC or os.fstat(proc_fd).st_ino != _ROOT_INODE:
            raise OSError(errno.ENODEV, "is not the root of a procfs", "/proc")
        first, slash, rest = path.partition("/")
        if first == "self":  # getpid(2) would be wrong for a process in a newer PID namespace than this /proc's
            first = os.readlink("self", dir_fd=proc_fd)
        beneath = first + slash + rest
        return openat2(proc_fd, beneath, flags, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
    finally:
        os.close(proc_fd)


def write_in_proc(path: str, text: str) -> None:
    """Write to a file of /proc at once, as the kernel wants its settings; see `open_in_proc`."""
    fd = open_in_proc(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
