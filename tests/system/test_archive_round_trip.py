"""A tree written, read by others and by us, and laid down again is the same tree; and what others write, we read."""

import io
import os
import socket
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from lamina.api.entries import Change, ChangeKind, Entry, EntryKind
from lamina.api.types import WhiteoutFormat
from lamina.archive.apply import apply_layer
from lamina.archive.changes import compare_trees
from lamina.archive.layer import LayerTar
from lamina.archive.writer import write_layer, write_tree
from lamina.errors import LaminaError

ACL = bytes.fromhex("0200000001000700ffffffff02000600e803000004000500ffffffff10000700ffffffff20000500ffffffff")
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw, as capabilities(7) stores it in security.capability."""


def make_tree(root: str) -> None:
    """One of each thing that a layer can hold."""
    for path in ("bin", "etc/deep/er", "tmp", "empty"):
        os.makedirs(f"{root}/{path}")
    Path(root, "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    Path(root, "bin/ping").write_bytes(b"\x7fELF" * 1000)
    Path(root, "bin/su").write_bytes(os.urandom(700_000))
    os.chown(f"{root}/bin/su", 0, 4)
    os.chmod(f"{root}/bin/su", 0o4750)
    os.chown(f"{root}/bin/ping", 70_000, 3_000_000)
    os.setxattr(f"{root}/bin/ping", "security.capability", CAPABILITY)
    os.setxattr(f"{root}/etc", "user.note", b"with\nline break = \0 zero")
    os.setxattr(f"{root}/etc/passwd", "trusted.mark", b"1")
    os.setxattr(f"{root}/etc/passwd", "system.posix_acl_access", ACL)
    os.setxattr(f"{root}/etc/deep", "system.posix_acl_default", ACL)
    os.setxattr(f"{root}/tmp", "trusted.overlay.origin", b"not ours")
    os.chmod(f"{root}/tmp", 0o1777)
    os.chmod(f"{root}/empty", 0o2711)
    os.symlink("/etc/passwd", f"{root}/etc/link")
    os.symlink("x" * 300, f"{root}/long-link")
    os.link(f"{root}/bin/su", f"{root}/etc/deep/su-again")
    os.link(f"{root}/etc/link", f"{root}/etc/link-again")
    os.mkfifo(f"{root}/tmp/fifo")
    os.mknod(f"{root}/tmp/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(f"{root}/tmp/disk", stat.S_IFBLK | 0o660, os.makedev(259, 70_000))
    Path(root, "etc/deep", "n" * 255).write_text("long")
    Path(root, "etc", "café").write_text("utf-8")
    Path(os.fsdecode(os.fsencode(root) + b"/etc/caf\xe9\n")).write_text("latin-1")
    os.makedirs(f"{root}/{'d' * 90}/{'e' * 90}/{'f' * 90}")
    Path(root, "d" * 90, "e" * 90, "f" * 90, "g").write_text("deep")
    with open(f"{root}/sparse", "wb") as sparse:
        sparse.truncate(3 << 20)
        sparse.seek(1 << 20)
        sparse.write(b"data in the middle")
    for index, (at, folders, files) in enumerate(os.walk(root)):
        for name in folders + files:
            time_ns = (-5, 0, 1_500_000_000_000_000_000, 1_600_000_000_123_456_789, 9_000_000_000_000_000_001)[index % 5]
            os.utime(os.path.join(at, name), ns=(0, time_ns), follow_symlinks=False)


def written(root: str, **options) -> bytes:
    out = io.BytesIO()
    write_tree(out, root, **options)
    return out.getvalue()


def lay(archive: bytes, into: str, whiteouts: WhiteoutFormat = WhiteoutFormat.NONE) -> None:
    if not os.path.exists(into):
        os.mkdir(into)
        os.chmod(into, 0o755)
    apply_layer(LayerTar(io.BytesIO(archive)), into=into, whiteouts=whiteouts, parent=lambda: None)


def differences(one: str, other: str) -> list[str]:
    os.utime(other, ns=(0, os.stat(one).st_mtime_ns))
    return [f"{change.kind.value} {change.path}" for change in compare_trees(one, other)]


@pytest.fixture
def tree(root_dir: str) -> str:
    os.mkdir(f"{root_dir}/tree")
    make_tree(f"{root_dir}/tree")
    return f"{root_dir}/tree"


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize("whiteouts", list(WhiteoutFormat), ids=str)
def test_a_tree_comes_back_as_it_was(tree: str, root_dir: str, whiteouts: WhiteoutFormat, umask: int) -> None:
    before = os.umask(umask)
    try:
        lay(written(tree), f"{root_dir}/again", whiteouts)
    finally:
        os.umask(before)
    assert differences(tree, f"{root_dir}/again") == []
    again = f"{root_dir}/again"
    assert os.stat(f"{again}/bin/su").st_ino == os.stat(f"{again}/etc/deep/su-again").st_ino
    assert os.lstat(f"{again}/etc/link").st_nlink == 2
    assert os.listxattr(f"{again}/tmp") == []
    assert written(again) == written(tree)


def test_the_same_tree_gives_the_same_bytes_and_times_can_be_limited(tree: str) -> None:
    assert written(tree) == written(tree)
    limited = written(tree, mtime_limit_ns=1_000_000_000_000_000_000)
    assert max(entry.mtime_ns for entry in LayerTar(io.BytesIO(limited))) == 1_000_000_000_000_000_000


def test_gnu_tar_reads_what_we_write(tree: str, root_dir: str) -> None:
    os.mkdir(f"{root_dir}/gnu")
    command = ["tar", "-xpf", "-", "-C", f"{root_dir}/gnu", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--warning=all"]
    done = subprocess.run(command, input=written(tree), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    # GNU tar takes ACLs from its own SCHILY.acl records only.
    lost = {"C etc/passwd", "C etc/deep"}
    assert set(differences(tree, f"{root_dir}/gnu")) <= lost


def test_python_reads_what_we_write(tree: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(written(tree)), errorlevel=2) as archive:
        members = {member.name: member for member in archive.getmembers()}
        for name, member in members.items():
            info = os.lstat(os.path.join(tree, name))
            assert member.mode == stat.S_IMODE(info.st_mode)
            assert (member.uid, member.gid, member.uname) == (info.st_uid, info.st_gid, "")
            if member.isreg():
                opened = archive.extractfile(member)
                assert opened is not None
                assert opened.read() == Path(tree, name).read_bytes()
    assert set(members) == {
        os.path.relpath(os.path.join(at, name), tree) for at, folders, files in os.walk(tree) for name in folders + files
    }


@pytest.mark.parametrize(
    "options",
    [
        "--format=gnu",
        "--format=gnu -S",
        "--format=oldgnu -S",
        "--format=pax",
        "--format=pax --xattrs --xattrs-include=*",
        "--format=pax -S",
        "--format=pax -S --sparse-version=0.0",
        "--format=pax -S --sparse-version=0.1",
        "--format=pax -S --sparse-version=1.0 --xattrs --xattrs-include=*",
    ],
)
def test_we_read_what_gnu_tar_writes(tree: str, root_dir: str, options: str) -> None:
    archive = subprocess.run(["tar", "-cf", "-", "-C", tree, *options.split(), "."], capture_output=True, check=True).stdout
    again = f"{root_dir}/again"
    lay(archive, again)
    if "--xattrs" in options:  # all but ACLs, which it writes as text and only if asked
        assert set(differences(tree, again)) <= {"C etc/passwd", "C etc/deep"}
    else:
        _same_but_for_xattrs_and_fractions(tree, again)
    if "-S" in options:
        assert os.stat(f"{again}/sparse").st_blocks <= 16, "holes must stay holes"


def _same_but_for_xattrs_and_fractions(tree: str, again: str) -> None:
    for at, folders, files in os.walk(tree):
        for name in folders + files:
            one = os.path.join(at, name)
            info, other = os.lstat(one), os.lstat(os.path.join(again, os.path.relpath(one, tree)))
            assert (info.st_mode & ~0o070, info.st_uid, info.st_gid, info.st_rdev) == (
                other.st_mode & ~0o070, other.st_uid, other.st_gid, other.st_rdev,
            )  # fmt: skip
            assert abs(info.st_mtime_ns - other.st_mtime_ns) < 1_000_000_000
            if stat.S_ISREG(info.st_mode):
                assert Path(one).read_bytes() == Path(again, os.path.relpath(one, tree)).read_bytes()


def test_we_read_ustar_and_v7_as_gnu_tar_writes_them(root_dir: str) -> None:
    tree = f"{root_dir}/tree"
    os.makedirs(f"{tree}/{'d' * 90}/sub")
    Path(tree, "d" * 90, "sub", "f" * 60).write_text("x")
    Path(tree, "short").write_text("y")
    for kind in ("ustar", "v7"):
        names = ["short"] if kind == "v7" else ["."]
        archive = subprocess.run(
            ["tar", "-cf", "-", "-C", tree, f"--format={kind}", *names], capture_output=True, check=True
        ).stdout
        lay(archive, f"{root_dir}/{kind}")
        assert Path(root_dir, kind, "short").read_text() == "y"
    assert Path(root_dir, "ustar", "d" * 90, "sub", "f" * 60).read_text() == "x"


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_we_read_what_python_writes(root_dir: str, kind: int) -> None:
    Path(root_dir, "tree").mkdir()
    for name in ("a", "b" * 90, "café"):
        Path(root_dir, "tree", name).write_text(name)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        archive.add(f"{root_dir}/tree", arcname="")
    lay(out.getvalue(), f"{root_dir}/again")
    _same_but_for_xattrs_and_fractions(f"{root_dir}/tree", f"{root_dir}/again")


def test_a_layer_has_whiteouts_before_their_siblings_and_the_directories_above(tree: str) -> None:
    out = io.BytesIO()
    changes = [
        Change(path="etc/deep/er", kind=ChangeKind.ADD),
        Change(path="etc/gone", kind=ChangeKind.DELETE),
        Change(path="etc/café", kind=ChangeKind.MODIFY),
    ]
    write_layer(out, tree, changes)
    entries = [(entry.path, entry.kind) for entry in LayerTar(io.BytesIO(out.getvalue()))]
    assert entries == [
        ("etc", EntryKind.DIRECTORY),
        ("etc/gone", EntryKind.WHITEOUT),
        ("etc/café", EntryKind.FILE),
        ("etc/deep", EntryKind.DIRECTORY),
        ("etc/deep/er", EntryKind.DIRECTORY),
    ]
    out = io.BytesIO()
    write_layer(out, tree, changes, parents=False)
    assert len(list(LayerTar(io.BytesIO(out.getvalue())))) == 3


def test_a_link_whose_other_name_is_not_listed_is_written_in_full(tree: str) -> None:
    out = io.BytesIO()
    write_layer(out, tree, [Change(path="etc/deep/su-again", kind=ChangeKind.ADD)], parents=False)
    (entry,) = LayerTar(io.BytesIO(out.getvalue()))
    assert (entry.kind, entry.size_bytes) == (EntryKind.FILE, 700_000)


def test_what_cannot_be_in_a_layer_is_left_out_or_refused(tree: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tree)  # a socket's path is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    Path(tree, ".wh.file").touch()
    out = io.BytesIO()
    write_layer(out, tree, [Change(path="socket", kind=ChangeKind.ADD), Change(path="never", kind=ChangeKind.ADD)])
    assert list(LayerTar(io.BytesIO(out.getvalue()))) == []
    with pytest.raises(LaminaError, match=r"'\.wh\.file' can't be in a layer"):
        write_layer(io.BytesIO(), tree, [Change(path=".wh.file", kind=ChangeKind.ADD)])


def test_a_file_that_shrinks_and_a_parent_that_becomes_a_symlink_while_they_are_read(root_dir: str) -> None:
    tree = f"{root_dir}/tree"
    os.makedirs(f"{tree}/z")
    os.mkdir(f"{root_dir}/outside")
    Path(root_dir, "outside", "secret").write_text("secret")
    Path(tree, "z", "secret").write_text("mine")
    Path(tree, "big").write_bytes(b"x" * 3_000_000)

    class Meddling(io.BytesIO):
        done = False

        def write(self, data, /) -> int:
            if not self.done and len(data) > 1000:
                self.done = True
                os.truncate(f"{tree}/big", 400_000)
                os.rename(f"{tree}/z", f"{tree}/aside")
                os.symlink(f"{root_dir}/outside", f"{tree}/z")
            return super().write(data)

    out = Meddling()
    changes = [Change(path=path, kind=ChangeKind.ADD) for path in ("big", "z", "z/secret")]
    write_layer(out, tree, changes)
    entries = list(LayerTar(io.BytesIO(out.getvalue())))
    assert [(entry.path, entry.size_bytes) for entry in entries] == [("big", 3_000_000), ("z", 0)]
    assert b"secret" not in out.getvalue().replace(b"z/secret", b"")


def test_an_xattr_that_cannot_be_kept_is_an_error_that_names_it(root_dir: str) -> None:
    os.mkdir(f"{root_dir}/into")

    class One:
        def __iter__(self):
            yield Entry(path="link", kind=EntryKind.SYMLINK, link="x", xattrs={"user.note": b"1"})

        def copy_to(self, fd: int) -> None: ...

        def open(self) -> io.BytesIO:
            return io.BytesIO()

    with pytest.raises(LaminaError, match=r"'user\.note' of 'link'"):
        apply_layer(One(), into=f"{root_dir}/into", whiteouts=WhiteoutFormat.NONE, parent=lambda: None)


def test_files_do_not_inherit_a_default_acl_that_their_archive_does_not_give_them(root_dir: str) -> None:
    into = f"{root_dir}/into"
    os.mkdir(into)
    os.setxattr(into, "system.posix_acl_default", ACL)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in (
            ("file", tarfile.REGTYPE),
            ("dir", tarfile.DIRTYPE),
            ("fifo", tarfile.FIFOTYPE),
            ("dir/in", tarfile.REGTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o750
            archive.addfile(member)
    lay(out.getvalue(), into)
    for name in ("file", "dir", "fifo", "dir/in"):
        assert os.listxattr(f"{into}/{name}") == [], name
        assert stat.S_IMODE(os.stat(f"{into}/{name}").st_mode) == 0o750, name


def test_owners_and_modes_are_the_archives_whatever_the_directory_and_the_umask_give(root_dir: str, own_mounts: None) -> None:
    """A file gets them when it is made, if nothing stands between: a setgid directory, a mount with `grpid`, the umask."""
    disk, into = f"{root_dir}/disk", f"{root_dir}/into"
    with open(disk, "wb") as file:
        file.truncate(4 << 20)
    os.mkdir(into)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-O", "^has_journal", disk], check=True)
    subprocess.run(["mount", "-o", "loop,grpid", disk, into], check=True)
    wanted = {
        "setgid": (0o2775, 0, 7), "setgid/file": (0o664, 0, 0), "setgid/dir": (0o755, 0, 0), "setgid/link": (0o777, 0, 0),
        "group": (0o755, 0, 42), "group/file": (0o600, 0, 0), "group/dir": (0o777, 1, 0), "group/link": (0o777, 0, 0),
        "later": (0o755, 0, 0), "later/file": (0o4755, 5, 5), "open": (0o666, 0, 0), "none": (0, 0, 0),
    }  # fmt: skip
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, (mode, uid, gid) in [*wanted.items(), ("later", (0o2777, 0, 9)), ("later/second", (0o640, 0, 0))]:
            member = tarfile.TarInfo(name)
            member.type = {"link": tarfile.SYMTYPE, "file": tarfile.REGTYPE}.get(name.rpartition("/")[2], tarfile.DIRTYPE)
            member.type = tarfile.REGTYPE if name in {"open", "none", "later/second"} else member.type
            member.linkname, member.mode, member.uid, member.gid = "file", mode, uid, gid
            archive.addfile(member)
    before = os.umask(0o027)
    try:
        lay(out.getvalue(), into)
        wanted |= {"later": (0o2777, 0, 9), "later/second": (0o640, 0, 0)}
        found = {name: os.lstat(f"{into}/{name}") for name in wanted}
        assert {name: (stat.S_IMODE(each.st_mode), each.st_uid, each.st_gid) for name, each in found.items()} == wanted
    finally:
        os.umask(before)
        subprocess.run(["umount", into], check=True)
