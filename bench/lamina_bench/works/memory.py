"""What an idle container costs in memory: the engine's process that stays beside each, 50 of them running."""

import time
from collections.abc import Iterator

from lamina_bench.engines import FOREVER, Engine
from lamina_bench.lab import Lab
from lamina_bench.report import Figures
from lamina_bench.work import Contender, FailedError, Missing
from lamina_bench.works.running import remove_all

CONTAINERS = 50
SETTLED_AFTER_S = 15
"""Processes may become smaller, or end, a while after a start."""


class Idle(Contender):
    """50 containers that sleep. What is measured is the parent of each one's first process: monitor, shim or conmon."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.name)
        self.engine = engine
        self._names = [engine.container(f"idle-{number}") for number in range(CONTAINERS)]

    def before(self) -> None:
        """Start them."""
        engine, image = self.engine, self.engine.image("busybox")
        for name in self._names:
            engine.run("run", "-d", "--name", name, "--net", "none", *engine.run_options, image, *FOREVER)
        time.sleep(SETTLED_AFTER_S)

    def run(self) -> Figures:
        """Add up the proportional set sizes (proc(5), smaps_rollup): memory that they share counts once for all of them."""
        parents = {parent(self.engine.pid(name)) for name in self._names}
        if len(parents) != CONTAINERS or 1 in parents:
            raise FailedError(f"{self.engine.name} has no process of its own for each container")
        return Figures(memory_bytes=sum(pss_bytes(pid) for pid in parents) / CONTAINERS)

    def after(self) -> None:
        """Remove them."""
        remove_all(self.engine, self._names)

    def tear_down(self) -> None:
        """Remove what a failure left."""
        self.after()


def idle(lab: Lab) -> Iterator[Contender | Missing]:
    """Each engine's process."""
    yield from lab.each(("lamina", "docker", "podman"), Idle)


def parent(pid: int) -> int:
    """Who started a process (proc(5), /proc/PID/stat, field 4)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])


def pss_bytes(pid: int) -> int:
    """A process's proportional set size."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    raise FailedError(f"the kernel doesn't tell the memory of process {pid}")
