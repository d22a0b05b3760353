"""Subvolumes of btrfs, by ioctl(2) (linux/btrfs.h): made, snapshotted, deleted.

Each answers False where that can't be: on another file system first of all. Nothing here knows what a layer is.
"""

import errno
import fcntl
import os
import sys

_SNAP_DESTROY = 0x5000940F
_SNAP_CREATE_V2 = 0x50009417
_SUBVOL_CREATE_V2 = 0x50009418
_CANNOT = frozenset([errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EACCES, errno.EXDEV, errno.ENOTEMPTY])


def create_subvolume(dir_fd: int, name: str) -> bool:
    """Make an empty subvolume in a directory."""
    return _call("btrfs subvolume create", _SUBVOL_CREATE_V2, dir_fd, _volume(name), name)


def snapshot(source_fd: int, dir_fd: int, name: str) -> bool:
    """Make a writable snapshot of the subvolume whose top is open, in a directory of the same file system.

    It shares all blocks with its origin. A subvolume within the origin is an empty directory in it.
    """
    return _call("btrfs snapshot create", _SNAP_CREATE_V2, dir_fd, _volume(name, source_fd), name)


def destroy_subvolume(dir_fd: int, name: str) -> bool:
    """Delete a subvolume with all that is in it, unless others are within it. The kernel gives the blocks back later."""
    return _call("btrfs snapshot destroy", _SNAP_DESTROY, dir_fd, _number(0) + os.fsencode(name).ljust(4088, b"\0"), name)


def _volume(name: str, source_fd: int = 0) -> bytes:
    """Make a struct btrfs_ioctl_vol_args_v2."""
    return _number(source_fd) + bytes(48) + os.fsencode(name).ljust(4040, b"\0")


def _number(value: int) -> bytes:
    return value.to_bytes(8, sys.byteorder)


def _call(what: str, request: int, fd: int, argument: bytes, name: str) -> bool:
    try:
        fcntl.ioctl(fd, request, bytearray(argument))  # bytes may be 1024 at most
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise OSError(error.errno, f"{what}: {error.strerror}", name) from None
    return True
