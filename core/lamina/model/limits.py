"""A container's shares of the machine, as asked for: memory, processor, processes, disk throughput, devices. No I/O.

None in a configuration that asks nothing. A named tuple; write its fields by keyword. What the kernel's files are given for it is
`runtime/limits.py`. Rules and smallest values are Docker's (moby: daemon/daemon_unix.go, verifyPlatformContainerResources).
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from lamina.errors import UsageError

LEAST_MEMORY_BYTES = 6 << 20
CPU_PERIOD_US = 100_000
"""In which `--cpus` counts, and `--cpu-quota` where no `--cpu-period` is given: the kernel's own."""
_CPUS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_DEVICE_RULE = re.compile(r"[acb] (\d+|\*):(\d+|\*) [rwm]{1,3}")


class DeviceRate(NamedTuple):
    """One `--device-read-bps` or its like."""

    device: str
    """The block device's path on the host."""
    direction: str
    """`read` or `write`."""
    unit: str
    """`bps` or `iops`."""
    per_second: int


class Device(NamedTuple):
    """One `--device HOST[:CONTAINER[:PERMISSIONS]]`."""

    source: str
    target: str
    permissions: str = "rwm"


class Limits(NamedTuple):
    """One container's limits; 0, "" and empty for none."""

    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    """Memory and swap together; -1 for as much swap as there is; 0 for twice the memory."""
    memory_reservation_bytes: int = 0
    memory_swappiness: int = -1
    """0 to 100, -1 for the machine's."""
    nano_cpus: int = 0
    """Billionths of a processor."""
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpu_shares: int = 0
    """Of version 1, 2 to 262144; 1024 is everybody's."""
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int = 0
    """-1 for no limit, said."""
    blkio_weight: int = 0
    """10 to 1000."""
    device_rates: tuple[DeviceRate, ...] = ()
    oom_kill_disabled: bool = False
    cgroup_parent: str = ""
    """A path below the root of each hierarchy."""
    devices: tuple[Device, ...] = ()
    device_rules: tuple[str, ...] = ()
    """`c 1:3 rwm` and its like, as `--device-cgroup-rule` takes them."""

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {
            **self._asdict(),
            "device_rates": [list(each) for each in self.device_rates],
            "devices": [list(each) for each in self.devices],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the stored form."""
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
        values["device_rates"] = tuple(DeviceRate(*each) for each in document.get("device_rates", ()))
        values["devices"] = tuple(Device(*each) for each in document.get("devices", ()))
        return cls(**values)

    def checked(self, *, processors: int) -> Self:
        """Return it if it can be meant on a machine of so many processors; else raise `UsageError`."""
        self._check_memory()
        self._check_processor(processors)
        if self.blkio_weight and not 10 <= self.blkio_weight <= 1000:
            raise UsageError(f"invalid block I/O weight {self.blkio_weight}", hint="give 10 to 1000")
        if self.pids < -1:
            raise UsageError(f"invalid limit of processes {self.pids}", hint="give a number, or -1 for no limit")
        for rate in self.device_rates:
            if rate.per_second <= 0:
                raise UsageError(f"invalid rate {rate.per_second} of device '{rate.device}'", hint="give a positive number")
        for rule in self.device_rules:
            if not _DEVICE_RULE.fullmatch(rule):
                raise UsageError(f"invalid device rule '{rule}'", hint="write KIND MAJOR:MINOR ACCESS, as 'c 10:229 rwm'")
        parts = self.cgroup_parent.strip("/").split("/")
        if self.cgroup_parent and any(part in {"", ".", ".."} for part in parts):
            raise UsageError(f"invalid parent cgroup '{self.cgroup_parent}'", hint="write a path without '.' and '..', as /mine")
        return self

    def _check_memory(self) -> None:
        memory, both, reserved = self.memory_bytes, self.memory_swap_bytes, self.memory_reservation_bytes
        for what, size in (("memory limit", memory), ("memory reservation", reserved)):
            if size and size < LEAST_MEMORY_BYTES:
                raise UsageError(f"the {what} of {size} bytes is too small", hint="the least is 6m")
        if both and not memory:
            raise UsageError("--memory-swap, which is memory and swap together, needs --memory")
        if both > 0 and both < memory:
            raise UsageError("--memory-swap, which is memory and swap together, is smaller than --memory")
        if both < -1:
            raise UsageError(f"invalid --memory-swap {both}", hint="give a size, or -1 for no limit of swap")
        if reserved and memory and reserved > memory:
            raise UsageError("--memory-reservation is larger than --memory")
        if not -1 <= self.memory_swappiness <= 100:
            raise UsageError(f"invalid swappiness {self.memory_swappiness}", hint="give 0 to 100, or -1 for the machine's")
        if self.oom_kill_disabled and not memory:
            raise UsageError("--oom-kill-disable without --memory would stop the whole machine", hint="give --memory too")

    def _check_processor(self, processors: int) -> None:
        if self.nano_cpus and (self.cpu_period_us or self.cpu_quota_us):
            raise UsageError("--cpus is a quota in a period: it can't be combined with --cpu-period or --cpu-quota")
        if self.nano_cpus and not 10_000_000 <= self.nano_cpus <= processors * 1_000_000_000:
            raise UsageError(
                f"invalid --cpus {self.nano_cpus / 1e9:g}", hint=f"give 0.01 to {processors}: this machine has {processors}"
            )
        if self.cpu_period_us and not 1000 <= self.cpu_period_us <= 1_000_000:
            raise UsageError(f"invalid --cpu-period {self.cpu_period_us}", hint="give 1000 to 1000000 microseconds")
        if self.cpu_quota_us and self.cpu_quota_us != -1 and self.cpu_quota_us < 1000:
            raise UsageError(f"invalid --cpu-quota {self.cpu_quota_us}", hint="give at least 1000 microseconds, or -1 for none")
        if self.cpu_shares and not 2 <= self.cpu_shares <= 262144:
            raise UsageError(f"invalid --cpu-shares {self.cpu_shares}", hint="give 2 to 262144; 1024 is everybody's")
        for what, text in (("--cpuset-cpus", self.cpuset_cpus), ("--cpuset-mems", self.cpuset_mems)):
            if text and not _CPUS.fullmatch(text):
                raise UsageError(f"invalid {what} '{text}'", hint="write numbers and ranges, as 0-2,4")


def numbers_of(text: str) -> set[int]:
    """Read a list of processors or memory nodes: `0-2,4`."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
