"""Core's answers for drivers that leave a hook out."""

import os
import subprocess
from pathlib import Path

from lamina.api.hookspecs import hookimpl
from lamina.api.host import PluginHost
from lamina.api.types import Usage, View
from lamina.archive.fallback import fallback, tree_usage


class Driver:
    """A driver that implements nothing of what is asked here but one hook."""

    name = "mine"
    api_version = 1

    @hookimpl
    def volume_mountpoint(self) -> str:
        return "/mine"


def test_usage_is_what_du_counts(root_dir: str) -> None:
    tree = f"{root_dir}/tree"
    os.makedirs(f"{tree}/a/b")
    Path(tree, "a/one").write_bytes(b"x" * 100_000)
    os.link(f"{tree}/a/one", f"{tree}/a/b/two")
    os.symlink("/", f"{tree}/root")
    with open(f"{tree}/sparse", "wb") as sparse:
        sparse.truncate(1 << 30)
    counted = subprocess.run(["du", "-s", "--block-size=1", tree], capture_output=True, text=True, check=True).stdout
    assert tree_usage(tree) == Usage(size_bytes=int(counted.split()[0]), inodes=6)
    fd = os.open(tree, os.O_RDONLY)
    try:
        assert tree_usage(f"/proc/self/fd/{fd}") == tree_usage(tree)
    finally:
        os.close(fd)


def test_sweeping_empties_the_trash_and_nothing_else(root_dir: str) -> None:
    assert fallback.storage_sweep(home=root_dir)
    os.makedirs(f"{root_dir}/trash/one/two")
    os.makedirs(f"{root_dir}/kept")
    os.symlink(f"{root_dir}/kept", f"{root_dir}/trash/link")
    Path(root_dir, "kept/file").touch()
    assert fallback.storage_sweep(home=root_dir)
    assert os.listdir(f"{root_dir}/trash") == []
    assert os.listdir(f"{root_dir}/kept") == ["file"]


def test_it_answers_only_where_the_driver_does_not() -> None:
    host, driver = PluginHost(), Driver()
    host.register(fallback, "fallback.core")
    host.register(driver, "storage.mine")
    assert host.caller(driver, "volume_mountpoint")(home="/", spec=None) == "/mine"
    view = View(root="/merged", upper_dir="/upper")
    described = host.caller(driver, "storage_describe")(home="/", key="k", parents=[], view=view)
    assert described == {"MergedDir": "/merged", "UpperDir": "/upper"}
