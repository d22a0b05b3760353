"""What a whiteout is on disk, in each of the three formats.

In an upper directory whiteouts are remembered and made at the end, when it is known what the layer itself brings: a name that it
brings needs none, a directory that it brings must be opaque instead, and below an opaque one nothing is left to hide (overlayfs
would show such a whiteout as a device). In a full tree the hidden things are deleted when their whiteout is read.

Sources: kernel Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"; OCI image-spec layer.md; aufs(5).
"""

import errno
import os
import stat
from typing import Protocol

from lamina.archive import paths
from lamina.archive.target import Directory, Missing, Target

OPAQUE_XATTR = "trusted.overlay.opaque"


class Whiteouts(Protocol):
    """How an applied layer hides what lies below."""

    def hide(self, path: str) -> None:
        """Hide a name of the layers below."""

    def hide_children(self, path: str) -> None:
        """Hide everything that the layers below have in a directory."""

    def finish(self) -> None:
        """Make what had to wait for the last entry."""


class TreeWhiteouts:
    """A full tree: what the parents brought is deleted, what this layer brought is not."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def hide(self, path: str) -> None:
        head, name = paths.split(path)
        directory = self._target.directory(head, Missing.COPY_UP)
        if directory is not None:
            self._delete(directory, name)

    def hide_children(self, path: str) -> None:
        directory = self._target.directory(path, Missing.COPY_UP)
        if directory is not None:
            self._delete_children(directory)

    def finish(self) -> None:
        pass

    def _delete(self, directory: Directory, name: str) -> None:
        path = paths.join(directory.path, name)
        if path not in self._target.brought:
            self._target.remove(directory, name)
            return
        inner = self._target.directory(path, Missing.NONE)
        if inner is not None:
            self._delete_children(inner)

    def _delete_children(self, directory: Directory) -> None:
        for name in os.listdir(directory.fd):
            self._delete(directory, name)


class UpperWhiteouts:
    """An upper directory: what is common to both formats. A format says how its two marks are made."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def make_whiteout(self, directory: Directory, name: str) -> None:
        raise NotImplementedError

    def make_opaque(self, directory: Directory) -> None:
        raise NotImplementedError

    def hide(self, path: str) -> None:
        head, name = paths.split(path)
        target = self._target
        directory = target.directory(head, Missing.COPY_UP)
        if directory is not None and target.below_lstat(directory.path, name) is not None:
            target.take_back(paths.join(directory.path, name), itself=True)
            target.hidden.add(paths.join(directory.path, name))

    def hide_children(self, path: str) -> None:
        target = self._target
        directory = target.directory(path, Missing.COPY_UP)
        if directory is None:
            return
        below_fd = target.below(directory.path)
        if below_fd is None:
            return
        target.take_back(directory.path, itself=False)
        if directory.path:
            target.opaque.add(directory.path)
        else:  # neither overlayfs nor aufs looks for the mark in a layer's root
            target.hidden.update(os.listdir(below_fd))

    def finish(self) -> None:
        target = self._target
        for path in sorted(target.opaque | target.hidden):
            head, name = paths.split(path)
            if self._is_within_hidden(head):
                continue
            directory = target.directory(head, Missing.NONE)
            if directory is None:
                continue
            found = target.lstat(directory, name)
            if found is not None and stat.S_ISDIR(found.st_mode):
                inner = target.directory(path, Missing.NONE)
                if inner is not None:
                    target.touch(inner)
                    self.make_opaque(inner)
            elif found is None and path in target.hidden:
                target.touch(directory)
                self.make_whiteout(directory, name)

    def _is_within_hidden(self, path: str) -> bool:
        while path:
            if path in self._target.hidden or path in self._target.opaque:
                return True
            path = paths.split(path)[0]
        return False


class OverlayWhiteouts(UpperWhiteouts):
    """overlayfs: a character device 0:0; the xattr trusted.overlay.opaque=y."""

    def make_whiteout(self, directory: Directory, name: str) -> None:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory.fd)

    def make_opaque(self, directory: Directory) -> None:
        os.setxattr(directory.fd, OPAQUE_XATTR, b"y")


class AufsWhiteouts(UpperWhiteouts):
    """aufs: empty files 0444 named `.wh.NAME` and `.wh..wh..opq`, links of the branch's `.wh..wh.aufs` if it has one."""

    def make_whiteout(self, directory: Directory, name: str) -> None:
        self._make(directory, paths.WHITEOUT_PREFIX + name)

    def make_opaque(self, directory: Directory) -> None:
        self._make(directory, paths.OPAQUE_NAME)

    def _make(self, directory: Directory, name: str) -> None:
        root = self._target.directory("", Missing.NONE)
        if root is not None:
            try:
                os.link(".wh..wh.aufs", name, src_dir_fd=root.fd, dst_dir_fd=directory.fd, follow_symlinks=False)
            except FileExistsError:
                return
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.EMLINK}:
                    raise
            else:
                return
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444, dir_fd=directory.fd)
        try:
            os.fchown(fd, 0, 0)
            os.fchmod(fd, 0o444)
        finally:
            os.close(fd)
