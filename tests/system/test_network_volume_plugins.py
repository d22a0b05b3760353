"""The networks `host` and `none`, and the volume driver `local` with real mounts."""

import os
import stat

import pytest

from lamina.api.drivers import NetworkDriver, VolumeDriver
from lamina.api.host import PluginHost
from lamina.api.types import NetworkNamespace, VolumeSpec
from lamina.errors import UsageError
from lamina.linux import mount as lm
from lamina.model.mount import Mount, MountFlag
from lamina.store.views import detached

HOST = PluginHost()


def volumes(root_dir: str) -> VolumeDriver:
    return VolumeDriver(host=HOST, asked_name="local", home=f"{root_dir}/volumes")


def attach(mounts: list[Mount], place: str) -> None:
    """Mount a volume where a container would have it."""
    (mount,) = mounts
    assert mount.target == ""
    os.makedirs(place, exist_ok=True)
    fd = detached(mount)
    try:
        lm.move_mount(fd, place)
    finally:
        os.close(fd)


def test_host_is_the_hosts_own_namespace() -> None:
    driver = NetworkDriver(host=HOST, asked_name="host")
    assert driver.attach("c1", {}).namespace is NetworkNamespace.HOST
    driver.detach("c1", {})
    driver.detach("c1", {})


def test_none_is_a_new_namespace_with_loopback() -> None:
    attachment = NetworkDriver(host=HOST, asked_name="none").attach("c1", {})
    assert attachment.namespace is NetworkNamespace.NEW
    assert attachment.loopback


def test_a_volume_is_a_directory_that_a_bind_mount_shows(root_dir: str) -> None:
    driver, spec = volumes(root_dir), VolumeSpec(name="data")
    old = os.umask(0o077)
    try:
        driver.create(spec)
    finally:
        os.umask(old)
    place = f"{root_dir}/volumes/data/_data"
    assert driver.mountpoint(spec) == place
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o755
    assert stat.S_IMODE(os.stat(f"{root_dir}/volumes/data").st_mode) == 0o701
    attach(driver.mounts(spec), f"{root_dir}/container")
    try:
        with open(f"{root_dir}/container/file", "w", encoding="utf-8") as file:
            file.write("x")
    finally:
        lm.unmount(f"{root_dir}/container")
    assert os.listdir(place) == ["file"]


def test_creating_a_volume_again_changes_nothing_in_it(root_dir: str) -> None:
    driver, spec = volumes(root_dir), VolumeSpec(name="data")
    driver.create(spec)
    place = driver.mountpoint(spec)
    os.chmod(place, 0o1777)
    os.mkdir(f"{place}/kept")
    driver.create(spec)
    assert os.listdir(place) == ["kept"]
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o1777


def test_a_volume_that_a_killed_engine_half_made_is_completed(root_dir: str) -> None:
    driver, spec = volumes(root_dir), VolumeSpec(name="data")
    os.makedirs(f"{root_dir}/volumes/data")
    driver.create(spec)
    assert os.path.isdir(driver.mountpoint(spec))


def test_a_removed_volume_is_gone_with_all_in_it_and_what_was_left_before(root_dir: str) -> None:
    driver, spec = volumes(root_dir), VolumeSpec(name="data")
    driver.create(spec)
    os.makedirs(f"{driver.mountpoint(spec)}/a/b")
    os.symlink("/etc", f"{driver.mountpoint(spec)}/link")
    os.makedirs(f"{root_dir}/volumes/.removed/older-0123/_data/file")  # as a killed removal leaves it
    driver.remove(spec)
    driver.remove(spec)
    assert os.listdir(f"{root_dir}/volumes") == [".removed"]
    assert os.listdir(f"{root_dir}/volumes/.removed") == []
    assert os.path.isdir("/etc")


def test_a_tmpfs_volume_has_its_size_and_the_host_sees_nothing(root_dir: str) -> None:
    driver = volumes(root_dir)
    spec = VolumeSpec(name="scratch", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=0700,nosuid,ro,rw"})
    driver.create(spec)
    assert driver.mountpoint(spec) == ""
    attach(driver.mounts(spec), f"{root_dir}/container")
    try:
        st = os.statvfs(f"{root_dir}/container")
        assert st.f_blocks * st.f_frsize == 1 << 20
        assert st.f_flag & os.ST_NOSUID
        assert not st.f_flag & os.ST_RDONLY
        assert stat.S_IMODE(os.stat(f"{root_dir}/container").st_mode) == 0o700
    finally:
        lm.unmount(f"{root_dir}/container")


def test_a_bind_volume_is_the_hosts_directory_and_outlives_its_removal(root_dir: str) -> None:
    driver = volumes(root_dir)
    os.makedirs(f"{root_dir}/host/inside")
    spec = VolumeSpec(name="bound", options={"type": "none", "o": "bind,ro", "device": f"{root_dir}/host"})
    driver.create(spec)
    assert driver.mountpoint(spec) == f"{root_dir}/host"
    attach(driver.mounts(spec), f"{root_dir}/container")
    try:
        assert os.listdir(f"{root_dir}/container") == ["inside"]
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir(f"{root_dir}/container/new")
    finally:
        lm.unmount(f"{root_dir}/container")
    driver.remove(spec)
    assert os.listdir(f"{root_dir}/host") == ["inside"]


def test_another_file_systems_options_are_passed_on_in_order(root_dir: str) -> None:
    options = {"type": "nfs", "device": ":/export", "o": "addr=192.0.2.1,noexec,vers=4,nolock"}
    (mount,) = volumes(root_dir).mounts(VolumeSpec(name="far", options=options))
    assert (mount.type, mount.source, mount.flags) == ("nfs", ":/export", MountFlag.NOEXEC)
    assert mount.options == (("addr", "192.0.2.1"), ("vers", "4"), ("nolock", None))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "1g"}, "'size'"),
        ({"o": "bind"}, "'type'"),
        ({"type": "tmpfs"}, "'device'"),
        ({"type": "tmpfs", "device": ""}, "'device'"),
        ({"type": "none", "device": "/srv"}, "o=bind"),
        ({"type": "none", "device": "srv", "o": "bind"}, "'srv' is not an absolute path"),
        ({"type": "ext4", "device": "/srv", "o": "bind"}, "type=ext4"),
        ({"type": "none", "device": "/srv", "o": "bind,size=1m"}, "'size'"),
    ],
)
def test_options_that_make_no_sense_are_refused_and_nothing_is_made(root_dir: str, options: dict[str, str], words: str) -> None:
    driver, spec = volumes(root_dir), VolumeSpec(name="data", options=options)
    with pytest.raises(UsageError, match=words):
        driver.create(spec)
    assert os.listdir(f"{root_dir}/volumes") == []


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", ".removed", "-x", "a\n"])
def test_a_name_can_not_lead_out_of_the_drivers_folder(root_dir: str, name: str) -> None:
    driver, spec = volumes(root_dir), VolumeSpec(name=name)
    for call in (driver.create, driver.mounts, driver.remove, driver.mountpoint):
        with pytest.raises(UsageError, match="can't be a volume's name"):
            call(spec)
