"""`driver doctor`: its facts are those of the machine, its advice works, and it knows drivers only by what they say."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cases import PROGRAM

from lamina.linux import mount as lm
from lamina.testing.disks import disk_in_a_file, memory_disk

THIRD = """
from lamina.api.hookspecs import hookimpl
from lamina.api.types import Behaviour, Capabilities, Fidelity, Probe, View, WhiteoutFormat

class Driver:
    name = "third"
    api_version = 1

    @hookimpl
    def storage_probe(self):
        return Probe(
            usable=False, method="magic", reason="the moon isn't full", hint="wait for the moon",
            capabilities=Capabilities(
                whiteouts=WhiteoutFormat.OVERLAY, native_diff=False, max_depth=9, quota=True, max_name_bytes=100,
                preserves=frozenset(Fidelity) - {Fidelity.ACLS}, behaves=frozenset(Behaviour) - {Behaviour.LOCKS},
            ),
        )

    storage_prepare = storage_discard = hookimpl(lambda self: True)
    storage_mounts = hookimpl(lambda self, home, key: View(root=home + "/" + key))
    storage_keys = hookimpl(lambda self: [])

plugin = Driver()
"""


def doctor(root: Path | str, *words: str, code: int = 0, env: dict[str, str] | None = None) -> dict[str, Any]:
    done = subprocess.run(
        [PROGRAM, "--root", str(root), "driver", "doctor", "--format", "json", *words],
        capture_output=True, text=True, check=False, env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


def driver(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = next(each for each in document["Drivers"] if each["Name"] == name)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def third_party(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A driver from outside, and one that doesn't import, installed as pip leaves them."""
    for name, code in (("third", THIRD), ("wreck", "import no_such_module")):
        (tmp_path / "site").mkdir(exist_ok=True)
        (tmp_path / "site" / f"{name}_driver.py").write_text(code)
        folder = tmp_path / "site" / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[lamina]\nstorage.{name} = {name}_driver:plugin\n")
    return {"PYTHONPATH": str(tmp_path / "site")}


@pytest.mark.parametrize(("fstype", "reflink"), [("tmpfs", False), ("ext4", False), ("xfs", True), ("btrfs", True)])
def test_what_the_stores_file_system_can_do_is_what_it_does(tmp_path: Path, root_dir: str, fstype: str, reflink: bool):
    place = f"{root_dir}/disk"
    with ExitStack() as stack:
        if fstype == "tmpfs":
            stack.enter_context(memory_disk(place, size_bytes=32 << 20, inodes=5000))
        else:
            stack.enter_context(disk_in_a_file(root_dir, fstype))
        machine = doctor(f"{place}/store")["Machine"]
        copy = subprocess.run(
            ["sh", "-c", f"head -c 9999 /dev/zero > {place}/a && cp --reflink=always {place}/a {place}/b"],
            check=False, capture_output=True,
        )  # fmt: skip
        free = os.statvfs(place)
        assert machine["FileSystem"] == fstype
        assert machine["Reflink"] is reflink is (copy.returncode == 0)
        assert machine["EntryTypes"] is True
        assert abs(machine["FreeBytes"] - free.f_bavail * free.f_frsize) < 8 << 20
        assert machine["TotalBytes"] == free.f_blocks * free.f_frsize
        for name, attribute in (("user-xattrs", "user.x"), ("trusted-xattrs", "trusted.x")):
            try:
                os.setxattr(f"{place}/a", attribute, b"1")
            except OSError:
                assert name not in machine["Keeps"]
            else:
                assert name in machine["Keeps"]


def test_a_driver_that_cant_work_says_why_and_what_it_advises_makes_it_work(root_dir: str):
    for name in ("low", "up", "work", "union"):
        os.mkdir(f"{root_dir}/{name}")
    options = (("lowerdir+", f"{root_dir}/low"), ("upperdir", f"{root_dir}/up"), ("workdir", f"{root_dir}/work"))
    fd = lm.fsmount("overlay", options, source="overlay")
    lm.move_mount(fd, f"{root_dir}/union")
    os.close(fd)
    try:
        document = doctor(f"{root_dir}/union/store", "overlay", code=1)
        found = driver(document, "overlay")
        assert found["Usable"] is False
        assert "on another overlay" in found["Reason"]
        assert any("ext4, XFS or btrfs" in remedy and "vfs" in remedy for remedy in found["Remedies"])
        assert found["Gives"]  # what it would give elsewhere
        assert driver(doctor(f"{root_dir}/union/store", "vfs"), "vfs")["Usable"] is True  # the one advice
    finally:
        lm.unmount(f"{root_dir}/union", detach=True)
    with disk_in_a_file(root_dir, "ext4") as disk:  # the other
        assert driver(doctor(f"{disk.place}/store"), "overlay")["Usable"] is True


def test_a_driver_from_outside_is_told_of_by_what_it_claims(tmp_path: Path, third_party: dict[str, str]):
    document = doctor(tmp_path / "root", env=third_party)
    assert sorted(each["Name"] for each in document["Drivers"]) == ["aufs", "overlay", "third", "vfs", "wreck"]
    third = driver(document, "third")
    assert (third["Usable"], third["Reason"], third["Remedies"]) == (False, "the moon isn't full", ["wait for the moon"])
    assert any("limit on how much" in each for each in third["Gives"])
    lost = " / ".join(third["Loses"])
    for words in ("ACLs", "a lock taken", "at most 8 layers", "compare whole trees", "at most 100 bytes", "copies all of it"):
        assert words in lost
    assert "hard links" not in lost


def test_a_broken_driver_is_told_with_its_error_and_what_to_do(tmp_path: Path, third_party: dict[str, str]):
    document = doctor(tmp_path / "root", "wreck", code=1, env=third_party)
    wreck = driver(document, "wreck")
    assert "no_such_module" in wreck["Reason"]
    assert wreck["Remedies"]
    assert not wreck["Gives"]


def test_the_claims_that_a_driver_doesnt_make_are_each_one_sentence_of_loss(tmp_path: Path):
    for found in doctor(tmp_path / "root")["Drivers"]:
        told = json.loads(
            subprocess.run(
                [PROGRAM, "--root", str(tmp_path / "root"), "driver", "inspect", "--format", "json", found["Name"]],
                capture_output=True, text=True, check=True,
            ).stdout
        )  # fmt: skip
        able = told["Capabilities"]
        assert any("hard links break" in each for each in found["Loses"]) is ("hard-links" not in able["Preserves"])
        assert any("compare whole trees" in each for each in found["Loses"]) is not able["NativeDiff"]
        assert any("of any depth" in each for each in found["Gives"]) is (able["MaxDepth"] is None)


def test_file_systems_and_programs_are_those_of_the_machine(tmp_path: Path):
    machine = doctor(tmp_path / "root")["Machine"]
    loaded = {line.split()[-1] for line in Path("/proc/filesystems").read_text(encoding="ascii").splitlines()}
    assert {name for name, how in machine["FileSystems"].items() if how == "loaded"} == loaded & set(machine["FileSystems"])
    for name, path in machine["Programs"].items():
        found = subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=False).stdout.strip()
        assert path == found


def test_it_leaves_nothing_behind_and_reads_as_text(tmp_path: Path):
    root = tmp_path / "root"
    doctor(root)
    before = {path for path in root.rglob("*") if "lamina.db" not in path.name}
    shown = subprocess.run([PROGRAM, "--root", str(root), "driver", "doctor"], capture_output=True, text=True, check=True).stdout
    assert {path for path in root.rglob("*") if "lamina.db" not in path.name} == before
    assert shown.startswith("This machine\n")
    assert "overlay (the default here): works here" in shown
    assert "  loses:      the first write to an image's file copies all of it" in shown


def test_an_unknown_driver_is_one_line(tmp_path: Path):
    done = subprocess.run(
        [PROGRAM, "--root", str(tmp_path / "root"), "driver", "doctor", "nobody"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "nobody" in done.stderr
