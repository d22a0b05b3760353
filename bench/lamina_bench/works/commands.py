"""Works of one command: version, exec, ps, inspect, images."""

import sys
from collections.abc import Callable, Iterator

from lamina_bench.engines import FOREVER, Engine
from lamina_bench.lab import Lab
from lamina_bench.measure import Command
from lamina_bench.report import Figures
from lamina_bench.work import Contender, Missing

KNOWN = 10
"""Containers that ps lists."""


class Line(Contender):
    """A command line that is no engine's."""

    def __init__(self, lab: Lab, label: str, *words: str) -> None:
        super().__init__(label)
        self._spawner, self._command = lab.spawner, Command(words=words)

    def run(self) -> Figures:
        """Run it."""
        return self._spawner.run(self._command)


class OfEngine(Contender):
    """A command of an engine, beside a running container and some that were made only."""

    def __init__(self, engine: Engine, *words: str, containers: int = 0) -> None:
        super().__init__(engine.name)
        self.engine, self._words, self._containers = engine, words, containers

    def set_up(self) -> None:
        """Run one container, make the others."""
        engine = self.engine
        image = engine.image("busybox")
        if self._containers:
            engine.run("run", "-d", "--name", engine.container("main"), "--net", "none", *engine.run_options, image, *FOREVER)
        for number in range(1, self._containers):
            name = engine.container(f"other-{number}")
            engine.run("create", "--name", name, "--net", "none", *engine.run_options, image, "true")

    def run(self) -> Figures:
        """Run it."""
        return self.engine.run(*self._words)

    def tear_down(self) -> None:
        """Remove them."""
        for name in ("main", *(f"other-{number}" for number in range(1, self._containers))):
            if self._containers:
                self.engine.remove(self.engine.container(name))


Makes = Callable[[Lab], Iterator[Contender | Missing]]


def version(lab: Lab) -> Iterator[Contender | Missing]:
    """`lamina version` beside a Python that does nothing."""
    yield OfEngine(lab.lamina, "version")
    yield Line(lab, "python -c pass", sys.executable, "-c", "pass")


def of_all(*words: str, peers: tuple[str, ...], containers: int) -> Makes:
    """The same command in Lamina and its peers; `main` among the words is a running container's name."""

    def make(lab: Lab) -> Iterator[Contender | Missing]:
        def one(engine: Engine) -> Contender:
            named = tuple(engine.container("main") if word == "main" else word for word in words)
            return OfEngine(engine, *named, containers=containers)

        yield from lab.each(("lamina", *peers), one)

    return make
