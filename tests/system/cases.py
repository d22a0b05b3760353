"""What tests of the whole say things with: the command line on a root directory of the test's own, and waiting for what must come.

Not here: terminals (`terminals.py`), archives to load (`archives.py`), what a test may not leave behind (`leaks.py`).
"""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from lamina.engine import Engine

DRIVERS = ("overlay", "aufs", "vfs")
SLOWNESS = 5 if os.environ.get("LAMINA_VM") else 1
"""How much longer than elsewhere everything may take: in the virtual machine the processor may be emulated."""
PROGRAM = str(Path(sys.executable).with_name("lamina"))
FOREVER = ("sleep", "1000000")
"""A command that runs on. As PID 1 it has no handler for TERM, so that it must be killed."""


each_driver = pytest.mark.parametrize("driver", DRIVERS, indirect=True)
"""For a test of a file where each has one driver, that shall have all."""


def driver_of(request: pytest.FixtureRequest) -> str:
    """For a file whose tests show the same on every driver: one for each test by its name, so that each driver has some."""
    return str(getattr(request, "param", "")) or DRIVERS[crc32(request.node.name.encode()) % len(DRIVERS)]


class Lamina:
    """The command line on one root directory, with a storage driver unless a call names another."""

    def __init__(self, root: Path, driver: str) -> None:
        self.root = root
        self.driver = driver

    def command(self, *words: str, driver: str = "") -> list[str]:
        """The words that a person would type."""
        return [PROGRAM, "--root", str(self.root), "--storage-driver", driver or self.driver, *words]

    def result(
        self, *words: str, driver: str = "", stdin: str | None = None, timeout_s: float = 60, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*words, driver=driver), capture_output=True, text=True, timeout=timeout_s * SLOWNESS, check=False,
            env={**os.environ, **(env or {})}, **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
        )  # fmt: skip

    def __call__(self, *words: str, code: int = 0, driver: str = "", stdin: str | None = None, timeout_s: float = 60) -> str:
        """Run a command that must end with `code`; gives its standard output without the last line's end."""
        done = self.result(*words, driver=driver, stdin=stdin, timeout_s=timeout_s)
        assert done.returncode == code, f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout.removesuffix("\n")

    def error(self, *words: str, code: int, driver: str = "") -> str:
        """Run a command that must fail with `code` and one line on standard error; gives that line."""
        done = self.result(*words, driver=driver)
        assert done.returncode == code, f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}"
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: "), done.stderr
        return lines[0]

    def background(self, *words: str, driver: str = "") -> str:
        """Run a container in the background; gives its id."""
        return self("run", "-d", *words, driver=driver)

    def show(self, name: str, template: str) -> str:
        """What `inspect --format` says."""
        return self("inspect", "--format", template, name)

    def library(self) -> Engine:
        """The engine as a library, for what is only looked up: a test waits less."""
        return Engine(root_dir=str(self.root), storage_driver=self.driver)

    def pid(self, name: str) -> int:
        """The host's pid of a container's first process."""
        with self.library() as engine:
            return engine.containers.get(name).pid

    def status(self, name: str) -> str:
        """Where a container is in its life."""
        with self.library() as engine:
            return engine.containers.get(name).status

    def merged(self, name: str) -> Path:
        """Where the host sees a container's root."""
        with self.library() as engine:
            return Path(engine.containers.get(name).inspect()["GraphDriver"]["Data"]["MergedDir"])

    def document(self, name: str, kind: str = "container") -> dict[str, Any]:
        """The whole `inspect` document of a container or an image."""
        (found,) = json.loads(self(kind, "inspect", name))
        assert isinstance(found, dict)
        return found

    def diff_ids(self, image: str) -> list[str]:
        """An image's layers, lowest first."""
        with self.library() as engine:
            return list(engine.images.inspect(image)["RootFS"]["Layers"])

    def layer_keys(self, image: str) -> list[str]:
        """The keys of an image's layers, lowest first: their chain IDs by the OCI image specification (config.md)."""
        chain, keys = "", []
        for diff_id in self.diff_ids(image):
            chain = diff_id if not chain else f"sha256:{sha256(f'{chain} {diff_id}'.encode()).hexdigest()}"
            keys.append(chain.removeprefix("sha256:"))
        return keys

    def home(self, driver: str = "") -> Path:
        """A driver's own folder."""
        return self.root / (driver or self.driver)

    def layer_dirs(self, key: str, driver: str = "") -> list[Path]:
        """Everything that a driver keeps of one layer, so far as it is there."""
        home = self.home(driver)
        places = {
            "overlay": [home / key / name for name in ("diff", "link", "lower")],
            "aufs": [home / "diff" / key, home / "layers" / key, home / "companions" / key],
            "vfs": [home / "dir" / key],
        }  # fmt: skip
        return [place for place in places[driver or self.driver] if place.exists()]


def own_dir(lamina: Lamina, container_id: str) -> Path:
    """The directory with a container's own layer."""
    home = lamina.home()
    return {
        "overlay": home / container_id / "diff",
        "aufs": home / "diff" / container_id,
        "vfs": home / "dir" / container_id,
    }[lamina.driver]


def wait_until(question: Callable[[], object], what: str, timeout_s: float = 10) -> None:
    """Wait until the answer is true, or fail saying what never came."""
    deadline = time.monotonic() + timeout_s * SLOWNESS
    while not question():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether there is no such process, or a dead one that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


def namespaces(pid: int | str) -> dict[str, str]:
    """Every namespace of a process: kind to link."""
    folder = f"/proc/{pid}/ns"
    return {kind: os.readlink(f"{folder}/{kind}") for kind in sorted(os.listdir(folder))}


def fingerprint(places: Sequence[Path]) -> dict[str, tuple[object, ...]]:
    """Everything about every file at and below these places but its access time: what two equal ones show was never written to.

    Inode numbers and change times are in it, so that a file that was replaced by its equal, or changed and changed back, is seen.
    """
    return {str(path): _facts(path) for place in places for path in _walk(place)}


def _walk(place: Path) -> Iterator[Path]:
    yield place
    if place.is_dir() and not place.is_symlink():
        for folder, directories, files in os.walk(place):
            yield from (Path(folder, name) for name in sorted([*directories, *files]))


def _facts(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    if stat.S_ISREG(found.st_mode):
        content = sha256(path.read_bytes()).hexdigest()
    else:
        content = os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""
    attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
    return (
        found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_ino, found.st_rdev, found.st_size, found.st_mtime_ns,
        found.st_ctime_ns, content, tuple(sorted(attributes.items())),
    )  # fmt: skip


def disk_bytes(*places: Path) -> int:
    """What du(1) counts below these places: blocks, a file with several names once."""
    done = subprocess.run(
        ["du", "--summarize", "--block-size=1", "--total", *map(str, places)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.splitlines()[-1].split()[0])
