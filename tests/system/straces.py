"""What strace(1) says that processes did to the system, call by call, to hold a trace against.

Left out is what a trace doesn't claim: calls before it began, what was only read, that threads begin, SQLite's own files.
"""

import re
import subprocess
from pathlib import Path

from cases import SLOWNESS

CHANGING = (
    "mount", "umount2", "fsopen", "fsconfig", "fsmount", "move_mount", "open_tree", "mount_setattr", "pivot_root", "chroot",
    "unshare", "setns", "sethostname", "setdomainname", "clone", "clone3", "fork", "vfork", "execve", "execveat", "kill", "tkill",
    "tgkill", "pidfd_send_signal", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid",
    "setfsgid", "capset", "prctl", "setsid", "setpgid", "chdir", "fchdir", "umask", "mkdir", "mkdirat", "mknod", "mknodat",
    "symlink", "symlinkat", "link", "linkat", "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2", "chmod", "fchmod",
    "fchmodat", "chown", "fchown", "lchown", "fchownat", "truncate", "ftruncate", "utimensat", "setxattr", "lsetxattr",
    "fsetxattr", "removexattr", "lremovexattr", "fremovexattr", "openat", "openat2", "open", "creat", "bind", "ioctl",
    "memfd_create", "setrlimit", "prlimit64", "swapon", "reboot", "init_module", "finit_module", "acct", "quotactl",
    "name_to_handle_at", "seccomp", "bpf", "keyctl", "ptrace", "personality", "setpriority", "sched_setaffinity",
)  # fmt: skip
"""Every call with which a container engine may change something, those too that ours never makes."""

_LINE = re.compile(r"^(\d+)\s+(?:\[[^]]*\] )?([a-z_0-9]+)\((.*)$")
_RESULT = re.compile(r"= (-?\d+)(?: |<|$)[^=]*$")
_IOCTLS = ("SIOCSIFFLAGS", "TIOCSWINSZ", "TIOCSCTTY", "TIOCSPTLCK", "TIOCGPTPEER", "FICLONE", "FS_IOC_SETFLAGS")


def strace(command: list[str], output: Path, *, everything: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command under strace with all that it forks."""
    traced = [] if everything else ["-e", f"trace={','.join(CHANGING)}"]
    return subprocess.run(
        ["strace", "-f", "-y", "-qq", "-s", "4096", "-e", "signal=none", *traced, "-o", str(output), *command],
        capture_output=True, text=True, check=False, timeout=100 * SLOWNESS, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def changing_calls(output: Path) -> dict[int, list[str]]:
    """Pid to the names of its changing calls, its threads' too, in order; of the first process those after the trace had begun."""
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    process_of = _threads(lines)
    calls: dict[int, list[str]] = {}
    other_program: set[int] = set()
    begun = False
    for line in lines:
        if " resumed>" in line and " execve " in line and re.search(r"= 0$", line):
            other_program.add(int(line.split()[0]))
        found = _LINE.match(line)
        if found is None:
            continue
        pid, name, rest = process_of.get(int(found[1]), int(found[1])), found[2], found[3]
        if name == "memfd_create":
            begun = begun or "lamina-trace" in rest
            continue
        if not begun or pid in other_program or not _changes(name, rest):
            continue
        calls.setdefault(pid, []).append("clone" if name in {"clone3", "fork"} else name)
        if name == "execve" and re.search(r"= 0$", line):
            other_program.add(pid)
    return calls


def _threads(lines: list[str]) -> dict[int, int]:
    """Thread's id to the pid of its process: strace tells each of its own. (On Linux before 6.7 one mounts an overlay.)"""
    process_of: dict[int, int] = {}
    begun: set[int] = set()
    for line in lines:
        pid = int(line.split(maxsplit=1)[0])
        if "CLONE_THREAD" in line:
            begun.add(pid)
        if pid in begun and "clone" in line and (made := re.search(r"= (\d+)$", line)):
            process_of[int(made[1])] = process_of.get(pid, pid)
            begun.remove(pid)
    return process_of


def _changes(name: str, rest: str) -> bool:
    if "lamina.db" in rest:
        return False  # SQLite's
    if name in {"openat", "openat2", "open"}:
        return ("O_CREAT" in rest or "O_TRUNC" in rest) and "O_TMPFILE" not in rest
    if name == "ioctl":
        return any(word in rest for word in _IOCTLS)
    if name in {"clone", "clone3"}:
        return "CLONE_THREAD" not in rest
    if name == "prctl":
        return not rest.startswith(("PR_GET", "PR_CAPBSET_READ", "PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET"))
    if name == "prlimit64":
        return not re.search(r"RLIMIT_\w+, NULL", rest)
    return name != "name_to_handle_at"
