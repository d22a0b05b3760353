"""Control groups: the hierarchies that this machine has, and one cgroup, by one name in all. No limits here, and no defaults.

Version 2 is one hierarchy for all controllers; version 1 has one for each, or for a few. A hybrid machine has both: controllers in
version 1, and beside them a version 2 hierarchy with the others, or with none.

A process enters a version 1 cgroup by `tasks`, which for itself alone is quick. By `cgroup.procs`, version 2's only way, the kernel
waits for a grace period of RCU, often 20 ms, because other threads might be there (cgroup_procs_write_start in its source).
So processes are born in a cgroup of version 2 (`process.fork_into`), which is left aside where version 1 has all that is needed.
Sources: cgroups(7), the kernel's cgroup-v2.rst, cgroup-v1/*.rst.
"""

import errno
import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator, Mapping

from lamina.linux.fs import read_bytes

MOUNT_POINT = "/sys/fs/cgroup"
TIMEOUT_S = 10.0
"""For what the kernel does after a write has returned: freezing, and the last steps of a killed process."""


class Hierarchies:
    """Where this machine's controllers are."""

    def __init__(self, controllers: Mapping[str, str], unified: str) -> None:
        self.controllers = controllers
        """Name to the mount point of its hierarchy. Disk throughput is `blkio` in version 1 and `io` in version 2."""
        self.unified = unified
        """The mount point of version 2, "" if it isn't mounted."""

    def version(self, controller: str) -> int:
        """1 or 2; 0 if this machine doesn't have the controller."""
        place = self.controllers.get(controller)
        return 0 if place is None else 2 if place == self.unified else 1

    @property
    def freezer(self) -> str:
        """The mount point of the hierarchy that freezes, "" if there is none: version 2 needs no controller for it."""
        return self.controllers.get("freezer", self.unified)


def hierarchies() -> Hierarchies:
    """Find what is mounted."""
    if os.path.exists(f"{MOUNT_POINT}/cgroup.controllers"):
        return Hierarchies(dict.fromkeys(read(f"{MOUNT_POINT}/cgroup.controllers").split(), MOUNT_POINT), MOUNT_POINT)
    found: dict[str, str] = {}
    unified = ""
    for line in read_bytes("/proc/self/mountinfo").split(b"\n"):
        if b" - cgroup" not in line:  # there may be thousands of others
            continue
        left, _, right = line.decode("utf-8", "surrogateescape").partition(" - ")
        place, kind = left.split(" ")[4], right.split()
        if kind[0] == "cgroup2" and not unified:
            unified = place
        elif kind[0] == "cgroup":
            for word in kind[2].split(","):
                found.setdefault(word, place)  # `rw` and `name=systemd` are no controllers, and nobody asks for them
    if unified:
        for controller in read(f"{unified}/cgroup.controllers").split():
            found.setdefault(controller, unified)
    return Hierarchies(found, unified)


class Cgroup:
    """One cgroup: the directories of one name in several hierarchies. Made by `make`; until then only a name."""

    def __init__(self, machine: Hierarchies, name: str) -> None:
        self.machine = machine
        self.name = name
        """Its path below each mount point, such as `lamina/ID`."""

    def directory(self, controller: str) -> str:
        """Where a controller that this machine has keeps it."""
        return f"{self.machine.controllers[controller]}/{self.name}"

    @property
    def parent(self) -> "Cgroup":
        """The cgroup above."""
        return Cgroup(self.machine, os.path.dirname(self.name))

    def directories(self, controllers: Collection[str]) -> list[str]:
        """Its directories for those of the controllers that this machine has, and the one that freezes, each once."""
        machine = self.machine
        places = [machine.controllers[each] for each in controllers if each in machine.controllers]
        if machine.unified and "devices" in controllers and "devices" not in machine.controllers:
            places.append(machine.unified)  # there a program keeps to the device rules
        if machine.freezer:
            places.append(machine.freezer)
        return [f"{place}/{self.name}" for place in dict.fromkeys(places)]

    def entrance(self, directory: str) -> str:
        """The file by which a process of one thread enters one of its directories, writing 0."""
        is_second = bool(self.machine.unified) and directory == f"{self.machine.unified}/{self.name}"
        return f"{directory}/{'cgroup.procs' if is_second else 'tasks'}"

    def make(self, controllers: Collection[str]) -> None:
        """Make it, with these controllers so far as this machine has them. What has its name is killed and replaced."""
        wanted = [each for each in controllers if each in self.machine.controllers]
        self.parent.make_parent(controllers)
        try:
            for directory in self.directories(controllers):
                os.mkdir(directory, 0o755)
        except FileExistsError:
            self.remove()
            for directory in self.directories(controllers):
                os.mkdir(directory, 0o755)
        if "cpuset" in wanted and self.machine.version("cpuset") == 1:
            inherit_cpuset(self.machine.controllers["cpuset"], self.name)

    def make_parent(self, controllers: Collection[str]) -> None:
        """Make it as one that has cgroups and no processes in it: each hands its controllers on. No error if it is there."""
        handed_on = [each for each in controllers if self.machine.version(each) == 2]
        for directory in self.directories(controllers):
            if not os.path.isdir(directory):
                os.makedirs(directory, 0o755, exist_ok=True)
        if handed_on and not _hands_on(f"{self.machine.unified}/{self.name}", handed_on):
            place = self.machine.unified
            for part in ("", *self.name.split("/")):
                place = f"{place}/{part}" if part else place
                if not _hands_on(place, handed_on):
                    write(f"{place}/cgroup.subtree_control", " ".join(f"+{each}" for each in handed_on))

    def add(self, controller: str) -> None:
        """Use one more controller for it and all that runs in it. No error if it does so already."""
        version = self.machine.version(controller)
        self.parent.make_parent([controller])
        if version == 2:
            return
        os.makedirs(self.directory(controller), 0o755, exist_ok=True)
        if controller == "cpuset":
            inherit_cpuset(self.machine.controllers[controller], self.name)
        procs = f"{self.directory(controller)}/cgroup.procs"
        while outside := set(self.pids()) - set(_pids(self.directory(controller))):
            for pid in outside:
                try:
                    write(procs, str(pid))
                except ProcessLookupError:
                    continue

    def has(self, controller: str, file: str) -> bool:
        """Whether a controller is there and has this file."""
        return controller in self.machine.controllers and os.path.exists(f"{self.directory(controller)}/{file}")

    def read(self, controller: str, file: str) -> str:
        """Read a controller's file."""
        return read(f"{self.directory(controller)}/{file}")

    def write(self, controller: str, file: str, *texts: str) -> None:
        """Write a controller's file, each text by itself."""
        write(f"{self.directory(controller)}/{file}", *texts)

    def pids(self) -> list[int]:
        """The pids of the processes in it and below it, as this process's PID namespace numbers them."""
        place = self.machine.freezer or next(iter(self.machine.controllers.values()), "")
        return sorted(pid for directory in _tree(f"{place}/{self.name}") for pid in _pids(directory))

    def set_frozen(self, *, frozen: bool) -> None:
        """Stop every process in it, or let them go on, and wait until it is so. Raises `TimeoutError`."""
        directory = f"{self.machine.freezer}/{self.name}"
        if self.machine.freezer == self.machine.unified:
            control, value, status, wanted = "cgroup.freeze", str(int(frozen)), "cgroup.events", f"frozen {int(frozen)}"
        else:
            control, value = "freezer.state", "FROZEN" if frozen else "THAWED"
            status, wanted = control, value
        write(f"{directory}/{control}", value)
        deadline = time.monotonic() + TIMEOUT_S
        while wanted not in read(f"{directory}/{status}"):
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "the cgroup can't be frozen", directory)
            time.sleep(0.002)

    def kill(self) -> None:
        """Send SIGKILL to every process in it and below it, those too that are being forked meanwhile."""
        if self.machine.freezer == self.machine.unified:
            try:
                write(f"{self.machine.unified}/{self.name}/cgroup.kill", "1")
            except FileNotFoundError:
                pass
        elif os.path.isdir(f"{self.machine.freezer}/{self.name}"):
            self.set_frozen(frozen=True)
            _kill_all(f"{self.machine.freezer}/{self.name}")
            self.set_frozen(frozen=False)

    def remove(self) -> None:
        """Kill what is left in it and delete it everywhere. No error if it is gone; may be repeated."""
        freezing = f"{self.machine.freezer}/{self.name}"
        for directory in self.directories([*self.machine.controllers, "devices"]):
            if directory != freezing:
                self._remove(directory)
        if self.machine.freezer:
            self._remove(freezing)  # last, because it is what kills

    def _remove(self, directory: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                os.rmdir(directory)
                return
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno not in {errno.EBUSY, errno.ENOTEMPTY} or time.monotonic() > deadline:
                    raise
            self.kill()
            _kill_all(directory)  # a process that was on its way in, and is here alone
            for below in _tree(directory)[:-1]:
                try:
                    os.rmdir(below)
                except OSError:
                    pass  # its processes are still ending
            time.sleep(0.001)


def inherit_cpuset(place: str, name: str) -> None:
    """Give a version 1 cpuset what the one above it has, if it has nothing: an empty one takes no process (cpusets.rst)."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        above = place
        for part in name.split("/"):
            path = f"{above}/{part}/{file}"
            if not read(path).strip():
                write(path, read(f"{above}/{file}").strip())
            above = f"{above}/{part}"


def read(path: str) -> str:
    """Read one of the kernel's files."""
    return read_bytes(path).decode("utf-8", "surrogateescape")


def write(path: str, *texts: str) -> None:
    """Write one of the kernel's files, each text by one write(2)."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for text in texts:
            os.write(fd, text.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def _hands_on(directory: str, controllers: Iterable[str]) -> bool:
    return set(controllers) <= set(read(f"{directory}/cgroup.subtree_control").split())


def _tree(directory: str) -> list[str]:
    """A cgroup and all below it, itself last."""
    return [place for place, _directories, _files in os.walk(directory, topdown=False)]


def _pids(directory: str) -> Iterator[int]:
    try:
        words = read(f"{directory}/cgroup.procs").split()
    except OSError:  # it is gone; a threaded one has no such list
        return
    for word in words:
        if word != "0":  # of a PID namespace that isn't below ours
            yield int(word)


def _kill_all(directory: str) -> None:
    opened: dict[int, int] = {}
    try:
        for place in _tree(directory):
            for pid in _pids(place):
                try:
                    opened[pid] = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
        still = {pid for place in _tree(directory) for pid in _pids(place)}  # then the descriptor is of that one
        for pid in opened.keys() & still:
            try:
                signal.pidfd_send_signal(opened[pid], signal.SIGKILL)
            except ProcessLookupError:
                continue
    finally:
        for fd in opened.values():
            os.close(fd)
