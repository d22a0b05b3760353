"""How long the same work takes with each driver: a round of all drivers, then the next round, each time beginning with another.

What the machine does meanwhile then hits all of them alike, and each round gives a ratio of its own. Before a driver's turn what
others have written is on the disk.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lamina.compare import samples
from lamina.compare.lab import Lab
from lamina.compare.report import TimingRow
from lamina.engine import Engine
from lamina.linux.fs import syncfs

Seconds = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One thing that is timed."""

    id: str
    title: str
    why: str


def works(big_bytes: int, files: int) -> tuple[Work, ...]:
    """Name what is timed, in the order in which it is done."""
    size = "1 GiB" if big_bytes == 1 << 30 else f"{big_bytes >> 20} MiB"
    many = f"{files:,} small files"
    return (
        Work(id="create", title="create and mount", why="From nothing to a mounted root: what a short-lived container pays."),
        Work(id="start", title="start", why="From a created container to its first process, mounting included."),
        Work(id="write-files", title=f"write {many}", why="Package installations and builds."),
        Work(id="read-files", title=f"read {many}", why="Servers of static files, compilers, start of interpreters."),
        Work(id="diff", title=f"diff with {many}", why="What lamina diff takes, and the first half of every commit."),
        Work(id="commit", title=f"commit {many}", why="What each step of a build takes at its end."),
        Work(id="delete-files", title=f"delete {many}", why="Cleaning caches at the end of a build."),
        Work(id="remove", title="remove the container", why="The end of a short-lived container."),
        Work(
            id="create-big",
            title=f"create and mount, image with a {size} file",
            why="Whether the size of the image counts for each container.",
        ),
        Work(id="first-write", title=f"first write to a {size} file", why="Databases whose data is in the image: one byte, once."),
        Work(id="remove-big", title=f"remove a container that wrote to a {size} file", why="What clean-up takes after that."),
    )


@contextmanager
def timed(seconds: Seconds, name: str) -> Iterator[None]:
    """Note how long the block takes."""
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began


def small_turn(engine: Engine, driver: str, *, files: int) -> Seconds:
    """Do one driver's part of a round that is about many small files."""
    seconds: Seconds = {}
    lab = created(engine, driver, samples.SMALL, seconds, "create")
    with _removed_on_error(lab):
        with timed(seconds, "start"):
            lab.container.start()
        seconds["write-files"] = lab.inside(_write_files, files)
        seconds["read-files"] = lab.inside(_read_files, files)
        with timed(seconds, "diff"):
            lab.container.diff()
        with timed(seconds, "commit"):
            image = lab.container.commit()
        engine.images.remove(str(image.id), force=True)
        seconds["delete-files"] = lab.inside(_delete_files, files)
    with timed(seconds, "remove"):
        lab.container.remove(force=True)
    return seconds


def big_turn(engine: Engine, driver: str) -> Seconds:
    """Do one driver's part of a round that is about one big file of the image."""
    seconds: Seconds = {}
    lab = created(engine, driver, samples.BIG, seconds, "create-big")
    with _removed_on_error(lab):
        lab.container.start()
        seconds["first-write"] = lab.inside(_first_write)
    with timed(seconds, "remove-big"):
        lab.container.remove(force=True)
    return seconds


def created(engine: Engine, driver: str, image: str, seconds: Seconds, name: str) -> Lab:
    """Time making a container and mounting its root on the host; gives it, not mounted any more."""
    layers = engine.context.layers
    with timed(seconds, name):
        lab = Lab(engine, driver, image)
        record = lab.container.record
        layers.mount(layers.driver(driver), record.id, record.parents)
    layers.unmount(layers.driver(driver), record.id, record.parents)
    return lab


@contextmanager
def _removed_on_error(lab: Lab) -> Iterator[None]:
    try:
        yield
    except BaseException:
        lab.container.remove(force=True)
        raise


def rounds(
    engine: Engine,
    drivers: Sequence[str],
    turn: Callable[[Engine, str], Seconds],
    *,
    number: int,
    place: str,
    told: Callable[[str], None],
) -> list[dict[str, Seconds]]:
    """Do so many rounds of all drivers; the unpacking of images is behind before the first one."""
    found = []
    for each in range(number):
        begin = each % len(drivers)
        this: dict[str, Seconds] = {}
        for driver in (*drivers[begin:], *drivers[:begin]):
            told(f"round {each + 1} of {number}: {driver}")
            syncfs(place)
            this[driver] = turn(engine, driver)
        found.append(this)
    return found


def rows(found: Sequence[Mapping[str, Seconds]], drivers: Sequence[str], *, big_bytes: int, files: int) -> list[TimingRow]:
    """Lay the rounds side by side, work by work."""
    told = []
    for work in works(big_bytes, files):
        mine = [each for each in found if all(work.id in each[driver] for driver in drivers)]
        if mine:
            seconds = {driver: [each[driver][work.id] for each in mine] for driver in drivers}
            told.append(TimingRow(id=work.id, title=work.title, why=work.why, seconds=seconds))
    return told


def _write_files(number: int) -> float:
    content = b"x" * 1024
    began = time.perf_counter()
    for each in range(number):
        if each % 100 == 0:
            os.makedirs(f"new/{each // 100}")
        fd = os.open(f"new/{each // 100}/{each}", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, content)
        os.close(fd)
    return time.perf_counter() - began


def _read_files(number: int) -> float:
    began = time.perf_counter()
    for each in range(number):
        fd = os.open(f"new/{each // 100}/{each}", os.O_RDONLY)
        os.read(fd, 4096)
        os.close(fd)
    return time.perf_counter() - began


def _delete_files(number: int) -> float:
    began = time.perf_counter()
    for each in range(number):
        os.unlink(f"new/{each // 100}/{each}")
        if each % 100 == 99 or each == number - 1:
            os.rmdir(f"new/{each // 100}")
    return time.perf_counter() - began


def _first_write() -> float:
    began = time.perf_counter()
    fd = os.open("file", os.O_WRONLY)
    os.pwrite(fd, b"x", 4096)
    os.close(fd)
    return time.perf_counter() - began
