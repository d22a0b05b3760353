"""Subvolumes of btrfs by ioctl(2), as linux/btrfs.h describes them: make, snapshot, limit, delete, and count what one alone holds.

Nothing here knows what a layer is. Each function raises `OSError` with the function's name and the path.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_PAGE = 4096
_SEARCH_BYTES = 1 << 16


def _request(direction: int, number: int, size: int = _PAGE) -> int:
    """Make a request's number as _IOW and _IOWR do (asm-generic/ioctl.h); btrfs's magic is 0x94."""
    return direction << 30 | size << 16 | 0x94 << 8 | number


_READ, _WRITE, _BOTH = 2, 1, 3
SNAP_DESTROY = _request(_WRITE, 15)
TREE_SEARCH_V2 = _request(_BOTH, 17, 112)
SNAP_CREATE_V2 = _request(_WRITE, 23)
SUBVOL_CREATE_V2 = _request(_WRITE, 24)
SUBVOL_SETFLAGS = _request(_WRITE, 26, 8)
QGROUP_CREATE = _request(_WRITE, 42, 16)
QGROUP_LIMIT = _request(_READ, 43, 48)
GET_SUBVOL_INFO = _request(_READ, 60, 504)
GET_SUBVOL_ROOTREF = _request(_BOTH, 61)
INO_LOOKUP_USER = _request(_BOTH, 62)

TOP_INODE = 256  # BTRFS_FIRST_FREE_OBJECTID: the inode number of every subvolume's top directory
INODE_ITEM, EXTENT_DATA = 1, 108
QUOTA_TREE, QGROUP_STATUS, QGROUP_STATUS_ON, QGROUP_MAX_EXCL = 8, 240, 1, 2
_INLINE = 0  # BTRFS_FILE_EXTENT_INLINE: the bytes are in the tree itself
_BLOCK = 4096


def create(directory: str, name: str) -> None:
    """Make an empty subvolume."""
    with _opened(directory) as fd:
        _call("subvolume create", SUBVOL_CREATE_V2, fd, _volume(name), f"{directory}/{name}")


def snapshot(source: str, directory: str, name: str) -> None:
    """Make a writable snapshot of a subvolume."""
    with _opened(source) as source_fd, _opened(directory) as fd:
        _call("snapshot create", SNAP_CREATE_V2, fd, _volume(name, source_fd), f"{directory}/{name}")


def has_quotas(path: str) -> bool:
    """Whether quotas are enabled on the file system: its quota tree is there and its status says "on" (btrfs-quota(8))."""
    key = struct.pack("=7Q4I32xQ", QUOTA_TREE, 0, 0, 0, 2**64 - 1, 0, 2**64 - 1, QGROUP_STATUS, QGROUP_STATUS, 1, 0, _PAGE)
    with _opened(path) as fd:
        answer = _call("tree search", TREE_SEARCH_V2, fd, key + bytes(_PAGE), path, tolerated=errno.ENOENT)
    flags = struct.unpack_from("=Q", answer, len(key) + 32 + 16)[0]  # struct btrfs_qgroup_status_item: version, generation, flags
    return bool(struct.unpack_from("=I", answer, 64)[0] == 1 and flags & QGROUP_STATUS_ON)


def limit(path: str, size_bytes: int) -> None:
    """Let a subvolume hold so many bytes that no other one shares; a write beyond is EDQUOT. Needs quotas."""
    with _opened(path) as fd:
        _call("qgroup limit", QGROUP_LIMIT, fd, struct.pack("=6Q", 0, QGROUP_MAX_EXCL, 0, size_bytes, 0, 0), path)


def number(path: str) -> int:
    """Give a subvolume's number, which its quota group has too."""
    with _opened(path) as fd:
        return int(struct.unpack_from("=Q", _call("get subvolume info", GET_SUBVOL_INFO, fd, bytes(504), path))[0])


def forget_quota(directory: str, subvolume: int) -> None:
    """Delete the quota group of a subvolume that is gone; the kernel may be faster, or may still count in it, and keeps it then."""
    with _opened(directory) as fd:
        try:
            _call("qgroup destroy", QGROUP_CREATE, fd, struct.pack("=2Q", 0, subvolume), directory)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.EBUSY, errno.ENOTCONN, errno.EINVAL}:
                raise


def destroy(directory: str, name: str) -> None:
    """Delete a subvolume and those within it; no error if it has gone. The kernel gives the blocks back later, by itself."""
    path = f"{directory}/{name}"
    try:
        with _opened(directory) as fd:
            while True:
                try:
                    _call("snapshot destroy", SNAP_DESTROY, fd, struct.pack("=q4088s", 0, os.fsencode(name)), path)
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY or not _destroy_children(path):
                        raise
                else:
                    return
    except FileNotFoundError:
        pass  # another process deletes it too


def _destroy_children(path: str) -> bool:
    """Delete the subvolumes directly within one, 255 at most; False if there are none."""
    with _opened(path) as fd:
        _call("set flags", SUBVOL_SETFLAGS, fd, struct.pack("=Q", 0), path)  # nothing can be deleted in a read-only one
        children = list(_children(fd, path))
        for directory, name in children:
            destroy(f"{path}/{directory}".rstrip("/"), name)
    return bool(children)


def _children(fd: int, path: str) -> Iterator[tuple[str, str]]:
    """Give the subvolumes directly within one: the directory that has each, from the top, and its name."""
    answer = _call("get subvolume references", GET_SUBVOL_ROOTREF, fd, bytes(_PAGE), path, tolerated=errno.EOVERFLOW)
    for number in range(answer[8 + 255 * 16]):
        tree, inode = struct.unpack_from("=QQ", answer, 8 + number * 16)
        found = _call("inode lookup", INO_LOOKUP_USER, fd, struct.pack("=QQ4080x", inode, tree), path)
        yield _text(found[272:]), _text(found[16:272])


def written(path: str) -> tuple[int, int]:
    """Count the bytes of files and the inodes that came into a subvolume since it was made; all of them if it isn't a snapshot.

    Each extent bears the number of the transaction that wrote it, and a snapshot that of the one that made it. What is only in
    memory isn't seen: sync first.
    """
    size_bytes, inodes = 0, 1  # the top directory
    with _opened(path) as fd:
        info = _call("get subvolume info", GET_SUBVOL_INFO, fd, bytes(504), path)
        is_snapshot = any(info[312:328])  # parent_uuid
        since = struct.unpack_from("=Q", info, 352)[0] + 1 if is_snapshot else 0  # otransid
        for inode, kind, item in _items(fd, path, since):
            if struct.unpack_from("=Q", item)[0] < since:  # of an old item in a leaf that was written
                continue
            if kind == INODE_ITEM:
                inodes += inode != TOP_INODE
            elif item[20] == _INLINE:
                size_bytes += _BLOCK  # as stat(2) counts it
            else:
                address, _, _, length = struct.unpack_from("=QQQQ", item, 21)
                size_bytes += length if address else 0  # no address: a hole
    return size_bytes, inodes


def _items(fd: int, path: str, since: int) -> Iterator[tuple[int, int, bytes]]:
    """Give inodes and extents out of those leaves of a subvolume's tree that a transaction or a later one wrote."""
    last = 2**64 - 1
    inode, kind, offset = TOP_INODE, 0, 0
    while True:
        key = struct.pack(
            "=7Q4I32xQ", 0, inode, last - 256, offset, last, since, last, kind, EXTENT_DATA, 1 << 20, 0, _SEARCH_BYTES
        )
        answer = _call("tree search", TREE_SEARCH_V2, fd, key + bytes(_SEARCH_BYTES), path)
        (count,) = struct.unpack_from("=I", answer, 64)
        if not count:
            return
        place = len(key)
        for _ in range(count):
            _, inode, offset, kind, size = struct.unpack_from("=QQQII", answer, place)
            if kind in {INODE_ITEM, EXTENT_DATA}:
                yield inode, kind, answer[place + 32 : place + 32 + size]
            place += 32 + size
        if offset < last:  # go on behind the last key: its three parts count like the digits of a number
            offset += 1
        else:
            inode, kind, offset = (inode, kind + 1, 0) if kind < 255 else (inode + 1, 0, 0)


def _volume(name: str, source_fd: int = 0) -> bytes:
    """Make a struct btrfs_ioctl_vol_args_v2."""
    return struct.pack("=qQQ32x4040s", source_fd, 0, 0, os.fsencode(name))


def _text(field: bytes) -> str:
    return os.fsdecode(field.split(b"\0", 1)[0])


@contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _call(what: str, request: int, fd: int, argument: bytes, path: str, *, tolerated: int = 0) -> bytes:
    """Make the call and give the structure as the kernel left it."""
    buffer = bytearray(argument)
    try:
        fcntl.ioctl(fd, request, buffer)
    except OSError as error:
        if error.errno != tolerated:
            raise OSError(error.errno, f"btrfs {what}: {error.strerror}", path) from None
    return bytes(buffer)
