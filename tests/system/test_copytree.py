"""`copy_tree` loses nothing, follows nothing, and leaves its source as it was."""

import errno
import os
import socket
import stat

import pytest

from lamina.api.copytree import copy_root, copy_tree, kept_here
from lamina.api.types import Fidelity
from lamina.linux import mount as lm
from lamina.linux.fs import data_extents, remove_tree

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw, effective
ACL = bytes.fromhex("02000000 01000600ffffffff 020004002a000000 04000000ffffffff 10000400ffffffff 20000000ffffffff")
OLD = 1_000_000_000_123_456_789


def snapshot(root: str) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that a copy must have, but the inode numbers; hard links as the first of their names."""
    seen: dict[tuple[int, int], str] = {}
    found: dict[str, tuple[object, ...]] = {}

    def add(path: str) -> None:
        st = os.lstat(path)
        name = os.path.relpath(path, root)
        first = seen.setdefault((st.st_dev, st.st_ino), name)
        xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in sorted(os.listxattr(path, follow_symlinks=False))}
        what: object = None
        if stat.S_ISREG(st.st_mode):
            with open(os.open(path, os.O_RDONLY | os.O_NOATIME), "rb") as file:
                what = file.read()
        elif stat.S_ISLNK(st.st_mode):
            what = os.readlink(path)
            os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns), follow_symlinks=False)  # reading it was an access
        links = 0 if stat.S_ISDIR(st.st_mode) else st.st_nlink
        found[name] = (st.st_mode, st.st_uid, st.st_gid, st.st_rdev, links, st.st_mtime_ns, st.st_atime_ns, xattrs, first, what)
        if stat.S_ISDIR(st.st_mode):
            fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
            names = sorted(os.listdir(fd))
            os.close(fd)
            for each in names:
                add(os.path.join(path, each))

    add(root)
    return found


def write(path: str, data: bytes = b"", mode: int = 0o644) -> str:
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)
    return path


@pytest.fixture
def source(root_dir: str) -> str:
    os.mkdir(f"{root_dir}/source")
    return f"{root_dir}/source"


def copied(source: str) -> str:
    """Copy, check that the source has not changed, not even its access times, and give the copy's path."""
    target = f"{source}.copy"
    before = snapshot(source)
    copy_tree(source, target)
    assert snapshot(source) == before
    assert snapshot(target) == before
    return target


@pytest.mark.parametrize("mode", [0o000, 0o644, 0o4755, 0o2755, 0o1777, 0o7777])
def test_every_mode_and_owner_is_kept(source: str, mode: int) -> None:
    write(f"{source}/file", b"x")
    os.mkdir(f"{source}/dir")
    for name in ("file", "dir"):
        os.chown(f"{source}/{name}", 12345, 2_000_000_000)
        os.chmod(f"{source}/{name}", mode)
    os.chmod(source, mode)
    os.chown(source, 7, 8)
    copied(source)


def test_times_are_kept_to_the_nanosecond_for_every_kind_of_file(source: str) -> None:
    write(f"{source}/file", b"x")
    os.mkdir(f"{source}/dir")
    write(f"{source}/dir/inside")
    os.symlink("nowhere", f"{source}/symlink")
    os.mkfifo(f"{source}/fifo")
    for index, name in enumerate(("file", "dir/inside", "dir", "symlink", "fifo", ".")):
        os.utime(f"{source}/{name}", ns=(OLD + index, OLD * 2 + index), follow_symlinks=False)
    target = copied(source)
    assert os.lstat(f"{target}/symlink").st_mtime_ns == OLD * 2 + 3
    assert os.lstat(target).st_mtime_ns == OLD * 2 + 5


def test_times_before_the_epoch_are_kept(source: str) -> None:
    os.utime(write(f"{source}/file"), ns=(-1, -999_999_999))
    assert os.stat(f"{copied(source)}/file").st_mtime_ns == -999_999_999


def test_devices_fifos_and_sockets_stay_what_they_are(source: str) -> None:
    os.mknod(f"{source}/char", stat.S_IFCHR | 0o620, os.makedev(5, 1))
    os.mknod(f"{source}/block", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    os.mknod(f"{source}/whiteout", stat.S_IFCHR, os.makedev(0, 0))
    os.mkfifo(f"{source}/fifo", 0o600)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{source}/socket")
    os.chmod(f"{source}/socket", 0o777)
    target = copied(source)
    assert stat.S_ISSOCK(os.lstat(f"{target}/socket").st_mode)
    assert os.lstat(f"{target}/block").st_rdev == os.makedev(259, 70000)


def test_hard_links_of_every_kind_are_kept_across_directories(source: str) -> None:
    os.makedirs(f"{source}/a/b")
    os.makedirs(f"{source}/c")
    write(f"{source}/a/b/file", b"shared")
    os.symlink("text", f"{source}/a/symlink")
    os.mkfifo(f"{source}/fifo")
    for first, second in (("a/b/file", "c/file"), ("a/b/file", "file"), ("a/symlink", "c/symlink"), ("fifo", "c/fifo")):
        os.link(f"{source}/{first}", f"{source}/{second}", follow_symlinks=False)
    target = copied(source)
    assert os.path.samefile(f"{target}/a/b/file", f"{target}/c/file")
    assert os.stat(f"{target}/file").st_nlink == 3


def test_a_hard_link_from_outside_the_tree_is_an_ordinary_file_in_the_copy(source: str) -> None:
    write(f"{source}/file", b"x")
    os.link(f"{source}/file", f"{source}.outside")
    copy_tree(source, f"{source}.copy")
    assert os.stat(f"{source}.copy/file").st_nlink == 1
    with open(f"{source}.copy/file", "ab") as file:
        file.write(b"y")
    with open(f"{source}.outside", "rb") as file:
        assert file.read() == b"x"


def test_holes_are_kept(source: str) -> None:
    layout = {"big": (64 << 20, 32 << 20), "small": (40_000, 20_480), "empty": (1 << 30, None)}
    for name, (size, data_at) in layout.items():
        with open(f"{source}/{name}", "wb") as file:
            file.truncate(size)
            if data_at is not None:
                os.pwrite(file.fileno(), b"x" * 4096, data_at)
    target = f"{source}.copy"
    copy_tree(source, target)
    for name, (size, data_at) in layout.items():
        with open(f"{target}/{name}", "rb") as file:
            assert os.fstat(file.fileno()).st_size == size
            assert data_extents(file.fileno(), size) == ([] if data_at is None else [(data_at, 4096)])


@pytest.mark.parametrize("size", [0, 1, 4096, 65_536, 65_537, 3_000_001])
def test_bytes_are_kept_at_every_size(source: str, size: int) -> None:
    write(f"{source}/file", os.urandom(size))
    copied(source)


def test_every_xattr_is_kept_on_files_and_directories(source: str) -> None:
    os.mkdir(f"{source}/dir")
    write(f"{source}/file", b"x")
    for path in (source, f"{source}/dir", f"{source}/file"):
        os.setxattr(path, "user.text", b"\x00binary\xff")
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "trusted.mine", b"1")
        os.setxattr(path, "security.mine", b"2")
        os.setxattr(path, "user.big", b"x" * 2000)
    copied(source)


def test_xattrs_of_symlinks_and_special_files_are_kept(source: str) -> None:
    write(f"{source}/file", b"x")
    os.symlink("file", f"{source}/symlink")
    os.mkfifo(f"{source}/fifo")
    os.mknod(f"{source}/device", stat.S_IFCHR, os.makedev(1, 3))
    for name in ("symlink", "fifo", "device"):
        os.setxattr(f"{source}/{name}", "trusted.mine", b"1", follow_symlinks=False)
    target = copied(source)
    assert os.listxattr(f"{target}/file") == []


def test_file_capabilities_outlive_the_change_of_owner(source: str) -> None:
    write(f"{source}/ping", b"x", 0o755)
    os.chown(f"{source}/ping", 1000, 1000)
    os.setxattr(f"{source}/ping", "security.capability", CAPABILITY)
    assert os.getxattr(f"{copied(source)}/ping", "security.capability") == CAPABILITY


def test_acls_are_kept_and_a_default_acl_reaches_nothing_that_is_copied(source: str) -> None:
    os.mkdir(f"{source}/dir")
    write(f"{source}/dir/plain", b"x", 0o640)
    write(f"{source}/dir/acl", b"x")
    os.setxattr(f"{source}/dir/acl", "system.posix_acl_access", ACL)
    os.setxattr(f"{source}/dir", "system.posix_acl_default", ACL)
    target = copied(source)
    assert os.listxattr(f"{target}/dir/plain") == []


def test_a_default_acl_above_the_copy_reaches_nothing_in_it(source: str) -> None:
    os.mkdir(f"{source}/dir")
    write(f"{source}/dir/plain", b"x", 0o640)
    os.setxattr(os.path.dirname(source), "system.posix_acl_default", ACL)
    copied(source)


def test_a_setgid_directory_above_the_copy_reaches_nothing_in_it(source: str) -> None:
    os.mkdir(f"{source}/dir")
    write(f"{source}/dir/plain", b"x", 0o640)
    os.chown(os.path.dirname(source), 0, 777)
    os.chmod(os.path.dirname(source), 0o2755)
    copied(source)


def test_overlayfs_bookkeeping_is_not_copied(source: str) -> None:
    os.setxattr(source, "trusted.overlay.opaque", b"y")
    os.setxattr(write(f"{source}/file"), "trusted.overlay.origin", b"\x00")
    copy_tree(source, f"{source}.copy")
    assert os.listxattr(f"{source}.copy") == os.listxattr(f"{source}.copy/file") == []


def test_names_of_any_bytes_are_copied(source: str) -> None:
    raw = os.fsencode(source)
    names = [bytes([byte]) for byte in range(1, 256) if byte not in b"/."] + [b"n" * 255, b"\xff\xfe\n$(x)", b"-rf", b"..."]
    for name in names:
        with open(raw + b"/" + name, "wb") as file:
            file.write(name)
    os.mkdir(raw + b"/d\xe9")
    os.symlink(b"\xff\xfe", raw + b"/d\xe9/\xc3")
    copied(source)


def test_symlinks_are_never_followed(source: str) -> None:
    outside = f"{source}.outside"
    os.mkdir(outside)
    write(f"{outside}/secret", b"x")
    os.symlink(outside, f"{source}/dir")
    os.symlink("/etc/passwd", f"{source}/file")
    os.symlink(".", f"{source}/loop")
    before = snapshot(outside)
    copied(source)
    assert snapshot(outside) == before


def test_a_tree_deeper_than_a_path_can_say_is_copied_with_its_hard_links(source: str) -> None:
    depth, name = 1300, "long"  # the path is longer than PATH_MAX, the depth greater than the usual limit of open files
    write(f"{source}/first", b"x")
    fd, first = os.open(source, os.O_RDONLY), os.open(source, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        fd, old = os.open(name, os.O_RDONLY, dir_fd=fd), fd
        os.close(old)
    os.link("first", "last", src_dir_fd=first, dst_dir_fd=fd)
    os.close(os.open("deep", os.O_CREAT, dir_fd=fd))
    os.link("deep", "deep too", src_dir_fd=fd, dst_dir_fd=fd)
    os.close(fd)
    copy_tree(source, f"{source}.copy")
    fd = os.open(f"{source}.copy", os.O_RDONLY)
    for _ in range(depth):
        fd, old = os.open(name, os.O_RDONLY, dir_fd=fd), fd
        os.close(old)
    assert os.stat("last", dir_fd=fd).st_ino == os.stat(f"{source}.copy/first").st_ino
    assert os.stat("deep", dir_fd=fd).st_ino == os.stat("deep too", dir_fd=fd).st_ino
    os.close(fd)
    os.close(first)
    for tree in (source, f"{source}.copy"):  # by hand and from below, since the test's directory must be removable
        _flatten(tree, name)


def _flatten(tree: str, name: str) -> None:
    """Take a deep chain of directories apart: move what lies 100 levels down to the top, remove the rest, again."""
    while os.path.exists(f"{tree}/{name}"):
        deep = "/".join([tree, *[name] * 100])
        if os.path.exists(deep):
            os.rename(deep, f"{tree}/rest")
        remove_tree(f"{tree}/{name}")
        if os.path.exists(f"{tree}/rest"):
            os.rename(f"{tree}/rest", f"{tree}/{name}")


def test_what_is_mounted_below_the_source_is_not_copied(source: str) -> None:
    os.mkdir(f"{source}/place")
    write(f"{source}/place/beneath", b"x")
    before = snapshot(source)
    fd = lm.fsmount("tmpfs")
    lm.move_mount(fd, f"{source}/place")
    os.close(fd)
    try:
        write(f"{source}/place/mounted", b"x")
        copy_tree(source, f"{source}.copy")
    finally:
        lm.unmount(f"{source}/place")
    assert snapshot(f"{source}.copy") == before


def test_a_target_that_is_there_is_refused_and_untouched(source: str) -> None:
    os.mkdir(f"{source}.copy")
    write(f"{source}.copy/mine", b"x")
    with pytest.raises(FileExistsError):
        copy_tree(source, f"{source}.copy")
    assert os.listdir(f"{source}.copy") == ["mine"]


def test_a_missing_source_makes_no_target(source: str) -> None:
    with pytest.raises(FileNotFoundError):
        copy_tree(f"{source}/missing", f"{source}.copy")
    assert not os.path.exists(f"{source}.copy")


def test_a_full_disk_is_an_error_with_the_path(source: str, root_dir: str) -> None:
    os.makedirs(f"{source}/dir")
    write(f"{source}/dir/file", os.urandom(600_000))
    os.mkdir(f"{root_dir}/small")
    fd = lm.fsmount("tmpfs", (("size", "300k"),))
    lm.move_mount(fd, f"{root_dir}/small")
    os.close(fd)
    try:
        with pytest.raises(OSError) as caught:
            copy_tree(source, f"{root_dir}/small/copy")
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename.startswith(f"{root_dir}/small/copy/dir")
    finally:
        lm.unmount(f"{root_dir}/small")


def test_no_descriptor_is_left_open(source: str) -> None:
    os.makedirs(f"{source}/a/b/c")
    write(f"{source}/a/b/file", b"x")
    before = len(os.listdir("/proc/self/fd"))
    copy_tree(source, f"{source}.copy")
    with pytest.raises(FileExistsError):
        copy_tree(source, f"{source}.copy")
    assert len(os.listdir("/proc/self/fd")) == before


def test_copy_root_takes_the_directory_and_not_its_contents(source: str) -> None:
    write(f"{source}/file", b"x")
    os.setxattr(source, "user.mine", b"1")
    os.setxattr(source, "system.posix_acl_access", ACL)
    os.chown(source, 5, 6)
    os.chmod(source, 0o1750)
    os.utime(source, ns=(OLD, OLD + 1))
    os.mkdir(f"{source}.copy")
    copy_root(source, f"{source}.copy")
    assert snapshot(f"{source}.copy") == {".": snapshot(source)["."]}


def test_kept_here_tells_what_a_file_system_lacks(root_dir: str) -> None:
    assert kept_here(root_dir) == frozenset(Fidelity)
    fd = lm.fsmount("ramfs")  # no xattrs at all
    lm.move_mount(fd, root_dir)
    os.close(fd)
    try:
        lacking = {Fidelity.USER_XATTRS, Fidelity.TRUSTED_XATTRS, Fidelity.FILE_CAPABILITIES, Fidelity.ACLS}
        assert frozenset(Fidelity) - kept_here(root_dir) in (lacking, frozenset())
    finally:
        lm.unmount(root_dir)
