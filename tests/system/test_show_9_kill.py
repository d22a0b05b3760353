"""Kill a lamina process and all that it has started, at a system call, then run the next command: nothing is lost or half made.

strace(1) kills (SIGKILL) each process at its own n-th call of a kind: the monitor too, which `test_kill_commands.py` lets live. All
calls that change something are tried in the long form (`LAMINA_KILLS=all`, `make crash`); in the short one a spread of them, of
what has a monitor.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import DRIVERS

from lamina.engine import Engine
from lamina.errors import LaminaError
from lamina.linux import mountinfo, process

CHANGING = (
    "mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "symlink", "symlinkat", "link",
    "linkat", "mknod", "mknodat", "pwrite64", "fsync", "fdatasync", "syncfs", "mount", "umount2", "move_mount", "fsmount",
    "open_tree", "clone", "clone3", "vfork", "unshare", "setns", "pivot_root", "execve", "fchmod", "fchown", "utimensat",
    "setxattr", "fsetxattr", "removexattr", "sendto", "copy_file_range", "flock",
)  # fmt: skip

SCENARIOS = {
    "run": "engine.containers.output('busybox', ['sh', '-c', 'echo hi > /f; rm /etc/passwd'])",
    "detached": "engine.containers.run('busybox', ['sleep', '0.2'], name='detached').wait()",
    "create and remove": "engine.containers.create('busybox', ['true'], mounts=[VOLUME]).remove(volumes=True)",
    "commit": "engine.containers.get('kept').commit('made')",
    "load": "load(engine.images.store, open(os.environ['ARCHIVE'], 'rb'))",
    "remove an image": "engine.images.remove('extra', force=True)",
}
"""Each is one Python statement with an open engine; `kept` is a stopped container, `extra` an image nobody uses."""
SHORT = ("run", "detached")

PROGRAM = """
import os, sys
from lamina.engine import Engine
from lamina.model.container import MountRequest
from lamina.store.image_archive import load
VOLUME = MountRequest(type='volume', target='/etc')
engine = Engine(root_dir=sys.argv[1], storage_driver=sys.argv[2], warn=print)
{statement}
os._exit(0)
"""


@pytest.fixture(params=["overlay", "aufs", "vfs"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(root_dir: str, driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A root directory with `busybox`, the stopped container `kept` with a change in it, the image `extra`, and an archive."""
    from lamina.model.reference import Reference
    from lamina.store.image_archive import SavedImage, save

    root = os.path.join(root_dir, "root")
    with Engine(root_dir=root, storage_driver=driver) as engine:
        engine.images.bootstrap("busybox")
        kept = engine.containers.create("busybox", ["sh", "-c", "echo kept > /kept"], name="kept")
        assert kept.start_attached() == 0
        extra = engine.containers.create("busybox", ["sh", "-c", "echo extra > /extra"])
        extra.start_attached()
        image = extra.commit("extra")
        extra.remove()
        archive = tmp_path / "archive.tar"
        with archive.open("wb") as out:
            save(engine.images.store, [SavedImage(image=image, names=(Reference.parse("loaded"),))], out)
        engine.containers.output("extra", ["true"])
        if engine.context.host.names("storage") and driver:
            engine.images.remove("extra")
            image = engine.containers.get("kept").commit("extra", changes=["LABEL x=y"])
    monkeypatch.setenv("ARCHIVE", str(archive))
    return root


def test_a_kill_at_any_call_loses_and_leaves_nothing(store: str, driver: str, tmp_path: Path) -> None:
    long_form = os.environ.get("LAMINA_KILLS") == "all"
    runs = killed = 0
    for scenario, statement in SCENARIOS.items():
        if not long_form and scenario not in SHORT:
            continue
        program = PROGRAM.format(statement=statement)
        reset(store, driver)
        calls = list(traced_calls(program, store, driver, tmp_path / "trace"))
        assert len(calls) > 10, f"{scenario}: strace saw only {calls}"
        step = 1 if long_form else max(1, len(calls) // 3)
        first = DRIVERS.index(driver) * step // len(DRIVERS)  # each driver is killed at other calls
        for name, number in calls[first::step]:
            reset(store, driver)
            runs += 1
            killed += run_killed(program, store, driver, name, number)
            check(store, driver, f"{scenario}, killed at {name} number {number}")
    assert killed > runs // 2, f"only {killed} of {runs} runs were killed"


def traced_calls(program: str, root: str, driver: str, trace: Path) -> Iterator[tuple[str, int]]:
    """Run the program whole and give each changing call as (name, which one of that name in its process)."""
    subprocess.run(
        ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={','.join(CHANGING)}", sys.executable, "-c", program, root, driver],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
    seen: Counter[tuple[str, str]] = Counter()
    given = set()
    for line in trace.read_text(errors="replace").splitlines():
        pid, _, rest = line.partition(" ")
        name = rest.strip().partition("(")[0]
        if name in CHANGING:
            seen[pid, name] += 1
            point = (name, seen[pid, name])
            if point not in given:
                given.add(point)
                yield point


def run_killed(program: str, root: str, driver: str, name: str, number: int) -> bool:
    """Run the program with every process of it killed at its own n-th call of that name; says whether the first one was."""
    kill = ["-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={number}"]
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", *kill, sys.executable, "-c", program, root, driver],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    return done.returncode != 0


def reset(root: str, driver: str) -> None:
    """Bring the store to where each scenario begins."""
    with Engine(root_dir=root, storage_driver=driver) as engine:
        for container in engine.containers.all():
            if container.name != "kept":
                container.remove(force=True, volumes=True)
        for name in ("made", "loaded"):
            try:
                engine.images.remove(name)
            except LaminaError:
                pass
        engine.volumes.prune()
        try:
            engine.images.get("extra")
        except LaminaError:
            engine.containers.get("kept").commit("extra", changes=["LABEL x=y"])


def check(root: str, driver: str, when: str) -> None:
    """Open the store as the next command does, and hold the disk against what it says."""
    wait_for_processes(root, when)
    warnings: list[str] = []
    with Engine(root_dir=root, storage_driver=driver, warn=warnings.append) as engine:
        assert not warnings, f"{when}: {warnings}"
        connection = engine.context.database.connection
        assert not connection.execute("SELECT * FROM operations").fetchall(), f"{when}: operations are left"
        for container in engine.containers.all():  # what a detached run left is a whole container, true to its state
            assert container.status in {"created", "exited"}, f"{when}: {container.name} is {container.status}"
        assert engine.containers.get("kept").diff(), f"{when}: the kept container has lost its change"
        assert engine.containers.output("busybox", ["echo", "whole"]) == "whole\n", f"{when}: the image doesn't run"
        for name in ("made", "loaded", "extra"):
            try:
                engine.images.get(name)
            except LaminaError:
                continue  # not there is as good as there
            assert engine.containers.output(name, ["echo", "whole"]) == "whole\n", f"{when}: the image {name} doesn't run"
        storage = engine.context.layers.driver(driver)
        recorded = {row["key"] for row in connection.execute("SELECT key FROM layers WHERE driver = ?", (driver,))}
        assert set(storage.keys()) == recorded, f"{when}: the driver's folder and the database differ"
        states = {row["state"] for row in connection.execute("SELECT state FROM layers")}
        assert states <= {"sealed", "writable"}, f"{when}: {states}"
        known = {container.id for container in engine.containers.all()}
        assert set(os.listdir(os.path.join(root, "containers"))) == known, f"{when}: container folders"
        assert set(os.listdir(os.path.join(root, "run", "containers"))) <= known, f"{when}: run folders"
    left = [each.target for each in mountinfo.mounts() if each.target.startswith(root + "/")]
    assert not left, f"{when}: mounts are left: {left}"
    for trash in (os.path.join(root, driver, "trash"), os.path.join(root, "tmp")):
        assert not os.path.isdir(trash) or not os.listdir(trash), f"{when}: {trash} isn't empty"


def wait_for_processes(root: str, when: str) -> None:
    """Give what was orphaned a moment to end by itself; what then still runs has been forgotten."""
    deadline = time.monotonic() + 20
    while True:
        left = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if root.encode() in words and process.start_time(int(name)) is not None:
                    left.append(int(name))
        if not left:
            return
        assert time.monotonic() < deadline, f"{when}: processes are left: {left}"
        time.sleep(0.02)
