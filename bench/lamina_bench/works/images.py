"""A big image comes: from an archive, and from a registry on loopback. The end is that a container can be made of it at once."""

import os
from collections.abc import Iterator

from lamina_bench.engines import Engine, Lamina
from lamina_bench.lab import Lab
from lamina_bench.report import Figures
from lamina_bench.work import AbsentError, Contender, Missing


class Comes(Contender):
    """A command of an engine by which the image comes; afterwards it goes again."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.name)
        self.engine = engine
        self._image = ""

    def run(self) -> Figures:
        """Have it come. Making the first container is part of it: Lamina may unpack only then what came from a pipe."""
        took = self.engine.run(*self.words())
        if isinstance(self.engine, Lamina):
            name = self.engine.container("first")
            more = self.engine.run("create", "--name", name, "--net", "none", self._image, "true")
            return Figures(wall_s=took.wall_s + more.wall_s, cpu_s=took.cpu_s + more.cpu_s)
        return took

    def words(self) -> tuple[str, ...]:
        """The command."""
        raise NotImplementedError

    def after(self) -> None:
        """Take it away."""
        if isinstance(self.engine, Lamina):
            self.engine.remove(self.engine.container("first"))
        self.engine.try_to("rmi", "-f", self._image)


class Load(Comes):
    """`load` of an archive in Docker's form, which all of them read, whose one layer is a gzip."""

    def set_up(self) -> None:
        """Make the archive."""
        samples = self.engine.lab.samples
        called = self.engine.lab.prefix + "/big"
        self._path, self._image = samples.big_docker_archive(called), called

    def words(self) -> tuple[str, ...]:
        """The command."""
        return ("load", "-q", "-i", self._path)


class Unpack(Contender):
    """umoci's unpacking of the same layer out of a layout."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.name)
        self._engine = engine
        self._bundle = f"{engine.lab.dir}/umoci"

    def set_up(self) -> None:
        """Make the layout."""
        self._engine.lab.samples.big_layout()

    def run(self) -> Figures:
        """Unpack."""
        return self._engine.run("unpack", "--image", f"{self._engine.lab.samples.big_layout()}:latest", self._bundle)

    def after(self) -> None:
        """Take it away."""
        import shutil

        shutil.rmtree(self._bundle, ignore_errors=True)

    def tear_down(self) -> None:
        """Take away what a failure left."""
        self.after()


class Pull(Comes):
    """`pull` from a registry on loopback, by plain HTTP."""

    def set_up(self) -> None:
        """Push the image there, once, by Lamina: its layer goes as it came."""
        lab = self.engine.lab
        self._image = f"{lab.registry()}/{lab.prefix}/big:latest"
        if not os.path.exists(f"{lab.dir}/pushed"):
            called = f"{lab.prefix}/big"
            lab.lamina.run("load", "-q", "-i", lab.samples.big_docker_archive(called))
            lab.lamina.run("tag", called, self._image)
            lab.lamina.run("push", "-q", self._image)
            lab.lamina.run("rmi", called, self._image)
            os.mkdir(f"{lab.dir}/pushed")

    def words(self) -> tuple[str, ...]:
        """The command."""
        more = ("--tls-verify=false",) if self.engine.name == "podman" else ()
        return ("pull", "-q", *more, self._image)


def load(lab: Lab) -> Iterator[Contender | Missing]:
    """`load`, and umoci."""
    yield from lab.each(("lamina", "docker", "podman"), Load)
    yield from lab.each(("umoci",), Unpack)


def pull(lab: Lab) -> Iterator[Contender | Missing]:
    """`pull`."""
    try:
        lab.registry()
    except AbsentError as error:
        yield Missing(label="lamina", reason=str(error))
        return
    yield from lab.each(("lamina", "docker", "podman"), Pull)
