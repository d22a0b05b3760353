"""The mounts of a kernel with aufs, as values: no kernel of today can make them. What they must be was seen on one that could."""

import json
import os
from pathlib import Path

import pytest

from lamina.model.mount import Mount, MountFlag
from lamina_aufs.driver import Driver
from lamina_aufs.method import Method

RECORD = json.loads((Path(__file__).parent.parent / "data" / "aufs-observed.json").read_text())
GOLDEN = {op["op"]: op["mount_opts"] for op in RECORD["ops"]}


def options(mount: Mount) -> str:
    """The string that mount(2) is given."""
    return ",".join(key if value is None else f"{key}{'' if key.endswith(':') else '='}{value}" for key, value in mount.options)


def mounts(home: str, parents: list[str], *, readonly: bool = False) -> tuple[Mount, ...]:
    view = Driver(Method.AUFS).storage_mounts(home, "rw", parents, readonly=readonly)
    assert {mount.target for mount in view.mounts} == {view.root} == {f"{home}/mnt/rw"}
    return view.mounts


def test_a_union_is_mounted_as_in_the_record() -> None:
    (mount,) = mounts("/x", ["ro1", "ro2"])
    assert mount.type == "aufs"
    assert mount.flags == MountFlag.NONE
    assert options(mount).replace("/x/diff", "") == GOLDEN["unlink_lower_file"]


def test_a_read_only_union_has_no_writable_branch_and_says_where_its_numbers_go() -> None:
    (mount,) = mounts("/x", ["ro1"], readonly=True)
    assert options(mount) == "br:/x/diff/rw=ro+wh:/x/diff/ro1=ro+wh,dio,dirperm1,xino=/dev/shm/aufs.xino"
    assert mount.flags == MountFlag.RDONLY


@pytest.mark.parametrize("key_bytes", [4, 64, 128])
@pytest.mark.parametrize("home", ["/var/lib/lamina/aufs", "/" + "long/" * 40])
def test_all_branches_come_in_order_few_at_a_time_and_none_overflows_a_page(home: str, key_bytes: int) -> None:
    parents = [f"{number:0{key_bytes}d}" for number in range(126)]
    first, *others = mounts(home, parents)
    branches = options(first).partition(",dio")[0].removeprefix("br:").split(":")
    assert len(branches) <= 40
    assert len(os.fsencode(options(first))) < 4096
    for mount in others:
        assert mount.flags == MountFlag.REMOUNT
        assert options(mount).startswith("append:")
        branches.append(options(mount).removeprefix("append:"))
    assert branches == [f"{home}/diff/rw=rw", *(f"{home}/diff/{parent}=ro+wh" for parent in parents)]
    assert len(branches) == 127


def test_a_remount_of_a_read_only_union_keeps_it_read_only() -> None:
    assert {mount.flags for mount in mounts("/x", ["p"] * 60, readonly=True)[1:]} == {MountFlag.REMOUNT | MountFlag.RDONLY}


def test_a_layer_stays_in_the_form_of_aufs_when_aufs_mounts_it(root_dir: str) -> None:
    driver = Driver(Method.AUFS)
    driver.storage_prepare(root_dir, "base", [], {})
    driver.storage_seal(root_dir, "base")
    driver.storage_prepare(root_dir, "rw", ["base"], {})
    for _ in range(2):
        driver.storage_before_mount(root_dir, "rw", ["base"])
        Path(root_dir, "diff", "rw", ".wh.by-aufs").write_text("")
        driver.storage_after_unmount(root_dir, "rw")
        assert os.listdir(f"{root_dir}/diff/rw") == [".wh.by-aufs"]


def test_fuse_overlayfs_gets_paths_with_its_own_characters_escaped() -> None:
    view = Driver(Method.FUSE).storage_mounts("/a:b,c", "rw", ["p", "q"], readonly=False)
    (mount,) = view.mounts
    assert mount.type == "fuse.fuse-overlayfs"
    assert mount.options[0] == ("lowerdir", r"/a\:b\,c/diff/p:/a\:b\,c/diff/q")
