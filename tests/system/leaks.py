"""What a test may not leave behind: mounts, descriptors, processes, cgroups, network namespaces, locks, trash, half-made rows.

The machine's other processes are none of ours: a process counts if it descends from this one, which as a subreaper becomes the
parent of every monitor that its command left in the background; a cgroup counts if it is named after one of its containers.
"""

import contextlib
import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Set
from pathlib import Path

from lamina.engine import Engine
from lamina.linux import mountinfo, process
from lamina.linux.cgroup import hierarchies
from lamina.runtime.cgroups import PARENT

PATIENCE_S = 10.0
"""For what ends by itself: a monitor that is just finishing, a dead process that is being reaped."""


def descendants() -> dict[int, str]:
    """Every process below this one, dead ones that wait to be reaped too: pid to command line."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                parents[int(name)] = int(fields[1])
    found: dict[int, str] = {}
    wanted = {os.getpid()}
    while wanted:
        wanted = {pid for pid, parent in parents.items() if parent in wanted}
        for pid in wanted:
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                words = "(gone)"
            found[pid] = words or "(dead, not reaped)"
    return found


def reap(before: set[int]) -> None:
    """Reap the dead that fell to this process as their subreaper."""
    for pid in descendants().keys() - before:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def end(pids: Set[int]) -> None:
    """Kill processes of ours that should have gone, and reap them; the highest pids, a monitor's containers, first."""
    for pid in sorted(pids, reverse=True):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in sorted(pids, reverse=True):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def cgroups() -> set[str]:
    """The cgroups of containers, whoever's they are: those of other commands on this machine are in the same places."""
    machine = hierarchies()
    tops = {Path(place, PARENT) for place in (*machine.controllers.values(), machine.unified) if place}
    return {entry.path for top in tops if top.is_dir() for entry in os.scandir(top) if entry.is_dir()}


def left_cgroups(root: Path) -> list[str]:
    """Those of the containers that a root directory has had, by its journal of events."""
    journal = "".join(path.read_text(encoding="ascii") for path in root.glob("events.log*"))
    ids = set(re.findall(r'"id":"([0-9a-f]{64})"', journal))
    return sorted(path for path in cgroups() if os.path.basename(path) in ids)


def network_namespaces() -> set[str]:
    """The network namespaces that are kept alive below this process, or by a mount in this mount namespace."""
    found = {each.root for each in mountinfo.mounts() if each.fstype == "nsfs" and each.root.startswith("net:")}
    for pid in descendants():
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
    return found


def descriptors() -> dict[int, str]:
    """This process's open descriptors: number to what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return {number: what for number, what in found.items() if not what.endswith("/fd")}


def places() -> list[str]:
    """What is mounted in this mount namespace, and where."""
    return sorted(f"{each.fstype} on {each.target}" for each in mountinfo.mounts())


def rows(root: Path, query: str) -> list[tuple[object, ...]]:
    """Ask the database as it lies."""
    with contextlib.closing(sqlite3.connect(f"file:{root}/lamina.db?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def settle_and_remove(root: Path) -> None:
    """Remove every container and every volume of a root directory: what is still there afterwards has leaked."""
    with Engine(root_dir=str(root)) as engine:
        for container in engine.containers.all():
            container.remove(force=True, volumes=True)
        for volume in engine.volumes.all():
            engine.volumes.remove(volume.name)


def left_on_disk(root: Path) -> list[str]:
    """What a root directory without containers still has of them, of locks, of trash and of work half done."""
    found = [f"a row in operations: {row}" for row in rows(root, "SELECT name, pid FROM operations")]
    found += [f"a layer: {row}" for row in rows(root, "SELECT driver, state, key FROM layers WHERE state != 'sealed' OR operation")]
    found += [f"a container: {row}" for row in rows(root, "SELECT name, status FROM containers")]
    found += [f"a volume: {row}" for row in rows(root, "SELECT name, state FROM volumes")]
    found += [f"a user of a volume: {row}" for row in rows(root, "SELECT volume, container_id FROM volume_users")]
    folders = ("containers", "run/containers", "run/locks", "tmp", "volumes", "volumes/.removed")
    folders += tuple(f"{driver}/{name}" for driver in ("overlay", "aufs", "vfs") for name in ("trash", "new", "tmp", "ro"))
    for folder in folders:
        if (root / folder).is_dir():
            found += [f"a file: {folder}/{name}" for name in os.listdir(root / folder) if name != ".removed"]
    with Engine(root_dir=str(root)) as engine:
        known = {(row[0], row[1]) for row in rows(root, "SELECT driver, key FROM layers")}
        for name in ("overlay", "aufs", "vfs"):
            driver = engine.context.layers.driver(name)
            if os.path.isdir(driver.home):
                found += [f"a layer that nobody knows: {name} {key}" for key in set(driver.keys()) if (name, key) not in known]
    return found


@contextlib.contextmanager
def nothing_left(root: Path) -> Iterator[None]:
    """Run the block; then remove its containers, and fail for whatever is left of it anywhere."""
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    processes_before, mounts_before = descendants(), places()
    descriptors_before, networks_before = descriptors(), network_namespaces()
    mounted_below = len([each for each in mountinfo.mounts() if each.target.startswith(f"{root}/")])
    assert not mounted_below, "the root directory had mounts before the test"
    try:
        yield
        settle_and_remove(root)
    except BaseException:
        # The engine can't be relied upon: what it would have ended and removed goes this way.
        end(descendants().keys() - processes_before.keys())
        reap(set(processes_before))
        for path in left_cgroups(root):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        raise
    after: dict[str, Callable[[], object]] = {
        "processes": lambda: {pid: words for pid, words in descendants().items() if pid not in processes_before},
        "mounts": lambda: [place for place in places() if place not in mounts_before],
        "cgroups": lambda: left_cgroups(root),
        "network namespaces": lambda: network_namespaces() - networks_before,
        "descriptors": lambda: {key: what for key, what in descriptors().items() if descriptors_before.get(key) != what},
        "on disk": lambda: left_on_disk(root),
    }
    deadline = time.monotonic() + PATIENCE_S
    while left := {what: found for what, look in after.items() if (found := look())}:
        reap(set(processes_before))
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    end(descendants().keys() - processes_before.keys())
    assert not left, f"left behind: {left}"
