"""Mounts: the new mount API (fsopen, fsconfig, fsmount, open_tree, move_mount, mount_setattr), and pivot_root.

The new API has no page of options to overflow, no `,` and `:` to escape, and its mounts can exist without being anywhere: a
detached mount is a descriptor, used through `/proc/self/fd/N`, and gone with the process. Sources: fsopen(2), fsconfig(2),
open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2).

Policy (what to mount, where) is elsewhere; the values come as `Mount`.
"""

import ctypes
import errno
import os
import sys

from lamina.linux.libc import (
    SYS_FSCONFIG,
    SYS_FSMOUNT,
    SYS_FSOPEN,
    SYS_MOUNT_SETATTR,
    SYS_MOVE_MOUNT,
    SYS_OPEN_TREE,
    SYS_PIVOT_ROOT,
    c_char_p,
    failed,
    libc,
    syscall,
)

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100
O_PATH = os.O_PATH if sys.platform == "linux" else 0

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_SET_FD, FSCONFIG_CMD_CREATE = 0, 1, 5, 6
FSCONFIG_VALUE_MAX = 255  # fs/fsopen.c: strndup_user(_value, 256)
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH, MOVE_MOUNT_BENEATH = 0x4, 0x40, 0x200

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_RELATIME, MS_STRICTATIME = (
    1024, 4096, 16384, 1 << 18, 1 << 19, 1 << 21, 1 << 24,
)  # fmt: skip
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

_ATTRIBUTES = {MS_RDONLY: 0x1, MS_NOSUID: 0x2, MS_NODEV: 0x4, MS_NOEXEC: 0x8, MS_NOATIME: 0x10, MS_STRICTATIME: 0x20}
_ATTR_ATIME_MASK = 0x70
MOUNT_ATTR_IDMAP = 0x100000


def kernel_version() -> tuple[int, int]:
    """Give the kernel's version, such as (6, 1), for what can't be asked without a trace."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()) or 0)


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def _attributes(flags: int) -> int:
    return sum(attribute for flag, attribute in _ATTRIBUTES.items() if flags & flag)


def fsmount(fstype: str, options: tuple[tuple[str, str | None], ...] = (), *, flags: int = 0, source: str = "none") -> int:
    """Make a detached mount of a new file system and return its descriptor.

    A string value that is too long for fsconfig(2) (255 bytes) is given as the descriptor of the file it names, through
    `/proc/self/fd`; so is a path with a backslash, which overlayfs takes for an escape in `upperdir` and `workdir`. The
    kernel's own words about a refused option are part of the error (fsopen(2), "Message retrieval").
    """
    context = libc.fsopen(SYS_FSOPEN, fstype.encode(), FSOPEN_CLOEXEC)
    if context < 0:
        raise failed("fsopen", fstype)
    held: list[int] = []
    try:
        for key, value in (("source", source), *options):
            if value is None:
                result = libc.fsconfig(SYS_FSCONFIG, context, FSCONFIG_SET_FLAG, key.encode(), None, 0)
            else:
                text = os.fsencode(value)
                if len(text) > FSCONFIG_VALUE_MAX or (text.startswith(b"/") and b"\\" in text):
                    held.append(os.open(value, O_PATH | os.O_CLOEXEC))
                    text = b"/proc/self/fd/%d" % held[-1]
                result = libc.fsconfig(SYS_FSCONFIG, context, FSCONFIG_SET_STRING, key.encode(), text, 0)
            if result < 0:
                raise _context_error(context, "fsconfig", key if value is None else f"{key}={value}")
        if libc.fsconfig(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0) < 0:
            raise _context_error(context, "fsconfig", fstype)
        fd = libc.fsmount(SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, _attributes(flags))
        if fd < 0:
            raise _context_error(context, "fsmount", fstype)
        return int(fd)
    finally:
        for each in held:
            os.close(each)
        os.close(context)


def _context_error(context: int, function: str, name: str) -> OSError:
    error = failed(function, name)
    messages = []
    while True:
        try:
            messages.append(os.read(context, 4096).decode(errors="replace")[2:].strip())
        except OSError:
            break
    if messages:
        error.strerror = f"{error.strerror} ({'; '.join(messages)})"
    return error


def open_tree(path: str, *, dir_fd: int = AT_FDCWD, recursive: bool = False, follow: bool = True) -> int:
    """Clone the mount that `path` is on, from `path` down, as a detached mount: a bind mount that is nowhere yet.

    With `path` "" it is the file of `dir_fd`. Returns a descriptor.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    flags |= (0 if path else AT_EMPTY_PATH) | (0 if follow else AT_SYMLINK_NOFOLLOW)
    fd = libc.open_tree(SYS_OPEN_TREE, dir_fd, os.fsencode(path), flags)
    if fd < 0:
        raise failed("open_tree", path or f"/proc/self/fd/{dir_fd}")
    return int(fd)


def move_mount(mount_fd: int, target: str = "", *, target_fd: int = AT_FDCWD) -> None:
    """Attach a detached mount at the path, which begins at the directory `target_fd`, or at the file that is open as that."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target else MOVE_MOUNT_T_EMPTY_PATH)
    if libc.move_mount(SYS_MOVE_MOUNT, mount_fd, b"", target_fd, os.fsencode(target), flags) < 0:
        raise failed("move_mount", target or f"/proc/self/fd/{target_fd}")


def set_attributes(fd: int, flags: int, *, clear: int = 0, recursive: bool = False, propagation: int = 0) -> None:
    """Set per-mount attributes (read-only, nosuid, …) and propagation on the mount that `fd` is open on: mount_setattr(2)."""
    attr = _MountAttr(_attributes(flags), _attributes(clear), propagation, 0)
    if flags & (MS_NOATIME | MS_STRICTATIME):
        attr.attr_clr |= _ATTR_ATIME_MASK
    how = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    if libc.mount_setattr(SYS_MOUNT_SETATTR, fd, b"", how, ctypes.byref(attr), ctypes.sizeof(attr)) < 0:
        raise failed("mount_setattr", f"/proc/self/fd/{fd}")


def idmap(fd: int, user_namespace_fd: int, *, recursive: bool = False) -> None:
    """Give a detached mount the ids of a user namespace: what is 0 on disk is seen as what 0 is there (mount_setattr(2), IDMAP).

    Raises `OSError` with EINVAL for a file system that can't be seen so.
    """
    attr = _MountAttr(MOUNT_ATTR_IDMAP, 0, 0, user_namespace_fd)
    how = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    if libc.mount_setattr(SYS_MOUNT_SETATTR, fd, b"", how, ctypes.byref(attr), ctypes.sizeof(attr)) < 0:
        raise failed("mount_setattr", os.readlink(f"/proc/self/fd/{fd}"))


def mount(source: str, target: str, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2), for what the new API has no call for: propagation changes, remounts, and file systems that still want a string."""
    raw = None if data is None else os.fsencode(data)
    if raw is not None and len(raw) >= 4095:
        raise OSError(errno.E2BIG, "mount: the options are longer than a page", target)
    if libc.mount(os.fsencode(source), os.fsencode(target), fstype.encode() if fstype else None, flags, raw) < 0:
        raise failed("mount", source, target)


def unmount(target: str, *, detach: bool = False) -> None:
    """umount2(2); with `detach` it is gone from here now and for good when its last user leaves."""
    if libc.umount2(os.fsencode(target), UMOUNT_NOFOLLOW | (MNT_DETACH if detach else 0)) < 0:
        raise failed("umount2", target)


def make_private(target: str = "/", *, slave: bool = False) -> None:
    """Keep mounts made below from going out of this mount namespace (`slave`: still let the host's come in)."""
    mount("none", target, None, MS_REC | (MS_SLAVE if slave else MS_PRIVATE))


def pivot_root(new_root: str) -> None:
    """Make `new_root`, a mount point, the root of this mount namespace, and let go of the old root.

    The old root is put on top of the new one and taken off at once, so that no directory is needed for it: pivot_root(2),
    "pivot_root(".", ".")".
    """
    old = os.open("/", os.O_DIRECTORY | O_PATH | os.O_CLOEXEC)
    try:
        os.chdir(new_root)
        if syscall(SYS_PIVOT_ROOT, c_char_p(b"."), c_char_p(b".")) < 0:
            raise failed("pivot_root", new_root)
        os.fchdir(old)
        mount("none", ".", None, MS_REC | MS_SLAVE)  # the unmount below must not reach the host
        if libc.umount2(b".", MNT_DETACH) < 0:
            raise failed("umount2", ".")
        os.chdir("/")
    finally:
        os.close(old)
