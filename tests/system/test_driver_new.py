"""`lamina driver new`: within a minute of typing the name, a driver that is installed and has passed every check."""

import re
import subprocess
import time
from pathlib import Path

import pytest
from cases import PROGRAM
from outside import Environment


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, installed: Environment) -> Environment:
    """Lamina, installed."""
    return installed.copied(tmp_path_factory.mktemp("new") / "venv")


@pytest.mark.timeout(400)
def test_a_new_driver_installs_and_passes_within_a_minute(environment: Environment, tmp_path: Path) -> None:
    took_s = new_until_passed("my-own", environment, tmp_path)
    assert re.search(r"^my-own +yes +copy", environment("lamina", "driver", "ls"), re.MULTILINE)
    if took_s >= 60:  # other tests had the machine: once more
        took_s = new_until_passed("my-other", environment, tmp_path)
    assert took_s < 60


def new_until_passed(name: str, environment: Environment, place: Path) -> float:
    """From typing the name to the last check passed: seconds."""
    began = time.monotonic()
    package = environment("lamina", "driver", "new", name, cwd=place).strip()
    assert package == str(place / f"lamina-{name}")
    environment.pip(f"{package}[test]")
    printed = environment("python", "-m", "pytest", "-p", "no:cacheprovider", package, cwd=Path(package), timeout_s=240)
    took_s = time.monotonic() - began
    passed = re.search(r"(\d+) passed", printed)
    assert passed, printed
    assert int(passed[1]) > 500
    assert "failed" not in printed.splitlines()[-1]
    print(f"{passed[1]} checks passed {took_s:.0f} s after the name was typed")
    return took_s


def test_a_new_driver_runs_a_container(environment: Environment, tmp_path: Path, own_mounts: None) -> None:
    environment.pip(environment("lamina", "driver", "new", "second", "--dir", tmp_path / "in" / "there").strip())
    lamina = ("lamina", "--root", tmp_path / "root", "-s", "second")
    environment(*lamina, "image", "bootstrap")
    assert environment(*lamina, "run", "--rm", "busybox", "echo", "hello") == "hello\n"


def refused(name: str, *options: str, cwd: Path) -> str:
    done = subprocess.run([PROGRAM, "driver", "new", *options, "--", name], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("name", ["", "Mine", "1st", "a b", "../x", "a_b", "-a", "a-", "a--b", "é", "a" * 41, "a\nb"])
def test_a_name_that_a_driver_cannot_have_is_one_clear_line(name: str, tmp_path: Path) -> None:
    line = refused(name, cwd=tmp_path)
    assert "can't be a driver's name" in line
    assert "small letters" in line
    assert list(tmp_path.iterdir()) == []


def test_an_installed_drivers_name_is_taken(tmp_path: Path) -> None:
    assert "a storage driver 'overlay2' is installed already" in refused("overlay2", cwd=tmp_path)


@pytest.mark.parametrize("kind", ["directory", "file", "broken link"])
def test_what_is_there_already_is_let_be(kind: str, tmp_path: Path) -> None:
    there = tmp_path / "lamina-mine"
    {"directory": there.mkdir, "file": there.touch, "broken link": lambda: there.symlink_to("nowhere")}[kind]()
    line = refused("mine", cwd=tmp_path)
    assert f"'{there}' is there already" in line
    assert "--dir" in line
    assert list(tmp_path.iterdir()) == [there]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    line = refused("mine", "--dir", "/proc/there", cwd=tmp_path)
    assert "error: " in line
