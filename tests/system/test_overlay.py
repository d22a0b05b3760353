"""The overlay driver: Docker's layout on disk, hundreds of layers in one mount, and lower layers that never change."""

import contextlib
import errno
import os
import signal
import stat
import time
from collections.abc import Iterator

import pytest

from lamina.api.drivers import StorageDriver
from lamina.api.host import PluginHost
from lamina.errors import UsageError
from lamina.linux import mount as lm
from lamina.linux.fs import remove_tree
from lamina.model.mount import MountFlag
from lamina.store import views

pytestmark = pytest.mark.vm  # before 6.7 an overlay is mounted in another way
HOST = PluginHost()


def overlay(root_dir: str) -> StorageDriver:
    driver = StorageDriver(host=HOST, asked_name="overlay", home=f"{root_dir}/overlay")
    driver.make_home()
    return driver


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


@contextlib.contextmanager
def mounted(driver: StorageDriver, key: str, parents: tuple[str, ...] = ()) -> Iterator[str]:
    """Mount a layer's writable view as the engine does."""
    driver.before_mount(key, parents)
    view = driver.mounts(key, parents, readonly=False)
    views.attach(view)
    try:
        yield view.root
    finally:
        views.detach(view)
        driver.after_unmount(key)


def layer_with(driver: StorageDriver, key: str, files: dict[str, str], parents: tuple[str, ...] = ()) -> None:
    driver.prepare(key, parents, {})
    for name, text in files.items():
        path = f"{driver.home}/{key}/diff/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write(path, text)


def everything(root: str) -> dict[str, tuple[object, ...]]:
    """What a lower layer is made of, access times aside."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, _, names in os.walk(root):
        for path in (directory, *(f"{directory}/{name}" for name in names)):
            st = os.lstat(path)
            xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
            content = read(path) if stat.S_ISREG(st.st_mode) else None
            found[path] = (
                st.st_ino,
                st.st_mode,
                st.st_uid,
                st.st_gid,
                st.st_nlink,
                st.st_mtime_ns,
                st.st_ctime_ns,
                xattrs,
                content,
            )
    return found


def test_the_layout_is_that_of_dockers_overlay2(root_dir: str) -> None:
    driver = overlay(root_dir)
    old = os.umask(0o027)
    try:
        driver.prepare("base", (), {})
        driver.prepare("middle", ("base",), {})
        driver.prepare("top", ("middle", "base"), {})
    finally:
        os.umask(old)
    assert sorted(os.listdir(driver.home)) == ["base", "l", "middle", "top", "trash"]
    assert sorted(os.listdir(f"{driver.home}/base")) == ["diff", "link"]
    assert sorted(os.listdir(f"{driver.home}/top")) == ["diff", "link", "lower", "work"]
    links = {key: read(f"{driver.home}/{key}/link") for key in ("base", "middle", "top")}
    assert all(len(link) == 26 and link.isalnum() and link.isupper() for link in links.values())
    assert sorted(os.listdir(f"{driver.home}/l")) == sorted(links.values())
    for key, link in links.items():
        assert os.readlink(f"{driver.home}/l/{link}") == f"../{key}/diff"
    assert read(f"{driver.home}/middle/lower") == f"l/{links['base']}"
    assert read(f"{driver.home}/top/lower") == f"l/{links['middle']}:l/{links['base']}"
    modes = {name: stat.S_IMODE(os.stat(f"{driver.home}/{name}").st_mode) for name in ("l", "top", "top/diff", "top/work")}
    assert modes == {"l": 0o700, "top": 0o710, "top/diff": 0o755, "top/work": 0o700}
    with mounted(driver, "top", ("middle", "base")) as root:
        assert root == f"{driver.home}/top/merged"
    assert not os.path.exists(f"{driver.home}/top/merged")


def test_describe_says_what_dockers_inspect_says(root_dir: str) -> None:
    driver = overlay(root_dir)
    home = driver.home
    assert driver.describe("top", ("middle", "base")) == {
        "LowerDir": f"{home}/middle/diff:{home}/base/diff",
        "UpperDir": f"{home}/top/diff",
        "WorkDir": f"{home}/top/work",
        "MergedDir": f"{home}/top/merged",
    }
    assert "LowerDir" not in driver.describe("base", ())


def test_overlay2_is_the_same_driver(root_dir: str) -> None:
    driver = StorageDriver(host=HOST, asked_name="overlay2", home=f"{root_dir}/overlay")
    assert driver.name == "overlay"
    assert driver.plugin is overlay(root_dir).plugin


def test_whatever_is_done_above_the_lower_layers_stay_as_they_are(root_dir: str) -> None:
    driver = overlay(root_dir)
    layer_with(driver, "base", {"etc/name": "base", "etc/gone": "x", "dir/a": "a", "dir/sub/b": "b", "bin/tool": "t"})
    os.link(f"{driver.home}/base/diff/bin/tool", f"{driver.home}/base/diff/bin/alias")
    layer_with(driver, "middle", {"etc/name": "middle"}, ("base",))
    driver.prepare("top", ("middle", "base"), {})
    before = everything(f"{driver.home}/base/diff"), everything(f"{driver.home}/middle/diff")
    with mounted(driver, "top", ("middle", "base")) as root:
        assert read(f"{root}/etc/name") == "middle"
        write(f"{root}/etc/name", "top")
        os.unlink(f"{root}/etc/gone")
        os.chmod(f"{root}/bin/tool", 0o700)
        os.chown(f"{root}/dir", 5, 6)
        os.rename(f"{root}/dir/a", f"{root}/dir/c")
        remove_tree(f"{root}/dir/sub")
        os.mkdir(f"{root}/dir/sub")
        os.setxattr(f"{root}/bin/alias", "user.mine", b"1")
        os.utime(f"{root}/bin")
    assert (everything(f"{driver.home}/base/diff"), everything(f"{driver.home}/middle/diff")) == before


def test_the_diff_says_all_by_itself(root_dir: str) -> None:
    driver = overlay(root_dir)
    layer_with(driver, "base", {"file": "x", "moved/inside": "y"})
    driver.prepare("top", ("base",), {})
    with mounted(driver, "top", ("base",)) as root:
        os.chmod(f"{root}/file", 0o600)
        with pytest.raises(OSError) as caught:
            os.rename(f"{root}/moved", f"{root}/elsewhere")
        assert caught.value.errno == errno.EXDEV  # else the diff would hold a redirect instead of the files
        os.unlink(f"{root}/moved/inside")
    diff = f"{driver.home}/top/diff"
    assert read(f"{diff}/file") == "x"  # not a metacopy, which has no bytes
    assert stat.S_ISCHR(os.lstat(f"{diff}/moved/inside").st_mode)
    for name in ("file", "moved"):
        assert not {"trusted.overlay.metacopy", "trusted.overlay.redirect"} & set(os.listxattr(f"{diff}/{name}"))


def test_the_root_is_as_its_parents_but_for_overlayfs_marks(root_dir: str) -> None:
    driver = overlay(root_dir)
    driver.prepare("base", (), {})
    diff = f"{driver.home}/base/diff"
    os.chown(diff, 5, 6)
    os.chmod(diff, 0o1711)
    os.setxattr(diff, "user.mine", b"1")
    os.setxattr(diff, "trusted.overlay.opaque", b"y")
    os.utime(diff, ns=(1, 1_000_000_000_000_000_007))
    driver.prepare("top", ("base",), {})
    with mounted(driver, "top", ("base",)) as root:
        st = os.stat(root)
        assert (st.st_uid, st.st_gid, st.st_mode & 0o7777, st.st_mtime_ns) == (5, 6, 0o1711, 1_000_000_000_000_000_007)
        assert os.listxattr(root) == ["user.mine"]


def test_a_base_layer_is_written_through_its_view(root_dir: str) -> None:
    driver = overlay(root_dir)
    driver.prepare("base", (), {})
    with mounted(driver, "base") as root:
        write(f"{root}/file", "x")
    assert read(f"{driver.home}/base/diff/file") == "x"


@pytest.mark.parametrize("parents", [(), ("base",)], ids=["base", "child"])
def test_a_readonly_view_refuses_writes_while_a_writable_one_takes_them(root_dir: str, parents: tuple[str, ...]) -> None:
    driver = overlay(root_dir)
    driver.prepare("base", (), {})
    if parents:
        driver.prepare("top", parents, {})
    key = "top" if parents else "base"
    readonly = driver.mounts(key, parents, readonly=True)
    with mounted(driver, key, parents) as root, views.seen(readonly) as first, views.seen(readonly) as second:
        write(f"{root}/file", "x")
        for path in (first, second):
            with pytest.raises(OSError, match="Read-only") as caught:
                write(f"{path}/new", "")
            assert caught.value.errno == errno.EROFS
        views.attach(readonly)
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir(f"{readonly.root}/new")
        views.detach(readonly)
        write(f"{root}/file", "y")


def test_mounts_are_pure_and_name_each_lower_directory_nearest_first(root_dir: str) -> None:
    driver = overlay(root_dir)
    (mount,) = driver.mounts("top", ("b", "a"), readonly=False).mounts
    home = driver.home
    assert mount.options[:4] == (
        ("lowerdir+", f"{home}/b/diff"),
        ("lowerdir+", f"{home}/a/diff"),
        ("upperdir", f"{home}/top/diff"),
        ("workdir", f"{home}/top/work"),
    )
    (mount,) = driver.mounts("top", ("b", "a"), readonly=True).mounts
    assert [value for key, value in mount.options if key == "lowerdir+"] == [f"{home}/{key}/diff" for key in ("top", "b", "a")]
    assert mount.flags == MountFlag.RDONLY
    assert os.listdir(home) == []


def test_400_layers_make_one_mount(root_dir: str) -> None:
    driver, parents = overlay(root_dir), ()
    for index in range(400):
        layer_with(driver, f"layer-{index}", {f"file-{index}": str(index), "top": str(index)}, parents)
        parents = (f"layer-{index}", *parents)
    driver.prepare("container", parents, {})
    with mounted(driver, "container", parents) as root:
        assert len(os.listdir(root)) == 401
        assert read(f"{root}/top") == "399"
        assert read(f"{root}/file-0") == "0"
        write(f"{root}/file-0", "changed")
    assert read(f"{driver.home}/layer-0/diff/file-0") == "0"


def test_a_home_with_colons_commas_and_a_long_path_mounts(root_dir: str) -> None:
    driver = overlay(f"{root_dir}/a:b,c\\d/{'long' * 50}/{'longer' * 20}")
    layer_with(driver, "base", {"file": "x"})
    driver.prepare("top", ("base",), {})
    with mounted(driver, "top", ("base",)) as root:
        assert read(f"{root}/file") == "x"
        write(f"{root}/file", "y")


def test_before_mount_may_be_repeated_and_clears_a_volatile_mark(root_dir: str) -> None:
    driver = overlay(root_dir)
    driver.prepare("base", (), {})
    driver.prepare("top", ("base",), {})
    layer = f"{driver.home}/top"
    options = (("lowerdir", f"{driver.home}/base/diff"), ("upperdir", f"{layer}/diff"), ("workdir", f"{layer}/work"))
    os.close(lm.fsmount("overlay", (*options, ("volatile", None))))  # made, never synced, gone
    with pytest.raises(OSError):
        lm.fsmount("overlay", options)
    driver.before_mount("top", ("base",))
    driver.before_mount("top", ("base",))
    with mounted(driver, "top", ("base",)) as root:
        write(f"{root}/file", "x")
    driver.after_unmount("top")


def test_a_lost_work_directory_is_made_again(root_dir: str) -> None:
    driver = overlay(root_dir)
    driver.prepare("base", (), {})
    driver.prepare("top", ("base",), {})
    os.rmdir(f"{driver.home}/top/work")
    with mounted(driver, "top", ("base",)) as root:
        write(f"{root}/file", "x")


def test_a_lost_short_name_harms_nothing(root_dir: str) -> None:
    driver = overlay(root_dir)
    layer_with(driver, "base", {"file": "x"})
    remove_tree(f"{driver.home}/l")
    driver.prepare("top", ("base",), {})
    with mounted(driver, "top", ("base",)) as root:
        assert read(f"{root}/file") == "x"
    driver.discard("base")
    driver.discard("top")
    assert os.listdir(f"{driver.home}/l") == []


def test_a_short_name_whose_layer_was_deleted_by_hand_is_no_obstacle(root_dir: str) -> None:
    driver = overlay(root_dir)
    driver.prepare("base", (), {})
    remove_tree(f"{driver.home}/base")
    driver.prepare("base", (), {})
    assert len(os.listdir(f"{driver.home}/l")) == 1


def test_a_key_that_is_there_is_refused_and_unharmed(root_dir: str) -> None:
    driver = overlay(root_dir)
    layer_with(driver, "base", {"file": "x"})
    with pytest.raises(FileExistsError):
        driver.prepare("base", (), {})
    assert read(f"{driver.home}/base/diff/file") == "x"
    assert len(os.listdir(f"{driver.home}/l")) == 1


@pytest.mark.parametrize("key", ["l", "trash"])
def test_the_drivers_own_names_are_no_keys(root_dir: str, key: str) -> None:
    driver = overlay(root_dir)
    with pytest.raises(UsageError, match=f"'{key}'"):
        driver.prepare(key, (), {})
    assert os.listdir(driver.home) == []


def test_an_unknown_option_is_refused_by_name_and_leaves_nothing(root_dir: str) -> None:
    driver = overlay(root_dir)
    with pytest.raises(UsageError, match=r"'overlay\.size'"):
        driver.prepare("base", (), {"overlay.size": "1g"})
    assert os.listdir(driver.home) == []


def test_a_missing_parent_is_an_error_that_leaves_nothing(root_dir: str) -> None:
    driver = overlay(root_dir)
    with pytest.raises(FileNotFoundError):
        driver.prepare("top", ("missing",), {})
    assert os.listdir(driver.home) == []


def test_a_full_disk_is_an_error_that_leaves_nothing(root_dir: str) -> None:
    os.mkdir(f"{root_dir}/disk")
    fd = lm.fsmount("tmpfs", (("nr_inodes", "12"),))
    lm.move_mount(fd, f"{root_dir}/disk")
    os.close(fd)
    try:
        driver = overlay(f"{root_dir}/disk")
        driver.prepare("base", (), {})
        for _ in range(20):
            before = sorted(os.listdir(driver.home)), os.listdir(f"{driver.home}/l")
            try:
                driver.prepare(f"top-{len(driver.keys())}", ("base",), {})
            except OSError as error:
                assert error.errno == errno.ENOSPC
                break
        else:
            pytest.fail("the disk was never full")
        assert (sorted(os.listdir(driver.home)), os.listdir(f"{driver.home}/l")) == before
    finally:
        lm.unmount(f"{root_dir}/disk")


def test_prepares_killed_anywhere_leave_what_discard_takes_away(root_dir: str) -> None:
    driver = overlay(root_dir)
    driver.prepare("base", (), {})
    killed = 0
    for attempt in range(60):
        ready, started = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(started, b"x")
            driver.prepare("top", ("base",), {})
            os._exit(0)
        os.read(ready, 1)
        os.close(ready)
        os.close(started)
        time.sleep(attempt * 0.000_02)
        os.kill(pid, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
        driver.discard("top")
        assert driver.keys() == ["base"]
        assert len(os.listdir(f"{driver.home}/l")) == 1
    assert killed


def test_discard_sets_the_layer_aside_with_its_short_name_and_may_be_called_for_nothing(root_dir: str) -> None:
    driver = overlay(root_dir)
    driver.discard("never-made")
    layer_with(driver, "base", {"file": "x"})
    driver.discard("base")
    driver.discard("base")
    assert driver.keys() == []
    assert os.listdir(f"{driver.home}/l") == []
    (aside,) = os.listdir(f"{driver.home}/trash")
    assert read(f"{driver.home}/trash/{aside}/diff/file") == "x"
    driver.prepare("base", (), {})
    assert driver.keys() == ["base"]


def test_the_probe_leaves_nothing_and_says_how_it_mounts(root_dir: str) -> None:
    before = os.stat(root_dir).st_mtime_ns
    probe = StorageDriver(host=HOST, asked_name="overlay", home=f"{root_dir}/not/yet/made").probe()
    assert probe.usable
    assert probe.method.startswith("kernel overlayfs")
    assert probe.capabilities.native_diff
    assert os.listdir(root_dir) == []
    assert os.stat(root_dir).st_mtime_ns == before


def test_the_probe_refuses_a_place_on_another_overlay(root_dir: str) -> None:
    driver = overlay(root_dir)
    driver.prepare("base", (), {})
    driver.prepare("top", ("base",), {})
    with mounted(driver, "top", ("base",)) as root:
        probe = StorageDriver(host=HOST, asked_name="overlay", home=f"{root}/var/lib/lamina/overlay").probe()
        assert not probe.usable
        assert root in probe.reason
        assert "on overlay" in probe.reason
        assert "vfs" in probe.hint


def test_the_probe_refuses_a_place_that_is_read_only(root_dir: str) -> None:
    fd = lm.fsmount("tmpfs", flags=lm.MS_RDONLY)
    lm.move_mount(fd, root_dir)
    os.close(fd)
    try:
        probe = StorageDriver(host=HOST, asked_name="overlay", home=f"{root_dir}/overlay").probe()
        assert not probe.usable
        assert "Read-only file system" in probe.reason
    finally:
        lm.unmount(root_dir)
