"""A layer's entries laid down on disk, in a driver's whiteout format. The archive may be hostile; nothing leaves the target.

Places are found by `target`, attributes set by `attributes`, deletions made by `whiteouts`; here is what each kind of entry does.
A later entry wins over an earlier one of the same path. Directories get their xattrs and times at the very end, deepest first: a
file made in one changes its time, and would inherit its default ACL.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import TypeVar

from lamina.api.entries import Entry, EntryKind, LayerReader
from lamina.api.types import WhiteoutFormat
from lamina.archive import attributes, paths
from lamina.archive.target import Directory, Missing, Target
from lamina.archive.whiteouts import AufsWhiteouts, OverlayWhiteouts, TreeWhiteouts, Whiteouts
from lamina.errors import ArchiveError

_Made = TypeVar("_Made")

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HOSTS_FAULT = frozenset(
    [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM]
)
_FORMATS: dict[WhiteoutFormat, Callable[[Target], Whiteouts]] = {
    WhiteoutFormat.OVERLAY: OverlayWhiteouts,
    WhiteoutFormat.AUFS: AufsWhiteouts,
    WhiteoutFormat.NONE: TreeWhiteouts,
}


def apply_layer(entries: LayerReader, *, into: str, whiteouts: WhiteoutFormat, parent: Callable[[], str | None]) -> None:
    """Lay all entries down in the directory `into`: an upper directory or, for the format NONE, the tree itself.

    `parent` gives the path of the union of the layers below, None for a base layer; it is called only if something of it is needed.
    Raises `ArchiveError` for what the archive has wrong, `LaminaError` for an xattr that can't be kept, and `OSError` for what the
    host has wrong, such as a full disk. After an error `into` is half done.
    """
    target = Target(into, parent if whiteouts is not WhiteoutFormat.NONE else lambda: None)
    try:
        run = _Run(target, _FORMATS[whiteouts](target), keep_brought=whiteouts is WhiteoutFormat.NONE)
        for entry in entries:
            try:
                run.put(entry, entries)
            except OSError as error:
                raise _explained(error, entry, into) from error
        run.finish()
    finally:
        target.close()


def _explained(error: OSError, entry: Entry, into: str) -> Exception:
    if error.errno in _HOSTS_FAULT:
        return OSError(error.errno, error.strerror, os.path.join(into, entry.path))
    return ArchiveError(
        f"the {entry.kind.value} '{paths.shown(entry.path)}' can't be made: {(error.strerror or str(error)).lower()}"
    )


class _Run:
    """One layer on its way to disk."""

    def __init__(self, target: Target, whiteouts: Whiteouts, *, keep_brought: bool) -> None:
        self._target = target
        self._whiteouts = whiteouts
        self._keep_brought = keep_brought
        self._xattrs: dict[str, dict[str, bytes]] = {}  # of directories, by real path, for the end

    def put(self, entry: Entry, reader: LayerReader) -> None:
        kind = entry.kind
        target = self._target
        if kind is EntryKind.WHITEOUT:
            self._whiteouts.hide(entry.path)
            return
        if kind is EntryKind.OPAQUE:
            self._whiteouts.hide_children(entry.path)
            return
        target.implied_mtime_ns = entry.mtime_ns
        if not entry.path:
            self._root(entry)
            return
        directory, name = target.place(entry.path)
        if kind is EntryKind.FILE:
            self._file(directory, name, entry, reader)
        elif kind is EntryKind.DIRECTORY:
            self._directory(directory, name, entry)
        elif kind is EntryKind.SYMLINK:
            self._anew(directory, name, lambda: os.symlink(entry.link, name, dir_fd=directory.fd))
            attributes.set_on_name(directory.fd, name, entry, born=directory.born, symlink=True)
        elif kind is EntryKind.HARD_LINK:
            self._hard_link(directory, name, entry)
        else:
            self._node(directory, name, entry)
        if self._keep_brought:
            target.brought.add(paths.join(directory.path, name))
        if target.copied_up:
            target.copied_up.discard(paths.join(directory.path, name))

    def finish(self) -> None:
        target = self._target
        self._whiteouts.finish()
        for path in sorted({*target.times, *self._xattrs}, key=lambda path: path.count("/") if path else -1, reverse=True):
            directory = target.directory(path, Missing.NONE)
            if directory is None:
                continue
            if path in self._xattrs:
                attributes.replace_xattrs(directory.fd, self._xattrs[path], path)
            if path in target.times:
                os.utime(directory.fd, ns=(target.times[path], target.times[path]))

    def _anew(self, directory: Directory, name: str, make: Callable[[], _Made]) -> _Made:
        """Make something in the place of whatever has its name."""
        try:
            return make()
        except FileExistsError:
            self._target.remove(directory, name)
            return make()

    def _file(self, directory: Directory, name: str, entry: Entry, reader: LayerReader) -> None:
        mode = entry.mode & 0o777
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=directory.fd)
        except FileExistsError:
            self._target.remove(directory, name)
            fd = os.open(name, _CREATE, mode, dir_fd=directory.fd)
        try:
            if entry.size_bytes:
                reader.copy_to(fd)
            if not directory.plain:
                attributes.drop_inherited(fd, entry.xattrs)
            attributes.set_on_descriptor(fd, entry, born=directory.born)
        finally:
            os.close(fd)

    def _root(self, entry: Entry) -> None:
        root = self._target.directory("", Missing.MAKE)
        if root is not None:
            os.fchown(root.fd, entry.uid, entry.gid)
            os.fchmod(root.fd, entry.mode)
            self._target.look_again("")
            self._target.times[""] = entry.mtime_ns
            self._xattrs[""] = entry.xattrs

    def _directory(self, directory: Directory, name: str, entry: Entry) -> None:
        target = self._target
        path = paths.join(directory.path, name)
        there = False
        born = directory.born
        try:
            os.mkdir(name, entry.mode & 0o777, dir_fd=directory.fd)
        except FileExistsError:
            found = target.lstat(directory, name)
            there = found is not None and stat.S_ISDIR(found.st_mode)
            born = attributes.UNKNOWN
            if not there:
                # What this layer itself had put here hid the layers below; an empty directory would let them be seen again.
                hides = not self._keep_brought and target.below_lstat(directory.path, name) is not None
                target.remove(directory, name)
                os.mkdir(name, 0o700, dir_fd=directory.fd)
                if hides:
                    target.hidden.add(path)
        if not born.owns(entry):
            os.chown(name, entry.uid, entry.gid, dir_fd=directory.fd, follow_symlinks=False)
        if not born.has_mode(entry):
            os.chmod(name, entry.mode, dir_fd=directory.fd)
        if there:
            target.look_again(path)
        target.times[path] = entry.mtime_ns
        if entry.xattrs or there or not directory.plain:
            self._xattrs[path] = entry.xattrs

    def _node(self, directory: Directory, name: str, entry: Entry) -> None:
        if entry.kind is EntryKind.CHAR_DEVICE and entry.major == entry.minor == 0:
            raise ArchiveError(f"the device node '{paths.shown(entry.path)}' has the number 0:0, which is overlayfs's whiteout")
        kind = {EntryKind.CHAR_DEVICE: stat.S_IFCHR, EntryKind.BLOCK_DEVICE: stat.S_IFBLK, EntryKind.FIFO: stat.S_IFIFO}[entry.kind]
        device = 0 if entry.kind is EntryKind.FIFO else os.makedev(entry.major, entry.minor)
        self._anew(directory, name, lambda: os.mknod(name, kind | 0o600, device, dir_fd=directory.fd))
        if not directory.plain:
            attributes.drop_inherited(f"/proc/self/fd/{directory.fd}/{name}", entry.xattrs)
        attributes.set_on_name(directory.fd, name, entry)

    def _hard_link(self, directory: Directory, name: str, entry: Entry) -> None:
        target = self._target
        head, old_name = paths.split(entry.link)
        source = target.directory(head, Missing.COPY_UP)
        found = target.lstat(source, old_name) if source is not None else None
        if source is not None and found is None and not self._keep_brought:
            found = self._copy_up(source, old_name)
        if source is None or found is None:
            raise ArchiveError(
                f"the hard link '{paths.shown(entry.path)}' points to '{paths.shown(entry.link)}', which isn't there"
            )
        if stat.S_ISDIR(found.st_mode):
            raise ArchiveError(f"the hard link '{paths.shown(entry.path)}' points to the directory '{paths.shown(entry.link)}'")
        if (source.path, old_name) == (directory.path, name):
            return
        self._anew(
            directory,
            name,
            lambda: os.link(old_name, name, src_dir_fd=source.fd, dst_dir_fd=directory.fd, follow_symlinks=False),
        )

    def _copy_up(self, directory: Directory, name: str) -> os.stat_result | None:
        """Bring a lower layer's file into this one, so that it can be linked."""
        target = self._target
        lower = target.below_lstat(directory.path, name)
        below_fd = target.below(directory.path)
        if lower is None or below_fd is None or stat.S_ISDIR(lower.st_mode):
            return lower
        target.touch(directory)
        path = paths.join(directory.path, name)
        if not attributes.copy_up(below_fd, directory.fd, name, path):
            return None
        target.copied_up.add(path)
        return target.lstat(directory, name)
