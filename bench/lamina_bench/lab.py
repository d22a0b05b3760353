"""A place for one run of the benchmark: a directory, namespaces, the engines that are here, images and a registry, made when
asked for.

All of it goes with the block: containers and images in every engine, processes, mounts, the directory.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from types import TracebackType
from typing import Self

from lamina.linux import mount as lm
from lamina.linux import mountinfo, namespace
from lamina_bench import disk
from lamina_bench.engines import ENGINES, Docker, Engine, Lamina
from lamina_bench.measure import Place, Spawner
from lamina_bench.samples import Samples
from lamina_bench.work import AbsentError, Contender, FailedError, Missing

UNIFIED = "/sys/fs/cgroup/unified"
PEERS = tuple(ENGINES)


class Lab:
    """What contenders work with."""

    def __init__(self, *, parent: str, chosen: Collection[str], lamina_program: str) -> None:
        self.lamina_program = lamina_program
        self._parent = parent
        self._chosen = chosen
        self._engines: dict[str, Engine | AbsentError] = {}
        self.stack = contextlib.ExitStack()
        self.one_cgroup_version: tuple[Place, ...] = ()
        self._registry = ""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.dir = tempfile.mkdtemp(prefix="lamina-bench-", dir=self._parent)
            stack.callback(self._remove_dir)
            self.prefix = os.path.basename(self.dir).lower().replace("_", "-").rstrip("-")
            self._own_mounts(stack)
            self.spawner = Spawner(self.dir)
            self.samples = Samples(f"{self.dir}/samples")
            empty = f"{self.dir}/home"
            os.makedirs(empty)
            self.lamina_env = {"LAMINA_CONFIG": "", "LAMINA_PULL": "never", "LAMINA_NETWORK": "none", "DOCKER_CONFIG": empty}
            self.lamina = Lamina(self)
            stack.callback(self.lamina.close)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stack.close()

    def engine(self, name: str) -> Engine:
        """An engine, looked for once. Raises `AbsentError`."""
        if name == "lamina":
            return self.lamina
        if name not in self._engines:
            try:
                if self._chosen and name not in self._chosen:
                    raise AbsentError("not among the engines that were asked for")
                engine = ENGINES[name](self)
                self.stack.callback(engine.close)
                self._engines[name] = engine
            except (AbsentError, FailedError) as error:
                self._engines[name] = AbsentError(str(error))
        found = self._engines[name]
        if isinstance(found, AbsentError):
            raise found
        return found

    def each(self, names: Collection[str], make: Callable[[Engine], Contender]) -> Iterator[Contender | Missing]:
        """A contender for each of the engines; in the place of one that isn't here, why."""
        for name in names:
            try:
                engine = self.engine(name)
            except AbsentError as error:
                yield Missing(label=name, reason=str(error))
            else:
                yield make(engine)

    def docker(self) -> Docker:
        """Docker. Raises `AbsentError`."""
        found = self.engine("docker")
        if not isinstance(found, Docker):
            raise AbsentError("no Docker")
        return found

    def saved(self, name: str) -> str:
        """A sample image as Lamina saves it, for engines that are given it."""
        path = f"{self.dir}/saved-{name}.tar"
        if not os.path.exists(path):
            self.lamina.run("save", "-o", path, self.lamina.image(name))
        return path

    def registry(self) -> str:
        """The address of a registry on loopback, started when first asked for. Raises `AbsentError`."""
        if not self._registry:
            if shutil.which("docker-registry") is None:
                raise AbsentError("docker-registry is not installed")
            self._registry = f"127.0.0.1:{_free_port()}"
            place = f"{self.dir}/registry"
            os.makedirs(place)
            with open(f"{place}/config.yml", "w", encoding="ascii") as file:
                file.write(
                    f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
                    f"storage: {{filesystem: {{rootdirectory: {place}/data}}}}\nhttp: {{addr: '{self._registry}'}}\n"
                )
            with open(f"{place}/log", "wb") as log:
                words = ["docker-registry", "serve", f"{place}/config.yml"]
                process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self.stack.callback(_end, process)
            wait_for(lambda: _answers(self._registry), "docker-registry listens", process)
        return self._registry

    def network(self) -> tuple[Place, ...]:
        """A network namespace of the benchmark's own, in which bridges and rules trouble nobody."""
        home_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.stack.callback(os.close, home_fd)
        namespace.unshare(namespace.CLONE_NEWNET)
        try:
            namespace.loopback_up()
            fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            namespace.setns(home_fd, namespace.CLONE_NEWNET)
        self.stack.callback(os.close, fd)
        return (Place(kind=namespace.CLONE_NEWNET, fd=fd, home_fd=home_fd),)

    def start(self, words: list[str], log_path: str) -> "subprocess.Popen[bytes]":
        """Start a process that ends with the benchmark."""
        with open(log_path, "wb") as log:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.stack.callback(_end, process)
        return process

    def _own_mounts(self, stack: contextlib.ExitStack) -> None:
        """Leave the machine's mount namespace; make a second one in which there is one version of cgroups only.

        crun and podman refuse a machine where cgroup 2 is mounted inside of cgroup 1's directory (systemd's "hybrid" layout).
        """
        namespace.unshare(namespace.CLONE_NEWNS)
        lm.make_private()
        if not disk.has_journal(self.dir):
            with contextlib.suppress(OSError, subprocess.CalledProcessError):  # no loop devices: then on what is there
                disk.mount_own(self.dir)
        if not any(each.target == UNIFIED for each in mountinfo.mounts()):
            return
        home_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, home_fd)
        namespace.unshare(namespace.CLONE_NEWNS)
        try:
            lm.make_private()
            lm.unmount(UNIFIED, detach=True)
            fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            namespace.setns(home_fd, namespace.CLONE_NEWNS)
        stack.callback(os.close, fd)
        self.one_cgroup_version = (Place(kind=namespace.CLONE_NEWNS, fd=fd, home_fd=home_fd),)

    def _remove_dir(self) -> None:
        for each in reversed([each.target for each in mountinfo.mounts() if f"{each.target}/".startswith(f"{self.dir}/")]):
            with contextlib.suppress(OSError):
                lm.unmount(each, detach=True)
        shutil.rmtree(self.dir, ignore_errors=True)
        if os.path.exists(self.dir):
            print(f"bench: '{self.dir}' could not be removed", file=sys.stderr)


def wait_for(question: Callable[[], bool], what: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait for a process to be ready. Raises `FailedError`."""
    deadline = time.monotonic() + 60
    while not question():
        if process.poll() is not None or time.monotonic() > deadline:
            raise FailedError(f"{what}: not within a minute, or it has ended")
        time.sleep(0.02)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
