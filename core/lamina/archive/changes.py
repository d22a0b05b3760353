"""What a layer changes: found by comparing two trees, or read from an upper directory in the overlay or aufs format.

Both are one walk. In a full tree what isn't there is deleted; in an upper directory it is deleted if a whiteout says so, or if the
directory is opaque. What is there is compared with the view of the layers below, so that a file that was only touched, or copied
up and not changed, isn't listed. More than Docker's driver finds: xattrs and ACLs alone, and a rewrite of the same size whose old
time was put back.

The layer may be a running container's and change meanwhile: everything is opened by descriptors, nothing is followed, and what has
gone since its name was read is treated as never seen.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Set

from lamina.api.entries import Change, ChangeKind
from lamina.api.types import WhiteoutFormat
from lamina.archive import paths
from lamina.dataclasses import dataclass
from lamina.errors import LaminaError
from lamina.linux.fs import read_xattrs

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GONE = frozenset([errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE])
_READ_BYTES = 1 << 18


def compare_trees(layer: str, parent: str | None, unchanged_before_ns: int | None = None) -> list[Change]:
    """List how the tree at `layer` differs from the one at `parent`, by the contract of `storage_changes`.

    An inode of the layer whose ctime is below `unchanged_before_ns`, in a directory of which the same holds, is taken for unchanged
    without reading it. Without a parent everything is ADD.
    """
    return _compare(layer, WhiteoutFormat.NONE, parent, unchanged_before_ns)


def read_upper(upper_dir: str, whiteouts: WhiteoutFormat, parent: Callable[[], str | None]) -> list[Change]:
    """List what an upper directory changes; the result is the same as that of comparing the union with `parent()`."""
    return _compare(upper_dir, whiteouts, parent(), None)


def _compare(layer: str, whiteouts: WhiteoutFormat, parent: str | None, unchanged_before_ns: int | None) -> list[Change]:
    comparison = _Comparison(whiteouts, unchanged_before_ns)
    with contextlib.ExitStack() as stack:
        fd = _open(stack, layer)
        if parent is None:
            # A base layer begins as a directory 0755 of root's; when that was made is nobody's change.
            if _owner(os.fstat(fd)) != (0o755, 0, 0) or _xattrs(fd):
                comparison.changes.append(Change(path="", kind=ChangeKind.MODIFY))
            comparison.directory("", fd, None, whole=True, trusted=True)
        else:
            parent_fd = _open(stack, parent)
            # The root's own mtime is nobody's change: it moves with every name made in it, and Docker's layers don't hold it.
            if _owner(os.fstat(fd)) != _owner(os.fstat(parent_fd)) or _xattrs(fd) != _xattrs(parent_fd):
                comparison.changes.append(Change(path="", kind=ChangeKind.MODIFY))
            comparison.directory("", fd, parent_fd, whole=whiteouts is WhiteoutFormat.NONE, trusted=True)
    return comparison.changes


def _owner(found: os.stat_result) -> tuple[int, int, int]:
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def _open(stack: contextlib.ExitStack, path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


@dataclass(slots=True, kw_only=True)
class _Listing:
    """A directory of the layer: the names that it has, those that it says are gone, and whether it says so of all others."""

    names: dict[str, os.stat_result]
    gone: set[str]
    opaque: bool


class _Comparison:
    """One walk, and the changes found so far, in order."""

    def __init__(self, whiteouts: WhiteoutFormat, unchanged_before_ns: int | None) -> None:
        self.changes: list[Change] = []
        self._whiteouts = whiteouts
        self._unchanged_before_ns = unchanged_before_ns

    def directory(self, path: str, fd: int, below_fd: int | None, *, whole: bool, trusted: bool) -> None:
        """Compare what is in a directory. `whole`: what isn't in it is gone. `trusted`: none on the way was moved."""
        if path.count("/") >= paths.MAX_DEPTH:
            raise LaminaError(f"'{paths.shown(path)}' lies deeper than {paths.MAX_DEPTH} directories")
        listing = self._list(path, fd)
        whole = whole or listing.opaque
        # Below is looked at by name, so that the walk costs what the layer holds, however much lies below.
        candidates = listing.gone if not whole else set(os.listdir(below_fd)) if below_fd is not None else set()
        below = _stat_each(below_fd, listing.names.keys() if not whole else listing.names.keys() & candidates)
        gone = candidates - listing.names.keys()
        if not whole:
            gone &= _stat_each(below_fd, gone).keys()
        prefix = paths.join(path, "")
        for name in _sorted(gone | listing.names.keys()):
            child = prefix + name
            found = listing.names.get(name)
            if found is None:
                self.changes.append(Change(child, ChangeKind.DELETE))
            elif name not in below and not stat.S_ISDIR(found.st_mode):  # most of what a layer holds
                self.changes.append(Change(child, ChangeKind.ADD))
            else:
                self._name(
                    child, name, fd, found, below_fd=below_fd, below=below.get(name), whole=whole, trusted=trusted
                )  # fmt: skip

    def _name(
        self,
        path: str,
        name: str,
        fd: int,
        found: os.stat_result,
        *,
        below_fd: int | None,
        below: os.stat_result | None,
        whole: bool,
        trusted: bool,
    ) -> None:
        is_directory = stat.S_ISDIR(found.st_mode)
        old = self._unchanged_before_ns is not None and found.st_ctime_ns < self._unchanged_before_ns
        if not is_directory:
            self._compared(path, name, fd, found, below_fd=below_fd, below=below, is_known=old and trusted)
            return
        with _opened_directory(name, fd) as inner_fd:
            if inner_fd is None:
                return  # gone since its name was read
            self._refuse_redirect(path, inner_fd)
            self._compared(path, name, fd, found, below_fd=below_fd, below=below, is_known=False)
            if below is None or below_fd is None or not stat.S_ISDIR(below.st_mode):
                self.directory(path, inner_fd, None, whole=True, trusted=False)
                return
            with _opened_directory(name, below_fd) as inner_below_fd:
                self.directory(path, inner_fd, inner_below_fd, whole=whole, trusted=trusted and old)

    def _compared(
        self,
        path: str,
        name: str,
        fd: int,
        found: os.stat_result,
        *,
        below_fd: int | None,
        below: os.stat_result | None,
        is_known: bool,
    ) -> None:
        """Note what is new or different; `is_known` is a file that nobody has touched."""
        if below is None or below_fd is None:
            self.changes.append(Change(path=path, kind=ChangeKind.ADD))
        elif not is_known and self._differs(name, fd, found, below_fd, below):
            self.changes.append(Change(path=path, kind=ChangeKind.MODIFY))

    def _differs(self, name: str, fd: int, found: os.stat_result, below_fd: int, below: os.stat_result) -> bool:
        if (found.st_dev, found.st_ino) == (below.st_dev, below.st_ino):
            return False
        if not _same_attributes(found, below):
            return True
        try:
            kind = stat.S_IFMT(found.st_mode)
            if kind == stat.S_IFLNK and os.readlink(name, dir_fd=fd) != os.readlink(name, dir_fd=below_fd):
                return True
            if _xattrs(f"/proc/self/fd/{fd}/{name}") != _xattrs(f"/proc/self/fd/{below_fd}/{name}"):
                return True
            return kind == stat.S_IFREG and found.st_size > 0 and not _same_content(name, fd, below_fd)
        except OSError as error:
            if error.errno in _GONE:
                return True
            raise

    def _list(self, path: str, fd: int) -> _Listing:
        found = _stat_each(fd, os.listdir(fd))
        # A layer can't hold a socket (tar has no form for it), so one is as good as not there, and what it replaced is gone.
        sockets = {name for name, each in found.items() if stat.S_ISSOCK(each.st_mode)}
        found = {name: each for name, each in found.items() if name not in sockets} if sockets else found
        if self._whiteouts is WhiteoutFormat.OVERLAY:
            listing = self._list_overlay(path, fd, found)
        elif self._whiteouts is WhiteoutFormat.AUFS:
            listing = self._list_aufs(path, found)
        else:
            listing = _Listing(names=found, gone=set(), opaque=False)
        listing.gone |= sockets
        return listing

    def _list_overlay(self, path: str, fd: int, found: dict[str, os.stat_result]) -> _Listing:
        mark = _xattr(fd, "trusted.overlay.opaque")
        gone = {name for name, each in found.items() if stat.S_ISCHR(each.st_mode) and each.st_rdev == 0}
        if mark == b"x":  # there may be whiteouts that are files, since Linux 6.7
            gone |= {
                name
                for name, each in found.items()
                if stat.S_ISREG(each.st_mode)
                and each.st_size == 0
                and _xattr(f"/proc/self/fd/{fd}/{name}", "trusted.overlay.whiteout") is not None
            }
        place = f"/proc/self/fd/{fd}/"
        for name, each in found.items():
            if stat.S_ISREG(each.st_mode) and "trusted.overlay.metacopy" in _xattr_names(place + name):
                raise _unsupported(paths.join(path, name), "metacopy")
        names = {name: each for name, each in found.items() if name not in gone}
        return _Listing(names=names, gone=gone, opaque=mark == b"y" and path != "")

    def _list_aufs(self, path: str, found: dict[str, os.stat_result]) -> _Listing:
        names, gone = {}, set()
        for name, each in found.items():
            if not name.startswith(paths.WHITEOUT_PREFIX):
                names[name] = each
            elif not name.startswith(paths.BOOKKEEPING_PREFIX):
                if not stat.S_ISREG(each.st_mode):
                    raise LaminaError(f"'{paths.shown(paths.join(path, name))}' has a whiteout's name, but is not a regular file")
                gone.add(name.removeprefix(paths.WHITEOUT_PREFIX))
        # aufs looks for the whiteout first: a name beside its own whiteout is not there.
        names = {name: each for name, each in names.items() if name not in gone}
        return _Listing(names=names, gone=gone, opaque=path != "" and paths.OPAQUE_NAME in found)

    def _refuse_redirect(self, path: str, fd: int) -> None:
        if self._whiteouts is WhiteoutFormat.OVERLAY and _xattr(fd, "trusted.overlay.redirect") is not None:
            raise _unsupported(path, "redirect_dir")


def _unsupported(path: str, feature: str) -> LaminaError:
    return LaminaError(
        f"'{paths.shown(path)}' was written by an overlay mount with {feature} on, which is not supported",
        hint=f"mount with {feature}=off; the kernel's default is in /sys/module/overlay/parameters",
    )


def _sorted(names: Set[str]) -> list[str]:
    """Put names into the order of their bytes, which for ASCII is that of the texts."""
    return sorted(names) if all(map(str.isascii, names)) else sorted(names, key=os.fsencode)


@contextlib.contextmanager
def _opened_directory(name: str, dir_fd: int) -> Iterator[int | None]:
    """Open a directory; None for one that has gone."""
    try:
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _stat_each(fd: int | None, names: Iterable[str]) -> dict[str, os.stat_result]:
    """Look at those of the names that are in the directory, if there is one."""
    found: dict[str, os.stat_result] = {}
    if fd is None:
        return found
    for name in names:
        try:
            found[name] = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _GONE:
                raise
    return found


def _same_attributes(one: os.stat_result, other: os.stat_result) -> bool:
    """Compare all that stat tells of a file's content and attributes. Of a directory, size and device number mean nothing."""
    if (one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns) != (other.st_mode, other.st_uid, other.st_gid, other.st_mtime_ns):
        return False
    kind = stat.S_IFMT(one.st_mode)
    if kind in {stat.S_IFCHR, stat.S_IFBLK}:
        return one.st_rdev == other.st_rdev
    return kind != stat.S_IFREG or one.st_size == other.st_size


def _xattrs(path: str | int) -> dict[str, bytes]:
    found = read_xattrs(path)
    return {name: value for name, value in found.items() if not name.startswith(paths.OVERLAY_PREFIX)} if found else found


def _xattr_names(path: str) -> list[str]:
    """List a file's xattrs; that it has none, as most, is no exception here, and twice as fast as asking for one."""
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, *_GONE}:
            return []
        raise


def _xattr(path: str | int, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name) if isinstance(path, int) else os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP, *_GONE}:
            return None
        raise


def _same_content(name: str, fd: int, below_fd: int) -> bool:
    one = os.open(name, _OPEN_FILE, dir_fd=fd)
    try:
        other = os.open(name, _OPEN_FILE, dir_fd=below_fd)
        try:
            while True:
                data = os.read(one, _READ_BYTES)
                if data != os.read(other, _READ_BYTES):
                    return False
                if not data:
                    return True
        finally:
            os.close(other)
    finally:
        os.close(one)
