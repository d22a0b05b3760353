"""What the same images and containers take on disk with each driver: its whole folder, as du(1) counts it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lamina.compare import samples
from lamina.compare.lab import Lab
from lamina.compare.report import DiskRow
from lamina.engine import Engine
from lamina.linux.fs import syncfs


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One thing that is measured."""

    id: str
    title: str
    why: str


def states(file_bytes: int, containers: int) -> tuple[State, ...]:
    """Name what is measured, in the order in which it is made; each state holds the ones before."""
    size = f"{file_bytes >> 20} MiB"
    return (
        State(
            id="image", title=f"The image, with a file of {size}, unpacked", why="What every host pays that runs the image at all."
        ),
        State(
            id="second-image", title="And a second image: one small layer more", why="Whether images that share layers share space."
        ),
        State(id="container", title="And a container, nothing written", why="What each container costs before it does anything."),
        State(
            id="containers",
            title=f"And {containers} containers in all, nothing written",
            why="What a host full of containers costs.",
        ),
        State(
            id="written",
            title=f"And one byte appended to the {size} in one container",
            why="The first write to a file of the image, which may cost a copy of it.",
        ),
    )


def disk_bytes(top: str) -> int:
    """Count what a tree takes: blocks, a file with several names once, not what is mounted in it. Equal to `du -sx`."""
    device, seen, total = os.lstat(top).st_dev, set(), os.lstat(top).st_blocks
    todo = [top]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if found.st_dev != device or (found.st_nlink > 1 and found.st_ino in seen):
                    continue
                seen.add(found.st_ino)
                total += found.st_blocks
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
    return total * 512


def measure(engine: Engine, driver: str, *, containers: int) -> dict[str, int]:
    """Bring about one state after the other, each container at rest when it is measured; gives bytes by the state's id."""
    home = engine.context.layers.driver(driver).home
    found, made = {}, []

    def take(state: str) -> None:
        syncfs(home)  # blocks that aren't allocated yet aren't counted by every file system
        found[state] = disk_bytes(home)

    try:
        engine.containers.create(samples.STORED, ["true"], driver=driver).remove()
        take("image")
        engine.containers.create(f"{samples.STORED}-more", ["true"], driver=driver).remove()
        take("second-image")
        with Lab(engine, driver, samples.STORED) as lab:
            lab.stop()
            take("container")
            for _ in range(containers - 1):
                made.append(engine.containers.create(samples.STORED, ["true"], driver=driver))
            take("containers")
            lab.container.start()
            lab.inside(_append)
            lab.stop()
            take("written")
    finally:
        for container in made:
            container.remove(force=True)
    return found


def _append() -> None:
    with open("file", "ab") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())


def rows(found: Mapping[str, Mapping[str, int]], *, file_bytes: int, containers: int) -> list[DiskRow]:
    """Lay the drivers' figures side by side; `found` is by driver."""
    return [
        DiskRow(id=each.id, title=each.title, why=each.why, size_bytes={name: sizes[each.id] for name, sizes in found.items()})
        for each in states(file_bytes, containers)
    ]
