"""An upper directory, in the overlay or the aufs format, as entries: what another engine has left of a container's changes.

Unlike `changes`, which compares with the layers below, this says what the directory itself holds, every file that was copied up
among it, changed or not: what lies there is what the container saw, hard links that a copy-up broke included.
"""

import os
import stat
from dataclasses import dataclass, field

from lamina.api.entries import EntryKind
from lamina.api.types import WhiteoutFormat
from lamina.archive import attributes, paths
from lamina.archive.picked import Picked, Socket
from lamina.errors import LaminaError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True, kw_only=True)
class UpperPicks:
    """What an upper directory holds, in order: parents before what is in them."""

    picked: list[Picked] = field(default_factory=list)
    sockets: list[Socket] = field(default_factory=list)


def pick_upper(upper_dir: str, whiteouts: WhiteoutFormat) -> UpperPicks:
    """List everything in an upper directory. Refuses what only the mount that wrote it understands (redirects, metacopies)."""
    found = UpperPicks()
    linked: dict[tuple[int, int], str] = {}
    fd = os.open(upper_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found.picked.append(Picked(path=""))
    stack = [("", fd, _listed(found, "", fd, whiteouts))]
    try:
        while stack:
            path, fd, names = stack[-1]
            if not names:
                os.close(stack.pop()[1])
                continue
            name = names.pop()
            inner = paths.join(path, name)
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                if len(stack) >= paths.MAX_DEPTH:
                    raise LaminaError(f"'{paths.shown(inner)}' lies deeper than {paths.MAX_DEPTH} directories")
                inner_fd = os.open(name, _DIRECTORY, dir_fd=fd)
                found.picked.append(Picked(path=inner))
                stack.append((inner, inner_fd, _listed(found, inner, inner_fd, whiteouts)))
                continue
            link = linked.setdefault((info.st_dev, info.st_ino), inner) if info.st_nlink > 1 else inner
            if stat.S_ISSOCK(info.st_mode):
                found.sockets.append(_socket(inner, link, info, fd, name))
            else:
                found.picked.append(Picked(path=inner, link=link if link != inner else ""))
    finally:
        for _path, fd, _names in stack:
            os.close(fd)
    return found


def _listed(found: UpperPicks, path: str, fd: int, whiteouts: WhiteoutFormat) -> list[str]:
    """Note a directory's marks; give its other names, the last first."""
    names = set(os.listdir(fd))
    gone, opaque = (_overlay_marks if whiteouts is WhiteoutFormat.OVERLAY else _aufs_marks)(path, fd, names)
    if opaque and path:
        found.picked.append(Picked(path=path, mark=EntryKind.OPAQUE))
    found.picked += [Picked(path=paths.join(path, name), mark=EntryKind.WHITEOUT) for name in sorted(gone, key=os.fsencode)]
    return sorted(names - gone, key=os.fsencode, reverse=True)


def _overlay_marks(path: str, fd: int, names: set[str]) -> tuple[set[str], bool]:
    mark = _xattr(fd, "trusted.overlay.opaque")
    if _xattr(fd, "trusted.overlay.redirect") is not None:
        raise LaminaError(f"'{paths.shown(path)}' was renamed by an overlay mount with redirect_dir on, which is not supported")
    gone = set()
    for name in names:
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        place = f"/proc/self/fd/{fd}/{name}"
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            gone.add(name)
        elif stat.S_ISREG(info.st_mode):
            if _xattr(place, "trusted.overlay.metacopy") is not None:
                raise LaminaError(f"'{paths.shown(paths.join(path, name))}' was written with metacopy on, which is not supported")
            if mark == b"x" and info.st_size == 0 and _xattr(place, "trusted.overlay.whiteout") is not None:
                gone.add(name)
    return gone, mark == b"y"


def _aufs_marks(path: str, fd: int, names: set[str]) -> tuple[set[str], bool]:
    opaque = paths.OPAQUE_NAME in names
    for name in [name for name in names if name.startswith(paths.BOOKKEEPING_PREFIX)]:
        names.discard(name)
    marks = {name for name in names if name.startswith(paths.WHITEOUT_PREFIX)}
    for name in marks:
        if not stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            raise LaminaError(f"'{paths.shown(paths.join(path, name))}' has a whiteout's name, but is not a regular file")
    names -= marks
    return {name.removeprefix(paths.WHITEOUT_PREFIX) for name in marks}, opaque


def _socket(path: str, link: str, info: os.stat_result, dir_fd: int, name: str) -> Socket:
    return Socket(
        path=path,
        mode=stat.S_IMODE(info.st_mode),
        owner=(info.st_uid, info.st_gid),
        mtime_ns=info.st_mtime_ns,
        directory_mtime_ns=os.fstat(dir_fd).st_mtime_ns,
        xattrs=tuple(attributes.content_xattrs(f"/proc/self/fd/{dir_fd}/{name}").items()),
        link=link if link != path else "",
    )


def _xattr(path: str | int, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name) if isinstance(path, int) else os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return None
