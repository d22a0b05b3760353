"""Processes: pidfds, prctl, capabilities, seccomp, keyrings, who is alive.

Sources: pidfd_open(2), clone(2), prctl(2), capabilities(7), seccomp(2), keyctl(2), proc_pid_stat(5).
"""

import contextlib
import ctypes
import errno
import functools
import os
import signal
from collections.abc import Iterator

from lamina.linux import libc as c_library
from lamina.linux.fs import read_bytes
from lamina.linux.libc import (
    SYS_CLONE3,
    SYS_CLOSE_RANGE,
    SYS_KEYCTL,
    SYS_SECCOMP,
    c_long,
    c_size_t,
    c_uint,
    failed,
    libc,
    syscall,
)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
    "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
    "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
    "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip
"""Names without CAP_, each at its number (capabilities(7))."""
CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN = 2, 21


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> None:
    """prctl(2)."""
    if libc.prctl(option, arg2, arg3, arg4, arg5) < 0:
        raise failed("prctl")


class _CloneArguments(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid", "set_tid_size",
            "cgroup",
        )
    ]  # fmt: skip


CLONE_INTO_CGROUP = 1 << 33

_holding = ctypes.PyDLL(None, use_errno=True)
"""The C library once more, called without letting go of the interpreter's lock: who returns from clone3 has what the caller had."""
_holding.syscall.restype = c_long


def fork_into(kinds: int, *, cgroup_fd: int = -1) -> int:
    """Fork, the child in new namespaces of these kinds (CLONE_NEW*) and in a cgroup of version 2, whose directory may be given.

    For a process of one thread alone, and a child that runs nothing but our own code: what `os.fork` does in a child about other
    threads, their locks and what modules have registered isn't done, which takes half a millisecond.
    """
    flags = kinds | (CLONE_INTO_CGROUP if cgroup_fd >= 0 else 0)
    arguments = _CloneArguments(flags=flags, exit_signal=signal.SIGCHLD, cgroup=max(cgroup_fd, 0))
    pid = _holding.syscall(c_long(SYS_CLONE3), ctypes.byref(arguments), c_size_t(ctypes.sizeof(arguments)))
    if pid < 0:
        raise failed("clone3")
    return int(pid)


def fork() -> int:
    """Fork a child that runs nothing but our own code, as quickly as may be."""
    if os.stat("/proc/self/task").st_nlink == 3:  # each thread is a directory in it (proc(5)): there is this one alone
        try:
            return fork_into(0)
        except OSError:
            pass  # a sandbox that hides clone3; if it is for another reason, the next says so
    return os.fork()


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


_CapDataPair = _CapData * 2
_CAPABILITY_VERSION_3 = 0x20080522


def own_capabilities() -> frozenset[int]:
    """The capabilities that this process may use: its permitted set."""
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), _CapDataPair()
    if libc.capget(ctypes.byref(header), ctypes.byref(data)) < 0:
        raise failed("capget")
    bits = data[0].permitted | data[1].permitted << 32
    return frozenset(number for number in range(64) if bits >> number & 1)


def drop_bounding_set(keep: frozenset[int]) -> None:
    """Take every capability but `keep` out of the bounding set, so that no execve gives it back."""
    for number in range(len(CAPABILITIES)):
        if number not in keep:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # EINVAL: a capability that this kernel doesn't know


def set_capabilities(permitted: frozenset[int], effective: frozenset[int] | None = None) -> None:
    """Keep only these capabilities, effective too unless those are others; inheritable and ambient become empty."""
    kept = sum(1 << number for number in permitted)
    used = kept if effective is None else sum(1 << number for number in effective)
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), _CapDataPair()
    for index, shift in enumerate((0, 32)):
        data[index].permitted = kept >> shift & 0xFFFFFFFF
        data[index].effective = used >> shift & 0xFFFFFFFF
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if libc.capset(ctypes.byref(header), ctypes.byref(data)) < 0:
        raise failed("capset")


SECCOMP_SET_MODE_FILTER = 1
KEYCTL_JOIN_SESSION_KEYRING = 1
_INSTRUCTION_BYTES = 8


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def set_filter(program: bytes) -> None:
    """Let a program of classic BPF (an array of struct sock_filter) decide of each system call from here on, for good.

    Needs CAP_SYS_ADMIN in the process's user namespace, or no_new_privs.
    """
    if not program or len(program) % _INSTRUCTION_BYTES:
        raise OSError(errno.EINVAL, "seccomp: not an array of instructions")
    described = _Program(len(program) // _INSTRUCTION_BYTES, program)
    if syscall(SYS_SECCOMP, c_uint(SECCOMP_SET_MODE_FILTER), c_uint(0), ctypes.byref(described)) < 0:
        raise failed("seccomp")


def new_session_keyring() -> None:
    """Leave the session keyring for a new one without a name, which nobody else can join; nothing where keys are not to be had."""
    if syscall(SYS_KEYCTL, ctypes.c_int(KEYCTL_JOIN_SESSION_KEYRING), ctypes.c_void_p(None)) < 0:
        error = failed("keyctl")
        if error.errno not in {errno.ENOSYS, errno.EPERM}:  # no CONFIG_KEYS; a sandbox around the engine, so around this as well
            raise error


def become_user_for_files(uid: int, gid: int) -> None:
    """Make files as this user from here on, this thread alone, and keep every capability (setfsuid(2))."""
    able = own_capabilities()
    libc.setfsgid(gid)
    libc.setfsuid(uid)
    set_capabilities(able)  # setfsuid(2) takes away those over files


@contextlib.contextmanager
def files_made_as(uid: int, gid: int) -> Iterator[None]:
    """Let the block's files be this user's, in this thread."""
    become_user_for_files(uid, gid)
    try:
        yield
    finally:
        become_user_for_files(os.geteuid(), os.getegid())


class _Limit(ctypes.Structure):
    _fields_ = [("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64)]


def set_limit(number: int, soft: int, hard: int) -> None:
    """Set one of this process's resource limits by its number; -1 is unlimited (prlimit(2))."""
    if libc.prlimit(0, number, ctypes.byref(_Limit(soft, hard)), None) < 0:  # -1 becomes RLIM_INFINITY, all ones
        raise failed("prlimit")


def limit(number: int) -> tuple[int, int]:
    """Give one of this process's resource limits, soft and hard; -1 is unlimited."""
    found = _Limit()
    if libc.prlimit(0, number, None, ctypes.byref(found)) < 0:
        raise failed("prlimit")
    soft, hard = (-1 if value == (1 << 64) - 1 else int(value) for value in (found.soft, found.hard))
    return soft, hard


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot, or None if there is none: with the pid it names a process for good.

    A zombie counts as gone. proc_pid_stat(5), fields 3 and 22; the name in parentheses may contain anything.
    """
    try:
        fields = read_bytes(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def forget_origin(title: str) -> None:
    """Overwrite this process's command line and environment, as others read them in /proc, with a title and nothing.

    For a process that goes on inside a container without an execve: what it was started with is the host's affair. The places are
    fields 48 to 51 of /proc/self/stat (proc_pid_stat(5)).
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    arguments, arguments_end, environment, environment_end = (int(field) for field in fields[45:49])
    ctypes.memset(environment, 0, environment_end - environment)
    ctypes.memset(arguments, 0, arguments_end - arguments)
    text = title.encode()[: arguments_end - arguments - 1]
    ctypes.memmove(arguments, text, len(text))
    prctl(PR_SET_NAME, ctypes.addressof(ctypes.create_string_buffer(text[:15])))


def is_alive(pid: int, started: int | None) -> bool:
    """Say whether the process of that pid and start time still runs."""
    return pid > 0 and started is not None and start_time(pid) == started


@functools.cache
def boot_id() -> str:
    """The kernel's name for this boot, which a process sees one of."""
    return read_bytes("/proc/sys/kernel/random/boot_id").decode().strip()


def close_descriptors(keep: frozenset[int]) -> None:
    """Close every descriptor but `keep` (and mark nothing): for a child that must inherit only what it was given."""
    if c_library.listener is not None:
        keep |= {c_library.listener.kept_fd}
    next_fd = 0
    for fd in (*sorted(keep), 1 << 31):
        if next_fd < fd and syscall(SYS_CLOSE_RANGE, c_uint(next_fd), c_uint(fd - 1), c_uint(0)) < 0:
            raise failed("close_range")
        next_fd = max(next_fd, fd + 1)
