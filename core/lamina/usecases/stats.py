"""What containers use just now: processor, memory, network, disk, processes (`stats`). Figures are the kernel's own counts.

Sources: the kernel's cgroup-v2.rst, cgroup-v1/cpuacct.rst, memory.rst and blkio-controller.rst; what is shown of them
is Docker's choice (docker/cli: cli/command/container/stats_helpers.go).
"""

import os
import time

from lamina.dataclasses import dataclass
from lamina.linux import namespace
from lamina.linux.cgroup import Cgroup
from lamina.model.container import Container
from lamina.runtime.cgroups import own_cgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at one container; counts are since its start."""

    time_ns: int
    cpu_ns: int = 0
    memory_bytes: int = 0
    """Without the files' contents that the kernel would drop first: what Docker shows."""
    memory_limit_bytes: int = 0
    """Its limit, or the machine's memory."""
    received_bytes: int = 0
    sent_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    pids: int = 0

    def cpu_percent(self, before: "Sample | None") -> float:
        """How much of one processor it has used since an earlier look; 200.0 for two of them."""
        if before is None or self.time_ns <= before.time_ns:
            return 0.0
        return max(self.cpu_ns - before.cpu_ns, 0) * 100 / (self.time_ns - before.time_ns)

    @property
    def memory_percent(self) -> float:
        """How much of its limit it uses."""
        return self.memory_bytes * 100 / self.memory_limit_bytes if self.memory_limit_bytes else 0.0


def sample(container: Container) -> Sample | None:
    """Look at a container; None if it doesn't run."""
    if not container.is_active:
        return None
    cgroup = own_cgroup(container)
    time_ns = time.monotonic_ns()
    try:
        memory, limit = _memory(cgroup)
        received, sent = _network(container.pid)
        read, written = _disk(cgroup)
        return Sample(
            time_ns=time_ns, cpu_ns=_cpu_ns(cgroup), memory_bytes=memory, memory_limit_bytes=limit, received_bytes=received,
            sent_bytes=sent, read_bytes=read, written_bytes=written, pids=_pids(cgroup),
        )  # fmt: skip
    except OSError:
        if os.path.exists(f"/proc/{container.pid}"):
            raise
        return None  # it has just ended


def _cpu_ns(cgroup: Cgroup) -> int:
    if cgroup.machine.version("cpuacct") == 1:
        return int(cgroup.read("cpuacct", "cpuacct.usage"))
    if not cgroup.machine.unified:
        return 0
    return _field(cgroup.read("cpu", "cpu.stat"), "usage_usec") * 1000 if cgroup.has("cpu", "cpu.stat") else 0


def _memory(cgroup: Cgroup) -> tuple[int, int]:
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    version = cgroup.machine.version("memory")
    if not version:
        return 0, machine_bytes
    names = ("memory.current", "memory.max", "inactive_file")
    if version == 1:
        names = ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
    used, limit = int(cgroup.read("memory", names[0])), cgroup.read("memory", names[1]).strip()
    idle = _field(cgroup.read("memory", "memory.stat"), names[2])
    most = machine_bytes if limit == "max" else min(int(limit), machine_bytes)
    return used - idle if idle < used else used, most


def _pids(cgroup: Cgroup) -> int:
    return int(cgroup.read("pids", "pids.current")) if cgroup.machine.version("pids") else len(cgroup.pids())


def _disk(cgroup: Cgroup) -> tuple[int, int]:
    read = written = 0
    if cgroup.machine.version("io") == 2:
        for line in cgroup.read("io", "io.stat").splitlines():
            counts = dict(word.partition("=")[::2] for word in line.split()[1:])
            read += int(counts.get("rbytes", 0))
            written += int(counts.get("wbytes", 0))
    elif cgroup.has("blkio", "blkio.throttle.io_service_bytes_recursive"):
        for line in cgroup.read("blkio", "blkio.throttle.io_service_bytes_recursive").splitlines():
            words = line.split()
            if len(words) == 3:
                read += int(words[2]) if words[1] == "Read" else 0
                written += int(words[2]) if words[1] == "Write" else 0
    return read, written


def _network(pid: int) -> tuple[int, int]:
    """Count what its links have carried, lo left out; nothing for one that has the host's network."""
    if namespace.identity(pid, "net") == namespace.identity("self", "net"):
        return 0, 0
    received = sent = 0
    with open(f"/proc/{pid}/net/dev", encoding="ascii", errors="replace") as file:
        for line in list(file)[2:]:
            name, _, counts = line.partition(":")
            if name.strip() != "lo":
                words = counts.split()
                received, sent = received + int(words[0]), sent + int(words[8])
    return received, sent


def _field(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0)
