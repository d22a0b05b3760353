"""A recorder of what this process and its forks ask of the kernel, call by call, and of the steps that they are part of.

Imported by `--trace` alone. Until `Recorder.start` every function is Python's own, so a run without a trace makes no call more and
executes no line more than if there were no recorder. From then on the functions of `os`, `signal`, `fcntl`, `socket` and the C
library by which a process changes the system are replaced, in this process and those that it forks, by ones that note the call
when it is over: so a plugin's calls are noted too, whoever wrote it. Left out are bytes read and written, files that are only
read, descriptors, memory and threads; and SQLite's own files and Python's cache, which no Python function opens.

Names are the x86_64 ones (strace(1) says them so). Notes go into a file in memory (memfd_create(2)) that all these
processes share; a note is one write(2) and so never mixed with another. Not here: reading them (`lamina.usecases.trace`).
"""

import _posixsubprocess
import builtins
import ctypes
import errno
import fcntl
import io
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from lamina import finder
from lamina.linux import libc as c_library
from lamina.linux import process, unix_socket

FIELDS = "\x1f"
"""Parts the fields of a note; a note ends with a newline. Neither is ever in a field."""

_AT_PREFIXED = frozenset({"mkdir", "symlink", "link", "unlink", "rename"})
_NEW_CALLS = {
    c_library.SYS_OPEN_TREE: "open_tree", c_library.SYS_MOVE_MOUNT: "move_mount", c_library.SYS_FSOPEN: "fsopen",
    c_library.SYS_FSCONFIG: "fsconfig", c_library.SYS_FSMOUNT: "fsmount", c_library.SYS_MOUNT_SETATTR: "mount_setattr",
    c_library.SYS_PIVOT_ROOT: "pivot_root", c_library.SYS_PIDFD_SEND_SIGNAL: "pidfd_send_signal",
    c_library.SYS_SECCOMP: "seccomp", c_library.SYS_KEYCTL: "keyctl", c_library.SYS_BPF: "bpf",
}  # fmt: skip
_LIBC_CALLS = ("mount", "umount2", "unshare", "setns", "sethostname", "prctl", "capset")
_IOCTLS = {
    0x8914: "SIOCSIFFLAGS", 0x5414: "TIOCSWINSZ", 0x540E: "TIOCSCTTY", 0x40045431: "TIOCSPTLCK", 0x5441: "TIOCGPTPEER",
    0x40049409: "FICLONE", 0x40086602: "FS_IOC_SETFLAGS",
}  # fmt: skip
_CREATING = os.O_CREAT | os.O_TRUNC

# Function of os: the call's name, with `{}` where a descriptor or a directory's descriptor makes another one of it.
_OS_CALLS = {
    "mkdir": "mkdir", "mknod": "mknodat", "mkfifo": "mknodat", "symlink": "symlink", "link": "link", "unlink": "unlink",
    "remove": "unlink", "rmdir": "rmdir", "rename": "rename", "replace": "rename", "chmod": "chmod", "fchmod": "fchmod",
    "chown": "chown", "fchown": "fchown", "lchown": "lchown", "truncate": "truncate", "ftruncate": "ftruncate",
    "utime": "utimensat", "setxattr": "setxattr", "removexattr": "removexattr", "chroot": "chroot", "chdir": "chdir",
    "fchdir": "fchdir", "setsid": "setsid", "setpgid": "setpgid", "umask": "umask", "setgroups": "setgroups", "setuid": "setuid",
    "setgid": "setgid", "setresuid": "setresuid", "setresgid": "setresgid", "kill": "kill", "killpg": "kill",
    "unshare": "unshare", "setns": "setns",
}  # fmt: skip


_MODES = {"mkdir": 1, "mknodat": 1, "chmod": 1, "fchmod": 1, "umask": 0}
"""Which argument is written in octal."""
_NAMESPACES = (
    (0x20000, "CLONE_NEWNS"), (0x2000000, "CLONE_NEWCGROUP"), (0x4000000, "CLONE_NEWUTS"), (0x8000000, "CLONE_NEWIPC"),
    (0x10000000, "CLONE_NEWUSER"), (0x20000000, "CLONE_NEWPID"), (0x40000000, "CLONE_NEWNET"),
)  # fmt: skip
_MOUNT_FLAGS = (
    (1, "MS_RDONLY"), (2, "MS_NOSUID"), (4, "MS_NODEV"), (8, "MS_NOEXEC"), (32, "MS_REMOUNT"), (4096, "MS_BIND"),
    (16384, "MS_REC"), (1 << 18, "MS_PRIVATE"), (1 << 19, "MS_SLAVE"),
)  # fmt: skip
_WORDS: dict[tuple[str, int], tuple[tuple[int, str], ...]] = {
    ("unshare", 0): _NAMESPACES, ("setns", 1): _NAMESPACES, ("mount", 3): _MOUNT_FLAGS,
    ("umount2", 1): ((2, "MNT_DETACH"), (8, "UMOUNT_NOFOLLOW")),
}  # fmt: skip
"""Bits by name: of which call, which argument."""
_PRCTLS = {
    4: "PR_SET_DUMPABLE",
    8: "PR_SET_KEEPCAPS",
    15: "PR_SET_NAME",
    24: "PR_CAPBSET_DROP",
    36: "PR_SET_CHILD_SUBREAPER",
    38: "PR_SET_NO_NEW_PRIVS",
    47: "PR_CAP_AMBIENT",
}


class Recorder:
    """One recording. It is `libc.listener` while it runs."""

    def __init__(self) -> None:
        self.kept_fd = os.memfd_create("lamina-trace", os.MFD_CLOEXEC)
        # Else processes that note at once overwrite each other: the kernel locks the position in files that were opened, and this
        # one was made without being opened (FMODE_ATOMIC_POS in its source).
        fcntl.fcntl(self.kept_fd, fcntl.F_SETFL, os.O_APPEND)
        self.process = "0"
        """This process among those recorded: its parent's name, a dot, and which of its children it is."""
        self.role = "lamina"
        self._forks = 0
        self._open: list[tuple[str, str, int]] = []
        self._kept: list[tuple[Any, str, Any]] = []
        self._top = os.getpid()
        self._tell: Callable[[], None] = lambda: None
        self._telling = False

    def start(self, tell: Callable[[], None] = lambda: None) -> None:
        """Begin; `tell` is called in this process whenever an outermost step of its own is over."""
        self._tell = tell
        for name, call in _OS_CALLS.items():
            if hasattr(os, name):
                self._replace(os, name, self._plain(getattr(os, name), call))
        self._replace(os, "open", self._opening(os.open))
        for module in (builtins, finder.OWN, finder.OTHERS, io):
            self._replace(module, "open", self._opening_file(module.open))
        self._replace(os, "fork", self._forking(os.fork, "clone"))
        self._replace(process, "fork_into", self._forking(process.fork_into, "clone3"))
        for name in ("execv", "execve"):
            self._replace(os, name, self._executing(getattr(os, name)))
        for name in ("posix_spawn", "posix_spawnp"):  # subprocess's way since Python 3.13
            self._replace(os, name, self._posix_spawning(getattr(os, name)))
        _ = signal.Signals  # so that it becomes whole now, if it is a stand-in (`standins.py`), and not while it is recorded
        for module in dict.fromkeys((signal, sys.modules["signal"])):
            self._replace(module, "pidfd_send_signal", self._plain(module.pidfd_send_signal, "pidfd_send_signal"))
        self._replace(fcntl, "ioctl", self._controlling(fcntl.ioctl))
        self._replace(socket.socket, "bind", self._binding(socket.socket.bind))
        self._replace(unix_socket, "bind", self._binding(unix_socket.bind))
        for holder, name in ((_posixsubprocess, "fork_exec"), (sys.modules.get("subprocess"), "_fork_exec")):
            if hasattr(holder, name):
                self._replace(holder, name, self._spawning(getattr(holder, name)))
        for name in _LIBC_CALLS:
            self._replace(c_library.libc, name, self._of_libc(getattr(c_library.libc, name), name))
        for name in ("syscall", *c_library.TYPED_CALLS):
            self._replace(c_library.libc, name, self._by_number(getattr(c_library.libc, name)))
        c_library.listener = self

    def stop(self) -> None:
        """End; every function is again what it was. The notes stay until `close`."""
        c_library.listener = None
        while self._kept:
            owner, name, original = self._kept.pop()
            if owner is socket.socket:
                delattr(owner, name)  # it was inherited
            else:
                setattr(owner, name, original)

    def close(self) -> None:
        """Let go of the notes."""
        os.close(self.kept_fd)

    # What a Listener is told

    def enters(self, role: str) -> None:
        """Note under this name from here on."""
        self.role = role

    def begins(self, name: str, describe: Callable[[], str]) -> None:
        """Note that a step begins."""
        began = time.monotonic_ns()
        self._open.append((name, describe(), began))
        self._note("begin", (began, 0), name, "", self._open[-1][1])

    def ends(self) -> None:
        """Note that the step begun last is over; not for a child, forked in it, that goes on."""
        if not self._open:
            return
        name, _text, began = self._open.pop()
        self._note("end", (began, time.monotonic_ns()), name, "", "")
        if not self._open and self.process == "0" and not self._telling:
            self._telling = True
            try:
                self._tell()
            finally:
                self._telling = False

    def remark(self, kind: str, text: str) -> None:
        """Note something that isn't a call, such as a statement to the database."""
        now = time.monotonic_ns()
        self._note(kind, (now, now), kind, "", text)

    # Writing

    def _note(self, kind: str, when_ns: tuple[int, int], name: str, result: str, text: str) -> None:
        if self._telling:
            return  # what showing the trace does is no part of it
        fields = (kind, self.process, self.role, str(len(self._open)), *map(str, when_ns), name, result, _one_line(text))
        os.write(self.kept_fd, FIELDS.join(fields).encode("utf-8", "surrogateescape") + b"\n")

    def _call(self, began: int, name: str, result: object, arguments: str) -> None:
        self._note("call", (began, time.monotonic_ns()), name, str(result), arguments)

    def _replace(self, owner: Any, name: str, recorded: Any) -> None:
        original = getattr(owner, name)
        self._kept.append((owner, name, original))
        if owner is os:
            for supporting in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
                if original in supporting:
                    supporting.add(recorded)  # shutil.rmtree and others look up there what they may use
        setattr(owner, name, recorded)

    def _plain(self, original: Any, call: str) -> Any:
        def recorded(*arguments: Any, **options: Any) -> Any:
            name, shown = _shown(call, arguments, options)
            began = time.monotonic_ns()
            try:
                result = original(*arguments, **options)
            except OSError as error:
                self._call(began, name, _failure(error), shown)
                raise
            self._call(began, name, result if isinstance(result, int) else 0, shown)
            return result

        return recorded

    def _opening(self, original: Any) -> Any:
        def recorded(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            began = time.monotonic_ns()
            try:
                result: int = original(path, flags, mode, dir_fd=dir_fd)
            except OSError as error:
                if flags & _CREATING:
                    self._call(began, "openat", _failure(error), f"{_at(dir_fd)}{_value(path)}, {_flags(flags)}, {mode:#o}")
                raise
            if flags & _CREATING:
                self._call(began, "openat", result, f"{_at(dir_fd)}{_value(path)}, {_flags(flags)}, {mode:#o}")
            return result

        return recorded

    def _opening_file(self, original: Any) -> Any:
        def recorded(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            changes = isinstance(mode, str) and set(mode) & set("wxa") and not isinstance(file, int)
            began = time.monotonic_ns()
            try:
                result = original(file, mode, *arguments, **options)
            except OSError as error:
                if changes:
                    self._call(began, "openat", _failure(error), f"{_value(file)}, for '{mode}'")
                raise
            if changes:
                self._call(began, "openat", result.fileno(), f"{_value(file)}, for '{mode}'")
            return result

        return recorded

    def _forking(self, original: Any, call: str) -> Any:
        def recorded(kinds: int | None = None, *, cgroup_fd: int = -1) -> int:
            child = f"{self.process}.{self._forks}"
            flags = ([_said("unshare", 0, kinds)] if kinds else []) + (["CLONE_INTO_CGROUP"] if cgroup_fd >= 0 else [])
            text = f"{child} {'|'.join(flags)}"
            began = time.monotonic_ns()
            try:
                pid: int = original() if kinds is None else original(kinds, cgroup_fd=cgroup_fd)
            except OSError as error:
                self._call(began, call, _failure(error), text)
                raise
            if pid == 0:
                self.process, self._forks, self._open = child, 0, []
                return 0
            self._forks += 1
            self._call(began, call, pid, text)
            return pid

        return recorded

    def _spawning(self, original: Any) -> Any:
        def recorded(*arguments: Any) -> int:
            began = time.monotonic_ns()
            pid: int = original(*arguments)
            self._spawned(began, "vfork", pid, arguments[0])
            return pid

        return recorded

    def _posix_spawning(self, original: Any) -> Any:
        def recorded(path: Any, words: Any, environment: Any, /, **options: Any) -> int:
            began = time.monotonic_ns()
            pid: int = original(path, words, environment, **options)
            self._spawned(began, "clone3", pid, words)
            return pid

        return recorded

    def _spawned(self, began: int, call: str, pid: int, words: Any) -> None:
        self._call(began, call, pid, f"{self.process}.{self._forks}")
        self._forks += 1
        self.remark("exec", " ".join(os.fsdecode(word) for word in words))

    def _executing(self, original: Any) -> Any:
        def recorded(path: Any, words: Any, *environment: Any) -> None:
            shown = f"{_value(path)}, {list(words)!r}"
            began = time.monotonic_ns()
            self._call(began, "execve", 0, shown)  # if it works, nothing comes after it
            try:
                original(path, words, *environment)
            except OSError as error:
                self._note("failed", (began, time.monotonic_ns()), "execve", _failure(error), shown)
                raise

        return recorded

    def _controlling(self, original: Any) -> Any:
        def recorded(fd: Any, request: int, *arguments: Any) -> Any:
            if request not in _IOCTLS:
                return original(fd, request, *arguments)
            number = fd if isinstance(fd, int) else fd.fileno()
            began = time.monotonic_ns()
            try:
                result = original(fd, request, *arguments)
            except OSError as error:
                self._call(began, "ioctl", _failure(error), f"{number}, {_IOCTLS[request]}")
                raise
            self._call(began, "ioctl", result if isinstance(result, int) else 0, f"{number}, {_IOCTLS[request]}")
            return result

        return recorded

    def _binding(self, original: Any) -> Any:
        def recorded(bound: Any, address: Any) -> None:
            began = time.monotonic_ns()
            original(bound, address)
            self._call(began, "bind", 0, f"{bound.fileno()}, {address!r}")

        return recorded

    def _of_libc(self, original: Any, name: str) -> Any:
        def recorded(*arguments: Any) -> int:
            began = time.monotonic_ns()
            result: int = original(*arguments)
            shown = ", ".join(_said(name, position, each) for position, each in enumerate(arguments))
            self._call(began, name, result if result >= 0 else _failure_now(), shown)
            return result

        return recorded

    def _by_number(self, original: Any) -> Any:
        def recorded(number: Any, *arguments: Any) -> int:
            began = time.monotonic_ns()
            result: int = original(number, *arguments)
            known = getattr(number, "value", number)
            name = _NEW_CALLS.get(known, "")
            if known == c_library.SYS_OPENAT2 and arguments[2]._obj.flags & _CREATING and not _is_unnamed(arguments[2]):
                name = "openat2"
            if name:
                failure = ctypes.get_errno()
                text = ", ".join(_value(each) for each in arguments)
                self._call(began, name, result if result >= 0 else f"-1 {errno.errorcode.get(failure, str(failure))}", text)
                ctypes.set_errno(failure)
            return result

        return recorded


def _is_unnamed(how: Any) -> bool:
    return bool(how._obj.flags & 0x400000)  # O_TMPFILE's own bit


def _shown(call: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[str, str]:
    """The name that the call has with these arguments, and the arguments as text."""
    directories = [options[key] for key in ("dir_fd", "src_dir_fd", "dst_dir_fd") if options.get(key) is not None]
    first = arguments[0] if arguments else None
    words = [_value(each) for each in arguments]
    if call in _MODES and len(words) > _MODES[call] and isinstance(arguments[_MODES[call]], int):
        words[_MODES[call]] = f"{arguments[_MODES[call]]:#o}"
    if directories:
        words = [_at(directory).removesuffix(", ") for directory in directories] + words
        if call == "rmdir":
            call, words = "unlinkat", [*words, "AT_REMOVEDIR"]
        elif call in _AT_PREFIXED or call in {"chmod", "chown"}:
            call = f"f{call}at" if call in {"chmod", "chown"} else f"{call}at"
    elif isinstance(first, int) and call in {"chmod", "chown", "chdir", "setxattr", "removexattr", "truncate"}:
        call = {"truncate": "ftruncate"}.get(call, f"f{call}")
    elif options.get("follow_symlinks") is False and call in {"chown", "setxattr", "removexattr"}:
        call = f"l{call}"
    return call, ", ".join(words)


def _at(dir_fd: int | None) -> str:
    if dir_fd is None:
        return ""
    try:
        return f"{dir_fd}<{os.readlink(f'/proc/self/fd/{dir_fd}')}>, "
    except OSError:  # /proc isn't mounted here yet, or not any more
        return f"{dir_fd}, "


def _said(call: str, position: int, argument: Any) -> str:
    bits = _WORDS.get((call, position))
    if bits is not None and argument:
        left = argument & ~sum(bit for bit, _word in bits)
        return "|".join([word for bit, word in bits if argument & bit] + ([hex(left)] if left else []))
    if call == "prctl" and position == 0:
        return _PRCTLS.get(argument, str(argument))
    return _value(argument)


def _value(argument: Any) -> str:
    if isinstance(getattr(argument, "_obj", None), ctypes.Array):
        return "[" + ", ".join(_value(ctypes.byref(each)) for each in argument._obj) + "]"
    if hasattr(argument, "_obj"):
        structure = argument._obj
        return "{" + ", ".join(f"{name}={getattr(structure, name)}" for name, _kind in getattr(structure, "_fields_", ())) + "}"
    value = getattr(argument, "value", argument)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    return "NULL" if value is None else repr(value)


_FLAG_NAMES = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_NOFOLLOW", "O_CLOEXEC")


def _flags(flags: int) -> str:
    return "|".join(name for name in _FLAG_NAMES if flags & getattr(os, name)) or "O_RDONLY"


def _failure(error: OSError) -> str:
    return f"-1 {errno.errorcode.get(error.errno or 0, str(error.errno))}"


def _failure_now() -> str:
    number = ctypes.get_errno()
    return f"-1 {errno.errorcode.get(number, str(number))}"


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
