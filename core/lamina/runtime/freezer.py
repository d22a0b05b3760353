"""Pause and unpause by the kernel's freezer: every process of a container stops where it is, unseen by itself and its parents.

The version 2 freezer (`cgroup.freeze`, a core file that needs no controller) is used wherever a version 2 hierarchy is mounted,
beside version 1 too; otherwise version 1's freezer controller. A container's processes stay in the caller's cgroup until they are
paused; then they are moved into one of their own, and back when they go on. Sources: cgroups(7), the kernel's
cgroup-v2.rst and freezer-subsystem.rst.
"""

import os
import time

from lamina.dataclasses import dataclass
from lamina.errors import StateError
from lamina.linux import mount
from lamina.runtime.processes import pids_in

FREEZE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """Where the freezer is, and how it is spoken to."""

    path: str
    version: int

    def cgroup(self, container_id: str) -> str:
        """The cgroup that a paused container is in."""
        return os.path.join(self.path, f"lamina-{container_id}")

    def set_frozen(self, cgroup: str, *, frozen: bool) -> None:
        """Freeze or thaw a cgroup and wait until it is so."""
        if self.version == 2:
            control, value, status, wanted = "cgroup.freeze", "1" if frozen else "0", "cgroup.events", f"frozen {int(frozen)}"
        else:
            control, value = "freezer.state", "FROZEN" if frozen else "THAWED"
            status, wanted = control, value
        _write(os.path.join(cgroup, control), value)
        deadline = time.monotonic() + FREEZE_TIMEOUT_S
        while wanted not in _read(os.path.join(cgroup, status)):
            if time.monotonic() > deadline:
                raise StateError(
                    "the container's processes could not be frozen", hint="a process waits in the kernel; try again later"
                )
            time.sleep(0.002)


def find_hierarchy() -> Hierarchy:
    """Find a hierarchy with a freezer among this machine's mounts."""
    mounts = mount.mounts()
    for entry in mounts:
        if entry.fstype == "cgroup2":
            return Hierarchy(path=entry.target, version=2)
    for entry in mounts:
        if entry.fstype == "cgroup" and entry.target.endswith("/freezer"):
            return Hierarchy(path=entry.target, version=1)
    raise StateError("this machine has no freezer", hint="mount a cgroup2 file system at /sys/fs/cgroup")


def freeze(container_id: str, pid: int) -> str:
    """Stop every process of the container; returns the cgroup from which they were taken, for `thaw`."""
    hierarchy = find_hierarchy()
    home = _own_cgroup(hierarchy, pid)
    cgroup = hierarchy.cgroup(container_id)
    os.makedirs(cgroup, exist_ok=True)
    try:
        _move_all(pid, cgroup)
        hierarchy.set_frozen(cgroup, frozen=True)
        _move_all(pid, cgroup)  # children of those that were still running while the others were moved
        return home
    except BaseException:
        thaw(container_id, home)
        raise


def thaw(container_id: str, home: str) -> None:
    """Let the processes go on, put them back where they were, and delete the cgroup; no error if it is gone."""
    hierarchy = find_hierarchy()
    cgroup = hierarchy.cgroup(container_id)
    if not os.path.isdir(cgroup):
        return
    hierarchy.set_frozen(cgroup, frozen=False)
    target = os.path.join(home or hierarchy.path, "cgroup.procs")
    for _ in range(100):
        pids = _read(os.path.join(cgroup, "cgroup.procs")).split()
        for pid in pids:
            try:
                _write(target, pid)
            except OSError:
                continue  # it has ended
        try:
            os.rmdir(cgroup)
            return
        except OSError:
            time.sleep(0.01)  # processes that are just ending still count


def _own_cgroup(hierarchy: Hierarchy, pid: int) -> str:
    return cgroup_named(_read(f"/proc/{pid}/cgroup"), hierarchy)


def cgroup_named(text: str, hierarchy: Hierarchy) -> str:
    """Read /proc/PID/cgroup: the path of the cgroup that the process is in, in this hierarchy (cgroups(7))."""
    for line in text.split("\n"):  # a cgroup's name may have any other character
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (hierarchy.version == 2 and number == "0") or (hierarchy.version == 1 and "freezer" in controllers.split(",")):
            return os.path.join(hierarchy.path, path.lstrip("/"))
    return hierarchy.path


def _move_all(pid: int, cgroup: str) -> None:
    """Move every process of the container in; what a process forks inside is inside too, so this comes to an end."""
    procs = os.path.join(cgroup, "cgroup.procs")
    while True:
        inside = set(_read(procs).split())
        outside = [each for each in pids_in(pid) if str(each) not in inside]
        if not outside:
            return
        for each in outside:
            try:
                _write(procs, str(each))
            except ProcessLookupError:
                continue


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
