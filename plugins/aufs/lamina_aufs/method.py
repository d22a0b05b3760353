"""Which way of mounting an aufs layer this kernel has. Reads /proc and /lib/modules; tries nothing.

Sources: proc_filesystems(5), proc_pid_mountinfo(5); overlayfs.rst on what an upper layer's file system must have; aufs(5).
"""

import os
from dataclasses import dataclass
from enum import StrEnum

from lamina.api.types import Capabilities, Fidelity, Probe, WhiteoutFormat
from lamina.linux import mount as lm
from lamina_aufs.names import MAX_DEPTH, MAX_NAME_BYTES, PREFIX


class Method(StrEnum):
    """How unions are mounted. The value is what `driver inspect` shows."""

    AUFS = "aufs"
    OVERLAY = "kernel overlayfs, companion directories"
    FUSE = "fuse-overlayfs"


REFUSED_BY = {
    Method.AUFS: frozenset({"aufs", "btrfs", "ecryptfs"}),  # as Docker's driver
    Method.OVERLAY: frozenset(
        {"overlay", "aufs", "ecryptfs", "nfs", "nfs4", "9p", "vfat", "msdos", "exfat", "ntfs3", "cifs", "smb3"}
    ),
    Method.FUSE: frozenset({"vfat", "msdos", "exfat", "9p"}),
}
"""File systems on which a writable branch can't lie: no whiteouts, no xattrs, or a union already."""

_MODULES = {Method.AUFS: ("aufs", "aufs"), Method.OVERLAY: ("overlayfs", "overlay")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The way chosen, or why there is none."""

    method: Method | None
    reason: str = ""
    hint: str = ""


def choose(home: str) -> Choice:
    """Choose the best way for layers in `home`, which need not exist yet."""
    fstype = backing_fstype(home)
    known = kernel_filesystems()
    ways = [method for method, words in _MODULES.items() if words[1] in known or _is_module(*words)]
    if os.path.exists("/dev/fuse") and _program("fuse-overlayfs"):
        ways.append(Method.FUSE)
    if not ways:
        return Choice(
            method=None,
            reason="the kernel has neither aufs nor overlayfs, and fuse-overlayfs is not installed",
            hint="install the package fuse-overlayfs, or a kernel with overlayfs (CONFIG_OVERLAY_FS)",
        )
    for method in ways:
        if fstype not in REFUSED_BY[method] and not (method is Method.AUFS and any(char in home for char in ":,=")):
            return Choice(method=method)
    return Choice(
        method=None,
        reason=f"'{home}' is on {fstype}, on which no union can be written",
        hint="choose a --root on ext4, xfs or tmpfs",
    )


def probe(choice: Choice) -> Probe:
    """Say the choice as the contract wants it, with what that way of mounting can do."""
    if choice.method is None:
        return Probe(usable=False, capabilities=capabilities(Method.OVERLAY), reason=choice.reason, hint=choice.hint)
    hint = "" if choice.method is not Method.FUSE else "a kernel with overlayfs mounts the same layers several times faster"
    return Probe(usable=True, capabilities=capabilities(choice.method), method=choice.method.value, hint=hint)


def capabilities(method: Method) -> Capabilities:
    """What the driver can do when it mounts in this way."""
    lost = {
        Method.AUFS: {Fidelity.ACLS},  # kept on copy-up, but setting one is EOPNOTSUPP without the mount option `acl`
        Method.OVERLAY: set[Fidelity](),
        Method.FUSE: {Fidelity.HOLES},
    }[method]
    return Capabilities(
        whiteouts=WhiteoutFormat.AUFS,
        native_diff=True,
        max_depth=MAX_DEPTH,
        preserves=frozenset(Fidelity) - lost,
        forbidden_prefix=PREFIX,
        max_name_bytes=MAX_NAME_BYTES,
    )


def kernel_filesystems() -> frozenset[str]:
    """Read the kernel's file systems: those built in and those whose module is loaded."""
    with open("/proc/filesystems", encoding="ascii") as lines:
        return frozenset(line.split()[-1] for line in lines)


def backing_fstype(home: str) -> str:
    """Say on what kind of file system a path lies, or the nearest directory above it that is there."""
    path = home
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    path = os.path.realpath(path)
    best, fstype = "", ""
    for each in lm.mounts():
        inside = path == each.target or path.startswith(each.target.rstrip("/") + "/")
        if inside and len(each.target) >= len(best):  # of two on one place the later one is on top
            best, fstype = each.target, each.fstype
    return fstype


def _is_module(directory: str, name: str) -> bool:
    folder = f"/lib/modules/{os.uname().release}/kernel/fs/{directory}"
    try:
        return any(entry.partition(".")[0] == name for entry in os.listdir(folder))
    except OSError:
        return False


def _program(name: str) -> bool:
    folders = os.environ.get("PATH", os.defpath).split(":")
    return any(os.access(f"{folder}/{name}", os.X_OK) for folder in folders if folder)
