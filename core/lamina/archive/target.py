"""The tree that a layer is laid down in: directories found as the container would see them, and never left.

A path is walked one component at a time by descriptors, no symlink ever followed by the kernel: a symlink's text is read and walked
in its turn, `/` and `..` being the tree's own. So nothing outside can be reached, whatever the archive says, and the real path of
every directory is known. Where the target is a layer's upper directory, what isn't in it may be in the layers below: such a
directory is made in the upper one with the lower one's attributes, as a copy-up does.

Not here: what is put into the directories (`apply`), and what a whiteout is on disk (`whiteouts`).
"""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from lamina.archive import attributes, paths
from lamina.errors import ArchiveError
from lamina.linux.fs import remove_tree

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHED = 1000  # a fourth of the descriptors that a process may have, if these are fewer
_MAX_SYMLINKS = 40  # as the kernel's (path_resolution(7))


class Missing(Enum):
    """What to do about a directory that isn't in the target."""

    MAKE = "make"
    """Copy it from below, or else make it new: something is going to be put into it."""
    COPY_UP = "copy up"
    """Copy it from below, or else answer None."""
    NONE = "none"
    """Answer None; symlinks aren't followed either: the path is a real one."""


@dataclass(slots=True, kw_only=True)
class Directory:
    """An open directory of the target and its real path, which has no symlinks.

    It stays open as long as anyone holds it, however many others are opened meanwhile.
    """

    path: str
    fd: int
    mtime_ns: int
    plain: bool
    """New files inherit nothing from it: neither a group (setgid) nor an ACL."""
    born: attributes.Born
    """What new files have as soon as they are made."""
    brought: bool = False

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class Target:
    """Directories of `into`, opened and made. `parent` gives the path of the union of the layers below, or None; it is called
    when first needed. Close it at the end."""

    def __init__(self, into: str, parent: Callable[[], str | None]) -> None:
        self.into = into
        self._parent = parent
        self._parent_fd: int | None = None
        self._parent_asked = False
        self._cache: OrderedDict[str, Directory] = OrderedDict()
        self._born = attributes.UNKNOWN
        self._root = self._opened(os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), "")
        if self._root.plain:
            self._born = attributes.born_in(into)
            self.look_again("")
        self._aliases: dict[str, str] = {}
        self._below_path, self._below_fd = "", -1
        self.times: dict[str, int] = {}
        """The mtime that each directory gets at the end, by real path."""
        self.brought: set[str] = set()
        """Real paths that this layer has put there, and the directories above them."""
        self.hidden: set[str] = set()
        """Real paths of which the layers below show nothing any more."""
        self.opaque: set[str] = set()
        """Real paths of directories in which the layers below show nothing any more."""
        self.copied_up: set[str] = set()
        """Real paths of what was only copied from below: on the way to a whiteout, or to be linked. Hidden, it must go."""
        self._kept = min(_CACHED, max(16, os.sysconf("SC_OPEN_MAX") // 4))
        self.implied_mtime_ns = 0
        """The mtime of directories that must be made although the archive has no entry for them."""

    def close(self) -> None:
        """Close all descriptors."""
        for directory in (*self._cache.values(), self._root):
            directory.close()
        if self._below_fd >= 0:
            os.close(self._below_fd)
        if self._parent_fd is not None:
            os.close(self._parent_fd)

    def directory(self, path: str, missing: Missing) -> Directory | None:
        """Find a directory by the path that a process in the container would use."""
        found = self._cached(self._aliases.get(path, path))
        if found is None:
            found = self._walk(path, missing)
        if found is not None and missing is Missing.MAKE:
            self._bring(found)
        return found

    def place(self, path: str) -> tuple[Directory, str]:
        """Find or make the directory that `path`, not the root, is to be put into; return it with the last name."""
        head, name = paths.split(path)
        found = self.directory(head, Missing.MAKE)
        if found is None:
            raise ArchiveError(f"there is no place for '{paths.shown(path)}'")
        if len(found.path) + len(name) > paths.MAX_PATH_BYTES // 4:
            whole = paths.join(found.path, name).encode("utf-8", "surrogateescape")
            if len(whole) > paths.MAX_PATH_BYTES:
                raise ArchiveError(f"the entry '{paths.shown(path)}' leads to a longer path than the kernel takes")
        return found, name

    def lstat(self, directory: Directory, name: str) -> os.stat_result | None:
        """Look at a name in the target itself."""
        try:
            return os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def remove(self, directory: Directory, name: str) -> None:
        """Take away whatever has this name in the target."""
        self.touch(directory)
        try:
            os.unlink(name, dir_fd=directory.fd)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            self.forget()
            remove_tree(f"/proc/self/fd/{directory.fd}/{name}")
        # A symlink that led to a directory is gone, too.
        self._aliases.clear()
        self.times.pop(paths.join(directory.path, name), None)

    def touch(self, directory: Directory) -> None:
        """Note the directory's mtime before something is changed in it, to be set again at the end."""
        self.times.setdefault(directory.path, directory.mtime_ns)

    def forget(self) -> None:
        """Let go of the directories that are kept open: one of them may be gone from its place."""
        self._cache.clear()
        self._aliases.clear()

    def take_back(self, path: str, *, itself: bool) -> None:
        """Take away what was only copied up at and below a path that is to be hidden; with `itself` false only below."""
        if not self.copied_up:
            return
        going = [
            each for each in self.copied_up - self.brought if not path or each.startswith(f"{path}/") or (itself and each == path)
        ]
        for each in sorted(going, key=lambda one: one.count("/"), reverse=True):
            head, name = paths.split(each)
            directory = self.directory(head, Missing.NONE)
            if directory is not None:
                self.remove(directory, name)
            self.copied_up.discard(each)

    # What the layers below show.

    def below(self, path: str) -> int | None:
        """Open the lower layers' directory of a real path, or None if they show none there. Valid until the next call."""
        if self._is_hidden(path):
            return None
        if self._below_fd >= 0 and self._below_path == path:
            return self._below_fd
        fd = self._parent_root()
        if fd is None:
            return None
        fd = os.dup(fd)
        for part in path.split("/") if path else ():
            try:
                deeper = os.open(part, _OPEN_DIRECTORY, dir_fd=fd)
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                    return None
                raise
            finally:
                os.close(fd)
            fd = deeper
        if self._below_fd >= 0:
            os.close(self._below_fd)
        self._below_path, self._below_fd = path, fd
        return fd

    def below_lstat(self, directory_path: str, name: str) -> os.stat_result | None:
        """Look at a name in the lower layers, as far as this layer lets it be seen."""
        if self.hidden and paths.join(directory_path, name) in self.hidden:
            return None
        fd = self.below(directory_path)
        if fd is None:
            return None
        try:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _is_hidden(self, path: str) -> bool:
        if not self.hidden and not self.opaque:
            return False
        while True:
            if path in self.hidden or path in self.opaque:
                return True
            if not path:
                return False
            path = paths.split(path)[0]

    def _parent_root(self) -> int | None:
        if not self._parent_asked:
            self._parent_asked = True
            path = self._parent()
            if path is not None:
                self._parent_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._parent_fd

    # Walking.

    def _cached(self, real_path: str) -> Directory | None:
        if not real_path:
            return self._root
        found = self._cache.get(real_path)
        if found is not None:
            self._cache.move_to_end(real_path)
        return found

    def _opened(self, fd: int, path: str) -> Directory:
        found = os.fstat(fd)
        plain, born = self._inherited(fd, found)
        return Directory(path=path, fd=fd, mtime_ns=found.st_mtime_ns, plain=plain, born=born)

    def _inherited(self, fd: int, found: os.stat_result) -> tuple[bool, attributes.Born]:
        """Tell whether new files inherit nothing from a directory, and what they have."""
        if found.st_mode & stat.S_ISGID:
            return False, attributes.UNKNOWN
        try:
            os.getxattr(fd, attributes.DEFAULT_ACL)
        except OSError:
            # It has none, or the file system knows no ACLs. A mount with `grpid` gives a directory's group (ext4(5), xfs(5)).
            return True, self._born if found.st_gid == self._born.gid else attributes.UNKNOWN
        return False, attributes.UNKNOWN

    def look_again(self, path: str) -> None:
        """Learn what new files inherit from a directory whose owner or mode was changed."""
        directory = self._cached(path)
        if directory is not None:
            directory.plain, directory.born = self._inherited(directory.fd, os.fstat(directory.fd))

    def _keep(self, fd: int, path: str) -> Directory:
        directory = self._opened(fd, path)
        self._cache[path] = directory
        if len(self._cache) > self._kept:
            self._cache.popitem(last=False)
        return directory

    def _walk(self, path: str, missing: Missing) -> Directory | None:
        head, todo = path, []
        while head and self._cached(head) is None:
            head, name = paths.split(head)
            todo.append(name)
        current = self._cached(head) or self._root
        links = 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                above = self._walk(paths.split(current.path)[0], Missing.NONE)
                current = above or self._root
                continue
            step = self._enter(current, part, missing)
            if step is None:
                return None
            if isinstance(step, Directory):
                current = step
                continue
            links += 1
            if links > _MAX_SYMLINKS:
                raise ArchiveError(f"the directory '{paths.shown(path)}' leads through more than {_MAX_SYMLINKS} symlinks")
            if step.startswith("/"):
                current = self._root
            todo.extend(reversed(step.split("/")))
        if current.path != path:
            if len(self._aliases) > 10_000:
                self._aliases.clear()
            self._aliases[path] = current.path
        return current

    def _enter(self, current: Directory, part: str, missing: Missing) -> Directory | str | None:
        """Go one component down: the directory, or a symlink's text, or None."""
        path = paths.join(current.path, part)
        known = self._cached(path)
        if known is not None:
            return known
        if path.count("/") >= paths.MAX_DEPTH:
            raise ArchiveError(f"'{paths.shown(path)}' lies deeper than {paths.MAX_DEPTH} directories")
        try:
            return self._keep(os.open(part, _OPEN_DIRECTORY, dir_fd=current.fd), path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            return self._link_or_refuse(current.fd, part, path, missing)
        if missing is Missing.NONE:
            return None
        lower = self.below_lstat(current.path, part)
        if lower is not None:
            if stat.S_ISDIR(lower.st_mode):
                return self._copy_up(current, part, path)
            fd = self.below(current.path)
            return self._link_or_refuse(-1 if fd is None else fd, part, path, missing)
        if missing is Missing.COPY_UP:
            return None
        self.touch(current)
        os.mkdir(part, 0o755, dir_fd=current.fd)
        fd = os.open(part, _OPEN_DIRECTORY, dir_fd=current.fd)
        if current.born.uid or current.born.gid or current.born.umask & 0o755:
            os.fchown(fd, 0, 0)
            os.fchmod(fd, 0o755)
        if not current.plain:
            attributes.drop_inherited(fd, {})
        made = self._keep(fd, path)
        self.times[path] = self.implied_mtime_ns
        return made

    def _link_or_refuse(self, dir_fd: int, part: str, path: str, missing: Missing) -> str | None:
        if missing is Missing.NONE:
            return None
        try:
            return os.readlink(part, dir_fd=dir_fd)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        if missing is Missing.COPY_UP:
            return None
        raise ArchiveError(f"'{paths.shown(path)}' is not a directory, but the archive puts something below it")

    def _copy_up(self, current: Directory, part: str, path: str) -> Directory:
        """Make a lower directory in the target, with its attributes and without what is in it."""
        below_fd = self.below(path)
        if below_fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        lower = os.fstat(below_fd)
        xattrs = attributes.content_xattrs(below_fd)
        self.touch(current)
        os.mkdir(part, 0o700, dir_fd=current.fd)
        fd = os.open(part, _OPEN_DIRECTORY, dir_fd=current.fd)
        os.fchown(fd, lower.st_uid, lower.st_gid)
        os.fchmod(fd, stat.S_IMODE(lower.st_mode))
        attributes.drop_inherited(fd, xattrs)
        attributes.set_xattrs(fd, xattrs, path)
        made = self._keep(fd, path)
        self.times[path] = made.mtime_ns = lower.st_mtime_ns
        self.copied_up.add(path)
        return made

    def _bring(self, directory: Directory) -> None:
        self.touch(directory)
        if directory.brought:
            return
        directory.brought = True
        path = directory.path
        while path and path not in self.brought:
            self.brought.add(path)
            path = paths.split(path)[0]
