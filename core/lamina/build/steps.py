"""What a RUN's process does beside the steps of every container (`lamina.runtime.steps`): the mounts of `RUN --mount`.

All mount points that are made here are told to the engine, which keeps them out of the layer if the command left them alone. As in
`runtime/steps.py` nothing may be imported but os, sys, ctypes and `lamina.linux`.
"""

import errno
import os
from collections.abc import Sequence

from lamina.linux import mount as lm
from lamina.linux.fs import open_in_root
from lamina.runtime import steps as st


class BindBeneath(st.Step):
    """Let a part of a directory of the host be seen in the root; the way to it stays in that directory, symlinks included."""

    fields = ("directory", "source", "target", "read_only")
    directory: str
    source: str
    target: str
    read_only: bool

    def describe(self) -> str:
        return f"mount --bind {'-o ro ' if self.read_only else ''}{self.directory}/{self.source} $ROOT{self.target}"

    def apply(self, place: st.Place) -> None:
        directory_fd = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            source_fd = open_in_root(directory_fd, self.source or ".", os.O_PATH)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.source) from None
        finally:
            os.close(directory_fd)
        try:
            place.attach(lm.open_tree("", dir_fd=source_fd, recursive=True), self.target, read_only=self.read_only)
        finally:
            os.close(source_fd)


class EmptyTmpfs(st.Step):
    """Mount a new tmpfs, whose mount point doesn't stay."""

    fields = ("target", "options")
    target: str
    options: tuple[tuple[str, str | None], ...]

    def describe(self) -> str:
        return f"mount -t tmpfs tmpfs $ROOT{self.target}"

    def apply(self, place: st.Place) -> None:
        place.attach(lm.fsmount("tmpfs", self.options, flags=lm.MS_NOSUID | lm.MS_NODEV), self.target, read_only=False)


class SecretFile:
    """A secret on its way into one process. Its content is no part of any text that is made of it."""

    __slots__ = ("content", "gid", "mode", "target", "uid")

    def __init__(self, *, target: str, content: bytes, mode: int, uid: int, gid: int) -> None:
        self.target = target
        self.content = content
        self.mode = mode
        self.uid = uid
        self.gid = gid

    def __repr__(self) -> str:
        return f"SecretFile({self.target!r})"


class Secrets(st.Step):
    """Put secrets on a tmpfs that only this mount namespace has, and let each be seen in the root, read-only.

    The tmpfs is mounted over a directory of the host, which this process leaves with `pivot_root`; the host never sees it.
    """

    fields = ("place_dir", "files", "label")
    place_dir: str
    files: Sequence[SecretFile]
    label: str

    def describe(self) -> str:
        return "; ".join(f"mount --bind -o ro SECRET $ROOT{file.target}" for file in self.files)

    def apply(self, place: st.Place) -> None:
        flags = lm.MS_NOSUID | lm.MS_NODEV | lm.MS_NOEXEC
        labels = (("context", self.label),) if self.label else ()
        tmpfs_fd = lm.fsmount("tmpfs", (("mode", "0700"), ("size", "64m"), *labels), flags=flags)
        try:
            lm.move_mount(tmpfs_fd, self.place_dir)
            for number, file in enumerate(self.files):
                name = str(number)
                fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=tmpfs_fd)
                try:
                    if os.write(fd, file.content) != len(file.content):
                        raise OSError(errno.ENOSPC, "the secret is too large", file.target)
                    os.fchown(fd, file.uid, file.gid)
                    os.fchmod(fd, file.mode)
                finally:
                    os.close(fd)
                place.attach(lm.open_tree(name, dir_fd=tmpfs_fd, follow=False), file.target, read_only=True)
        finally:
            os.close(tmpfs_fd)
