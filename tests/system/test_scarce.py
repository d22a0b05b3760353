"""A disk that is full, has no inodes left or is read-only; too few descriptors, processes, too little memory: one clear error line,
nothing lost, nothing left, and what is removed to make room can be removed."""

import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import archives
import pytest
from cases import FOREVER, Lamina, driver_of, each_driver, wait_until
from leaks import nothing_left, reap

from lamina.engine import Engine
from lamina.store.image_archive import load
from lamina.testing.disks import mount_image

SIZES_BYTES = [size << 20 for size in (range(4, 48, 2) if os.environ.get("LAMINA_KILLS") == "all" else (12, 64))]
"""Of the memory that a command may have: too little, and enough."""


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


@pytest.fixture
def small(driver: str, tmp_path: Path, own_mounts: None, own_network: None) -> Iterator[Lamina]:
    """A root directory on an ext4 of its own, which has the image `base`, a container that has written, and one that runs."""
    image, place = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-N", "3000", str(image)], check=True)
    mount_image(str(image), str(place))
    lamina = Lamina(place / "root", driver)
    archive = archives.image(tmp_path / "base.tar", "base", archives.base_layers())
    with lamina.library() as engine, archive.open("rb") as stream:
        load(engine.images.store, stream)
        engine.images.tag("base", "other")
        engine.volumes.create("data")
        engine.containers.create("base", ["true"], name="spare")
        engine.containers.run("base", ["sh", "-c", "echo mine >/mine"], name="kept", network="none").wait()
    try:
        with nothing_left(lamina.root):
            try:
                yield lamina
            finally:
                subprocess.run(["rm", "-f", str(place / "filler")], check=False)
            with lamina.library() as engine:
                for container in engine.containers.all():
                    container.remove(force=True)
                engine.volumes.prune(all_volumes=True)
                assert engine.system.check() == []
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> None:
    """Take every block that there is."""
    fd = os.open(place / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (1 << 20, 1 << 12, 1 << 9):
        with contextlib.suppress(OSError):
            while os.write(fd, b"x" * size) == size:
                pass
    os.close(fd)


def use_inodes(place: Path) -> None:
    """Take every inode that there is."""
    (place / "fillers").mkdir()
    with contextlib.suppress(OSError):
        for number in range(10_000):
            os.mknod(place / "fillers" / str(number))


def fails(lamina: Lamina, *words: str, code: int = 1) -> str:
    """Run what there is no room for: one line that says so."""
    line = lamina.error(*words, code=code)
    assert "no space left on device" in line or "database or disk is full" in line, line
    return line


@each_driver
def test_on_a_full_disk_nothing_is_lost_and_everything_can_be_removed(small: Lamina, tmp_path: Path):
    disk = tmp_path / "disk"
    small.background("--name", "live", "--network", "none", "base", *FOREVER)
    big = archives.image(tmp_path / "big.tar", "big", [archives.layer({"file": archives.Item(content=os.urandom(6 << 20))})])
    before = small("images", "-q")
    fill(disk)
    fails(small, "load", "-i", str(big))
    fill(disk)  # whatever room there was for what must be done, another process has taken by now
    fails(small, "commit", "kept", "kept")
    fails(small, "run", "--rm", "--network", "none", "base", "true", code=125)
    assert small("exec", "live", "echo", "said") == "said"
    assert small("images", "-q") == before
    assert small("start", "-a", "spare", code=1) == "" or small.driver == "vfs"
    fill(disk)
    small("rm", "spare")
    small("rmi", "other")
    fill(disk)
    assert small("volume", "prune", "-af").startswith("Deleted Volumes:\ndata\n")
    (disk / "filler").unlink()
    small("volume", "create", "data")
    assert small("exec", "live", "cat", "/single") == "the image's own file"
    assert small("diff", "kept") == "A /mine"
    small("load", "-i", str(big))
    small("rmi", "big")


def test_without_inodes_nothing_is_lost_and_containers_can_be_removed(small: Lamina, tmp_path: Path):
    use_inodes(tmp_path / "disk")
    small("rm", "spare")
    while small.result("create", "base", "true").returncode == 0:
        pass  # what was freed serves until it is used up
    fails(small, "create", "base", "true")
    small("rm", "kept")
    for each in (tmp_path / "disk/fillers").iterdir():
        each.unlink()
    assert small("run", "--rm", "--network", "none", "base", "cat", "/single") == "the image's own file"


def test_on_a_read_only_disk_every_change_is_refused_in_one_line(small: Lamina, tmp_path: Path):
    disk = str(tmp_path / "disk")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for words, code in (
        (("run", "--rm", "base", "true"), 125), (("create", "base", "true"), 1), (("start", "spare"), 1), (("rm", "spare"), 1),
        (("rmi", "other"), 1), (("commit", "kept", "new"), 1), (("tag", "base", "new"), 1), (("volume", "create", "vol"), 1),
    ):  # fmt: skip
        line = small.error(*words, code=code)
        assert "read-only file system" in line or "readonly database" in line, line
    assert "kept" in small("ps", "-a")
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


def limited(lamina: Lamina, limit: Callable[[], None], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        lamina.command(*words), capture_output=True, text=True, check=False, preexec_fn=limit, stdin=subprocess.DEVNULL, timeout=100
    )


def sweep(lamina: Lamina, limits: Iterator[Callable[[], None]], *, settled: Callable[[], bool] = lambda: True) -> int:
    """Run, execute and remove under each limit in turn: each works, or fails with an error line and leaves nothing."""
    if "live" not in lamina("ps", "--format", "{{.Names}}"):
        lamina.background("--name", "live", "--network", "none", "base", *FOREVER)
    failures = 0
    for limit in limits:
        for words in (
            ("run", "--name", "one", "--network", "none", "base", "echo", "ran"),
            ("exec", "live", "echo", "ran"),
            ("commit", "live", "made"),
        ):
            done = limited(lamina, limit, *words)
            wait_until(settled, "the end of what a killed command left", timeout_s=60)
            if done.returncode == 0 or "Fatal Python error" in done.stderr:
                continue
            failures += 1
            assert "Traceback" not in done.stderr, done.stderr
            lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
            assert len(lines) <= 1, done.stderr
        with lamina.library() as engine:
            assert {each.record.status for each in engine.containers.all()} <= {"created", "exited", "running"}
            if "one" in [each.name for each in engine.containers.all()]:
                engine.containers.get("one").remove(force=True)
            assert engine.system.check(reads_bytes=False) == []
    lamina.result("rmi", "made")
    return failures


def test_too_few_descriptors_are_one_error_line(lamina: Lamina):
    limits = (
        lambda number=number: resource.setrlimit(resource.RLIMIT_NOFILE, (number, number)) for number in (4, 6, 8, 10, 13, 18)
    )
    assert sweep(lamina, limits)


def test_too_little_memory_is_one_error_line(lamina: Lamina):
    limits = (lambda size=size: resource.setrlimit(resource.RLIMIT_AS, (size << 20, size << 20)) for size in (24, 30, 36, 48, 80))
    assert sweep(lamina, limits)


class OwnCgroup:
    """A cgroup of our own, for commands; `files` are version 1's or 2's that get the value, so far as they are there."""

    def __init__(self, controller: str, files: tuple[str, ...], value: int) -> None:
        places = [
            Path(place) for place in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup") if Path(place, "cgroup.procs").exists()
        ]
        self.path = places[0] / f"lamina-test-{os.getpid()}"
        self.path.mkdir()
        for file in files:
            if (self.path / file).exists():
                (self.path / file).write_text(str(value), encoding="ascii")

    def enter(self) -> None:
        (self.path / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

    def is_empty(self) -> bool:
        reap(set())
        return not (self.path / "cgroup.procs").read_text(encoding="ascii")


def swept(lamina: Lamina, controller: str, files: tuple[str, ...], values: Sequence[int]) -> int:
    """Sweep with each value in a cgroup that commands are in, and the monitors that they leave."""
    failures = 0
    for value in values:
        cgroup = OwnCgroup(controller, files, value)
        try:
            failures += sweep(lamina, iter([cgroup.enter]), settled=cgroup.is_empty)
        finally:
            cgroup.path.rmdir()
    return failures


def test_too_few_processes_are_one_error_line(lamina: Lamina):
    assert swept(lamina, "pids", ("pids.max",), (1, 2, 3, 4, 6))


def test_what_is_killed_for_want_of_memory_loses_nothing(lamina: Lamina):
    """By the kernel, as a command must be that is in a cgroup with less than it needs."""
    files = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max")
    failures = swept(lamina, "memory", files, SIZES_BYTES)
    assert 0 < failures < 3 * len(SIZES_BYTES), "some were killed, some had enough"


def test_the_reserve_is_made_when_there_is_room_again(small: Lamina, tmp_path: Path):
    disk = tmp_path / "disk"
    assert (small.root / "reserve/space").stat().st_size == 2 << 20
    fill(disk)
    with Engine(root_dir=str(small.root)) as engine, contextlib.suppress(OSError):
        engine.volumes.create("more")
    assert not (small.root / "reserve").exists()
    (disk / "filler").unlink()
    small("volume", "create", "again")
    assert (small.root / "reserve/space").exists()


def test_a_container_that_a_killed_commit_had_paused_goes_on(lamina: Lamina):
    lamina.background("--name", "live", "--network", "none", "base", *FOREVER)
    child = os.fork()
    if child == 0:
        with lamina.library() as engine, engine.control.paused(engine.containers.get("live").record):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert lamina.status("live") == "running"
    assert lamina("exec", "live", "echo", "on") == "on"
    (lock,) = (lamina.root / "run/locks").glob("paused-*")
    lock.unlink()  # the next who pauses it would
