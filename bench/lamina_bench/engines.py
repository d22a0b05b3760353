"""How each engine is called, given an image, and left as it was found.

An engine that isn't here raises `AbsentError` when it is made. Podman and buildah have a storage of the benchmark's own; Docker's
daemon is shared with others, so all that is made there has names with the benchmark's prefix, and is taken away by them.
"""

import contextlib
import json
import os
import shutil
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lamina_bench.measure import Command, Place
from lamina_bench.report import Figures
from lamina_bench.work import AbsentError, FailedError

if TYPE_CHECKING:
    from lamina_bench.lab import Lab

FOREVER = ("sleep", "1000000")


class Engine:
    """An engine as its command line. `name` is that of its program, too."""

    name = ""
    namespaces: tuple[Place, ...] = ()
    daemon_pids: tuple[int, ...] = ()
    run_options: tuple[str, ...] = ()
    """What every `run` and `create` needs on this machine."""

    def __init__(self, lab: "Lab") -> None:
        self.lab = lab
        self.env: Mapping[str, str] = {}
        self._given: set[str] = set()
        if shutil.which(self.name) is None:
            raise AbsentError(f"{self.name} is not installed")

    def words(self, *words: str) -> tuple[str, ...]:
        """The words of a command."""
        return (self.name, *words)

    def command(self, *words: str, stdin_path: str = "/dev/null") -> Command:
        """A command, ready to be run."""
        return Command(
            words=self.words(*words),
            env=self.env,
            stdin_path=stdin_path,
            namespaces=self.namespaces,
            daemon_pids=self.daemon_pids,
        )

    def run(self, *words: str, fine: Sequence[int] = (0,), stdin_path: str = "/dev/null") -> Figures:
        """Run a command to its end and time it."""
        return self.lab.spawner.run(self.command(*words, stdin_path=stdin_path), fine=fine)

    def output(self, *words: str) -> str:
        """What a command prints."""
        return self.lab.spawner.output(self.command(*words))

    def try_to(self, *words: str) -> None:
        """Run a command that may fail: taking away what may not be there."""
        with contextlib.suppress(FailedError):
            self.run(*words)

    def version(self) -> str:
        """Its version, in one line."""
        return self.output("--version").splitlines()[0]

    def image(self, name: str) -> str:
        """What a sample image is called there; given to the engine if it hasn't it yet."""
        called = self._called(name)
        if name not in self._given:
            self._give(name, called)
            self._given.add(name)
        return called

    def container(self, name: str) -> str:
        """What a container of the benchmark is called."""
        return f"{self.lab.prefix}-{name}"

    def tag(self, name: str) -> str:
        """What an image that is made there is called."""
        return self._called(name)

    def remove(self, container: str) -> None:
        """Remove a container, running or not, if it is there."""
        self.try_to("rm", "-f", container)

    def forget(self, name: str) -> None:
        """Take a sample image away."""
        self._given.discard(name)
        self.try_to("rmi", "-f", self._called(name))

    def pid(self, container: str) -> int:
        """The host's pid of a container's first process."""
        return int(self.output("inspect", "--format", "{{.State.Pid}}", container))

    def close(self) -> None:
        """Take away all that the benchmark made there."""

    def _called(self, name: str) -> str:
        return f"{self.lab.prefix}/{name}"

    def _give(self, name: str, called: str) -> None:
        raise NotImplementedError


class Lamina(Engine):
    """Lamina on a root directory of its own, by default the one of all works."""

    name = "lamina"

    def __init__(self, lab: "Lab", *, root: str = "", driver: str = "overlay", namespaces: tuple[Place, ...] = ()) -> None:
        self.lab = lab
        self.root = root or f"{lab.dir}/lamina"
        self.run_dir = f"{lab.dir}/run{self.root.removeprefix(lab.dir)}"
        self.driver = driver
        self.env = lab.lamina_env
        self.namespaces = namespaces
        self._given = set()

    def words(self, *words: str) -> tuple[str, ...]:
        """The words of a command."""
        return (self.lab.lamina_program, "--root", self.root, "--run-dir", self.run_dir, "--storage-driver", self.driver, *words)

    def close(self) -> None:
        """Remove its containers, so that nothing of it is mounted or runs."""
        if os.path.exists(self.root):
            containers = self.output("ps", "-a", "-q", "--no-trunc").split()
            for begin in range(0, len(containers), 200):
                self.run("rm", "-f", *containers[begin : begin + 200])

    def _give(self, name: str, called: str) -> None:
        self.run("load", "-q", "-i", self.lab.samples.archive(name, called))


class Docker(Engine):
    """Docker by the daemon that DOCKER_HOST names, or the machine's own."""

    name = "docker"

    def __init__(self, lab: "Lab", *, host: str = "", namespaces: tuple[Place, ...] = ()) -> None:
        super().__init__(lab)
        self.env = {"DOCKER_BUILDKIT": "0", **({"DOCKER_HOST": host} if host else {})}
        self.namespaces = namespaces
        try:
            self.server = self.output("version", "--format", "{{.Server.Version}}")
        except FailedError as error:
            raise AbsentError(f"no Docker daemon answers: {error}") from None
        self.daemon_pids = daemon_pids(host or os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))

    def version(self) -> str:
        """The client's and the daemon's."""
        return f"{super().version()}, daemon {self.server}"

    def has_bridge(self) -> bool:
        """Whether the daemon has its default network."""
        return bool(self.output("network", "ls", "-q", "--filter", "name=^bridge$"))

    def close(self) -> None:
        """Remove containers and images by the benchmark's prefix."""
        if containers := self.output("ps", "-a", "-q", "--filter", f"name=^{self.lab.prefix}-").split():
            self.try_to("rm", "-f", *containers)
        if images := self.output("images", "--format", "{{.Repository}}:{{.Tag}}", f"{self.lab.prefix}*/*").split():
            self.try_to("rmi", "-f", *images)
        if images := self.output("images", "--format", "{{.Repository}}:{{.Tag}}", f"127.0.0.1:*/{self.lab.prefix}*").split():
            self.try_to("rmi", "-f", *images)

    def _give(self, name: str, called: str) -> None:
        self.run("load", "-q", "-i", self.lab.saved(name))


class Containers(Engine):
    """What podman and buildah share: a storage, and a mount namespace without cgroup 2 beside cgroup 1."""

    def __init__(self, lab: "Lab") -> None:
        super().__init__(lab)
        self.namespaces = lab.one_cgroup_version
        if shutil.which("skopeo") is None:
            raise AbsentError("skopeo is not installed, by which it is given images")

    @property
    def storage(self) -> tuple[str, ...]:
        """The options that name the storage."""
        return (
            "--root",
            f"{self.lab.dir}/containers",
            "--runroot",
            f"{self.lab.dir}/run/containers",
            "--storage-driver",
            "overlay",
        )

    def words(self, *words: str) -> tuple[str, ...]:
        """The words of a command."""
        return (self.name, *self.storage, *words) if words != ("--version",) else (self.name, *words)

    def _called(self, name: str) -> str:
        return f"localhost/{self.lab.prefix}/{name}"

    def _give(self, name: str, called: str) -> None:
        place = f"containers-storage:[overlay@{self.lab.dir}/containers+{self.lab.dir}/run/containers]{called}:latest"
        words = ("skopeo", "copy", "--insecure-policy", "-q", f"docker-archive:{self.lab.saved(name)}", place)
        self.lab.spawner.run(Command(words=words, namespaces=self.namespaces))


class Podman(Containers):
    """Podman. The limits given are below what an unprivileged machine may raise; the default ones would be refused there."""

    name = "podman"
    run_options = ("--ulimit", "nofile=1000:1000", "--ulimit", "nproc=9000:9000")

    def words(self, *words: str) -> tuple[str, ...]:
        """The words of a command."""
        found = super().words(*words)
        return found if words == ("--version",) else (*found[:1], "--cgroup-manager", "cgroupfs", *found[1:])

    def remove(self, container: str) -> None:
        """Remove a container, running or not, if it is there."""
        self.try_to("rm", "-f", "-t", "0", container)

    def close(self) -> None:
        """Remove its containers."""
        self.try_to("rm", "-a", "-f", "-t", "0")


class Buildah(Containers):
    """Buildah, with the runtime that it has by default."""

    name = "buildah"

    def forget(self, name: str) -> None:
        """Take an image away, and those below it that have no name."""
        self.try_to("rmi", "-f", self._called(name))
        self.try_to("rmi", "--prune")


class Crun(Engine):
    """The bare runtime."""

    name = "crun"

    def __init__(self, lab: "Lab") -> None:
        super().__init__(lab)
        self.namespaces = lab.one_cgroup_version

    def words(self, *words: str) -> tuple[str, ...]:
        """The words of a command."""
        return (self.name, *words) if words == ("--version",) else (self.name, "--root", f"{self.lab.dir}/run/crun", *words)

    def bundle(self) -> str:
        """Make a bundle of the image `busybox` whose command is `true`; gives its directory."""
        place = f"{self.lab.dir}/bundle"
        lamina, container = self.lab.lamina, self.container("bundle")
        os.makedirs(f"{place}/rootfs", exist_ok=True)
        lamina.run("create", "--name", container, "--net", "none", lamina.image("busybox"), "true")
        lamina.run("export", "-o", f"{place}.tar", container)
        lamina.remove(container)
        self.lab.spawner.run(Command(words=("tar", "-xf", f"{place}.tar", "-C", f"{place}/rootfs")))
        self._spec(place)
        return place

    def _spec(self, place: str) -> None:
        here = os.getcwd()
        os.chdir(place)
        try:
            self.lab.spawner.run(Command(words=("crun", "spec")))
        finally:
            os.chdir(here)
        with open(f"{place}/config.json", encoding="utf-8") as file:
            spec = json.load(file)
        spec["process"] |= {"terminal": False, "args": ["true"]}
        with open(f"{place}/config.json", "w", encoding="utf-8") as file:
            json.dump(spec, file)


class Umoci(Engine):
    """umoci, which unpacks layouts."""

    name = "umoci"


ENGINES: dict[str, type[Engine]] = {
    "docker": Docker,
    "podman": Podman,
    "buildah": Buildah,
    "crun": Crun,
    "umoci": Umoci,
}


def daemon_pids(host: str) -> tuple[int, ...]:
    """The processes of the daemon behind a socket, containerd among them: who listens there (unix(7), SO_PEERCRED), and its
    children."""
    path = host.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except OSError:
            return ()
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        children = [int(each) for each in file.read().split()]
    return (pid, *children)
