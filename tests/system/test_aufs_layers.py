"""What is seen of layers in aufs's format, made here or left by Docker, through overlayfs and fuse-overlayfs."""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lamina.api.entries import Change, ChangeKind
from lamina.api.types import View
from lamina.errors import ConflictError, LaminaError, NotFoundError, UsageError
from lamina.linux import mount as lm
from lamina.store import views
from lamina_aufs.driver import Driver
from lamina_aufs.method import Method, choose

ACL = bytes.fromhex("02000000 01000700ffffffff 02000700d2040000 04000500ffffffff 10000700ffffffff 20000500ffffffff")
BOTH = pytest.mark.parametrize("method", [Method.OVERLAY, Method.FUSE])


@dataclass(kw_only=True)
class Trees:
    """What the engine hands to `storage_changes`."""

    layer: str = ""
    parent: str | None = None
    upper_dir: str | None = None


def make_layer(driver: Driver, home: str, key: str, parents: list[str], files: dict[str, str | None]) -> None:
    """Make a final layer: texts by path, None for a directory."""
    driver.storage_prepare(home, key, parents, {})
    fill(f"{home}/diff/{key}", files)
    driver.storage_apply(home, key)
    driver.storage_seal(home, key)


def fill(layer: str, files: dict[str, str | None]) -> None:
    for name, text in files.items():
        path = Path(layer, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.mkdir()
        else:
            path.write_text(text)


@contextlib.contextmanager
def mounted(driver: Driver, home: str, key: str, parents: list[str]) -> Iterator[str]:
    driver.storage_before_mount(home, key, parents)
    view = driver.storage_mounts(home, key, parents, readonly=False)
    views.attach(view)
    try:
        yield view.root
    finally:
        views.detach(view)
        driver.storage_after_unmount(home, key)


def tree(root: str) -> dict[str, str | None]:
    found = {}
    for folder, folders, files in os.walk(root):
        for name in folders:
            found[os.path.relpath(f"{folder}/{name}", root)] = None
        for name in files:
            found[os.path.relpath(f"{folder}/{name}", root)] = Path(folder, name).read_text()
    return found


@BOTH
def test_whiteouts_and_opaque_directories_hide_in_every_layer_and_view(method: Method, root_dir: str) -> None:
    driver = Driver(method)
    low = {"f": "low", "gone": "low", "d/a": "a", "d/b": "b", "d/sub/c": "c", "o/x": "x", "o/in/y": "y", "tree/t": "t"}
    make_layer(driver, root_dir, "low", [], low)
    middle = {".wh.gone": "", "d/.wh.a": "", "o/.wh..wh..opq": "", "o/new": "new", "o/in/z": "z", ".wh.tree": "", "f": "middle"}
    make_layer(driver, root_dir, "middle", ["low"], middle)
    make_layer(driver, root_dir, "top", ["middle", "low"], {"gone": "back", "tree/u": "u"})
    expected = {"f": "middle", "gone": "back", "d": None, "d/b": "b", "d/sub": None, "d/sub/c": "c", "o": None, "o/new": "new"}
    expected |= {"o/in": None, "o/in/z": "z", "tree": None, "tree/u": "u"}
    parents = ["top", "middle", "low"]
    driver.storage_prepare(root_dir, "rw", parents, {})
    with mounted(driver, root_dir, "rw", parents) as root:
        assert tree(root) == expected
    with views.seen(driver.storage_mounts(root_dir, "top", ["middle", "low"], readonly=True)) as root:
        assert tree(root) == expected
    with views.seen(driver.storage_mounts(root_dir, "middle", ["low"], readonly=True)) as root:
        assert "gone" not in tree(root)
        with pytest.raises(OSError, match="Read-only"):
            Path(root, "x").write_text("x")


def test_odd_whiteouts_hide_as_aufs_hides(root_dir: str) -> None:
    driver = Driver(Method.OVERLAY)
    make_layer(driver, root_dir, "low", [], dict.fromkeys(("f1", "big", "sparse", "f2", "empty/x", "root"), "low"))
    odd = {
        ".wh.f1": "not empty",
        ".wh.big": None,
        ".wh.f2": "",
        "f2": "beside its whiteout",
        "empty/.wh..wh..opq": None,
        ".wh..wh..opq": "",
    }
    driver.storage_prepare(root_dir, "odd", ["low"], {})
    fill(f"{root_dir}/diff/odd", odd)
    os.symlink("x", f"{root_dir}/diff/odd/.wh.sparse")
    fill(f"{root_dir}/diff/odd", {".wh..wh..opq": "", ".wh.": "", ".wh..wh.": "", ".wh..wh.unknown": ""})
    driver.storage_seal(root_dir, "odd")
    with views.seen(driver.storage_mounts(root_dir, "odd", ["low"], readonly=True)) as root:
        assert tree(root) == {"empty": None, "empty/x": "low", "root": "low"}


def test_a_whiteout_beside_its_name_hides_it_in_the_writable_layer_too(root_dir: str) -> None:
    driver = Driver(Method.OVERLAY)
    make_layer(driver, root_dir, "low", [], {"f": "low", "g": "low"})
    driver.storage_prepare(root_dir, "rw", ["low"], {})
    fill(f"{root_dir}/diff/rw", {".wh.f": "", "f": "beside", ".wh.g": None})
    driver.storage_apply(root_dir, "rw")
    with mounted(driver, root_dir, "rw", ["low"]) as root:
        assert os.listdir(root) == []
    with mounted(driver, root_dir, "rw", ["low"]) as root:
        assert os.listdir(root) == []


def test_companions_change_nothing_of_the_directories_that_they_cover(root_dir: str) -> None:
    driver = Driver(Method.OVERLAY)
    make_layer(driver, root_dir, "low", [], {"d/sub/f": "low", "o/x": "x"})
    driver.storage_prepare(root_dir, "top", ["low"], {})
    layer = f"{root_dir}/diff/top"
    fill(layer, {"d/sub/.wh.f": "", "o/.wh..wh..opq": ""})
    for number, folder in enumerate(("d/sub", "d", "o", ".")):
        os.chown(f"{layer}/{folder}", 1000 + number, 2000 + number)
        os.setxattr(f"{layer}/{folder}", "user.x", str(number).encode())
        os.setxattr(f"{layer}/{folder}", "system.posix_acl_default", ACL)
        os.chmod(f"{layer}/{folder}", 0o2710 + number)
        os.utime(f"{layer}/{folder}", ns=(1_500_000_000_000_000_001, 1_500_000_000_000_000_002))
    driver.storage_seal(root_dir, "top")
    with views.seen(driver.storage_mounts(root_dir, "top", ["low"], readonly=True)) as root:
        for folder in ("d/sub", "d", "o", "."):
            seen, own = os.stat(f"{root}/{folder}"), os.stat(f"{layer}/{folder}")
            for name in ("st_mode", "st_uid", "st_gid", "st_mtime_ns"):
                assert getattr(seen, name) == getattr(own, name), (folder, name)
            assert os.getxattr(f"{root}/{folder}", "user.x") == os.getxattr(f"{layer}/{folder}", "user.x")
            assert os.getxattr(f"{root}/{folder}", "system.posix_acl_default") == ACL


@BOTH
def test_as_many_layers_as_aufs_unites_are_mounted(method: Method, root_dir: str) -> None:
    driver, keys = Driver(method), []
    for number in range(126):
        gone = {f".wh.file{number - 1}": "", f"dir{number - 1}/.wh..wh..opq": ""} if number % 3 == 0 and number else {}
        make_layer(driver, root_dir, f"layer{number}", keys, {f"file{number}": "x", f"dir{number}/in": "x", **gone})
        keys.insert(0, f"layer{number}")
    driver.storage_prepare(root_dir, "rw", keys, {})
    with mounted(driver, root_dir, "rw", keys) as root:
        names = os.listdir(root)
        assert sum(name.startswith("file") for name in names) == 126 - 41
        assert sum(bool(os.listdir(f"{root}/{name}")) for name in names if name.startswith("dir")) == 126 - 41
        os.unlink(f"{root}/file0")
    assert os.path.isfile(f"{root_dir}/diff/rw/.wh.file0")
    with pytest.raises(LaminaError, match="127"):
        driver.storage_prepare(root_dir, "more", ["rw", *keys], {})


@BOTH
def test_a_directory_that_docker_left_is_used_as_it_is(method: Method, root_dir: str) -> None:
    base, middle, container = ("a" * 64, "b" * 64, "c" * 64)
    parents = {base: [], middle: [base], container: [middle, base]}
    for key, below in parents.items():
        fill(root_dir, {f"diff/{key}": None, f"mnt/{key}": None, f"layers/{key}": "".join(f"{each}\n" for each in below)})
    for key in (middle, container):
        fill(f"{root_dir}/diff/{key}", {".wh..wh.aufs": "", ".wh..wh.orph": None, ".wh..wh.plnk": None})
        os.chmod(f"{root_dir}/diff/{key}/.wh..wh.aufs", 0o444)
    fill(f"{root_dir}/diff/{base}", {"etc/passwd": "root", "etc/old": "old", "opt/a": "a", "kept": "kept"})
    fill(f"{root_dir}/diff/{middle}", {"etc": None, "opt/b": "b", "linked": "linked"})
    os.link(f"{root_dir}/diff/{middle}/.wh..wh.aufs", f"{root_dir}/diff/{middle}/etc/.wh.old")
    os.link(f"{root_dir}/diff/{middle}/.wh..wh.aufs", f"{root_dir}/diff/{middle}/opt/.wh..wh..opq")
    os.link(f"{root_dir}/diff/{middle}/linked", f"{root_dir}/diff/{middle}/.wh..wh.plnk/12.345")
    fill(f"{root_dir}/diff/{container}", {"etc/motd": "hello", ".wh.kept": ""})
    before = [untouched(f"{root_dir}/diff/{key}") for key in (base, middle)]
    driver = Driver(method)
    assert sorted(driver.storage_keys(root_dir)) == [base, middle, container]
    with mounted(driver, root_dir, container, [middle, base]) as root:
        expected = {"etc": None, "etc/passwd": "root", "etc/motd": "hello", "opt": None, "opt/b": "b", "linked": "linked"}
        assert tree(root) == expected
        os.unlink(f"{root}/etc/motd")
    driver.storage_prepare(root_dir, "new", [container, middle, base], {})
    with mounted(driver, root_dir, "new", [container, middle, base]) as root:
        del expected["etc/motd"]
        assert tree(root) == expected
    assert [untouched(f"{root_dir}/diff/{key}") for key in (base, middle)] == before
    assert os.listdir(f"{root_dir}/mnt/{container}") == []
    assert Path(root_dir, "layers", "new").read_text() == f"{container}\n{middle}\n{base}\n"


def untouched(layer: str) -> dict[str, tuple[int, int, int]]:
    """What changes when a file is only so much as linked or chowned."""
    paths = [layer, *(f"{folder}/{name}" for folder, folders, files in os.walk(layer) for name in folders + files)]
    return {path: (os.lstat(path).st_ctime_ns, os.lstat(path).st_nlink, os.lstat(path).st_ino) for path in paths}


@BOTH
def test_a_layer_without_parents_is_mounted_and_its_forbidden_names_are_kept_out(method: Method, root_dir: str) -> None:
    driver = Driver(method)
    driver.storage_prepare(root_dir, "base", [], {})
    assert stat.S_IMODE(os.stat(f"{root_dir}/diff/base").st_mode) == 0o755
    with mounted(driver, root_dir, "base", []) as root:
        Path(root, "f").write_text("f")
        os.mkdir(f"{root}/.wh.f")
    assert tree(f"{root_dir}/diff/base") == {"f": "f", ".wh..wh.aufs": "", ".wh..wh.orph": None, ".wh..wh.plnk": None}
    with views.seen(driver.storage_mounts(root_dir, "base", [], readonly=True)) as root:
        assert "f" in os.listdir(root)
        with pytest.raises(OSError, match="Read-only"):
            Path(root, "x").write_text("x")


def test_changes_are_the_same_while_mounted_and_at_rest(root_dir: str) -> None:
    driver = Driver(Method.OVERLAY)
    make_layer(driver, root_dir, "low", [], {"f": "low", "gone": "x", "d/a": "a", "o/x": "x"})
    driver.storage_prepare(root_dir, "rw", ["low"], {})
    expected = [("d", "C"), ("d/a", "D"), ("f", "C"), ("gone", "D"), ("new", "A"), ("o", "C"), ("o/x", "D")]
    with views.seen(driver.storage_mounts(root_dir, "low", [], readonly=True)) as parent:
        with mounted(driver, root_dir, "rw", ["low"]) as root:
            for name in ("gone", "d/a", "o/x"):
                os.unlink(f"{root}/{name}")
            os.rmdir(f"{root}/o")
            fill(root, {"f": "changed", "new": "new", "o": None, ".wh.forbidden": "x"})
            os.utime(root, ns=(0, os.stat(parent).st_mtime_ns))
            changes = driver.storage_changes(root_dir, "rw", Trees(parent=parent))
            assert letters(changes) == expected
        assert letters(driver.storage_changes(root_dir, "rw", Trees(parent=parent))) == expected


def letters(changes: list[Change]) -> list[tuple[str, str]]:
    assert all(isinstance(change.kind, ChangeKind) for change in changes)
    return [(change.path, change.kind.value) for change in changes]


def test_a_read_only_view_of_a_layer_that_is_mounted_or_at_rest_shows_the_same(root_dir: str) -> None:
    driver = Driver(Method.OVERLAY)
    make_layer(driver, root_dir, "low", [], {"f": "low", "d/a": "a"})
    driver.storage_prepare(root_dir, "rw", ["low"], {})

    def view() -> View:
        return driver.storage_mounts(root_dir, "rw", ["low"], readonly=True)

    with mounted(driver, root_dir, "rw", ["low"]) as root:
        os.unlink(f"{root}/d/a")
        fill(root, {"new": "new"})
        with views.seen(view()) as seen:
            assert tree(seen) == {"f": "low", "d": None, "new": "new"}
    with views.seen(view()) as seen:
        assert tree(seen) == {"f": "low", "d": None, "new": "new"}


def test_prepare_refuses_what_is_there_what_lies_on_nothing_and_what_looks_deleted(root_dir: str) -> None:
    driver = Driver(Method.OVERLAY)
    driver.storage_prepare(root_dir, "base", [], {})
    before = sorted(os.listdir(root_dir)), driver.storage_keys(root_dir)
    for key, parents, options, error in (
        ("base", [], {}, ConflictError),
        ("child", ["missing"], {}, NotFoundError),
        ("x-removing", [], {}, UsageError),
        ("y", [], {"size": "1"}, UsageError),
    ):
        with pytest.raises(error):
            driver.storage_prepare(root_dir, key, parents, options)
    assert (sorted(os.listdir(root_dir)), driver.storage_keys(root_dir)) == before


def test_a_layer_is_discarded_by_rename_and_swept(root_dir: str) -> None:
    driver = Driver(Method.OVERLAY)
    make_layer(driver, root_dir, "base", [], {"f": "f", ".wh.x": ""})
    for _ in range(2):
        driver.storage_prepare(root_dir, "rw", ["base"], {})
        fill(f"{root_dir}/diff/rw", {"f": "f"})
        driver.storage_discard(root_dir, "rw")
    driver.storage_discard(root_dir, "never there")
    assert sorted(os.listdir(f"{root_dir}/diff")) == ["base", "rw-removing", "rw.1-removing"]
    assert sorted(os.listdir(f"{root_dir}/mnt")) == ["base", "rw-removing"]
    assert driver.storage_keys(root_dir) == ["base"]
    fill(root_dir, {"new/4194305.half": None, f"new/{os.getpid()}.alive": None})  # above the kernel's greatest pid
    driver.storage_sweep(root_dir)
    assert os.listdir(f"{root_dir}/diff") == ["base"]
    assert os.listdir(f"{root_dir}/new") == [f"{os.getpid()}.alive"]


def test_a_final_layer_has_only_what_docker_knows_and_its_companions(root_dir: str) -> None:
    driver = Driver(Method.OVERLAY)
    make_layer(driver, root_dir, "base", [], {"f": "f"})
    driver.storage_sweep(root_dir)
    assert os.listdir(f"{root_dir}/work") == []
    assert os.listdir(f"{root_dir}/companions/base") == []
    assert Path(root_dir, "layers", "base").read_text() == ""


def test_a_probe_says_the_way_and_leaves_nothing_behind(root_dir: str) -> None:
    probe = Driver().storage_probe(f"{root_dir}/not/there")
    assert probe.usable
    assert probe.method in {method.value for method in Method}
    assert (probe.capabilities.max_depth, probe.capabilities.forbidden_prefix, probe.capabilities.max_name_bytes) == (
        127,
        ".wh.",
        242,
    )
    assert os.listdir(root_dir) == []


def test_a_home_on_overlayfs_is_mounted_by_fuse_overlayfs(root_dir: str) -> None:
    fill(root_dir, {"low": None, "up": None, "work": None, "union": None})
    fd = lm.fsmount("overlay", (("lowerdir", f"{root_dir}/low"), ("upperdir", f"{root_dir}/up"), ("workdir", f"{root_dir}/work")))
    lm.move_mount(fd, f"{root_dir}/union")
    os.close(fd)
    try:
        assert choose(f"{root_dir}/union/aufs").method is Method.FUSE
        assert choose(f"{root_dir}/aufs").method is Method.OVERLAY
    finally:
        lm.unmount(f"{root_dir}/union")
