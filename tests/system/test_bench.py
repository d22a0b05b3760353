"""The benchmark runs: one round of a few works, without peers. What it measures is no matter of tests; that it can measure is."""

import json
import os
import subprocess
import sys
from pathlib import Path

from outside import TOP

from lamina.linux import mount
from lamina_bench import disk


def test_the_benchmark_measures_and_leaves_nothing(tmp_path: Path):
    words = [
        sys.executable, "-m", "lamina_bench", "--works", "run-none,library", "--rounds", "1", "--engines", "lamina", "--anyway",
        "--dir", str(tmp_path), "--json", str(tmp_path / "figures.json"), "--plot", str(tmp_path / "plot.svg"),
    ]  # fmt: skip
    done = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": str(TOP / "bench")}, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run --net none, to the faster of docker and podman not measured" in " ".join(done.stdout.split())
    found = json.loads((tmp_path / "figures.json").read_text())
    labels = {each["label"]: each["rounds"] for work in found["works"] for each in work["contenders"]}
    assert set(labels) == {"lamina", "lamina.engine", "lamina.engine, create to remove"}
    assert all(one["wall"] > 0 and one["cpu"] > 0 for (one,) in labels.values())
    assert sorted(each.name for each in tmp_path.iterdir()) == ["figures.json", "plot.svg"]


def test_a_work_that_fails_is_told_and_what_was_made_goes(tmp_path: Path):
    broken = tmp_path / "lamina"
    broken.write_text(
        '#!/bin/sh\ncase " $* " in *" run "*) echo "error: broken" >&2; exit 125;; esac\n'
        f'exec {sys.executable} -c "from lamina.cli.main import run; run()" "$@"\n'
    )
    broken.chmod(0o755)
    place = tmp_path / "place"
    place.mkdir()
    words = [
        sys.executable, "-m", "lamina_bench", "--works", "run-none", "--rounds", "1", "--engines", "lamina", "--anyway",
        "--dir", str(place), "--lamina", str(broken),
    ]  # fmt: skip
    done = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": str(TOP / "bench")}, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 1
    assert "failed in run-none: lamina: " in done.stdout
    assert "ended with 125: error: broken" in done.stdout
    assert list(place.iterdir()) == []


def test_a_disk_of_its_own_has_a_journal_as_one_without_is_known(tmp_path: Path):
    place, image = tmp_path / "place", tmp_path / "image"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", "-O", "^has_journal", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        assert not disk.has_journal(str(place))
        own = place / "own"
        own.mkdir()
        disk.mount_own(str(own))
        assert disk.has_journal(str(own))
        assert [each.name for each in own.iterdir()] == ["lost+found"]
        mount.unmount(str(own), detach=True)
        assert sorted(each.name for each in place.iterdir()) == ["lost+found", "own"]
    finally:
        mount.unmount(str(place), detach=True)
