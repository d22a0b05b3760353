"""A disk that is full, has no inodes left or is read-only; too few descriptors, processes, too little memory: one clear error line,
nothing lost, nothing left, and what is removed to make room can be removed."""

import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import pytest
from cases import FOREVER, Lamina, driver_of, each_driver
from leaks import nothing_left

from lamina.engine import Engine
from lamina.store.image_archive import load
from lamina.testing.disks import mount_image


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


def sweep(lamina: Lamina, limits: Iterator[Callable[[], None]]) -> int:
    """Run, execute and remove under each limit in turn: each works, or fails with an error line and leaves nothing."""
    lamina.background("--name", "live", "--network", "none", "base", *FOREVER)
    failures = 0
    for limit in limits:
        for words in (
            ("run", "--name", "one", "--network", "none", "base", "echo", "ran"),
            ("exec", "live", "echo", "ran"),
            ("commit", "live", "made"),
        ):
            done = limited(lamina, limit, *words)
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


@pytest.fixture
def pids_cgroup(tmp_path: Path) -> Iterator[Path]:
    """A cgroup of the pids controller, of our own."""
    (top,) = [Path(place) for place in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup") if Path(place, "cgroup.procs").exists()][:1]
    cgroup = top / f"lamina-test-{os.getpid()}"
    cgroup.mkdir()
    yield cgroup
    for pid in (cgroup / "cgroup.procs").read_text(encoding="ascii").split():
        (top / "cgroup.procs").write_text(pid, encoding="ascii")
    cgroup.rmdir()


def test_too_few_processes_are_one_error_line(lamina: Lamina, pids_cgroup: Path):
    def at_most(number: int) -> Callable[[], None]:
        def enter() -> None:
            (pids_cgroup / "pids.max").write_text(str(number), encoding="ascii")
            (pids_cgroup / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

        return enter

    assert sweep(lamina, (at_most(number) for number in (1, 2, 3, 4, 6)))


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
