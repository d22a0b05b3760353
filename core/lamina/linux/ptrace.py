"""A child's system calls, watched one by one: which of them change something, and the child killed at the N-th of those.

For tests of what survives a kill, and of what must not touch anything. The child is a fork of this process that runs one function;
what it forks or starts itself isn't followed. Sources: ptrace(2), "PTRACE_GET_SYSCALL_INFO" (Linux 5.3); syscalls(2); the kernel's
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

import ctypes
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from lamina.linux.libc import c_int, c_long, c_void_p, failed, libc

_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_TRACESYSGOOD, _EXITKILL = 1, 1 << 20
_ENTRY = 1
_SYSCALL_STOP = signal.SIGTRAP | 0x80

_X86_64 = {
    "write": 1, "ioctl": 16, "pwrite64": 18, "writev": 20, "sendfile": 40, "fork": 57, "vfork": 58, "execve": 59, "fsync": 74,
    "fdatasync": 75, "truncate": 76, "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86,
    "unlink": 87, "symlink": 88, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94, "utime": 132, "mknod": 133,
    "sync": 162, "mount": 165, "umount2": 166, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197,
    "lremovexattr": 198, "fremovexattr": 199, "utimes": 235, "open": 2, "openat": 257, "mkdirat": 258, "mknodat": 259,
    "fchownat": 260, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266, "fchmodat": 268, "utimensat": 280,
    "fallocate": 285, "pwritev": 296, "syncfs": 306, "renameat2": 316, "copy_file_range": 326,
}  # fmt: skip
_GENERIC = {
    "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16, "ioctl": 29,
    "mknodat": 33, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38, "umount2": 39, "mount": 40,
    "truncate": 45, "ftruncate": 46, "fallocate": 47, "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55, "openat": 56,
    "write": 64, "writev": 66, "pwrite64": 68, "pwritev": 70, "sendfile": 71, "sync": 81, "fsync": 82, "fdatasync": 83,
    "utimensat": 88, "execve": 221, "syncfs": 267, "renameat2": 276, "copy_file_range": 285,
}  # fmt: skip
_NEW = {"open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432, "mount_setattr": 442, "fchmodat2": 452}
_NAMES = {number: name for name, number in {**(_X86_64 if os.uname().machine == "x86_64" else _GENERIC), **_NEW}.items()}

SYNCS = frozenset({"fsync", "fdatasync", "syncfs", "sync"})
_CHANGING_IOCTLS = frozenset({0x40049409, 0x4020940D, 0x40086602, 0xC0C0583B})  # FICLONE, FICLONERANGE, FS_IOC_SETFLAGS
_BTRFS_IOCTLS = 0x94


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info, as far as a stop at a call's entry fills it."""

    _fields_ = [
        ("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32), ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64), ("nr", ctypes.c_uint64), ("args", ctypes.c_uint64 * 6), ("rest", ctypes.c_uint64 * 2),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What came of it: the changing calls by name, in order; whether the child was killed, and its error if it raised."""

    calls: tuple[str, ...]
    killed: bool
    error: str


def watch(function: Callable[[], object], *, kill_at: int | None = None) -> Watched:
    """Run a function in a traced child; with `kill_at` N kill it before its N-th changing call (the first is 0) is made.

    Raises `OSError` where ptrace isn't permitted.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _be_watched(function, read_fd, write_fd)
    os.close(write_fd)
    try:
        calls, killed = _follow(pid, kill_at)
        with os.fdopen(read_fd, "rb", closefd=False) as told:
            error = told.read().decode(errors="replace")
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(read_fd)
    return Watched(calls=tuple(calls), killed=killed, error=error)


def _be_watched(function: Callable[[], object], read_fd: int, write_fd: int) -> None:
    """The child's life. The calls that it makes to report an error come after a stop by which the parent knows that it is over."""
    message = b""
    try:
        os.close(read_fd)
        if _ptrace(_TRACEME, 0) < 0:
            raise failed("ptrace")
        os.kill(os.getpid(), signal.SIGSTOP)
        function()
    except BaseException as error:  # noqa: BLE001 - the parent tells it
        message = f"{type(error).__name__}: {error}".encode()
        if os.environ.get("LAMINA_TRACEBACKS"):
            traceback.print_exc()
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        os.write(write_fd, message[:4000])
    finally:
        os._exit(0)


def _follow(pid: int, kill_at: int | None) -> tuple[list[str], bool]:
    calls: list[str] = []
    stops, is_entry = 0, True
    while True:
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            return calls, os.WIFSIGNALED(status)
        signal_number = os.WSTOPSIG(status)
        forwarded = 0
        if signal_number == signal.SIGSTOP:
            stops += 1
            if stops == 1 and _ptrace(_SETOPTIONS, pid, 0, _TRACESYSGOOD | _EXITKILL) < 0:
                raise failed("ptrace")
            is_entry = True
        elif signal_number == _SYSCALL_STOP:
            if is_entry and stops == 1:
                name = _changing(pid)
                if name:
                    if kill_at is not None and len(calls) == kill_at:
                        os.kill(pid, signal.SIGKILL)
                        os.waitpid(pid, 0)
                        return calls, True
                    calls.append(name)
            is_entry = not is_entry
        elif signal_number != signal.SIGTRAP:
            forwarded = signal_number
        if _ptrace(_SYSCALL, pid, 0, forwarded) < 0:
            raise failed("ptrace")


def _changing(pid: int) -> str:
    """Name the call that the child is about to make if it changes something, else ""."""
    info = _Info()
    if _ptrace(_GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info)) < 0:
        raise failed("ptrace")
    if info.op != _ENTRY:
        return ""
    name = _NAMES.get(info.nr, "")
    if name in {"open", "openat"}:
        flags = info.args[1 if name == "open" else 2]
        # O_TMPFILE's own bit: what has no name changes nothing until it gets one
        return f"{name} (to create)" if flags & (os.O_CREAT | os.O_TRUNC) and not flags & 0x400000 else ""
    if name == "ioctl":
        request = info.args[1] & 0xFFFFFFFF
        return name if request in _CHANGING_IOCTLS or request >> 8 & 0xFF == _BTRFS_IOCTLS else ""
    return name


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    return int(libc.ptrace(c_long(request), c_int(pid), c_void_p(address), c_void_p(data)))
