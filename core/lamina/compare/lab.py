"""A container fresh from the image of known files, and what of it can be asked from outside.

A probe that only runs in the container shares it with a few others, each in a copy of the tree; one that restarts it has it alone.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from lamina.compare.catalogue import Probe
from lamina.compare.inside import run_inside
from lamina.compare.report import Answer
from lamina.compare.samples import LAB, PROBED, copy_dir
from lamina.container import ContainerHandle
from lamina.engine import Engine
from lamina.errors import LaminaError, StateError

FOREVER = ("sleep", "1800")
"""Longer than any probe, and over by itself if the comparison is killed."""


class RefusedError(Exception):
    """The container's file system answered with an errno; `name` is the kernel's name for it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def removed(container: ContainerHandle) -> None:
    """Remove a container, running or not."""
    container.remove(force=True)


class Lab:
    """A running container of `image` on a driver; at the block's end `end` gets it, which removes it unless another is given."""

    def __init__(
        self, engine: Engine, driver: str, image: str = PROBED, *, end: Callable[[ContainerHandle], None] = removed
    ) -> None:
        self.engine = engine
        self.driver = driver
        self.place = copy_dir(0) if image == PROBED else LAB
        """Where functions run: a tree that nobody else uses."""
        self._end = end
        self.container: ContainerHandle = engine.containers.create(image, FOREVER, driver=driver)

    def __enter__(self) -> Self:
        try:
            self.container.start()
        except BaseException:
            self.container.remove(force=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end(self.container)

    def inside(self, function: Callable[..., Any], *arguments: Any, user: str = "", privileged: bool = False) -> Any:
        """Run a function in the container, in `place`; raises `RefusedError` for an OSError there."""
        record = self.container.record
        steps = self.engine.entering.plan(record, ["true"], user=user)
        result = run_inside(function, arguments, pid=record.pid, steps=steps, working_dir=self.place, privileged=privileged)
        if result.problem:
            raise LaminaError(result.problem)
        if result.errno:
            raise RefusedError(result.errno)
        return result.value

    def stop(self) -> None:
        """End the container; its layer comes to rest."""
        self.container.kill()
        self.container.wait()

    def restart(self) -> None:
        """End the container and start it again: its file system is mounted anew."""
        self.stop()
        self.container.start()

    def used_bytes(self) -> int:
        """What the container's own layer takes on disk."""
        return self.container.size_bytes()

    def upper_dir(self) -> str | None:
        """The host's directory with the changes to `place`, None for a driver whose layers are full trees."""
        record = self.container.record
        storage = self.engine.context.layers.driver(self.driver)
        upper = storage.mounts(record.id, record.parents, readonly=False).upper_dir
        return None if upper is None else upper + self.place

    def home_dir(self) -> str:
        """The driver's own folder."""
        return self.engine.context.layers.driver(self.driver).home


class Burials:
    """Containers that were killed and not yet removed: while the kernel takes their namespaces down others are asked."""

    def __init__(self, *, delay: int = 4) -> None:
        self._delay = delay
        self._dead: list[ContainerHandle] = []

    def kill(self, container: ContainerHandle) -> None:
        """Kill a container, and remove the one that was killed so many before."""
        with contextlib.suppress(StateError):  # it has ended by itself
            container.kill()
        self._dead.append(container)
        if len(self._dead) > self._delay:
            self._dead.pop(0).remove(force=True)

    def finish(self) -> None:
        """Remove the rest."""
        while self._dead:
            self._dead.pop(0).remove(force=True)


def ask(engine: Engine, driver: str, probes: Sequence[Probe], burials: Burials) -> list[Answer]:
    """Ask a driver questions in one container, each with a tree of its own. What can't be asked is an answer that says why."""
    try:
        with Lab(engine, driver, end=burials.kill) as lab:
            answers = []
            for number, probe in enumerate(probes):
                lab.place = copy_dir(number)
                answers.append(_ask_one(lab, probe))
            return answers
    except (LaminaError, OSError) as error:
        return [Answer(text=f"not answered: {error}", is_failure=True)] * len(probes)


def _ask_one(lab: Lab, probe: Probe) -> Answer:
    try:
        return Answer(text=probe.ask(lab))
    except RefusedError as error:
        return Answer(text=error.name)
    except (LaminaError, OSError) as error:
        return Answer(text=f"not answered: {error}", is_failure=True)


def names_of(directory: str) -> list[str]:
    """List a directory, sorted; empty if it isn't there."""
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []
