"""examples/lamina-btrfs: installed by pip beside an installed lamina, it is a driver as any other; nothing else had to change."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from outside import TOP, Environment

from lamina.testing.disks import Disk, disk_in_a_file

EXAMPLE = TOP / "examples" / "lamina-btrfs"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, installed: Environment) -> Environment:
    """Lamina, then the example, each by pip from its directory."""
    made = installed.copied(tmp_path_factory.mktemp("btrfs") / "venv")
    before = engine_digest(made)
    made.pip(EXAMPLE)
    assert engine_digest(made) == before, "installing a plugin changed the engine"
    return made


def engine_digest(environment: Environment) -> str:
    digest = sha256()
    for path in sorted(environment.place.rglob("site-packages/lamina*/**/*.py")):
        if not path.is_relative_to(environment.place / "lib") or "lamina_btrfs" not in path.parts:
            digest.update(f"{path}\n".encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.fixture
def disk(tmp_path: Path, own_mounts: None) -> Iterator[Disk]:
    """A btrfs in a file, mounted for this test alone."""
    with disk_in_a_file(str(tmp_path), "btrfs") as made:
        yield made


def test_it_appears_in_driver_ls_beside_the_others(environment: Environment, disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    rows = {
        place: dict(line.split(",", 1) for line in environment(
            "lamina", "--root", place, "driver", "ls", "--format", "{{.Name}},{{.Usable}} {{.Reason}}").splitlines())
        for place in (f"{disk.place}/root", "/dev/shm/never-made")
    }  # fmt: skip
    on_btrfs, on_tmpfs = rows.values()
    assert {"overlay", "vfs", "aufs", "btrfs"} <= set(on_btrfs)
    assert on_btrfs["btrfs"].startswith("yes")
    assert on_tmpfs["btrfs"].startswith("no ")
    assert "not on btrfs" in on_tmpfs["btrfs"]


def test_it_runs_commits_and_removes_containers(environment: Environment, disk: Disk) -> None:
    def lamina(*words: str, code: int = 0) -> str:
        return environment("lamina", "--root", f"{disk.place}/root", "--storage-driver", "btrfs", *words, code=code)

    lamina("image", "bootstrap")
    assert lamina("run", "--name", "one", "busybox", "sh", "-c", "echo here > /new; rm /bin/true; cat /new") == "here\n"
    assert lamina("diff", "one").splitlines() == ["C /bin", "D /bin/true", "A /new"]
    lamina("commit", "one", "mine")
    assert lamina("run", "--rm", "mine", "cat", "/new") == "here\n"
    assert lamina("run", "--rm", "--storage-driver", "overlay", "mine", "cat", "/new") == "here\n"  # the image knows no driver
    lamina("run", "--rm", "mine", "true", code=127)
    subvolumes = Path(disk.place, "root", "btrfs", "subvolumes")
    assert {path.stat().st_ino for path in subvolumes.iterdir()} == {256}, "each layer is a subvolume"
    lamina("rm", "one")
    lamina("rmi", "mine", "busybox")
    assert list(subvolumes.iterdir()) == []
    assert list(subvolumes.with_name("trash").iterdir()) == []


def test_subvolumes_that_a_container_made_go_with_it(environment: Environment, disk: Disk) -> None:
    """More than one ioctl lists (255), nested, and read-only ones."""
    code = """
import fcntl, os, struct, sys
from lamina_btrfs import subvolume
from lamina_btrfs.driver import plugin
home = sys.argv[1]
os.mkdir(home)
plugin.storage_prepare(home, "a", (), {})
top = f"{home}/subvolumes/a"
os.makedirs(f"{top}/d/e")
for number in range(300):
    subvolume.create(f"{top}/d/e", f"n{number}")
subvolume.create(top, "x")
os.mkdir(f"{top}/x/y")
subvolume.create(f"{top}/x/y", "z")
fd = os.open(f"{top}/x", os.O_RDONLY)
fcntl.ioctl(fd, subvolume.SUBVOL_SETFLAGS, struct.pack("=Q", 2))  # BTRFS_SUBVOL_RDONLY
plugin.storage_discard(home, "a")
assert plugin.storage_keys(home) == []
assert len(os.listdir(f"{home}/trash")) == 1
plugin.storage_sweep(home)
plugin.storage_sweep(home)
print(os.listdir(f"{home}/trash"))
"""
    assert environment("python", "-c", code, f"{disk.place}/home") == "[]\n"


def test_usage_is_what_was_written_since_the_snapshot(environment: Environment, disk: Disk) -> None:
    code = """
import os, subprocess, sys
from lamina_btrfs.driver import plugin
home = sys.argv[1]
os.mkdir(home)
def write(key, name, size_bytes, mode="wb"):
    with open(f"{home}/subvolumes/{key}/{name}", mode) as file:
        file.write(os.urandom(size_bytes))
plugin.storage_prepare(home, "a", (), {})
for number in range(2000):
    write("a", f"small{number}", 100)
write("a", "large", 5 << 20)
os.truncate(f"{home}/subvolumes/a/large", 1 << 30)
os.link(f"{home}/subvolumes/a/large", f"{home}/subvolumes/a/again")
usage = plugin.storage_usage(home, "a")
du = int(subprocess.run(["du", "-s", "-B1", f"{home}/subvolumes/a"], capture_output=True, check=True).stdout.split()[0])
print(usage.size_bytes - du, usage.inodes)
plugin.storage_prepare(home, "b", ("a",), {})
usage = plugin.storage_usage(home, "b")
print(usage.size_bytes, usage.inodes)
os.chmod(f"{home}/subvolumes/b/large", 0o600)
write("b", "new", 8192)
write("b", "large", 4096, "r+b")
usage = plugin.storage_usage(home, "b")
print(usage.size_bytes, usage.inodes)
usage = plugin.storage_usage(home, "a")
print(usage.size_bytes - du, usage.inodes)
"""
    printed = environment("python", "-c", code, f"{disk.place}/home").splitlines()
    assert printed == ["0 2002", "0 1", f"{8192 + 4096} 2", "0 2002"]


@pytest.mark.timeout(600)
def test_it_passes_the_conformance_kit(environment: Environment) -> None:
    result = json.loads(
        environment("lamina", "driver", "test", "btrfs", "--filesystem", "btrfs", "--format", "json", "-j", "3", timeout_s=580)
    )
    assert result["Driver"] == "btrfs"
    assert result["Passed"]
    assert result["Counts"]["fail"] == 0
    assert result["Counts"]["pass"] > 500
