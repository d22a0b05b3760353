"""A container's shares of the machine, as asked for: memory, processor, processes, disk throughput, devices. No I/O.

None in a configuration that asks nothing. A named tuple; write its fields by keyword. How a share is held is `linux/cgroup.py`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self


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
    """Memory and swap together; -1 for as much swap as there is."""
    memory_reservation_bytes: int = 0
    nano_cpus: int = 0
    """Billionths of a processor."""
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int = 0
    """-1 for no limit, said."""
    blkio_weight: int = 0
    device_rates: tuple[DeviceRate, ...] = ()
    oom_kill_disabled: bool = False
    cgroup_parent: str = ""
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
