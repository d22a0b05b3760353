"""Copy a directory tree so that nothing of it is lost: what a driver of full trees lives on, and what others borrow parts of.

Kept: bytes (shared by reflink where the file system can, else copied in the kernel), holes, mode, owner, access and modification
time to the nanosecond, hard links within the tree, symlinks, devices, fifos, sockets, ACLs, file capabilities and every other
extended attribute. Left out: `trusted.overlay.*`, which says how an overlay layer lies on another one and means nothing in a full
tree; inode flags (chattr(1)); the birth time.

Mount points below the source are not looked into: the tree is copied as it lies on its own file system, by way of a clone of its
mount without what is mounted below (open_tree(2)), which is read-only and leaves access times alone. A btrfs subvolume is no mount
and becomes a plain directory.

Not here: comparing trees, deleting them (`lamina.linux.fs.remove_tree`), durability (`storage_seal`).
"""

import errno
import os
import stat
from contextlib import ExitStack

from lamina.api.types import Fidelity
from lamina.dataclasses import dataclass, field
from lamina.linux.fs import can_clone, clone_file, copy_range, data_extents, open_unnamed, read_xattrs
from lamina.linux.mount import MS_NOATIME, MS_RDONLY, open_tree, set_attributes

SKIPPED_XATTRS = "trusted.overlay."
_READ_WHOLE_BYTES = 1 << 16  # up to here a read and a write are faster than asking for extents
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
_TARGET = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(source: str, target: str, *, target_is_made: bool = False) -> None:
    """Copy the directory `source` with all that is in it to `target`, which is made and must not exist.

    With `target_is_made` it is an empty directory already.

    The source must not change meanwhile; its access times stay as they are. Raises `OSError`; what was copied until then is left
    at `target` for the caller to remove. Needs root.
    """
    with ExitStack() as stack:
        mount_fd = open_tree(source)
        stack.callback(os.close, mount_fd)
        set_attributes(mount_fd, MS_RDONLY | MS_NOATIME)  # readlink(2) has no O_NOATIME
        source_fd = os.open(".", _DIRECTORY, dir_fd=mount_fd)
        stack.callback(os.close, source_fd)
        if not target_is_made:
            os.mkdir(target, 0o700)
        target_fd = os.open(target, _DIRECTORY)
        stack.callback(os.close, target_fd)
        _drop_acls(target_fd)
        copy = _Copy(reflink=can_clone(target), root_fd=target_fd, source_fd=os.dup(source_fd), target_fd=os.dup(target_fd))
        stack.callback(copy.close)
        try:
            copy.run()
        except OSError as error:
            # The calls were made on names in a directory, or on descriptors alone.
            error.filename = "/".join([target, *copy.place(), *([error.filename] if isinstance(error.filename, str) else [])])
            raise


def make_tree(path: str) -> None:
    """Make an empty tree, a directory of root's with the mode 0755, of which `clone_tree` costs least: on btrfs a subvolume."""
    from lamina.linux.btrfs import create_subvolume  # only drivers of full trees pay for it

    head, name = os.path.split(path)
    head_fd = os.open(head, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not create_subvolume(head_fd, name):
            os.mkdir(path)
    finally:
        os.close(head_fd)
    os.chmod(path, 0o755)  # making it took the umask away, chmod(2) doesn't


def clone_tree(source: str, target: str) -> None:
    """Copy a tree that came from `make_tree` or from here, and in which no other subvolume is: on btrfs by a snapshot.

    A snapshot is one step whatever the tree holds, and keeps all of it, inode flags too. Elsewhere this is `copy_tree`.
    """
    from lamina.linux.btrfs import snapshot  # only drivers of full trees pay for it

    head, name = os.path.split(target)
    with ExitStack() as stack:
        source_fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, source_fd)
        head_fd = os.open(head, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, head_fd)
        if snapshot(source_fd, head_fd, name):
            return
    copy_tree(source, target)


def copy_root(source: str, target: str) -> None:
    """Give the directory `target` the mode, owner, times and xattrs of the directory `source`, and not its contents."""
    source_fd = os.open(source, _DIRECTORY)
    try:
        target_fd = os.open(target, _DIRECTORY)
        try:
            _drop_acls(target_fd)
            _copy_attributes(source_fd, target_fd, os.fstat(source_fd))
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def kept_here(directory: str) -> frozenset[Fidelity]:
    """Say what a copy within the file system of `directory` keeps, tried on a file without a name: nothing is left behind."""
    kept = set(Fidelity)
    try:
        fd = open_unnamed(directory)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT}:
            return frozenset(kept)  # no way to try without leaving a trace; a copy raises where it can't keep something
        raise
    try:
        for fidelity, name, value in _TRIALS:
            try:
                os.setxattr(fd, name, value)
            except OSError:
                kept.discard(fidelity)
    finally:
        os.close(fd)
    return frozenset(kept)


_TRIALS = (
    (Fidelity.USER_XATTRS, "user.lamina", b"1"),
    (Fidelity.TRUSTED_XATTRS, "trusted.lamina", b"1"),
    # linux/capability.h, vfs_cap_data revision 2: cap_net_raw permitted
    (Fidelity.FILE_CAPABILITIES, "security.capability", bytes.fromhex("0000000200200000000000000000000000000000")),
    # linux/posix_acl_xattr.h: version 2; user::rw-, user:1:r--, group::---, mask::r--, other::---
    (
        Fidelity.ACLS,
        "system.posix_acl_access",
        bytes.fromhex("02000000 01000600ffffffff 0200040001000000 04000000ffffffff 10000400ffffffff 20000000ffffffff"),
    ),
)


@dataclass(slots=True, kw_only=True)
class _Directory:
    """A directory on the way down: its own stat, and the subdirectories that are still to do."""

    name: str
    stat: os.stat_result
    todo: list[str]


@dataclass(slots=True, kw_only=True)
class _Copy:
    """One run of `copy_tree`.

    Three descriptors are open at a time, whatever the depth: going up is `..`, as fts(3) does it. So neither the limit of open
    files nor that of a path's length binds the depth of a tree.
    """

    reflink: bool
    root_fd: int
    source_fd: int
    target_fd: int
    above: list[_Directory] = field(default_factory=list)
    """From the root down to the directory that the two descriptors are open on."""
    links: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    """Where each inode with several names was first copied to, as components beneath the root."""

    def run(self) -> None:
        """Copy what `source_fd` holds into `target_fd`; directories get their attributes when all that is in them is there."""
        self._enter("")
        while True:
            here = self.above[-1]
            if here.todo:
                name = here.todo.pop()
                os.mkdir(name, 0o700, dir_fd=self.target_fd)
                self._step(name)
                self._enter(name)
                continue
            _copy_attributes(self.source_fd, self.target_fd, here.stat)
            self.above.pop()
            if not self.above:
                return
            self._step("..")

    def place(self) -> list[str]:
        """The directory that is being copied, as components beneath the root."""
        return [directory.name for directory in self.above[1:]]

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.source_fd)
        os.close(self.target_fd)

    def _step(self, name: str) -> None:
        source_fd = os.open(name, _DIRECTORY, dir_fd=self.source_fd)
        os.close(self.source_fd)
        self.source_fd = source_fd
        target_fd = os.open(name, _DIRECTORY, dir_fd=self.target_fd)
        os.close(self.target_fd)
        self.target_fd = target_fd

    def _enter(self, name: str) -> None:
        here = _Directory(name=name, stat=os.fstat(self.source_fd), todo=[])
        self.above.append(here)
        with os.scandir(self.source_fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    here.todo.append(entry.name)
                else:
                    self._copy_entry(entry.name, entry.stat(follow_symlinks=False))

    def _copy_entry(self, name: str, st: os.stat_result) -> None:
        if st.st_nlink > 1:
            inode = (st.st_dev, st.st_ino)
            first = self.links.get(inode)
            if first is not None:
                self._link(first, name)
                return
            self.links[inode] = [*self.place(), name]
        if stat.S_ISREG(st.st_mode):
            self._copy_file(name, st)
        else:
            self._copy_special(name, st)

    def _copy_file(self, name: str, st: os.stat_result) -> None:
        source_fd = os.open(name, _SOURCE, dir_fd=self.source_fd)
        try:
            target_fd = os.open(name, _TARGET, 0o600, dir_fd=self.target_fd)
            try:
                if st.st_size and not (self.reflink and clone_file(source_fd, target_fd)):
                    _copy_bytes(source_fd, target_fd, st)
                _copy_attributes(source_fd, target_fd, st)
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)

    def _copy_special(self, name: str, st: os.stat_result) -> None:
        """Copy a symlink, device, fifo or socket. None of them can be opened to reach its xattrs, so a path must do."""
        if stat.S_ISLNK(st.st_mode):
            os.symlink(os.readlink(name, dir_fd=self.source_fd), name, dir_fd=self.target_fd)
        else:
            os.mknod(name, st.st_mode, st.st_rdev, dir_fd=self.target_fd)
        os.chown(name, st.st_uid, st.st_gid, dir_fd=self.target_fd, follow_symlinks=False)
        if not stat.S_ISLNK(st.st_mode):
            os.chmod(name, stat.S_IMODE(st.st_mode), dir_fd=self.target_fd)
        for key, value in read_xattrs(f"/proc/self/fd/{self.source_fd}/{name}").items():
            if not key.startswith(SKIPPED_XATTRS):
                os.setxattr(f"/proc/self/fd/{self.target_fd}/{name}", key, value, follow_symlinks=False)
        os.utime(name, ns=(st.st_atime_ns, st.st_mtime_ns), dir_fd=self.target_fd, follow_symlinks=False)

    def _link(self, first: list[str], name: str) -> None:
        """Make `name` here another name of the file that was copied to `first`."""
        try:
            os.link("/".join(first), name, src_dir_fd=self.root_fd, dst_dir_fd=self.target_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self._link_far(first, name)

    def _link_far(self, first: list[str], name: str) -> None:
        fd = os.dup(self.root_fd)
        try:
            for component in first[:-1]:
                next_fd = os.open(component, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = next_fd
            os.link(first[-1], name, src_dir_fd=fd, dst_dir_fd=self.target_fd, follow_symlinks=False)
        finally:
            os.close(fd)


def _copy_bytes(source_fd: int, target_fd: int, st: os.stat_result) -> None:
    if st.st_size <= _READ_WHOLE_BYTES and st.st_blocks * 512 >= st.st_size:  # small, and no room for a hole
        data = os.read(source_fd, st.st_size)
        if len(data) == st.st_size and os.write(target_fd, data) == len(data):
            return
    os.ftruncate(target_fd, st.st_size)
    for start, length in data_extents(source_fd, st.st_size):
        copy_range(source_fd, target_fd, start, length)


def _copy_attributes(source_fd: int, target_fd: int, st: os.stat_result) -> None:
    """Give an open file or directory what belongs to another. The order matters.

    chown(2) takes setuid, setgid and security.capability away; each later change would move the times.
    """
    os.fchown(target_fd, st.st_uid, st.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(st.st_mode))
    for name, value in read_xattrs(source_fd).items():
        if not name.startswith(SKIPPED_XATTRS):
            os.setxattr(target_fd, name, value)
    os.utime(target_fd, ns=(st.st_atime_ns, st.st_mtime_ns))


def _drop_acls(fd: int) -> None:
    """Take away what a new directory inherited: a default ACL above it would end up on everything that is made below."""
    for name in read_xattrs(fd):
        if name.startswith("system.posix_acl_"):
            os.removexattr(fd, name)
