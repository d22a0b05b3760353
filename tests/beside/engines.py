"""Lamina and Docker, each on a directory of its own: started, told things by command line, killed, started again.

Docker is a daemon of ours in mount, network and process namespaces of its own, so that nothing of the machine's is touched, and
what it has started ends with it. `dockerd`, `docker`, `containerd` and `runc` are those of PATH; `docker build` is BuildKit where
there is buildx.
"""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from random import Random

import leaks
from cases import PROGRAM, is_gone, wait_until

PATIENCE_S = 60.0
"""For a command, and for a daemon to answer."""
CGROUPS = Path("/sys/fs/cgroup")
SUPERVISOR = """
mount --make-rprivate / && mount -t proc proc /proc || exit
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys || exit
until test -e "$0"; do "$@"; done
"""
"""Starts the daemon again when it has died, as systemd does, until there is a file that says no. No setting of the kernel's is
its to change."""


class StartError(Exception):
    """An engine doesn't come up."""


class Engine(ABC):
    """An engine with all that it has in `root`, and in `run_dir` what a power cut takes."""

    name: str
    layer_homes: tuple[str, ...]
    """Where in `root` it has a file or a directory for each thing that it knows: patterns."""
    keeper_name: str
    """What its process is that stays with a running container."""
    refusals: tuple[str, ...] = ()
    """What it may say to a command that others are in the way of, by its documentation."""

    def __init__(self, root: Path, run_dir: Path, driver: str) -> None:
        self.root, self.run_dir, self.driver = root, run_dir, driver

    @abstractmethod
    def command(self, *words: str, driver: str = "") -> list[str]:
        """Give the words that a person would type."""

    @abstractmethod
    def start(self) -> None:
        """Come up. Raises `StartError`."""

    @abstractmethod
    def stop(self) -> None:
        """Go down as one is asked to."""

    @abstractmethod
    def cut(self) -> None:
        """End all processes at once."""

    @abstractmethod
    def kill(self, command: "subprocess.Popen[bytes]", random: Random) -> None:
        """Kill what is at work for a command: itself, or a daemon, which is started again."""

    @abstractmethod
    def wait_until_it_answers(self) -> None:
        """Wait until commands are taken. Raises `StartError` if that never comes."""

    @abstractmethod
    def daemons(self) -> dict[str, int]:
        """Give the processes that are there without any container: name to pid."""

    @abstractmethod
    def keeper(self, container: str) -> int:
        """Give the process that stays with a running container, whose parent it is."""

    @abstractmethod
    def mounts(self) -> list[str]:
        """List what is mounted where the engine mounts."""

    @abstractmethod
    def version(self) -> str:
        """Give its name and version."""

    def result(self, *words: str, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; one that takes longer has the exit code 124, as with timeout(1)."""
        try:
            return subprocess.run(
                self.command(*words), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 124, "", f"no end within {timeout_s:g} s")

    def __call__(self, *words: str) -> str:
        """Run a command that must not fail; gives its standard output without the last line's end."""
        done = self.result(*words)
        assert done.returncode == 0, f"{self.name} {words} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout.removesuffix("\n")

    def remove_all(self) -> list[str]:
        """Remove all that can be removed, trying more than once; gives what is still on the disk."""
        for _ in range(3):
            for listing, removal in (
                ("ps -a -q --no-trunc", "rm -f -v"), ("images -q --no-trunc", "rmi -f"), ("", "system prune -a -f --volumes"),
                ("", "volume prune -a -f"), ("", "builder prune -a -f"),
            ):  # fmt: skip
                named = sorted(set(self.result(*listing.split()).stdout.split())) if listing else []
                if named or not listing:
                    self.result(*removal.split(), *named)
            if not (left := self.known_files()):
                break
        return left

    def known_files(self) -> list[str]:
        """List what there is in `layer_homes`."""
        return sorted(str(each.relative_to(self.root)) for pattern in self.layer_homes for each in self.root.glob(pattern))

    @abstractmethod
    def close(self) -> None:
        """Leave nothing of it running, and no cgroup."""


class Lamina(Engine):
    """Lamina, which has no daemon: what is killed is a command."""

    name = "lamina"
    keeper_name = "monitor"
    layer_homes = (
        "overlay/[0-9a-f]*", "overlay/trash/*", "overlay/new/*", "overlay/l/*", "image/blobs/*/*", "containers/*", "tmp/*",
        "volumes/[!.]*",
    )  # fmt: skip

    def command(self, *words: str, driver: str = "") -> list[str]:
        return [PROGRAM, "--root", str(self.root), "--storage-driver", driver or self.driver, *words]

    def start(self) -> None:
        """There is nothing to start."""

    def stop(self) -> None:
        """There is nothing to stop."""

    def cut(self) -> None:
        """No process of it outlives a command but the monitors of containers."""

    def close(self) -> None:
        """What its containers have, goes with them."""

    def kill(self, command: "subprocess.Popen[bytes]", random: Random) -> None:
        command.kill()

    def wait_until_it_answers(self) -> None:
        """A command is there when it is said."""

    def daemons(self) -> dict[str, int]:
        return {}

    def keeper(self, container: str) -> int:
        return parent(int(self("inspect", "--format", "{{.State.Pid}}", container)))

    def mounts(self) -> list[str]:
        return mounts_of("self", self.root)

    def version(self) -> str:
        return self("--version")


class Docker(Engine):
    """A dockerd of ours, with the storage driver that it has by default."""

    name = "docker"
    keeper_name = "containerd-shim"
    layer_homes = (
        "overlay2/[!l]*", "overlay2/l/*", "image/overlay2/layerdb/sha256/*", "image/overlay2/layerdb/mounts/*", "containers/*",
        "image/overlay2/layerdb/tmp/*", "image/overlay2/imagedb/content/*/*", "volumes/*/", "tmp/*",
    )  # fmt: skip

    refusals = (
        "a prune operation is already running", "No such image", "no such image", "is using its referenced image",
        "is being used by",
    )  # fmt: skip

    def __init__(self, root: Path, run_dir: Path, driver: str) -> None:
        super().__init__(root, run_dir, "overlay2" if driver == "overlay" else driver)
        self.cgroup = f"lamina-beside-{os.getpid()}"
        self.stop_path = run_dir / "stop"
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0

    def command(self, *words: str, driver: str = "") -> list[str]:
        return ["docker", "--host", f"unix://{self.run_dir}/sock", *words]

    def start(self) -> None:
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.run_dir.mkdir(parents=True)
        daemon = [
            "dockerd", "--data-root", str(self.root), "--exec-root", f"{self.run_dir}/exec", "--pidfile", f"{self.run_dir}/pid",
            "--host", f"unix://{self.run_dir}/sock", "--storage-driver", self.driver, "--cgroup-parent", f"/{self.cgroup}",
            "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none",
        ]  # fmt: skip
        apart = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            SUPERVISOR,
            str(self.stop_path),
        ]
        with (self.run_dir / "log").open("wb") as log:
            self._process = subprocess.Popen([*apart, *daemon], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: children(self._process.pid) if self._process else (), "the daemon's init", 10)
        (self._init,) = children(self._process.pid)
        self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        """Wait for the daemon and its containerd. Raises `StartError` if they never answer."""
        deadline = time.monotonic() + PATIENCE_S
        components = ("version", "--format", "{{range .Server.Components}}{{.Name}} {{end}}")
        while "containerd" not in self.result(*components, timeout_s=10).stdout.split():
            if time.monotonic() > deadline:
                raise StartError((self.run_dir / "log").read_text(errors="replace").splitlines()[-1])
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self.stop_path.touch()
            with contextlib.suppress(ProcessLookupError, OSError):
                os.kill(self.daemons()["dockerd"], signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE_S)
        self.cut()

    def cut(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            wait_until(lambda: is_gone(self._init), "all of the daemon's have ended", PATIENCE_S)
            self._process = None

    def daemons(self) -> dict[str, int]:
        with socket.socket(socket.AF_UNIX) as connection:  # who listens there: unix(7), SO_PEERCRED
            connection.connect(f"{self.run_dir}/sock")
            pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return {"dockerd": pid, **{name_of(each): each for each in children(pid) if name_of(each) == "containerd"}}

    def kill(self, command: "subprocess.Popen[bytes]", random: Random) -> None:
        daemons = self.daemons()
        os.kill(daemons["containerd" if random.random() < 0.25 and "containerd" in daemons else "dockerd"], signal.SIGKILL)

    def keeper(self, container: str) -> int:
        whole_id = self("inspect", "--format", "{{.Id}}", container)
        (pid,) = [pid for pid, words in leaks.descendants().items() if f"-id {whole_id}" in words]
        return pid

    def mounts(self) -> list[str]:
        return mounts_of(self.daemons()["dockerd"], self.root)

    def version(self) -> str:
        return f"Docker {self('version', '--format', '{{.Server.Version}}')}"

    def close(self) -> None:
        self.stop()
        for top in CGROUPS.glob(f"*/{self.cgroup}"):
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


def mounts_of(pid: int | str, place: Path) -> list[str]:
    """List the mounts below a place that a process sees."""
    table = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8").splitlines()
    return [each for each in (line.split()[4] for line in table) if each.startswith(f"{place}/")]


def children(pid: int) -> list[int]:
    """Give a process's children, whichever of its threads has started them."""
    found = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(each) for each in listing.read_text(encoding="ascii").split()]
    return found


def parent(pid: int) -> int:
    """Give a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def name_of(pid: int) -> str:
    """Give a process's name."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return ""


ENGINES: dict[str, type[Engine]] = {"lamina": Lamina, "docker": Docker}
