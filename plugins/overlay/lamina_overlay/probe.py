"""Whether kernel overlayfs can work in a place: the kernel, the file system below, the user. Nothing is mounted to find out."""

import errno
import os

from lamina.api import quota
from lamina.api.copytree import kept_here
from lamina.api.types import Behaviour, Capabilities, Fidelity, Probe, WhiteoutFormat
from lamina.linux.fs import filesystem_type, nearest_directory, tells_types
from lamina.linux.mount import kernel_version

LOWERS_MAX = 500
"""OVL_MAX_STACK (fs/overlayfs/params.h). A read-only view has all of a union's layers as lower ones."""
LOWERS_MAX_BY_STRING = 200
"""How many `/proc/self/fd/NNN:` fit mount(2)'s page of options, with room for the rest."""

NO_UPPER = {
    "overlay": "overlayfs can't have its upper directory on another overlay",
    "aufs": "overlayfs can't have its upper directory on aufs",
    "ecryptfs": "overlayfs can't have its upper directory on ecryptfs",
    "nfs": "overlayfs can't have its upper directory on NFS",
    "nfs4": "overlayfs can't have its upper directory on NFS",
    "vfat": "vfat has no owners, modes and xattrs",
}
"""File systems that the kernel refuses as upper (overlayfs.rst, "Upper and lower") or that can't hold a layer at all."""


def probe(home: str) -> Probe:
    """Answer `storage_probe`."""
    place = nearest_directory(home)
    one_by_one = kernel_version() >= (6, 7)  # `lowerdir+` came with 6.7
    method = "kernel overlayfs (lowerdir+)" if one_by_one else "kernel overlayfs (lowerdir)"
    kept = frozenset(Fidelity)
    reason = hint = ""
    if not _kernel_has_overlayfs():
        reason = "the kernel has no overlayfs, neither loaded nor as a module"
        hint = "install the kernel's module 'overlay', or use another driver"
    elif os.geteuid() != 0:
        reason, hint = "mounting needs root", "run as root"
    elif (kind := filesystem_type(place)) in NO_UPPER:
        reason, hint = f"'{place}' is on {kind}: {NO_UPPER[kind]}", "put the store on ext4, XFS or btrfs, or use the vfs driver"
    elif not tells_types(place):
        reason = f"the {kind} of '{place}' doesn't tell the types of directory entries (d_type), which overlayfs needs"
        hint = "XFS has them when made with ftype=1"
    else:
        try:
            kept = kept_here(place)
        except OSError as error:
            reason = f"'{place}' can't be written: {error.strerror}"
            hint = "mount the file system read-write" if error.errno == errno.EROFS else ""
        else:
            if Fidelity.TRUSTED_XATTRS not in kept:
                reason = f"the {kind} of '{place}' takes no trusted.* xattrs, by which overlayfs marks opaque directories"
                hint = "put the store on ext4, XFS or btrfs, or use the vfs driver"
    if not reason and not one_by_one:
        hint = f"Linux 6.7 and newer mount {LOWERS_MAX} layers instead of {LOWERS_MAX_BY_STRING}"
    no_quota_reason, no_quota_hint = quota.missing(place)
    return Probe(
        usable=not reason,
        capabilities=Capabilities(
            whiteouts=WhiteoutFormat.OVERLAY,
            native_diff=True,
            max_depth=LOWERS_MAX if one_by_one else LOWERS_MAX_BY_STRING,
            quota=not no_quota_reason,
            # Copying up one name of a lower file leaves its other names behind (overlayfs.rst, "Non-standard behavior").
            preserves=kept - {Fidelity.HARD_LINKS},
            # Not mappings, nor renames of lower directories, nor link counts of directories.
            behaves=frozenset({Behaviour.OPEN_FILES, Behaviour.LOCKS, Behaviour.STABLE_INODES}),
        ),
        method=method,
        reason=reason,
        hint=hint,
        no_quota_reason=no_quota_reason,
        no_quota_hint=no_quota_hint,
    )


def _kernel_has_overlayfs() -> bool:
    """Whether overlayfs is there, or a module that fsopen(2) would load by itself."""
    with open("/proc/filesystems", encoding="utf-8") as lines:
        if any(line.split()[-1:] == ["overlay"] for line in lines):
            return True
    try:
        with open(f"/lib/modules/{os.uname().release}/modules.dep", encoding="utf-8") as lines:
            return any("/overlay.ko" in line.partition(":")[0] for line in lines)
    except OSError:
        return False  # no modules for this kernel
