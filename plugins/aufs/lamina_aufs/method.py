"""Which way of mounting an aufs layer this kernel has. Reads /proc and /lib/modules; tries nothing.

Sources: proc_filesystems(5), proc_pid_mountinfo(5); overlayfs.rst on what an upper layer's file system must have; aufs(5).
"""

import os
from dataclasses import dataclass
from enum import StrEnum

from lamina.api import quota
from lamina.api.types import Behaviour, Capabilities, Fidelity, Probe, WhiteoutFormat
from lamina.linux.fs import filesystem_type, nearest_directory
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
    fstype = filesystem_type(nearest_directory(home))
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


def probe(home: str, choice: Choice) -> Probe:
    """Say the choice as the contract wants it, with what that way of mounting can do in this place."""
    from lamina.api.copytree import kept_here  # tries a file without a name; a `run` has no need of it

    method = choice.method or Method.OVERLAY
    reason, hint, kept = choice.reason, choice.hint, frozenset(Fidelity)
    place = nearest_directory(home)
    if not reason and os.geteuid() != 0:
        reason, hint = "mounting needs root", "run as root"
    if not reason:
        try:
            kept = kept_here(place)
        except OSError as error:
            reason = f"'{place}' can't be written: {error.strerror}"
    if not reason and method is not Method.AUFS and Fidelity.TRUSTED_XATTRS not in kept:
        reason = f"'{place}' takes no trusted.* xattrs, by which opaque directories are marked"
        hint = "put the store on ext4, XFS or btrfs, or use the vfs driver"
    if not reason and method is Method.FUSE:
        hint = "a kernel with overlayfs mounts the same layers, and reads and writes them several times faster"
    no_quota_reason, no_quota_hint = quota.missing(place)
    return Probe(
        usable=not reason,
        capabilities=capabilities(method, kept, has_quota=not no_quota_reason),
        method="" if choice.method is None else method.value,
        reason=reason,
        hint=hint,
        no_quota_reason=no_quota_reason,
        no_quota_hint=no_quota_hint,
    )


def capabilities(method: Method, kept: frozenset[Fidelity], *, has_quota: bool = False) -> Capabilities:
    """What the driver can do when it mounts in this way, where the file system below keeps `kept`."""
    lost = {
        Method.AUFS: {Fidelity.ACLS},  # kept on copy-up, but setting one is EOPNOTSUPP without the mount option `acl`
        Method.OVERLAY: {Fidelity.HARD_LINKS},  # copying up one name of a file leaves its other names behind
        # on copy-up: files get their holes filled, directories lose setgid, devices become empty files (1.10; test_aufs_golden)
        Method.FUSE: {Fidelity.HARD_LINKS, Fidelity.HOLES, Fidelity.MODE, Fidelity.DEVICES, Fidelity.SOCKETS},
    }[method]
    return Capabilities(
        whiteouts=WhiteoutFormat.AUFS,
        native_diff=True,
        max_depth=MAX_DEPTH,
        quota=has_quota,
        preserves=kept - lost,
        behaves=frozenset({Behaviour.OPEN_FILES, Behaviour.LOCKS}) if method is Method.OVERLAY else frozenset(),
        forbidden_prefix=PREFIX,
        max_name_bytes=MAX_NAME_BYTES,
    )


def kernel_filesystems() -> frozenset[str]:
    """Read the kernel's file systems: those built in and those whose module is loaded."""
    with open("/proc/filesystems", encoding="ascii") as lines:
        return frozenset(line.split()[-1] for line in lines)


def _is_module(directory: str, name: str) -> bool:
    folder = f"/lib/modules/{os.uname().release}/kernel/fs/{directory}"
    try:
        return any(entry.partition(".")[0] == name for entry in os.listdir(folder))
    except OSError:
        return False


def _program(name: str) -> bool:
    folders = os.environ.get("PATH", os.defpath).split(":")
    return any(os.access(f"{folder}/{name}", os.X_OK) for folder in folders if folder)
