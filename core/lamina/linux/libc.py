"""The C library, opened once: typed functions, and how a failed call becomes an `OSError`.

Not here: what the calls are for. A wrapper lives in the module named after its subject. System calls that glibc 2.36 has no
function for go through `syscall`, by their number, which is the same on every architecture for calls newer than 2019.

Here too is the one thing that everything on the way to a container can see without importing more: `listener`, which is told of
steps while a trace is recorded (`recorder.py`) and is None otherwise.
"""

import ctypes
import os
from collections.abc import Callable
from typing import Protocol

libc = ctypes.CDLL(None, use_errno=True)

c_int, c_uint, c_long, c_ulong, c_char_p, c_void_p, c_size_t, c_uint64 = (
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_long,
    ctypes.c_ulong,
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_uint64,
)

for _name, _argtypes in {
    "mount": (c_char_p, c_char_p, c_char_p, c_ulong, c_void_p),
    "umount2": (c_char_p, c_int),
    "unshare": (c_int,),
    "setns": (c_int, c_int),
    "sethostname": (c_char_p, c_size_t),
    "socket": (c_int, c_int, c_int),
    "prctl": (c_int, c_ulong, c_ulong, c_ulong, c_ulong),
    "syncfs": (c_int,),
    "fstatfs": (c_int, c_void_p),
    "capset": (c_void_p, c_void_p),
    "capget": (c_void_p, c_void_p),
}.items():
    _function = getattr(libc, _name)
    _function.argtypes = _argtypes
    _function.restype = c_int

libc.syscall.restype = c_long

# syscall(2) once more for each call that a start makes often: its types need not be said at each call, which takes as long again.
TYPED_CALLS = {
    "open_tree": (c_int, c_char_p, c_uint),
    "move_mount": (c_int, c_char_p, c_int, c_char_p, c_uint),
    "fsopen": (c_char_p, c_uint),
    "fsconfig": (c_int, c_uint, c_char_p, c_char_p, c_int),
    "fsmount": (c_int, c_uint, c_uint),
    "openat2": (c_int, c_char_p, c_void_p, c_size_t),
    "mount_setattr": (c_int, c_char_p, c_uint, c_void_p, c_size_t),
}
"""By attributes of `libc` that want the call's number first."""
for _name, _types in TYPED_CALLS.items():
    _function = libc["syscall"]
    _function.argtypes = (c_long, *_types)
    _function.restype = c_long
    setattr(libc, _name, _function)

# asm-generic numbers; x86_64, aarch64 and riscv64 share all from pidfd_send_signal (424) on.
SYS_PIDFD_SEND_SIGNAL = 424
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_PIDFD_OPEN = 434
SYS_CLONE3 = 435
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442
SYS_SECCOMP = {"x86_64": 317}.get(os.uname().machine, 277)  # the others by asm-generic/unistd.h
SYS_KEYCTL = {"x86_64": 250}.get(os.uname().machine, 219)
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41}.get(os.uname().machine, 41)
SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}.get(os.uname().machine, 280)


def failed(function: str, *names: str | None) -> OSError:
    """Make the OSError of a call that has just failed: errno's text, the function's name, the paths."""
    errno = ctypes.get_errno()
    error = OSError(errno, f"{function}: {os.strerror(errno)}", *names[:1])
    if len(names) > 1:
        error.filename2 = names[1]
    return error


def syscall(number: int, *arguments: object) -> int:
    """Call by number; returns the result, or -1 with errno set for `failed`."""
    return int(libc.syscall(c_long(number), *arguments))


class Listener(Protocol):
    """Who is told what happens, in every process that is forked while it is set."""

    kept_fd: int
    """A descriptor that a child keeps until its execve."""

    def enters(self, role: str) -> None:
        """Say what this process is, just after its fork."""

    def begins(self, name: str, describe: Callable[[], str]) -> None:
        """Say that a step begins; `describe` gives it as command lines, parted by `; `."""

    def ends(self) -> None:
        """Say that the step that began last is over, whether it worked or not."""


listener: Listener | None = None


class told:
    """Tell the listener, if there is one, that a step begins and ends: `with told("mount", mount.describe):`."""

    __slots__ = ("_describe", "_name")

    def __init__(self, name: str, describe: Callable[[], str]) -> None:
        self._name = name
        self._describe = describe

    def __enter__(self) -> None:
        if listener is not None:
            listener.begins(self._name, self._describe)

    def __exit__(self, *_exception: object) -> None:
        if listener is not None:
            listener.ends()
