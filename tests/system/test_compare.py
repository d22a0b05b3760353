"""`compare` with real containers on every driver, and with drivers from elsewhere; nothing of it stays."""

import json
import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import leaks
import pytest
from cases import DRIVERS, PROGRAM, disk_bytes

from lamina.compare import disk, samples
from lamina.compare.inside import run_inside
from lamina.compare.lab import Lab, RefusedError
from lamina.compare.run import PREFIX, Scale, compare
from lamina.engine import Engine
from lamina.errors import LaminaError, NotFoundError, UsageError
from lamina.linux import mountinfo, process

SMALL = Scale(rounds=2, big_bytes=4 << 20, files=120, stored_bytes=2 << 20, containers=3)


@pytest.fixture
def place(tmp_path: Path, own_mounts: None) -> Iterator[str]:
    """Where a comparison works; it must leave nothing there, no mount and no process."""
    before = set(leaks.descendants())
    mounted = leaks.places()
    yield str(tmp_path)
    assert [name for name in os.listdir(tmp_path) if name.startswith(PREFIX)] == []
    assert leaks.places() == mounted
    deadline = time.monotonic() + leaks.PATIENCE_S
    while set(leaks.descendants()) - before and time.monotonic() < deadline:
        leaks.reap(before)
        time.sleep(0.05)
    assert not set(leaks.descendants()) - before


@pytest.fixture
def lab_engine(tmp_path: Path, own_mounts: None) -> Iterator[Engine]:
    """An engine with the image of the probes."""
    with Engine(root_dir=str(tmp_path / "root")) as engine:
        samples.make_probed(engine, str(tmp_path))
        yield engine


def command(place: str, *words: str) -> list[str]:
    return [PROGRAM, "compare", "--dir", place, *words]


@pytest.mark.timeout(900)
def test_every_probe_is_answered_by_every_driver_and_vfs_is_a_plain_file_system(place: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = subprocess.run(
        command(place, *DRIVERS, "--only", "probes", "--format", "json", "--html", str(page)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    answers = {each["ID"]: each for each in told["Probes"]}
    assert len(answers) >= 100
    assert [(name, each["Unanswered"]) for name, each in answers.items() if each["Unanswered"]] == []
    assert {name: each["Answers"]["vfs"] for name, each in answers.items() if each["Answers"]["vfs"] != each["Plain"]} == {}

    def say(probe: str) -> tuple[str, ...]:
        each = answers[probe]
        return (*(each["Answers"][name] for name in DRIVERS), each["Recorded"].get("aufs on record", ""))

    assert say("whiteout-on-disk") == ("a device 0:0", "a file .wh.f1", "nothing: it isn't there", "a file .wh.f1")
    assert say("rename-directory") == ("EXDEV", "EXDEV", "ok", "EXDEV")
    assert say("shared-mapping")[2] == "sees the write"
    assert say("append-cost")[:3] == ("copies the whole file", "copies the whole file", "copies nothing")
    assert say("whiteout-name")[3] == "EPERM"
    assert "aufs itself" in page.read_text(encoding="utf-8")


@pytest.mark.timeout(600)
def test_disk_and_times_are_measured_for_every_driver(place: str) -> None:
    found = compare(DRIVERS, place=place, scale=SMALL, parts=("disk", "timings"))
    assert [each.id for each in found.disk] == [each.id for each in disk.states(1, 1)]
    image, second, container, containers, written = found.disk
    for name in ("overlay", "aufs"):
        assert containers.size_bytes[name] - image.size_bytes[name] < 1 << 20  # nothing is copied for a container
        assert written.size_bytes[name] - containers.size_bytes[name] >= SMALL.stored_bytes  # the file is, when it is written to
    assert second.size_bytes["vfs"] - image.size_bytes["vfs"] >= SMALL.stored_bytes
    assert containers.size_bytes["vfs"] - container.size_bytes["vfs"] >= 2 * SMALL.stored_bytes
    assert written.size_bytes["vfs"] - containers.size_bytes["vfs"] < 1 << 20
    assert len(found.timings) == 11
    for row in found.timings:
        assert set(row.seconds) == set(DRIVERS)
        assert all(len(each) == 2 and min(each) > 0 for each in row.seconds.values()), row.id
        assert row.ratio("overlay", "overlay").high == 1.0


@pytest.mark.timeout(300)
def test_the_disk_figure_is_du_s_with_a_container_at_work(tmp_path: Path, own_mounts: None, driver: str) -> None:
    with Engine(root_dir=str(tmp_path / "root")) as engine:
        samples.make_filled(engine, str(tmp_path), samples.STORED, 1 << 20)
        with Lab(engine, driver, samples.STORED) as lab:
            lab.inside(_write)
            subprocess.run(["sync", "--file-system", lab.home_dir()], check=True)
            wanted = subprocess.run(["du", "-sx", "--block-size=1", lab.home_dir()], capture_output=True, text=True, check=True)
            assert disk.disk_bytes(lab.home_dir()) == int(wanted.stdout.split()[0])
            lab.stop()
            assert disk.disk_bytes(lab.home_dir()) == disk_bytes(Path(lab.home_dir()))


def _write() -> None:
    with open("written", "wb") as file:
        file.write(b"x" * 300_000)


PLUGINS = '''
    """A driver from elsewhere, and one that can't work here."""
    from lamina.api.hookspecs import hookimpl
    from lamina.api.types import Capabilities, Probe, WhiteoutFormat
    from lamina_vfs.driver import VfsDriver

    class Borrowed(VfsDriver):
        name = "borrowed"

    class Nowhere(VfsDriver):
        name = "nowhere"

        @hookimpl
        def storage_probe(self, home):
            able = Capabilities(whiteouts=WhiteoutFormat.NONE, native_diff=False)
            return Probe(usable=False, capabilities=able, reason="there is no such file system", hint="make one")

    borrowed, nowhere = Borrowed(), Nowhere()
'''


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment with two installed drivers more, and one that doesn't import."""
    site = tmp_path / "site"
    (site / "elsewhere-1.0.dist-info").mkdir(parents=True)
    (site / "elsewhere.py").write_text(textwrap.dedent(PLUGINS))
    (site / "elsewhere-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (site / "elsewhere-1.0.dist-info" / "entry_points.txt").write_text(
        "[lamina]\nstorage.borrowed = elsewhere:borrowed\nstorage.nowhere = elsewhere:nowhere\nstorage.broken = missing:plugin\n"
    )
    return {**os.environ, "PYTHONPATH": str(site)}


@pytest.mark.timeout(300)
def test_a_driver_from_elsewhere_is_compared_and_those_that_cannot_work_are_listed_with_their_reason(
    place: str, elsewhere: dict[str, str]
) -> None:
    words = command(place, "borrowed", "nowhere", "broken", "vfs", "--only", "disk", "--quick", "--format", "json")
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=elsewhere)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    drivers = {each["Name"]: each for each in told["Drivers"]}
    assert [name for name, each in drivers.items() if each["Compared"]] == ["borrowed", "vfs"]
    assert (drivers["nowhere"]["Reason"], drivers["nowhere"]["Hint"]) == ("there is no such file system", "make one")
    assert "missing" in drivers["broken"]["Reason"]
    assert told["Disk"][0]["Bytes"].keys() == {"borrowed", "vfs"}
    only = subprocess.run(command(place, "nowhere"), capture_output=True, text=True, check=False, env=elsewhere)
    assert only.returncode == 1
    assert only.stderr == "error: none of these drivers works here (nowhere: there is no such file system)\n"


def test_what_cannot_be_meant_is_said_before_anything_is_done(place: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="'nothing' is not installed"):
        compare(["nothing"], place=place, scale=SMALL)
    with pytest.raises(UsageError, match="named twice"):
        compare(["overlay", "overlay2"], place=place, scale=SMALL)
    with pytest.raises(LaminaError, match=r"GB are needed on the disk of .*, and .* GB are free"):
        compare(["vfs"], place=place, scale=replace(SMALL, big_bytes=1 << 55))
    for words, wrong in ((["--only", "tea"], "'tea'"), (["--format", "xml"], "'xml'"), (["--html", f"{tmp_path}/no/x"], "no/x")):
        done = subprocess.run(command(place, "vfs", *words), capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert wrong in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.timeout(300)
def test_what_a_killed_comparison_leaves_the_next_one_removes(place: str) -> None:
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)  # what the killed one leaves falls to this process, which can then end it
    killed = subprocess.Popen(command(place, "overlay", "--only", "probes"), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(Path(place).glob(f"{PREFIX}*/root/containers/*/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (left,) = Path(place).glob(f"{PREFIX}*")
    for pid, words in leaks.descendants().items():  # a container that was being asked ends by itself, but not so soon
        if words.startswith("sleep 1800"):
            os.kill(pid, signal.SIGKILL)
    time.sleep(1)
    compare(["vfs"], place=place, scale=SMALL, parts=("disk",))
    assert not left.exists()


@pytest.mark.timeout(300)
def test_a_probe_runs_in_the_container_with_a_container_s_rights(lab_engine: Engine, driver: str) -> None:
    with Lab(lab_engine, driver) as lab:
        told = lab.inside(_who)
        assert told["hostname"] == lab.container.id[:12]
        assert told["sees the host"] is False
        assert told["pid"] < 1000
        assert told["uid"] == 0
        assert process.CAPABILITIES.index("SYS_ADMIN") not in told["capabilities"]
        assert process.CAPABILITIES.index("CHOWN") in told["capabilities"]
        assert lab.inside(os.getuid, user="1000:1001") == 1000
        assert process.CAPABILITIES.index("SYS_ADMIN") in lab.inside(_who, privileged=True)["capabilities"]
        with pytest.raises(RefusedError) as refused:
            lab.inside(os.rmdir, "d1")
        assert refused.value.name == "ENOTEMPTY"
        with pytest.raises(LaminaError, match="ZeroDivisionError"):
            lab.inside(divmod, 1, 0)
        with pytest.raises(LaminaError, match="its process died"):
            lab.inside(os._exit, 3)
        record = lab.container.record
        steps = lab_engine.entering.plan(record, ["true"])
        with pytest.raises(LaminaError, match=r"gave no answer within 0\.5 s"):
            run_inside(time.sleep, [600], pid=record.pid, steps=steps, working_dir="/", timeout_s=0.5)
        deadline = time.monotonic() + 10
        while len(lab.container.top()) > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(lab.container.top()) == 1  # what gave no answer is gone too


def _who() -> dict[str, Any]:
    return {
        "hostname": os.uname().nodename, "pid": os.getpid(), "uid": os.getuid(), "capabilities": sorted(process.own_capabilities()),
        "sees the host": os.path.exists(__file__),
    }  # fmt: skip


def test_mounts_of_a_comparison_are_not_seen_outside(place: str) -> None:
    running = subprocess.Popen(command(place, "overlay", "--only", "probes", "--quick"), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not any(Path(place).glob(f"{PREFIX}*/root/containers/*/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [each.target for each in mountinfo.mounts() if PREFIX in each.target]
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(60) in {130, 0}
