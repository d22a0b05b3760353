"""`--storage-opt size=`: what a container may write at most, on real file systems with project quotas. `make vm-test`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import DRIVERS, Lamina

from lamina.testing.check import all_checks
from lamina.testing.disks import disk_with_quotas
from lamina.testing.run import Verdict, installed, run_all

pytestmark = pytest.mark.vm


@pytest.fixture(params=("xfs", "ext4"))
def place(request: pytest.FixtureRequest, tmp_path: Path, own_mounts: None) -> Iterator[Path]:
    with disk_with_quotas(str(tmp_path / "disk"), request.param):
        yield tmp_path / "disk"


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_drivers_keep_what_the_kit_demands_of_quotas(driver: str, place: Path) -> None:
    checks = [check for check in all_checks() if "quota" in check.name]
    outcomes = list(run_all(checks, installed(driver), str(place)))
    assert [(each.check.name, each.reason) for each in outcomes if each.verdict is not Verdict.PASS] == []
    assert len(outcomes) == 4


@pytest.mark.parametrize("place", ["xfs"], indirect=True)
def test_a_container_is_full_when_its_size_is_reached_and_no_other_is(place: Path) -> None:
    for driver in DRIVERS:
        lamina = Lamina(place / "root", driver)
        if driver == DRIVERS[0]:
            lamina("image", "bootstrap", "busybox")
        fill = "dd if=/dev/zero of=/big bs=1M count=6 2>/dev/null; echo $?; wc -c < /big"
        size = ("--storage-opt", "size=4m")
        code, written = lamina("run", "--name", f"small-{driver}", *size, "busybox", "sh", "-c", fill).split()
        assert code == "1"
        assert 3 << 20 < int(written) <= 4 << 20
        assert lamina("run", "--rm", "busybox", "sh", "-c", fill).split() == ["0", str(6 << 20)]
        lamina("start", "-a", f"small-{driver}")  # full as it is, it starts
        shown = json.loads(lamina("inspect", f"small-{driver}"))[0]
        assert shown["HostConfig"]["StorageOpt"] == {"size": "4m"}
        assert shown["GraphDriver"]["Data"]["Project"].isdigit()
        assert list((place / "root" / driver / "quota").iterdir()) != []
        lamina("commit", f"small-{driver}", f"image-{driver}")
        assert int(lamina("run", "--rm", f"image-{driver}", "sh", "-c", "wc -c < /big")) <= 4 << 20
        lamina("rm", f"small-{driver}")
        assert list((place / "root" / driver / "quota").iterdir()) == []
