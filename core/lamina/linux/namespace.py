"""Namespaces: leaving them, entering them, comparing them. Sources: namespaces(7), unshare(2), setns(2), netdevice(7)."""

import fcntl
import os
import struct

from lamina.linux.libc import failed, libc

CLONE_FS = 0x200
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

KINDS = {
    "mnt": CLONE_NEWNS,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
    "cgroup": CLONE_NEWCGROUP,
    "user": CLONE_NEWUSER,
}
"""The names in /proc/PID/ns and their clone(2) flags."""

ID_COUNT = 1 << 16
"""How many users, and how many groups, a new user namespace has; `nobody` is 65534."""


def unshare(flags: int) -> None:
    """Leave the namespaces of the given kinds for new ones; with CLONE_NEWPID the next child is the first in it."""
    if libc.unshare(flags) < 0:
        raise failed("unshare")


def setns(fd: int, flags: int) -> None:
    """Enter a namespace by its descriptor, or with a pidfd several of that process's at once (Linux 5.8)."""
    if libc.setns(fd, flags) < 0:
        raise failed("setns", f"/proc/self/fd/{fd}")


def has_users() -> bool:
    """Whether user namespaces can be made: the kernel has them, and the limit in /proc/sys/user isn't 0 (namespaces(7))."""
    try:
        with open("/proc/sys/user/max_user_namespaces", encoding="utf-8") as file:
            return int(file.read()) > 0
    except OSError:
        return False


def new_users(first_id: int) -> int:
    """Make a user namespace whose ids from 0 on are this one's from `first_id` on, `ID_COUNT`; returns a descriptor that keeps it.

    A process must be in it while its maps are written by one with CAP_SETUID outside (user_namespaces(7)): a child for this alone.
    """
    inside, outside = os.pipe(), os.pipe()
    try:
        child = os.fork()
        if child == 0:
            try:
                unshare(CLONE_NEWUSER)
                os.write(inside[1], b"in")
                os.close(outside[1])
                os.read(outside[0], 1)
            except OSError as error:
                os.write(inside[1], str(error.errno).encode())
            finally:
                os._exit(0)
        try:
            said = os.read(inside[0], 8)
            if said != b"in":
                raise OSError(int(said), f"unshare: {os.strerror(int(said))}", "user namespace")
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{child}/{name}", "w", encoding="utf-8") as file:
                    file.write(f"0 {first_id} {ID_COUNT}")
            return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(outside[1])
            outside = (outside[0], -1)
            os.waitpid(child, 0)
    finally:
        for fd in (*inside, *outside):
            if fd >= 0:
                os.close(fd)


def identity(pid: int | str, kind: str) -> tuple[int, int]:
    """Say which namespace a process is in: two processes share one exactly when these numbers are the same."""
    stat = os.stat(f"/proc/{pid}/ns/{kind}")
    return stat.st_dev, stat.st_ino


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    raw = name.encode()
    if libc.sethostname(raw, len(raw)) < 0:
        raise failed("sethostname", name)


def loopback_up() -> None:
    """Bring `lo` of this network namespace up, which gives it 127.0.0.1 and ::1 (SIOCSIFFLAGS, netdevice(7))."""
    control = libc.socket(2, 2 | os.O_CLOEXEC, 0)  # AF_INET, SOCK_DGRAM; the module `socket` is 3 ms
    if control < 0:
        raise failed("socket")
    try:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
    finally:
        os.close(control)
