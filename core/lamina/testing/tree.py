"""Trees declared as data, made on disk, read back, and compared: every attribute that a layer has to keep.

    make(root, {"etc/hosts": File("127.0.0.1"), "etc/alias": Link("etc/hosts"), "run": Directory(mode=0o1777)})

Directories above are made as they are needed; whatever isn't given its own time gets `TIME_NS`, so that a change is seen.
"""

import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from hashlib import sha256

from lamina.linux.fs import data_extents, read_xattrs

TIME_NS = 1_500_000_000_123_456_789
"""When everything was last changed: long ago, and not at a whole second."""

ACCESS_ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
# linux/posix_acl_xattr.h: version 2; user::rwx, user:1000:rw-, group::r-x, mask::rwx, other::r-x
ACL = bytes.fromhex("0200000001000700ffffffff02000600e803000004000500ffffffff10000700ffffffff20000500ffffffff")
# linux/capability.h: vfs_cap_data revision 2, cap_net_raw permitted and effective
FILE_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


_CHUNK_BYTES = 1 << 16


class Kind(StrEnum):
    """What a path is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHAR_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    LINK = "hard link"


_KINDS = {
    stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK, stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET, stat.S_IFCHR: Kind.CHAR_DEVICE, stat.S_IFBLK: Kind.BLOCK_DEVICE,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One path of a declared tree."""

    kind: Kind
    content: bytes = b""
    at: int = 0
    """Where the content stands in the file; what is before it is a hole."""
    size_bytes: int | None = None
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = TIME_NS
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


Tree = Mapping[str, Node]


def File(content: str | bytes = "", **attributes: object) -> Node:
    """Declare a regular file."""
    return Node(kind=Kind.FILE, content=content if isinstance(content, bytes) else os.fsencode(content), **attributes)  # type: ignore[arg-type]


def Directory(**attributes: object) -> Node:
    """Declare a directory."""
    return Node(kind=Kind.DIRECTORY, **{"mode": 0o755, **attributes})  # type: ignore[arg-type]


def Symlink(text: str, **attributes: object) -> Node:
    """Declare a symlink."""
    return Node(kind=Kind.SYMLINK, link=text, **attributes)  # type: ignore[arg-type]


def Link(path: str) -> Node:
    """Declare another name of a path that stands before it."""
    return Node(kind=Kind.LINK, link=path)


def Special(kind: Kind, *, device: tuple[int, int] = (0, 0), **attributes: object) -> Node:
    """Declare a fifo, socket or device."""
    return Node(kind=kind, device=device, **attributes)  # type: ignore[arg-type]


def make(root: str, tree: Tree) -> None:
    """Make the declared tree in the directory `root`. The root's own attributes are those of the path ""."""
    made: dict[str, Node] = {}
    for path, node in tree.items():
        above = path.rpartition("/")[0]
        missing = []
        while above and above not in made and not os.path.isdir(f"{root}/{above}"):
            missing.append(above)
            above = above.rpartition("/")[0]
        for directory in reversed(missing):
            os.mkdir(f"{root}/{directory}")
            made[directory] = Directory()
        _make_one(root, path, node)
        made[path] = node
    for path in sorted(made, key=lambda each: each.count("/") if each else -1, reverse=True):
        if made[path].kind is not Kind.LINK:
            _set_attributes(f"{root}/{path}" if path else root, made[path])
    if "" not in made:
        os.utime(root, ns=(TIME_NS, TIME_NS))


def _make_one(root: str, path: str, node: Node) -> None:
    place = f"{root}/{path}"
    if node.kind is Kind.FILE:
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if node.size_bytes is not None:
                os.ftruncate(fd, node.size_bytes)
            os.pwrite(fd, node.content, node.at)
        finally:
            os.close(fd)
    elif node.kind is Kind.DIRECTORY:
        if path and not os.path.isdir(place):
            os.mkdir(place)
    elif node.kind is Kind.SYMLINK:
        os.symlink(node.link, place)
    elif node.kind is Kind.LINK:
        os.link(f"{root}/{node.link}", place, follow_symlinks=False)
    elif node.kind is Kind.SOCKET:
        with socket.socket(socket.AF_UNIX) as server:
            folder_fd = os.open(os.path.dirname(place), os.O_PATH | os.O_CLOEXEC)
            try:
                server.bind(f"/proc/self/fd/{folder_fd}/{os.path.basename(place)}")  # sun_path has room for 108 bytes
            finally:
                os.close(folder_fd)
    else:
        kind = {Kind.FIFO: stat.S_IFIFO, Kind.CHAR_DEVICE: stat.S_IFCHR, Kind.BLOCK_DEVICE: stat.S_IFBLK}[node.kind]
        os.mknod(place, kind | 0o600, os.makedev(*node.device))


def _set_attributes(place: str, node: Node) -> None:
    os.chown(place, node.uid, node.gid, follow_symlinks=False)
    if node.kind is not Kind.SYMLINK:
        os.chmod(place, node.mode)
    for name, value in node.xattrs.items():
        os.setxattr(place, name, value, follow_symlinks=False)
    os.utime(place, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a layer has to keep of one path."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size_bytes: int
    content: str
    """A file's digest, a symlink's text, a device's number."""
    xattrs: tuple[tuple[str, bytes], ...]
    names: tuple[str, ...]
    """All names of the same inode within the tree; of a directory its own."""


def read(root: str, *, contents: bool = True) -> dict[str, Facts]:
    """Read the tree at `root`: path to facts, "" for the root itself."""
    found: dict[str, tuple[str, os.stat_result]] = {}
    names: dict[tuple[int, int], list[str]] = {}
    todo = [""]
    while todo:
        path = todo.pop()
        place = f"{root}/{path}" if path else f"{root}/."
        info = os.lstat(place)
        found[path] = (place, info)
        if stat.S_ISDIR(info.st_mode):
            todo.extend(f"{path}/{name}" if path else name for name in os.listdir(place))
        elif info.st_nlink > 1:
            names.setdefault((info.st_dev, info.st_ino), []).append(path)
    return {
        path: _facts(path, place, info, names.get((info.st_dev, info.st_ino), [path]), contents=contents)
        for path, (place, info) in sorted(found.items())
    }


def _facts(path: str, place: str, info: os.stat_result, names: list[str], *, contents: bool) -> Facts:
    kind = _KINDS[stat.S_IFMT(info.st_mode)]
    content = ""
    if kind is Kind.FILE and contents:
        content = _digest(place)
    elif kind is Kind.SYMLINK:
        content = os.readlink(place)
    elif kind in {Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE}:
        content = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    return Facts(
        kind=kind,
        mode=stat.S_IMODE(info.st_mode) if kind is not Kind.SYMLINK else 0,
        uid=info.st_uid,
        gid=info.st_gid,
        mtime_ns=info.st_mtime_ns,
        size_bytes=info.st_size if kind in {Kind.FILE, Kind.SYMLINK} else 0,
        content=content,
        xattrs=tuple(sorted(read_xattrs(place).items())),
        names=tuple(sorted(names)),
    )


def _digest(place: str) -> str:
    """Digest a file's data and where it stands: a hole of any size costs nothing, and equals zeros."""
    digest = sha256()
    with open(place, "rb", buffering=0) as file:
        done = 0
        for start, length in data_extents(file.fileno(), os.fstat(file.fileno()).st_size):
            at = max(done, start - start % _CHUNK_BYTES)
            while at < start + length:
                data = os.pread(file.fileno(), _CHUNK_BYTES, at)
                if data.strip(b"\0"):
                    digest.update(b"%d:" % at + data)
                at += _CHUNK_BYTES
            done = at
    return digest.hexdigest()


def differences(found: Mapping[str, Facts], wanted: Mapping[str, Facts], *, ignore: frozenset[str] = frozenset()) -> list[str]:
    """Say in words how two trees differ; `ignore` are names of facts."""
    words = []
    for path in sorted({*found, *wanted}):
        shown = repr(path)[:120]
        if path not in found:
            words.append(f"{shown} is not there")
        elif path not in wanted:
            words.append(f"{shown} ({found[path].kind.value}) should not be there")
        else:
            for each in fields(Facts):
                one, other = getattr(found[path], each.name), getattr(wanted[path], each.name)
                if each.name not in ignore and one != other:
                    words.append(f"{each.name} of {shown} is {_short(each.name, one)} instead of {_short(each.name, other)}")
    return words


def _short(name: str, value: object) -> str:
    return (oct(value) if name == "mode" and isinstance(value, int) else repr(value))[:200]
