"""Users and groups by the container's own /etc/passwd and /etc/group, never by the host's name service.

Runs in the child, its root already the container's. The files are the image's and so hostile: only regular files are read, only so
much of them, and never in a way that blocks (CVE-2024-9676 in other engines). Sources: passwd(5), group(5).
"""

import errno
import os
from collections.abc import Sequence

from lamina.linux.fs import RESOLVE_NO_MAGICLINKS, open_in_root, openat2
from lamina.linux.mount import AT_FDCWD

MAX_FILE_BYTES = 10 << 20


class Identity:
    """Who a process is."""

    def __init__(self, *, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def _rows(path: str, columns: int, root_fd: int | None) -> list[list[str]]:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        fd = openat2(AT_FDCWD, path, flags, RESOLVE_NO_MAGICLINKS) if root_fd is None else open_in_root(root_fd, path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        stat = os.fstat(fd)
        if stat.st_mode & 0o170000 != 0o100000:
            raise OSError(errno.EINVAL, "is not a regular file", path)
        if stat.st_size > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, "is too large", path)
        text = b""
        while chunk := os.read(fd, 1 << 16):
            text += chunk
            if len(text) > MAX_FILE_BYTES:
                raise OSError(errno.EFBIG, "is too large", path)
    finally:
        os.close(fd)
    lines = text.decode("utf-8", "surrogateescape").split("\n")  # splitlines() would let a form feed in a comment begin a user
    rows = [line.removesuffix("\r").split(":") for line in lines if not line.startswith("#")]
    return [row for row in rows if len(row) >= columns]


LEAVE_IT = (1 << 32) - 1
"""(uid_t) -1: to setresuid(2) it means "as it is", so that root would stay root."""


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):  # int() itself refuses thousands of digits
        return None
    return int(text) if int(text) < LEAVE_IT else None


def resolve_user(user: str, etc_dir: str = "/etc", *, root_fd: int | None = None) -> Identity:
    """Resolve `[USER[:GROUP]]`, names or numbers, as Docker does; the default is root.

    Supplementary groups are the group itself and those that /etc/group lists the user in, only the former if a group is given. It
    is among them so that a set-group-ID program can't shake it off, and with it a mode that shuts that group out (CVE-2022-36109).
    Whoever isn't in the container gives its root as `root_fd`: no symlink of the image leads out of that.
    Raises `OSError` with ENOENT for a name that isn't in the files.
    """
    name, colon, group = user.partition(":")
    name = name or "0"
    number = _number(name)
    passwd = _rows(f"{etc_dir}/passwd", 6, root_fd)
    row = next((row for row in passwd if row[0] == name), None)
    if row is None and number is not None:
        row = next((row for row in passwd if _number(row[2]) == number), None)
    if row is None and number is None:
        raise OSError(errno.ENOENT, "no such user in the container's /etc/passwd", name)
    uid = _number(row[2]) if row is not None else number
    gid = _number(row[3]) if row is not None else 0
    if uid is None or gid is None:
        raise OSError(errno.EINVAL, "the container's /etc/passwd is malformed for", name)
    home = row[5] if row is not None and row[5] else "/"
    groups: tuple[int, ...] = ()
    table = _rows(f"{etc_dir}/group", 3, root_fd)
    if colon and group:
        (gid,) = _group_numbers(table, (group,))
    elif row is not None:
        members = [(_number(entry[2]), entry[3].split(",") if len(entry) > 3 else []) for entry in table]
        groups = tuple(dict.fromkeys(number for number, names in members if number is not None and row[0] in names))
    return Identity(uid=uid, gid=gid, groups=tuple(dict.fromkeys((gid, *groups))), home=home)


def resolve_groups(groups: Sequence[str], etc_dir: str = "/etc", *, root_fd: int | None = None) -> tuple[int, ...]:
    """Resolve names or numbers of groups, a name first. Raises `OSError` with ENOENT for a name that isn't in /etc/group."""
    return _group_numbers(_rows(f"{etc_dir}/group", 3, root_fd), groups)


def _group_numbers(table: Sequence[Sequence[str]], groups: Sequence[str]) -> tuple[int, ...]:
    found = []
    for group in groups:
        row = next((entry for entry in table if entry[0] == group), None)
        number = _number(row[2] if row is not None else group)
        if number is None:
            raise OSError(errno.ENOENT, "no such group in the container's /etc/group", group)
        found.append(number)
    return tuple(found)
