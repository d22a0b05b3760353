"""A Python process that works through the library, `lamina.engine`, as another program would: opened once, then called often.

    python -m lamina_bench.library ROOT RUN_DIR DRIVER

Each line on standard input is a call, words parted by blanks; each line on standard output is its answer as JSON: seconds of wall
clock and of processor time. `Library` is the other end of it, for works.

    start IMAGE         a container that is there already: from its start until it is reaped
    whole IMAGE         the same from nothing, and until nothing is left
    mount IMAGE         a new layer on the image's ones: the driver's answer and the mount
    create IMAGE COUNT  so many containers, never started
"""

import json
import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamina.engine import Engine
    from lamina_bench.engines import Lamina

from lamina_bench.report import Figures
from lamina_bench.work import FailedError


class Library:
    """Such a process, for a Lamina; ended by `close`."""

    def __init__(self, lamina: "Lamina") -> None:
        words = [sys.executable, "-m", "lamina_bench.library", lamina.root, lamina.run_dir, lamina.driver]
        environment = {**os.environ, **lamina.env, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def call(self, *words: str) -> Figures:
        """Have something done; gives what it took there. Raises `FailedError`."""
        if self._process.stdin is None or self._process.stdout is None:
            raise FailedError("the library's process has no pipes")
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise FailedError(f"the library's process ended at '{' '.join(words)}' with {self._process.wait()}")
        found = json.loads(answer)
        if "error" in found:
            raise FailedError(f"'{' '.join(words)}' through the library: {found['error']}")
        return Figures(wall_s=found["wall_s"], cpu_s=found["cpu_s"])

    def close(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()


class Watch:
    """Wall clock and processor time of this process and its reaped children, between `begin` and `end`."""

    def begin(self) -> None:
        """Start it."""
        self._cpu_s = _cpu_s()
        self._began = time.perf_counter()

    def end(self) -> dict[str, float]:
        """What has gone by."""
        wall_s = time.perf_counter() - self._began
        return {"wall_s": wall_s, "cpu_s": _cpu_s() - self._cpu_s}


def start(engine: "Engine", image: str) -> dict[str, float]:
    """From a container's start until it is reaped."""
    container = engine.containers.create(image, ["true"], network="none")
    watch = Watch()
    watch.begin()
    code = container.start_attached()
    took = watch.end()
    container.remove()
    return _checked(code, took)


def whole(engine: "Engine", image: str) -> dict[str, float]:
    """From nothing until nothing is left."""
    watch = Watch()
    watch.begin()
    container = engine.containers.create(image, ["true"], network="none")
    code = container.start_attached()
    container.remove()
    return _checked(code, watch.end())


def mount(engine: "Engine", image: str) -> dict[str, float]:
    """A mount of a new layer on an image's, by the store's own call."""
    container = engine.containers.create(image, ["true"], network="none")
    record, layers = container.record, engine.context.layers
    driver = layers.driver(record.driver)
    watch = Watch()
    watch.begin()
    layers.mount(driver, record.id, record.parents)
    took = watch.end()
    layers.unmount(driver, record.id, record.parents)
    container.remove()
    return took


def create(engine: "Engine", image: str, count: str) -> dict[str, float]:
    """Many containers that are never started."""
    watch = Watch()
    watch.begin()
    for _ in range(int(count)):
        engine.containers.create(image, ["true"], network="none")
    return watch.end()


def serve(root: str, run_dir: str, driver: str) -> None:
    """Answer until standard input ends."""
    from lamina.engine import Engine
    from lamina.errors import LaminaError

    with Engine(root_dir=root, run_dir=run_dir, storage_driver=driver) as engine:
        for line in sys.stdin:
            name, image, *rest = line.split()
            try:
                match name:
                    case "start":
                        took = start(engine, image)
                    case "whole":
                        took = whole(engine, image)
                    case "mount":
                        took = mount(engine, image)
                    case _:
                        took = create(engine, image, *rest)
                print(json.dumps(took), flush=True)
            except (LaminaError, OSError) as error:
                print(json.dumps({"error": str(error)}), flush=True)


def _checked(code: int | None, took: dict[str, float]) -> dict[str, float]:
    if code != 0:
        raise OSError(f"the container ended with {code}")
    return took


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usages)


if __name__ == "__main__":
    serve(*sys.argv[1:])
