"""Owner, mode, extended attributes and times of one file, set in the order in which the kernel keeps them all.

chown clears setuid and file capabilities, chmod rewrites an ACL's mask, and every change sets the ctime; so: owner, mode, xattrs,
times. Sources: chown(2), chmod(2), xattr(7), acl(5), capabilities(7).
"""

import errno
import os
import stat

from lamina.api.entries import Entry, EntryKind
from lamina.archive.paths import OVERLAY_PREFIX, shown
from lamina.dataclasses import dataclass
from lamina.errors import LaminaError
from lamina.linux.fs import SELINUX_LABEL, copy_contents, open_unnamed, read_xattrs

KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFCHR: EntryKind.CHAR_DEVICE,
    stat.S_IFBLK: EntryKind.BLOCK_DEVICE,
    stat.S_IFIFO: EntryKind.FIFO,
}
"""What an inode's type (`stat.S_IFMT`) is in an archive; a socket is nothing."""

DEFAULT_ACL = "system.posix_acl_default"
ACCESS_ACL = "system.posix_acl_access"
_NAMESPACES = ("user.", "security.", "trusted.", ACCESS_ACL, DEFAULT_ACL)


def is_kept(name: str) -> bool:
    """Tell whether an xattr is content: of a namespace that Linux has, and neither overlayfs's nor another machine's label."""
    return name.startswith(_NAMESPACES) and not name.startswith(OVERLAY_PREFIX) and name != SELINUX_LABEL and "\0" not in name


def content_xattrs(path: str | int) -> dict[str, bytes]:
    """Read a file's xattrs that are content."""
    found = read_xattrs(path)
    return {name: value for name, value in found.items() if is_kept(name)} if found else found


def set_xattrs(path: str | int, xattrs: dict[str, bytes], name: str) -> None:
    """Set xattrs of a path, not followed, or a descriptor. One that can't be kept is an error, never lost in silence."""
    for key, value in xattrs.items():
        if not is_kept(key):
            continue
        try:
            if isinstance(path, int):
                os.setxattr(path, key, value)
            else:
                os.setxattr(path, key, value, follow_symlinks=False)
        except OSError as error:
            if error.errno in {errno.EOPNOTSUPP, errno.EPERM, errno.ERANGE, errno.E2BIG, errno.ENOSPC, errno.EINVAL}:
                raise LaminaError(
                    f"the extended attribute '{shown(key)}' of '{shown(name)}' can't be kept here: {error.strerror}",
                    hint="use a file system that has it (ext4, xfs, btrfs)" if error.errno == errno.EOPNOTSUPP else "",
                ) from error
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Born:
    """What a file has from its making, so that it need not be given once more: whose it is, and the bits that it doesn't get."""

    uid: int
    gid: int
    umask: int

    def owns(self, entry: Entry) -> bool:
        """Whether a file of ours belongs to whom the entry says."""
        return entry.uid == self.uid and entry.gid == self.gid

    def has_mode(self, entry: Entry) -> bool:
        """Whether a file that was made with the entry's permission bits has all of its mode."""
        return not entry.mode & (0o7000 | self.umask)


UNKNOWN = Born(uid=-1, gid=-1, umask=0o777)
"""Made in another way, or in a directory from which it inherits."""


def born_in(directory: str) -> Born:
    """Try what a new file has in a directory from which it inherits nothing, on one without a name: nothing is left behind.

    A server may give it to somebody else (NFS, root_squash), and the umask is the process's, so other threads', too.
    """
    try:
        fd = open_unnamed(directory, 0o777)
    except OSError:
        return UNKNOWN  # then every file is given all that it has to have
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    return Born(uid=found.st_uid, gid=found.st_gid, umask=0o777 & ~found.st_mode)


def set_on_descriptor(fd: int, entry: Entry, *, born: Born = UNKNOWN) -> None:
    """Give an open file all that the entry says."""
    if not born.owns(entry):
        os.fchown(fd, entry.uid, entry.gid)
    if not born.has_mode(entry):
        os.fchmod(fd, entry.mode)
    if entry.xattrs:
        set_xattrs(fd, entry.xattrs, entry.path)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))


def set_on_name(dir_fd: int, name: str, entry: Entry, *, born: Born = UNKNOWN, symlink: bool = False) -> None:
    """Give what can't be opened (symlink, device, fifo) all that the entry says. It was just made, by us."""
    if not (symlink and born.owns(entry)):
        os.chown(name, entry.uid, entry.gid, dir_fd=dir_fd, follow_symlinks=False)
    if not symlink:
        os.chmod(name, entry.mode, dir_fd=dir_fd)
    if entry.xattrs:
        set_xattrs(f"/proc/self/fd/{dir_fd}/{name}", entry.xattrs, entry.path)
    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)


def replace_xattrs(fd: int, xattrs: dict[str, bytes], name: str) -> None:
    """Make an open file's content xattrs exactly these."""
    for key in content_xattrs(fd):
        if key not in xattrs:
            os.removexattr(fd, key)
    set_xattrs(fd, xattrs, name)


def drop_inherited(path: str | int, xattrs: dict[str, bytes]) -> None:
    """Take away the ACLs that a new file got from its directory's default ACL and that its entry doesn't have (acl(5))."""
    for key in (ACCESS_ACL, DEFAULT_ACL):
        if key not in xattrs:
            try:
                os.removexattr(path, key) if isinstance(path, int) else os.removexattr(path, key, follow_symlinks=False)
            except OSError as error:
                if error.errno not in {errno.ENODATA, errno.EOPNOTSUPP}:
                    raise


def entry_of(found: os.stat_result, path: str, xattrs: dict[str, bytes]) -> Entry:
    """Describe an existing file's attributes as an entry; its kind is left for who knows it."""
    return Entry(
        path=path,
        kind=EntryKind.FILE,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_ns=found.st_mtime_ns,
        size_bytes=found.st_size,
        major=os.major(found.st_rdev),
        minor=os.minor(found.st_rdev),
        xattrs=xattrs,
    )


def copy_up(source_dir_fd: int, target_dir_fd: int, name: str, path: str) -> bool:
    """Copy one file that isn't a directory, with its data and every attribute. False if there is none, or a directory."""
    try:
        found = os.stat(name, dir_fd=source_dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR or (kind == stat.S_IFCHR and found.st_rdev == 0):
        return False
    entry = entry_of(found, path, content_xattrs(f"/proc/self/fd/{source_dir_fd}/{name}"))
    if kind == stat.S_IFREG:
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source_dir_fd)
        try:
            target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target_dir_fd)
            try:
                copy_contents(source, target, found.st_size)
                drop_inherited(target, entry.xattrs)
                set_on_descriptor(target, entry)
            finally:
                os.close(target)
        finally:
            os.close(source)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source_dir_fd), name, dir_fd=target_dir_fd)
        set_on_name(target_dir_fd, name, entry, symlink=True)
    else:
        os.mknod(name, kind | 0o600, found.st_rdev, dir_fd=target_dir_fd)
        set_on_name(target_dir_fd, name, entry)
    return True
