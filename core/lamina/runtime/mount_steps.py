"""Steps that make what the container sees: the root, what is mounted in it, what is hidden of it. Like `steps.py`, in every way."""

import errno
import os
from collections.abc import Iterable, Iterator

from lamina.linux import mount as lm
from lamina.linux.fs import open_in_root
from lamina.runtime.steps import Place, Step


class PrivateMounts(Step):
    """Keep every mount from here on out of the host's sight."""

    def describe(self) -> str:
        return "mount --make-rprivate /"

    def apply(self, place: Place) -> None:
        lm.make_private("/")


class NewRoot(Step):
    """Make the union a mount of its own in this namespace, the root to be."""

    fields = ("path",)
    path: str

    def describe(self) -> str:
        return f"mount --bind {self.path} {self.path}"

    def apply(self, place: Place) -> None:
        held = "/" in place.held
        place.root_fd = place.tree(self.path, "/", recursive=False)
        lm.move_mount(place.root_fd, "/" if held else self.path)  # who is held may not be let through to the path any more


class MountInRoot(Step):
    """Mount a kernel file system somewhere in the root."""

    fields = ("type", "target", "flags", "options")
    type: str
    target: str
    flags: int
    options: tuple[tuple[str, str | None], ...]

    def describe(self) -> str:
        words = [name for bit, name in _FLAG_NAMES if self.flags & bit]
        words += [key if value is None else f"{key}={value}" for key, value in self.options]
        return f"mount -t {self.type} {'-o ' + ','.join(words) + ' ' if words else ''}{self.type} $ROOT{self.target}"

    def apply(self, place: Place) -> None:
        target_fd = self._mountpoint(place)
        try:
            fd = place.held.pop(self.target, -1)
            if fd < 0:
                fd = lm.fsmount(self.type, self.options, flags=self.flags, source=self.type)
            lm.move_mount(fd, target_fd=target_fd)
        finally:
            os.close(target_fd)
        if self.target == "/dev":
            place.dev_fd = fd
        else:
            os.close(fd)

    def _mountpoint(self, place: Place) -> int:
        """Open where to mount. What the kernel has for /proc, /sys and /dev must be there, for the masks and for the container.

        CVE-2019-16884, CVE-2023-27561, CVE-2026-41579 in other engines.
        """
        if self.target not in {"/proc", "/sys", "/dev"}:
            # What is made in /dev is in no layer, and a user's tmpfs leaves its directory there, as Docker's does.
            remember = self.type != "tmpfs" and not self.target.startswith("/dev/")
            target_fd = place.mountpoint(self.target, directory=True, remember=remember)
            place.refuse_inside_proc(target_fd)
            return target_fd
        try:
            return place.mountpoint(self.target, directory=True, remember=True, follow=False)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise OSError(error.errno, "the image has no directory there, but a symlink or a file", self.target) from None
            raise


_FLAG_NAMES = (
    (lm.MS_RDONLY, "ro"),
    (lm.MS_NOSUID, "nosuid"),
    (lm.MS_NODEV, "nodev"),
    (lm.MS_NOEXEC, "noexec"),
    (lm.MS_STRICTATIME, "strictatime"),
)


class FillDev(Step):
    """Make the few devices and links that a program may expect, in the fresh tmpfs at /dev."""

    DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
    LINKS = (
        ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"), ("core", "/proc/kcore"),
    )  # fmt: skip

    def describe(self) -> str:
        nodes = "; ".join(f"mknod -m 666 $ROOT/dev/{name} c {major} {minor}" for name, major, minor in self.DEVICES)
        return nodes + "; " + "; ".join(f"ln -s {text} $ROOT/dev/{name}" for name, text in self.LINKS)

    def apply(self, place: Place) -> None:
        old = os.umask(0)
        for name, major, minor in self.DEVICES:
            os.mknod(name, 0o020666, os.makedev(major, minor), dir_fd=place.dev_fd)
        for name, text in self.LINKS:
            os.symlink(text, name, dir_fd=place.dev_fd)
        os.umask(old)


class BindInRoot(Step):
    """Let a directory or a file of the host be seen in the root."""

    fields = ("source", "target", "read_only", "recursive", "internal")
    source: str
    target: str
    read_only: bool
    recursive: bool
    internal: bool

    def describe(self) -> str:
        words = f"mount {'--rbind' if self.recursive else '--bind'} {self.source} $ROOT{self.target}"
        return words + (f"; mount -o remount,bind,ro $ROOT{self.target}" if self.read_only else "")

    def apply(self, place: Place) -> None:
        tree_fd = place.tree(self.source, self.target, recursive=self.recursive)
        place.attach(tree_fd, self.target, read_only=self.read_only, recursive=self.recursive, remember=self.internal)


class MaskPaths(Step):
    """Cover what the kernel tells too much by: files with the container's own null device, directories with an empty tmpfs."""

    fields = ("paths",)
    paths: tuple[str, ...]

    def describe(self) -> str:
        return "; ".join(f"mount --bind $ROOT/dev/null $ROOT{path}" for path in self.paths)

    def apply(self, place: Place) -> None:
        null_fd = os.open("null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.dev_fd)
        empty_fd = -1
        try:
            found = os.fstat(null_fd)
            if found.st_mode & 0o170000 != 0o020000 or found.st_rdev != os.makedev(1, 3):  # CVE-2025-31133 in other engines
                raise OSError(errno.ENODEV, "is not the null device", "/dev/null")
            for target_fd in _opened(place, self.paths):
                cover_fd = null_fd
                if os.fstat(target_fd).st_mode & 0o170000 == 0o040000:
                    if empty_fd < 0:
                        empty_fd = lm.fsmount("tmpfs", (("size", "0"), ("nr_inodes", "1")), flags=lm.MS_RDONLY)
                        lm.move_mount(empty_fd, target_fd=target_fd)
                        continue
                    cover_fd = empty_fd  # it is somewhere by now: before Linux 6.15 a mount that is nowhere can't be cloned
                fd = lm.open_tree("", dir_fd=cover_fd)
                try:
                    lm.move_mount(fd, target_fd=target_fd)
                finally:
                    os.close(fd)
        finally:
            os.close(null_fd)
            if empty_fd >= 0:
                os.close(empty_fd)


class ReadOnlyPaths(Step):
    """Make parts of /proc readable only."""

    fields = ("paths",)
    paths: tuple[str, ...]

    def describe(self) -> str:
        return "; ".join(f"mount --rbind -o ro $ROOT{path} $ROOT{path}" for path in self.paths)

    def apply(self, place: Place) -> None:
        for target_fd in _opened(place, self.paths):
            tree = lm.open_tree("", dir_fd=target_fd, recursive=True)
            try:
                lm.set_attributes(tree, lm.MS_RDONLY, recursive=True)
                lm.move_mount(tree, target_fd=target_fd)
            finally:
                os.close(tree)


def _opened(place: Place, paths: Iterable[str]) -> Iterator[int]:
    """Open each of the paths that this kernel has, in the root; the descriptor is closed when the next is asked for."""
    for path in paths:
        before, star, after = path.partition("*")
        if star:
            yield from _opened_alike(place, before, after)
            continue
        try:
            fd = open_in_root(place.root_fd, path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            yield fd
        finally:
            os.close(fd)


def _opened_alike(place: Place, before: str, after: str) -> Iterator[int]:
    """Open what has a number in the place of a `*`: all of them, or none if the kernel has none for 0."""
    folder, _, prefix = before.rpartition("/")
    try:
        os.close(open_in_root(place.root_fd, f"{before}0{after}", os.O_PATH))
        folder_fd = open_in_root(place.root_fd, folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        numbered = [name for name in os.listdir(folder_fd) if name.removeprefix(prefix).isdigit()]
    finally:
        os.close(folder_fd)
    yield from _opened(place, [f"{folder}/{name}{after}" for name in numbered])


class ReadOnlyRoot(Step):
    """Make the root itself read-only; what is mounted in it stays as it is."""

    def describe(self) -> str:
        return "mount -o remount,bind,ro $ROOT"

    def apply(self, place: Place) -> None:
        lm.set_attributes(place.root_fd, lm.MS_RDONLY)


class PivotRoot(Step):
    """Make the root this process's root, and let go of the host's."""

    fields = ("path",)
    path: str

    def describe(self) -> str:
        return f"cd {self.path} && pivot_root . . && umount -l ."

    def apply(self, place: Place) -> None:
        os.fchdir(place.root_fd)
        lm.pivot_root(".")
        os.close(place.root_fd)
        if place.dev_fd >= 0:
            os.close(place.dev_fd)
        place.root_fd = place.dev_fd = -1
