"""What a layer changes: read from real overlay mounts, against the same by comparing trees, and through a layer back to the tree.

The long test does random things in a mounted union and holds all ways of saying what changed, and of laying it down again in each
whiteout format, against each other.
"""

import contextlib
import errno
import os
import random
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest

from lamina.api.entries import Change, ChangeKind
from lamina.api.types import WhiteoutFormat
from lamina.archive.apply import apply_layer
from lamina.archive.changes import compare_trees, read_upper
from lamina.archive.layer import LayerTar
from lamina.archive.writer import write_layer
from lamina.errors import LaminaError
from lamina.linux import mount as lm

ACL = bytes.fromhex(
    "02000000 01000700ffffffff 02000600e8030000 04000500ffffffff 10000700ffffffff 20000500ffffffff".replace(" ", "")
)
"""user::rwx, user:1000:rw-, group::r-x, mask::rwx, other::r-x, as acl(5) is stored."""


def snapshot(root: str) -> dict[str, tuple[object, ...]]:
    """What a layer must bring back of a tree, all but the root's own mtime. Names of one inode share the first one's name."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[tuple[int, int], str] = {}
    for at, folders, files in os.walk(root):
        for name in ["", *folders, *files] if at == root else [*folders, *files]:
            path = os.path.join(at, name)
            info = os.lstat(path)
            content: object = None
            if stat.S_ISREG(info.st_mode):
                content = sha256(Path(path).read_bytes()).hexdigest()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
                if not key.startswith("trusted.overlay.")
            }
            relative = os.path.relpath(path, root)
            group = None if stat.S_ISDIR(info.st_mode) else first.setdefault((info.st_dev, info.st_ino), relative)
            mtime_ns = info.st_mtime_ns if name else 0
            found[relative] = (oct(info.st_mode), info.st_uid, info.st_gid, mtime_ns, info.st_rdev, content, xattrs, group)
    return found


@contextlib.contextmanager
def overlay(lower: str, upper: str, work: str, target: str) -> Iterator[str]:
    if not os.path.exists(upper):
        os.mkdir(upper)
        shutil.copystat(lower, upper)
    for path in (work, target):
        os.makedirs(path, exist_ok=True)
    options = (("lowerdir+", lower), ("upperdir", upper), ("workdir", work), ("redirect_dir", "off"), ("metacopy", "off"))
    fd = lm.fsmount("overlay", options)
    try:
        lm.move_mount(fd, target)
    finally:
        os.close(fd)
    try:
        yield target
    finally:
        lm.unmount(target)


class Union:
    """A lower tree and a place to mount an overlay on it."""

    def __init__(self, root_dir: str) -> None:
        self.root_dir = root_dir
        self.lower = f"{root_dir}/lower"
        self.upper = f"{root_dir}/upper"
        os.mkdir(self.lower)

    def mounted(self) -> contextlib.AbstractContextManager[str]:
        return overlay(self.lower, self.upper, f"{self.root_dir}/work", f"{self.root_dir}/merged")

    def both(self, merged: str) -> list[Change]:
        """The changes, which both functions must agree on."""
        compared = compare_trees(merged, self.lower)
        assert read_upper(self.upper, WhiteoutFormat.OVERLAY, lambda: self.lower) == compared
        return compared


@pytest.fixture
def union(root_dir: str) -> Union:
    union = Union(root_dir)
    for path in ("dir/sub/deep", "dir/other", "a", "a-b", "empty"):
        os.makedirs(f"{union.lower}/{path}")
    for path in ("file", "dir/one", "dir/two", "dir/sub/three", "dir/sub/deep/four", "a/x", "a-b/x"):
        Path(union.lower, path).write_text(path)
    os.symlink("dir/one", f"{union.lower}/link")
    for at, folders, files in os.walk(union.lower):
        for name in folders + files:
            os.utime(os.path.join(at, name), ns=(0, 1_500_000_000_000_000_001), follow_symlinks=False)
    os.utime(union.lower, ns=(0, 1_500_000_000_000_000_001))
    return union


def said(changes: list[Change]) -> list[str]:
    return [f"{change.kind.value} {change.path}" for change in changes]


def keep_time(path: str) -> contextlib.AbstractContextManager[None]:
    @contextlib.contextmanager
    def kept() -> Iterator[None]:
        before = os.stat(path).st_mtime_ns
        yield
        os.utime(path, ns=(0, before))

    return kept()


def test_nothing_done_is_no_change(union: Union) -> None:
    with union.mounted() as merged:
        assert union.both(merged) == []


def test_a_touched_file_is_no_change(union: Union) -> None:
    with union.mounted() as merged:
        with open(f"{merged}/dir/one", "r+b"):
            pass  # copied up, with all the directories above
        os.chmod(f"{merged}/dir/two", 0o600)
        os.chmod(f"{merged}/dir/two", 0o644)
        assert union.both(merged) == []


def test_a_rewrite_of_the_same_size_with_the_old_time_is_found(union: Union) -> None:
    with union.mounted() as merged:
        with keep_time(f"{merged}/file"):
            Path(merged, "file").write_text("FILE")
        assert said(union.both(merged)) == ["C file"]


def test_a_user_xattr_alone_and_an_acl_alone_are_found(union: Union) -> None:
    with union.mounted() as merged:
        os.setxattr(f"{merged}/file", "user.note", b"new")
        os.chmod(f"{merged}/dir/one", 0o775)
        assert said(union.both(merged)) == ["C dir/one", "C file"]
    os.chmod(f"{union.lower}/a/x", 0o775)
    with union.mounted() as merged:
        os.setxattr(f"{merged}/a/x", "system.posix_acl_access", ACL)
        assert stat.S_IMODE(os.stat(f"{merged}/a/x").st_mode) == 0o775, "the mode must not tell"
        assert "C a/x" in said(union.both(merged))


def test_a_deleted_tree_is_one_entry_and_its_directory_changed(union: Union) -> None:
    with union.mounted() as merged:
        shutil.rmtree(f"{merged}/dir/sub")
        assert said(union.both(merged)) == ["C dir", "D dir/sub"]


def test_paths_are_sorted_by_their_components(union: Union) -> None:
    with union.mounted() as merged:
        for path in ("a-b/x", "a/x", "file"):
            os.unlink(f"{merged}/{path}")
        assert said(union.both(merged)) == ["C a", "D a/x", "C a-b", "D a-b/x", "D file"]


def test_a_directory_made_anew_hides_what_it_had(union: Union) -> None:
    with union.mounted() as merged:
        shutil.rmtree(f"{merged}/dir")
        os.mkdir(f"{merged}/dir")
        Path(merged, "dir/one").write_text("new")
        Path(merged, "dir/new").write_text("new")
        assert os.getxattr(f"{union.upper}/dir", "trusted.overlay.opaque") == b"y"
        assert said(union.both(merged)) == ["C dir", "A dir/new", "C dir/one", "D dir/other", "D dir/sub", "D dir/two"]


def test_a_file_that_became_a_directory_and_the_other_way_round(union: Union) -> None:
    with union.mounted() as merged:
        os.unlink(f"{merged}/file")
        os.mkdir(f"{merged}/file")
        Path(merged, "file/in").write_text("x")
        shutil.rmtree(f"{merged}/dir")
        Path(merged, "dir").write_text("x")
        assert said(union.both(merged)) == ["C dir", "C file", "A file/in"]


def test_a_socket_is_no_change_and_what_it_replaced_is_gone(union: Union) -> None:
    with union.mounted() as merged:
        Path(merged, "file").unlink()
        for name in ("file", "dir/socket"):
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.path.join(merged, name))
        assert said(union.both(merged)) == ["C dir", "D file"]


def test_a_base_layer_is_all_additions_and_its_root_none(union: Union) -> None:
    compared = compare_trees(union.lower, None)
    assert {change.kind for change in compared} == {ChangeKind.ADD}
    assert "" not in [change.path for change in compared]
    os.chmod(union.lower, 0o700)
    assert said(compare_trees(union.lower, None))[0] == "C "
    assert read_upper(union.lower, WhiteoutFormat.OVERLAY, lambda: None) == compare_trees(union.lower, None)


def test_redirected_directories_are_refused(union: Union) -> None:
    os.makedirs(f"{union.upper}/moved")
    os.setxattr(f"{union.upper}/moved", "trusted.overlay.redirect", b"/dir")
    with pytest.raises(LaminaError, match="redirect_dir"):
        read_upper(union.upper, WhiteoutFormat.OVERLAY, lambda: union.lower)


def test_whiteouts_made_of_xattrs_are_understood(union: Union) -> None:
    os.makedirs(f"{union.upper}/dir")
    shutil.copystat(f"{union.lower}/dir", f"{union.upper}/dir")
    shutil.copystat(union.lower, union.upper)
    Path(union.upper, "dir/one").touch()
    os.setxattr(f"{union.upper}/dir/one", "trusted.overlay.whiteout", b"y")
    os.setxattr(f"{union.upper}/dir", "trusted.overlay.opaque", b"x")
    os.utime(f"{union.upper}/dir", ns=(0, 1_500_000_000_000_000_001))
    assert said(read_upper(union.upper, WhiteoutFormat.OVERLAY, lambda: union.lower)) == ["D dir/one"]


def test_an_untouched_inode_is_not_read_but_a_moved_directory_is(root_dir: str) -> None:
    parent, layer = f"{root_dir}/parent", f"{root_dir}/layer"
    for name in ("one", "two"):
        os.makedirs(f"{parent}/{name}")
        Path(parent, name, "x").write_text(name)
        os.utime(f"{parent}/{name}/x", ns=(0, 0))
        os.utime(f"{parent}/{name}", ns=(0, 0))
    subprocess.run(["cp", "-a", parent, layer], check=True)
    time.sleep(0.02)
    limit = time.time_ns()
    time.sleep(0.02)
    for old, new in (("one", "aside"), ("two", "one"), ("aside", "two")):
        os.rename(f"{layer}/{old}", f"{layer}/{new}")
    found = said(compare_trees(layer, parent, limit))
    assert [line for line in found if "/" in line] == ["C one/x", "C two/x"], "the same size and time, but another file"
    with keep_time(f"{layer}/one"):
        pass
    assert said(compare_trees(parent, parent, limit)) == []


def test_aufs_whiteouts_and_bookkeeping_are_understood(union: Union) -> None:
    upper = union.upper
    os.makedirs(f"{upper}/dir")
    os.makedirs(f"{upper}/a")
    for path in (upper, f"{upper}/dir", f"{upper}/a"):
        shutil.copystat(f"{union.lower}/{os.path.relpath(path, upper)}", path)
    for name in (".wh..wh.aufs", ".wh.file", "dir/.wh.one", "a/.wh..wh..opq", "a/y", ".wh.never", ".wh..wh..opq"):
        Path(upper, name).touch()
    os.mkdir(f"{upper}/.wh..wh.plnk")
    for path in (upper, f"{upper}/dir", f"{upper}/a"):
        os.utime(path, ns=(0, 1_500_000_000_000_000_001))
    found = said(read_upper(upper, WhiteoutFormat.AUFS, lambda: union.lower))
    assert found == ["D a/x", "A a/y", "D dir/one", "D file"]


# The long test.


def _names(chosen: random.Random, root: str, kind: int | None = None) -> list[str]:
    """List the tree's paths, those of one kind only or all. A symlink to a directory is a symlink: nothing is done through one."""
    found = []
    for at, folders, files in os.walk(root):
        found += [os.path.join(at, name) for name in folders + files]
    found = sorted(path for path in found if kind is None or stat.S_IFMT(os.lstat(path).st_mode) == kind)
    chosen.shuffle(found)
    return found


def _act(chosen: random.Random, root: str) -> None:
    """Do one random thing in a tree."""
    any_path = (_names(chosen, root) or [root])[0]
    folder = [*_names(chosen, root, stat.S_IFDIR)[:1], root][0]
    files = _names(chosen, root, stat.S_IFREG)
    new = os.path.join(folder, chosen.choice(["x", "y", "file", "sub", "one", "café", "n" * 120]))
    action = chosen.randrange(17)
    if action == 0:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        os.write(fd, chosen.randbytes(chosen.randrange(2000)))
        os.close(fd)
    elif action == 1:
        os.mkdir(new, 0o750)
    elif action == 2:
        os.symlink(chosen.choice(["nowhere", "file", "dir", "no/such/place"]), new)
    elif action == 3 and os.path.isdir(any_path) and not os.path.islink(any_path):
        shutil.rmtree(any_path)
        if chosen.random() < 0.5:
            os.mkdir(any_path)
        elif chosen.random() < 0.5:
            Path(any_path).write_text("was a directory")
    elif action in {4, 5}:
        if os.path.isdir(any_path) and not os.path.islink(any_path):
            os.rmdir(any_path)
        else:
            os.unlink(any_path)
            if chosen.random() < 0.3:
                os.mkdir(any_path)
    elif action in {6, 7}:
        os.rename(any_path, new)
    elif action == 8 and files:
        with open(files[0], "ab") as opened:
            opened.write(b"more")
    elif action == 9 and files:
        size = os.stat(files[0]).st_size
        with keep_time(files[0]):
            Path(files[0]).write_bytes(chosen.randbytes(size))
    elif action == 10:
        os.chmod(folder, chosen.choice([0o700, 0o755, 0o1777, 0o2775]))
    elif action == 11:
        os.chown(any_path, chosen.randrange(3), 3_000_000, follow_symlinks=False)
    elif action == 12:
        os.utime(any_path, ns=(0, chosen.randrange(-(10**18), 2 * 10**18)), follow_symlinks=False)
    elif action == 13 and files:
        os.setxattr(files[0], chosen.choice(["user.a", "user.b=c", "trusted.t"]), chosen.randbytes(20))
    elif action == 14 and files:
        os.link(files[0], new)
    elif action == 15:
        os.mknod(new, chosen.choice([stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK]) | 0o640, os.makedev(1, 3))
    elif action == 16:
        os.setxattr(folder, chosen.choice(["system.posix_acl_default", "system.posix_acl_access"]), ACL, follow_symlinks=False)


def _lower_tree(chosen: random.Random, root: str) -> None:
    for path in ("dir/sub/deep", "dir/other", "a", "a-b"):
        os.makedirs(f"{root}/{path}")
    for path in ("file", "dir/one", "dir/sub/three", "dir/sub/deep/four", "a/x", "a-b/x"):
        Path(root, path).write_text(path)
    _do(chosen, root, 15)


def _do(chosen: random.Random, root: str, times: int) -> None:
    for _ in range(times):
        try:
            _act(chosen, root)
        except OSError as error:
            # What a random thing may well meet.
            assert error.errno in {
                errno.EEXIST, errno.ENOTEMPTY, errno.EXDEV, errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EPERM,
                errno.EBUSY, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO,
            }, error  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_every_way_to_say_and_to_make_a_change_agrees(root_dir: str, seed: int) -> None:
    chosen = random.Random(seed)
    union = Union(root_dir)
    lower = union.lower
    _lower_tree(chosen, lower)
    full, again, aufs = f"{root_dir}/full", f"{root_dir}/again", f"{root_dir}/aufs"
    subprocess.run(["cp", "-a", lower, full], check=True)
    os.mkdir(aufs)
    shutil.copystat(lower, aufs)
    with union.mounted() as merged:
        _do(chosen, merged, 25)
        changes = union.both(merged)
        layer = BytesIO()
        write_layer(layer, merged, changes)
        wanted = snapshot(merged)

    def lay(into: str, whiteouts: WhiteoutFormat) -> None:
        apply_layer(LayerTar(BytesIO(layer.getvalue())), into=into, whiteouts=whiteouts, parent=lambda: lower)

    lay(full, WhiteoutFormat.NONE)
    assert without_broken_groups(snapshot(full)) == without_broken_groups(wanted)
    assert compare_trees(full, lower) == changes

    os.mkdir(again)
    shutil.copystat(lower, again)
    for each in os.listxattr(lower):
        os.setxattr(again, each, os.getxattr(lower, each))
    lay(again, WhiteoutFormat.OVERLAY)
    assert read_upper(again, WhiteoutFormat.OVERLAY, lambda: lower) == changes
    with overlay(lower, again, f"{root_dir}/work2", f"{root_dir}/merged2") as seen:
        assert without_broken_groups(snapshot(seen)) == without_broken_groups(wanted)
        for path in wanted:
            assert os.path.lexists(os.path.join(seen, path))

    for each in os.listxattr(lower):
        os.setxattr(aufs, each, os.getxattr(lower, each))
    lay(aufs, WhiteoutFormat.AUFS)
    assert read_upper(aufs, WhiteoutFormat.AUFS, lambda: lower) == changes


def without_broken_groups(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Forget which names share an inode: changing one name of a lower group breaks it, in each format in its own way."""
    return {path: each[:-1] for path, each in found.items()}
