"""Project quotas: how much all inodes that bear one number, a project's, may take of a file system.

Sources: quotactl_fd(2), linux/quota.h, linux/dqblk_xfs.h; ioctl_xfs_fsgetxattr(2), linux/fs.h (FS_IOC_FSSETXATTR). XFS and ext4
answer the same calls; any descriptor on the file system will do. Not here: which numbers are whose.
"""

import ctypes
import errno
import fcntl
import os
import struct

from lamina.linux.libc import c_int, c_uint, failed, syscall

SYS_QUOTACTL_FD = 443  # Linux 5.14
PRJQUOTA = 2
Q_GETQUOTA, Q_SETQUOTA, Q_XGETQSTATV = 0x800007, 0x800008, 0x5808
QIF_BLIMITS = 1
XFS_QUOTA_PDQ_ENFD = 1 << 5
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FS_XFLAG_PROJINHERIT = 0x801C581F, 0x401C5820, 0x200

_DQBLK = struct.Struct("=8QI4x")  # struct if_dqblk; blocks of 1 KiB
_FSXATTR = struct.Struct("=5I8x")  # struct fsxattr
_BLOCK_BYTES = 1024
_OFF = {errno.ESRCH, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY}


def enforces_projects(fd: int) -> bool:
    """Whether the file system of a descriptor counts projects and keeps them within their limits."""
    status = bytearray(struct.pack("=b", 1) + bytes(191))  # struct fs_quota_statv, version 1
    try:
        _quotactl(fd, Q_XGETQSTATV, 0, status)
    except OSError as error:
        if error.errno in _OFF:
            return False
        raise
    return bool(struct.unpack_from("=H", status, 2)[0] & XFS_QUOTA_PDQ_ENFD)


def project_of(fd: int) -> int:
    """Give the project of an open file or directory; 0 for none."""
    return int(_FSXATTR.unpack(_attributes(fd))[3])


def set_project(fd: int, project: int) -> None:
    """Put an open directory into a project; what is made in it from now on is born into it."""
    flags, extent_size, extents, _, cow_extent_size = _FSXATTR.unpack(_attributes(fd))
    fcntl.ioctl(fd, FS_IOC_FSSETXATTR, _FSXATTR.pack(flags | FS_XFLAG_PROJINHERIT, extent_size, extents, project, cow_extent_size))


def project_usage(fd: int, project: int) -> tuple[int, int]:
    """Give what a project takes and may take, in bytes; a limit of 0 is none."""
    block = bytearray(_DQBLK.size)
    try:
        _quotactl(fd, Q_GETQUOTA, project, block)
    except OSError as error:
        if error.errno == errno.ENOENT:  # XFS knows nothing of it yet
            return 0, 0
        raise
    limit_blocks, _, used_bytes, *_ = _DQBLK.unpack(block)
    return used_bytes, limit_blocks * _BLOCK_BYTES


def limit_project(fd: int, project: int, limit_bytes: int) -> None:
    """Set how much a project may take, to the next KiB; 0 takes the limit away. Needs CAP_SYS_ADMIN."""
    blocks = -(-limit_bytes // _BLOCK_BYTES)
    _quotactl(fd, Q_SETQUOTA, project, bytearray(_DQBLK.pack(blocks, blocks, *[0] * 6, QIF_BLIMITS)))


def _attributes(fd: int) -> bytes:
    return fcntl.ioctl(fd, FS_IOC_FSGETXATTR, bytes(_FSXATTR.size))


def _quotactl(fd: int, command: int, project: int, argument: bytearray) -> None:
    buffer = (ctypes.c_char * len(argument)).from_buffer(argument)
    if syscall(SYS_QUOTACTL_FD, c_uint(fd), c_uint(command << 8 | PRJQUOTA), c_int(project), buffer) < 0:
        raise failed("quotactl_fd", os.readlink(f"/proc/self/fd/{fd}"))
