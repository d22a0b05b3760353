"""seccomp(2): a program of the kernel's classic BPF decides of each system call from here on, for this process and its descendants.

Not here: what the program says (`lamina.seccomp`).
"""

import ctypes
import errno
import os

from lamina.linux.libc import c_uint, failed, syscall

SYS_SECCOMP = {"x86_64": 317}.get(os.uname().machine, 277)  # 277 in asm-generic/unistd.h
SECCOMP_SET_MODE_FILTER = 1
_INSTRUCTION_BYTES = 8


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def set_filter(program: bytes) -> None:
    """Load a filter, an array of struct sock_filter. It can't be taken off.

    Needs CAP_SYS_ADMIN in the process's user namespace, or no_new_privs.
    """
    if not program or len(program) % _INSTRUCTION_BYTES:
        raise OSError(errno.EINVAL, "seccomp: not an array of instructions")
    described = _Program(len(program) // _INSTRUCTION_BYTES, program)
    if syscall(SYS_SECCOMP, c_uint(SECCOMP_SET_MODE_FILTER), c_uint(0), ctypes.byref(described)) < 0:
        raise failed("seccomp")
