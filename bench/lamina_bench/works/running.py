"""A container from nothing to its end: by command, through the library beside crun, on the bridge, many at once, and among many."""

import os
from collections.abc import Callable, Iterator

from lamina_bench.engines import FOREVER, Crun, Docker, Engine, Lamina
from lamina_bench.lab import Lab, wait_for
from lamina_bench.library import Library
from lamina_bench.report import Figures
from lamina_bench.work import AbsentError, Contender, FailedError, Missing

MANY, AT_ONCE = 100, 8
CONTAINERS, IMAGES, FEW = 10_000, 1000, 10


class RunTrue(Contender):
    """`run --rm` of `true`."""

    def __init__(self, engine: Engine, network: str, *, label: str = "", image: str = "busybox") -> None:
        super().__init__(label or engine.name)
        self.engine, self._network, self._sample = engine, network, image
        self._words: tuple[str, ...] = ()

    def set_up(self) -> None:
        """Give the engine the image."""
        image = self.engine.image(self._sample)
        self._words = ("run", "--rm", "--net", self._network, *self.engine.run_options, image, "true")

    def run(self) -> Figures:
        """Run it."""
        return self.engine.run(*self._words)


class InLibrary(Contender):
    """A call of the library in one Python process."""

    def __init__(self, lamina: Lamina, call: str, *, label: str, image: str = "busybox") -> None:
        super().__init__(label)
        self._lamina, self._call, self._sample = lamina, call, image
        self._library: Library | None = None
        self._image = ""

    def set_up(self) -> None:
        """Start the process."""
        self._image = self._lamina.image(self._sample)
        self._library = Library(self._lamina)

    def run(self) -> Figures:
        """Have it called."""
        if self._library is None:
            raise FailedError("the library's process wasn't started")
        return self._library.call(self._call, self._image)

    def tear_down(self) -> None:
        """End the process."""
        if self._library is not None:
            self._library.close()
            self._library = None


class CrunRun(Contender):
    """`crun run` of `true` on a prepared root, with crun's own default configuration."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("crun")
        self._engine = engine
        self._words: tuple[str, ...] = ()

    def set_up(self) -> None:
        """Prepare the root."""
        if not isinstance(self._engine, Crun):
            raise AbsentError("no crun")
        self._words = ("run", "-b", self._engine.bundle(), self._engine.container("true"))

    def run(self) -> Figures:
        """Run it."""
        return self._engine.run(*self._words)


class ManyAtOnce(Contender):
    """`run -d` of 100 containers that stay, 8 commands at a time."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.name)
        self.engine = engine
        self._names = [engine.container(f"many-{number}") for number in range(MANY)]

    def run(self) -> Figures:
        """Start them."""
        engine, image = self.engine, self.engine.image("busybox")
        commands = [
            engine.command("run", "-d", "--name", name, "--net", "none", *engine.run_options, image, *FOREVER)
            for name in self._names
        ]
        return engine.lab.spawner.run_all(commands, at_once=AT_ONCE)

    def before(self) -> None:
        """See that the image is there, so that the first round doesn't pay for it."""
        self.engine.image("busybox")

    def after(self) -> None:
        """Remove them."""
        remove_all(self.engine, self._names)

    def tear_down(self) -> None:
        """Remove what a failure left."""
        self.after()


class AmongMany(RunTrue):
    """`run` of one more where so many containers and images are known."""

    def __init__(self, lamina: Lamina, containers: int, images: int) -> None:
        super().__init__(lamina, "none", label=f"{containers:,} known")
        self._lamina, self._containers, self._images = lamina, containers, images

    def set_up(self) -> None:
        """Make them, through the library."""
        super().set_up()
        lab = self._lamina.lab
        self._lamina.run("load", "-q", "-i", lab.samples.many_images(f"{lab.prefix}/many", self._images))
        library = Library(self._lamina)
        try:
            library.call("create", self._lamina.image("busybox"), str(self._containers))
        finally:
            library.close()

    def tear_down(self) -> None:
        """Nothing: the root directory goes with the benchmark, and none of its containers has run on."""


class OwnDaemon(RunTrue):
    """Docker by a daemon with a bridge, started in a network namespace of the benchmark's own."""

    def __init__(self, lab: Lab, network: str, daemon: "Daemon") -> None:
        Contender.__init__(self, f"docker {network}")
        self._lab, self._network, self._sample, self._daemon = lab, network, "busybox", daemon

    def set_up(self) -> None:
        """Start the daemon, unless the other contender has."""
        self.engine = self._daemon.engine()
        super().set_up()


class Daemon:
    """A dockerd with its bridge, in a network of its own; ends with the benchmark."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._engine: Docker | None = None

    def engine(self) -> Docker:
        """Docker by it. Raises `AbsentError`."""
        import shutil

        if self._engine is None:
            if shutil.which("dockerd") is None:
                raise AbsentError("dockerd is not installed")
            from lamina_bench.measure import entered

            lab, places = self._lab, self._lab.network()
            base = f"{lab.dir}/dockerd"
            os.makedirs(base)
            path = f"{base}/docker.sock"
            with entered(places):
                process = lab.start(
                    [
                        "dockerd",
                        "--data-root",
                        f"{base}/data",
                        "--exec-root",
                        f"{base}/exec",
                        "-H",
                        f"unix://{path}",
                        "-p",
                        f"{base}/pid",
                    ],
                    f"{base}/log",
                )
            wait_for(lambda: os.path.exists(path), "dockerd listens", process)
            self._engine = Docker(lab, host=f"unix://{path}")
            lab.stack.callback(self._engine.close)
        return self._engine


def run(network: str) -> Callable[[Lab], Iterator[Contender | Missing]]:
    """`run --rm --net NETWORK true`."""
    return lambda lab: lab.each(("lamina", "docker", "podman"), lambda engine: RunTrue(engine, network))


def library(lab: Lab) -> Iterator[Contender | Missing]:
    """The library beside crun."""
    yield InLibrary(lab.lamina, "start", label="lamina.engine")
    yield InLibrary(lab.lamina, "whole", label="lamina.engine, create to remove")
    yield from lab.each(("crun",), CrunRun)


def many(lab: Lab) -> Iterator[Contender | Missing]:
    """100 containers, 8 at a time."""
    yield from lab.each(("lamina", "docker", "podman"), ManyAtOnce)


def known(lab: Lab) -> Iterator[Contender | Missing]:
    """One more of few and of many."""
    yield AmongMany(Lamina(lab, root=f"{lab.dir}/few"), FEW, FEW)
    yield AmongMany(Lamina(lab, root=f"{lab.dir}/many"), CONTAINERS, IMAGES)


def bridge(lab: Lab) -> Iterator[Contender | Missing]:
    """What a bridge costs, in a network namespace of the benchmark's own."""
    lamina = Lamina(lab, namespaces=lab.network())
    yield RunTrue(lamina, "none", label="lamina none")
    yield RunTrue(lamina, "bridge", label="lamina bridge")
    try:
        lab.engine("docker")
    except AbsentError as error:
        yield Missing(label="docker bridge", reason=str(error))
    else:
        daemon = Daemon(lab)
        yield OwnDaemon(lab, "none", daemon)
        yield OwnDaemon(lab, "bridge", daemon)


def remove_all(engine: Engine, names: list[str]) -> None:
    """Remove many containers."""
    words = ("rm", "-f", "-t", "0") if engine.name == "podman" else ("rm", "-f")
    engine.try_to(*words, *names)
