"""The vfs driver: layers are whole trees, whole or not there, and nothing that happens to one is seen in another."""

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from lamina.api.drivers import StorageDriver
from lamina.api.host import PluginHost
from lamina.errors import UsageError
from lamina.linux import mount as lm
from lamina.linux.fs import remove_tree, syncfs
from lamina.store import views

HOST = PluginHost()


def vfs(root_dir: str) -> StorageDriver:
    driver = StorageDriver(host=HOST, asked_name="vfs", home=f"{root_dir}/vfs")
    driver.make_home()
    return driver


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def layer_with(driver: StorageDriver, key: str, files: dict[str, str], parents: tuple[str, ...] = ()) -> str:
    """Prepare a layer, write files into it, and give its root."""
    driver.prepare(key, parents, {})
    root = driver.mounts(key, parents, readonly=False).root
    for name, text in files.items():
        os.makedirs(os.path.dirname(f"{root}/{name}"), exist_ok=True)
        write(f"{root}/{name}", text)
    return root


@contextlib.contextmanager
def small_disk(place: str, size: str) -> Iterator[None]:
    os.makedirs(place, exist_ok=True)
    fd = lm.fsmount("tmpfs", (("size", size),))
    lm.move_mount(fd, place)
    os.close(fd)
    try:
        yield
    finally:
        lm.unmount(place)


def test_a_base_layer_is_empty_and_0755_whatever_the_umask(root_dir: str) -> None:
    driver = vfs(root_dir)
    old = os.umask(0o077)
    try:
        driver.prepare("base", (), {})
    finally:
        os.umask(old)
    root = driver.mounts("base", (), readonly=False).root
    assert root == f"{root_dir}/vfs/dir/base"
    assert os.listdir(root) == []
    assert os.stat(root).st_mode & 0o7777 == 0o755


def test_a_writable_view_needs_no_mount(root_dir: str) -> None:
    driver = vfs(root_dir)
    layer_with(driver, "base", {})
    view = driver.mounts("base", (), readonly=False)
    assert view.mounts == ()
    assert view.upper_dir is None


def test_a_change_in_a_child_is_never_seen_in_its_parent(root_dir: str) -> None:
    driver = vfs(root_dir)
    base = layer_with(driver, "base", {"etc/name": "base", "etc/gone": "still here", "bin/tool": "tool"})
    os.link(f"{base}/bin/tool", f"{base}/bin/alias")
    child = layer_with(driver, "child", {}, ("base",))
    write(f"{child}/etc/name", "child")
    os.unlink(f"{child}/etc/gone")
    os.chmod(f"{child}/bin", 0o700)
    with open(f"{child}/bin/alias", "r+", encoding="utf-8") as file:
        file.write("TOOL")
    assert read(f"{child}/bin/tool") == "TOOL"
    assert [read(f"{base}/{name}") for name in ("etc/name", "etc/gone", "bin/tool")] == ["base", "still here", "tool"]
    assert os.stat(f"{base}/bin").st_mode & 0o777 == 0o755


def test_the_root_is_as_its_parents(root_dir: str) -> None:
    driver = vfs(root_dir)
    base = layer_with(driver, "base", {})
    os.chown(base, 5, 6)
    os.chmod(base, 0o1711)
    os.setxattr(base, "user.mine", b"1")
    os.utime(base, ns=(1, 1_000_000_000_000_000_007))
    child = os.stat(layer_with(driver, "child", {}, ("base",)))
    assert (child.st_uid, child.st_gid, child.st_mode & 0o7777, child.st_mtime_ns) == (5, 6, 0o1711, 1_000_000_000_000_000_007)
    assert os.getxattr(f"{root_dir}/vfs/dir/child", "user.mine") == b"1"


def test_a_readonly_view_refuses_writes_while_a_writable_one_takes_them(root_dir: str) -> None:
    driver = vfs(root_dir)
    root = layer_with(driver, "base", {"file": "x"})
    view = driver.mounts("base", (), readonly=True)
    with views.seen(view) as first, views.seen(view) as second:
        for path in (first, second):
            with pytest.raises(OSError, match="Read-only") as caught:
                write(f"{path}/new", "")
            assert caught.value.errno == errno.EROFS
        write(f"{root}/new", "seen by all")
        assert read(f"{first}/new") == read(f"{second}/new") == "seen by all"


def test_a_readonly_view_can_be_attached_beside_the_writable_one(root_dir: str) -> None:
    driver = vfs(root_dir)
    root = layer_with(driver, "base", {"file": "x"})
    view = driver.mounts("base", (), readonly=True)
    views.attach(view)
    try:
        with pytest.raises(OSError, match="Read-only"):
            write(f"{view.root}/file", "y")
        write(f"{root}/file", "z")
    finally:
        views.detach(view)
    driver.discard("base")
    assert os.listdir(f"{root_dir}/vfs/ro") == []


def test_mounts_are_pure_and_the_same_each_time(root_dir: str) -> None:
    driver = vfs(root_dir)
    for readonly in (True, False):
        assert driver.mounts("never-made", (), readonly=readonly) == driver.mounts("never-made", (), readonly=readonly)
    assert os.listdir(driver.home) == []


def test_a_key_that_is_there_is_refused_and_unharmed(root_dir: str) -> None:
    driver = vfs(root_dir)
    root = layer_with(driver, "base", {"file": "x"})
    with pytest.raises(FileExistsError):
        driver.prepare("base", (), {})
    assert read(f"{root}/file") == "x"


def test_an_unknown_option_is_refused_by_name_and_leaves_nothing(root_dir: str) -> None:
    driver = vfs(root_dir)
    with pytest.raises(UsageError, match=r"'vfs\.size'"):
        driver.prepare("base", (), {"vfs.size": "1g"})
    assert driver.keys() == []
    assert os.listdir(driver.home) == []


def test_a_missing_parent_is_an_error_that_leaves_nothing(root_dir: str) -> None:
    driver = vfs(root_dir)
    with pytest.raises(FileNotFoundError):
        driver.prepare("child", ("missing",), {})
    assert driver.keys() == []
    assert os.listdir(f"{driver.home}/tmp") == []


def test_a_full_disk_is_an_error_that_leaves_nothing(root_dir: str) -> None:
    with small_disk(f"{root_dir}/disk", "1m"):
        driver = vfs(f"{root_dir}/disk")
        layer_with(driver, "base", {"file": "x" * 700_000})
        with pytest.raises(OSError) as caught:
            driver.prepare("child", ("base",), {})
        assert caught.value.errno == errno.ENOSPC
        assert driver.keys() == ["base"]
        assert os.listdir(f"{driver.home}/tmp") == []
        assert os.statvfs(driver.home).f_bavail * 4096 > 200_000


def test_a_killed_prepare_is_listed_and_can_be_discarded(root_dir: str) -> None:
    driver = vfs(root_dir)
    layer_with(driver, "base", {f"{index % 50}/{index}": "x" for index in range(3000)})
    pid = os.fork()
    if pid == 0:
        driver.prepare("child", ("base",), {})
        os._exit(0)
    while not os.path.exists(f"{driver.home}/tmp/child"):
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert os.listdir(f"{driver.home}/dir") == ["base"]
    assert driver.keys() == ["base", "child"]
    with pytest.raises(FileExistsError):
        driver.prepare("child", ("base",), {})
    driver.discard("child")
    assert driver.keys() == ["base"]
    driver.prepare("child", ("base",), {})
    assert driver.keys() == ["base", "child"]


def test_discard_sets_the_layer_aside_and_may_be_called_for_nothing(root_dir: str) -> None:
    driver = vfs(root_dir)
    driver.discard("never-made")
    layer_with(driver, "base", {"file": "x"})
    driver.discard("base")
    driver.discard("base")
    assert driver.keys() == []
    (aside,) = os.listdir(f"{driver.home}/trash")
    assert aside.startswith("base-")
    assert read(f"{driver.home}/trash/{aside}/file") == "x"
    driver.prepare("base", (), {})
    driver.discard("base")
    assert len(os.listdir(f"{driver.home}/trash")) == 2


def test_a_chain_of_400_layers_holds_what_each_added(root_dir: str) -> None:
    driver, parents = vfs(root_dir), ()
    for index in range(400):
        key = f"layer-{index}"
        driver.prepare(key, parents, {})
        if index % 100 == 0:
            write(f"{driver.mounts(key, parents, readonly=False).root}/{index}", "x")
        parents = (key, *parents)
    assert sorted(os.listdir(driver.mounts(parents[0], parents[1:], readonly=False).root)) == ["0", "100", "200", "300"]
    assert len(driver.keys()) == 400


def test_the_probe_judges_the_nearest_directory_and_leaves_nothing(root_dir: str) -> None:
    driver = StorageDriver(host=HOST, asked_name="vfs", home=f"{root_dir}/not/yet/made")
    before = os.stat(root_dir).st_mtime_ns
    probe = driver.probe()
    assert probe.usable
    assert probe.method in {"copy", "reflink"}
    assert not probe.capabilities.native_diff
    assert os.listdir(root_dir) == []
    assert os.stat(root_dir).st_mtime_ns == before


@pytest.mark.parametrize("make", [["mkfs.btrfs", "-q"], ["mkfs.xfs", "-q", "-m", "reflink=1"]], ids=["btrfs", "xfs"])
def test_layers_share_their_blocks_where_the_file_system_can(root_dir: str, make: list[str]) -> None:
    image, place = f"{root_dir}/image", f"{root_dir}/disk"
    os.mkdir(place)
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    subprocess.run([*make, image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        driver = vfs(place)
        assert driver.probe().method == "reflink"
        base = layer_with(driver, "base", {})
        content = os.urandom(20 << 20)
        with open(f"{base}/big", "wb") as file:
            file.write(content)
        syncfs(place)
        free = _free_bytes(place)
        child = layer_with(driver, "child", {}, ("base",))
        syncfs(place)
        assert free - _free_bytes(place) < 4 << 20
        with open(f"{child}/big", "r+b") as file:
            assert file.read() == content
            file.seek(0)
            file.write(b"changed")
        with open(f"{base}/big", "rb") as file:
            assert file.read() == content
        if "mkfs.btrfs" in make:
            _check_snapshots(driver)
        remove_tree(driver.home)
    finally:
        subprocess.run(["umount", place], check=True)


def _check_snapshots(driver: StorageDriver) -> None:
    """On btrfs a layer on top is one step, whatever is below, and so is its deletion, unless that would take a mount away."""
    base, child = f"{driver.home}/dir/base", f"{driver.home}/dir/third"
    os.setxattr(f"{base}/big", "user.note", b"kept")
    driver.prepare("third", ("base",), {})
    assert os.getxattr(f"{child}/big", "user.note") == b"kept"
    assert os.stat(child).st_dev != os.stat(base).st_dev, "a subvolume of its own"
    for name in ("within", "kept"):
        os.mkdir(f"{child}/{name}")
    subprocess.run(["mount", "-t", "tmpfs", "none", f"{child}/within"], check=True)
    with pytest.raises(OSError, match="mounted"):
        remove_tree(child)
    assert os.path.ismount(f"{child}/within")
    subprocess.run(["umount", f"{child}/within"], check=True)
    driver.discard("third")
    (left,) = os.listdir(f"{driver.home}/trash")
    remove_tree(f"{driver.home}/trash/{left}")
    assert os.listdir(f"{driver.home}/trash") == []


def _free_bytes(path: str) -> int:
    st = os.statvfs(path)
    return st.f_bfree * st.f_frsize
