"""System calls that hardly a program makes, for asking how a file system answers them.

renameat2(2), inotify(7), name_to_handle_at(2), fallocate(2), statfs(2), ioctl_iflags(2). Not here: what the answers mean.
"""

import ctypes
import fcntl
import os
import struct

from lamina.linux.libc import c_char_p, c_int, c_long, c_uint, c_void_p, failed, libc

AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
IN_MODIFY, IN_CREATE, IN_CLOSE_WRITE, IN_ALL_EVENTS = 0x2, 0x100, 0x8, 0xFFF
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL = 0x80086601, 0x40086602, 0x10


def rename(source: str, target: str, flags: int) -> None:
    """renameat2(2), with flags that os.rename doesn't know."""
    libc.renameat2.argtypes = (c_int, c_char_p, c_int, c_char_p, c_uint)
    if libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags) < 0:
        raise failed("renameat2", source, target)


def watch(path: str, mask: int = IN_ALL_EVENTS) -> int:
    """Give an inotify descriptor, not blocking, that is told of what happens to a path."""
    fd = int(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
    if fd < 0:
        raise failed("inotify_init1")
    libc.inotify_add_watch.argtypes = (c_int, c_char_p, c_uint)
    if libc.inotify_add_watch(fd, os.fsencode(path), mask) < 0:
        error = failed("inotify_add_watch", path)
        os.close(fd)
        raise error
    return fd


def events(fd: int) -> int:
    """Read what an inotify descriptor was told, as one mask; 0 for nothing."""
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:
        return 0
    seen, offset = 0, 0
    while offset < len(data):
        _watch, mask, _cookie, length = struct.unpack_from("iIII", data, offset)
        seen |= mask
        offset += 16 + length
    return seen


def file_handle(path: str) -> bytes:
    """name_to_handle_at(2): by what an NFS server would find the file again."""
    buffer = ctypes.create_string_buffer(8 + 128)
    struct.pack_into("Ii", buffer, 0, 128, 0)
    mount_id = c_int()
    libc.name_to_handle_at.argtypes = (c_int, c_char_p, c_void_p, c_void_p, c_int)
    if libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), buffer, ctypes.byref(mount_id), 0) < 0:
        raise failed("name_to_handle_at", path)
    return buffer.raw[: 8 + struct.unpack_from("I", buffer)[0]]


def preallocate(fd: int, length: int) -> None:
    """fallocate(2) with FALLOC_FL_KEEP_SIZE: give a file blocks before it needs them."""
    libc.fallocate.argtypes = (c_int, c_int, c_long, c_long)
    if libc.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, length) < 0:
        raise failed("fallocate")


def punch_hole(fd: int, offset: int, length: int) -> None:
    """fallocate(2) with FALLOC_FL_PUNCH_HOLE: give blocks in the middle of a file back."""
    libc.fallocate.argtypes = (c_int, c_int, c_long, c_long)
    if libc.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) < 0:
        raise failed("fallocate")


def filesystem_magic(path: str) -> int:
    """statfs(2): the number by which a file system says what it is (linux/magic.h)."""
    buffer = ctypes.create_string_buffer(256)
    libc.statfs.argtypes = (c_char_p, c_void_p)
    if libc.statfs(os.fsencode(path), buffer) < 0:
        raise failed("statfs", path)
    return int(struct.unpack_from("l", buffer)[0]) & 0xFFFFFFFF


def set_immutable(fd: int, on: bool) -> None:
    """chattr +i and -i (ioctl_iflags(2))."""
    word = bytearray(8)
    fcntl.ioctl(fd, FS_IOC_GETFLAGS, word)
    flags = int.from_bytes(word[:4], "little")
    flags = flags | FS_IMMUTABLE_FL if on else flags & ~FS_IMMUTABLE_FL
    fcntl.ioctl(fd, FS_IOC_SETFLAGS, flags.to_bytes(8, "little"))
