"""A Dockerfile of ten steps: built cold, after one line of a source has changed, and with nothing changed."""

import os
from collections.abc import Callable, Iterator
from enum import StrEnum

from lamina_bench.engines import Engine
from lamina_bench.lab import Lab
from lamina_bench.report import Figures
from lamina_bench.work import Contender, Missing
from lamina_bench.works.commands import OfEngine

DOCKERFILE = """FROM {base}
ENV STAGE=bench
WORKDIR /app
COPY requirements.txt .
RUN mkdir -p /opt/lib && for i in 1 2 3 4 5 6 7 8 9; do cp /bin/busybox /opt/lib/$i; done
RUN n=0; while [ $n -lt 500 ]; do echo $n > /opt/$n; n=$((n + 1)); done
COPY src src
RUN cat src/* | sha256sum > sum
RUN rm /opt/lib/9 && mv /opt/lib/8 /opt/lib/9
RUN chmod -R a-w src
CMD ["cat", "sum"]
"""


class How(StrEnum):
    """What is in the cache when a build begins."""

    COLD = "cold"
    CHANGE = "change"
    CACHED = "cached"


class Build(Contender):
    """`build`."""

    def __init__(self, engine: Engine, how: How) -> None:
        super().__init__(engine.name)
        self.engine, self._how = engine, how
        self._context = f"{engine.lab.dir}/context-{engine.name}-{how}"
        self._tag = engine.tag(f"built-{how}")
        self._round = 0

    def set_up(self) -> None:
        """Write the context, and build once so that there is something in the cache."""
        write_context(self._context, self.engine.image("busybox"))
        if self._how is not How.COLD:
            self._build()

    def before(self) -> None:
        """Change a line."""
        if self._how is How.CHANGE:
            self._round += 1
            with open(f"{self._context}/src/7.py", "w", encoding="ascii") as file:
                file.write(f"print({self._round}, '{self.engine.lab.prefix}')\n")

    def run(self) -> Figures:
        """Build."""
        return self._build(*(("--no-cache",) if self._how is How.COLD else ()))

    def after(self) -> None:
        """What was built cold goes again."""
        if self._how is How.COLD:
            self.engine.forget(f"built-{self._how}")

    def tear_down(self) -> None:
        """So does the rest."""
        self.engine.forget(f"built-{self._how}")

    def _build(self, *more: str) -> Figures:
        words = ("bud", "--layers") if self.engine.name == "buildah" else ("build",)
        quiet = ("-q",)
        return self.engine.run(*words, *quiet, *more, "--network", "none", "-t", self._tag, self._context)


def write_context(place: str, base: str) -> None:
    """Write the Dockerfile, and 20 sources of some KiB."""
    os.makedirs(f"{place}/src")
    with open(f"{place}/Dockerfile", "w", encoding="ascii") as file:
        file.write(DOCKERFILE.format(base=base))
    with open(f"{place}/requirements.txt", "w", encoding="ascii") as file:
        file.write(f"# {os.path.basename(place)}\n")
    for number in range(20):
        with open(f"{place}/src/{number}.py", "w", encoding="ascii") as file:
            file.write(f"print({number})\n" * 200)


def build(how: How) -> Callable[[Lab], Iterator[Contender | Missing]]:
    """`build`, beside docker's classic one and buildah's; the cached one beside `lamina version` too."""

    def make(lab: Lab) -> Iterator[Contender | Missing]:
        yield from lab.each(("lamina", "docker", "buildah"), lambda engine: Build(engine, how))
        if how is How.CACHED:
            version = OfEngine(lab.lamina, "version")
            version.label = "lamina version"
            yield version

    return make
