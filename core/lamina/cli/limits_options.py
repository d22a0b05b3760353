"""The options of `run`, `create` and `update` about memory, processor, processes, devices, and how their texts become a `Limits`.

Its values are imported where an option asks for them: a container of which nothing is asked pays for nothing.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from lamina.errors import UsageError

if TYPE_CHECKING:
    from lamina.model.limits import Device, DeviceRate, Limits

UPDATE_OPTIONS = (
    click.option("--memory", "-m", default="", metavar="SIZE", help="The memory that it may use, such as 512m; at least 6m."),
    click.option("--memory-swap", default="", metavar="SIZE", help="Memory and swap together; -1 for no limit.  [twice --memory]"),
    click.option("--memory-reservation", default="", metavar="SIZE", help="What it keeps when the machine is short of memory."),
    click.option("--cpus", default="", metavar="NUMBER", help="Processors that it may use, such as 1.5."),
    click.option("--cpu-period", type=int, default=0, metavar="USEC", help="The time in which --cpu-quota counts.  [100000]"),
    click.option("--cpu-quota", type=int, default=0, metavar="USEC", help="Processor time that it may use in a period."),
    click.option("--cpu-shares", "-c", type=int, default=0, metavar="NUMBER", help="Its weight for processors.  [1024]"),
    click.option("--cpuset-cpus", default="", metavar="LIST", help="The processors that it may run on, such as 0-2,4."),
    click.option("--cpuset-mems", default="", metavar="LIST", help="The memory nodes that it may use."),
    click.option("--pids-limit", "pids", type=int, default=0, metavar="NUMBER", help="How many processes; -1 for no limit."),
    click.option("--blkio-weight", type=int, default=0, metavar="NUMBER", help="Its weight where disks are short, 10 to 1000."),
)  # fmt: skip

LIMITS_OPTIONS = (
    *UPDATE_OPTIONS,
    click.option("--memory-swappiness", type=int, default=-1, metavar="NUMBER", help="How gladly it is swapped out, 0 to 100."),
    click.option("--device-read-bps", multiple=True, metavar="DEVICE:SIZE", help="Bytes that it may read from a disk in a second."),
    click.option("--device-write-bps", multiple=True, metavar="DEVICE:SIZE", help="Bytes that it may write to a disk in a second."),
    click.option("--device-read-iops", multiple=True, metavar="DEVICE:NUMBER", help="Reads from a disk in a second."),
    click.option("--device-write-iops", multiple=True, metavar="DEVICE:NUMBER", help="Writes to a disk in a second."),
    click.option("--oom-kill-disable", is_flag=True, help="Let it wait for memory where it would be killed."),
    click.option("--cgroup-parent", default="", metavar="PATH", help="The cgroup in which its own is made.  [lamina]"),
    click.option("--device", "devices", multiple=True, metavar="HOST[:INSIDE[:rwm]]", help="Give it a device, or a directory's."),
    click.option("--device-cgroup-rule", "device_rules", multiple=True, metavar="RULE", help="Allow devices: 'c 10:229 rwm'."),
)  # fmt: skip

_CHANGEABLE = {
    "memory": "memory_bytes", "memory_swap": "memory_swap_bytes", "memory_reservation": "memory_reservation_bytes",
    "cpus": "nano_cpus", "cpu_period": "cpu_period_us", "cpu_quota": "cpu_quota_us", "cpu_shares": "cpu_shares",
    "cpuset_cpus": "cpuset_cpus", "cpuset_mems": "cpuset_mems", "pids": "pids", "blkio_weight": "blkio_weight",
}  # fmt: skip
"""Parameter of the command to field of `Limits`."""
_RATES = ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")
_SIZES = frozenset({"memory", "memory_swap", "memory_reservation"})


def read_limits(options: dict[str, Any]) -> "Limits | None":
    """Take this module's options out of all; give what they ask for, None for nothing. Raises `UsageError`."""
    values = read_changes(options)
    rates = {name: options.pop(name, ()) for name in _RATES}
    swappiness, disabled = options.pop("memory_swappiness", -1), options.pop("oom_kill_disable", False)
    parent, devices, rules = options.pop("cgroup_parent", ""), options.pop("devices", ()), options.pop("device_rules", ())
    if not (values or any(rates.values()) or swappiness != -1 or disabled or parent or devices or rules):
        return None
    from lamina.model.limits import Limits

    return Limits(
        **values, memory_swappiness=swappiness, oom_kill_disabled=disabled, cgroup_parent=parent,
        device_rates=tuple(_read_rate(text, name) for name, texts in rates.items() for text in texts),
        devices=tuple(_read_device(text) for text in devices), device_rules=tuple(rules),
    )  # fmt: skip


def read_changes(options: dict[str, Any]) -> Mapping[str, Any]:
    """Take the options of `update` out of all; give the fields of `Limits` that they set. Raises `UsageError`."""
    asked = {name: options.pop(name, "") for name in _CHANGEABLE}
    return {_CHANGEABLE[name]: _read_value(name, value) for name, value in asked.items() if value}


def _read_value(name: str, value: str | int) -> str | int:
    if name in _SIZES:
        return -1 if value == "-1" and name == "memory_swap" else _read_size(str(value))
    if name == "cpus":
        return _read_cpus(str(value))
    return value


def _read_size(text: str) -> int:
    from lamina.model.sizes import parse_size

    return parse_size(text)


def _read_cpus(text: str) -> int:
    """Read a number of processors without a float's rounding: "1.5" is 1,500,000,000 billionths."""
    whole, _, part = text.partition(".")
    if not (whole + part).isdecimal() or not (whole + part).isascii() or len(part) > 9 or len(whole) > 9:
        raise UsageError(f"invalid number of processors '{text}'", hint="give a number such as 1.5")
    return int(whole or 0) * 1_000_000_000 + int(part.ljust(9, "0") or 0)


def _read_rate(text: str, name: str) -> "DeviceRate":
    from lamina.model.limits import DeviceRate

    _, direction, unit = name.split("_")
    device, colon, rate = text.rpartition(":")
    if not colon or not device.startswith("/dev/"):
        raise UsageError(f"invalid rate '{text}'", hint="write DEVICE:RATE, as /dev/sda:1mb")
    if unit == "iops" and not (rate.isascii() and rate.isdecimal()):
        raise UsageError(f"invalid rate '{text}'", hint="operations in a second are a number")
    return DeviceRate(device=device, direction=direction, unit=unit, per_second=_read_size(rate))


def _read_device(text: str) -> "Device":
    from lamina.model.container import check_target
    from lamina.model.limits import Device

    parts: Sequence[str] = text.split(":")
    if len(parts) == 2 and _are_permissions(parts[1]):
        parts = (parts[0], parts[0], parts[1])
    if not 1 <= len(parts) <= 3 or not all(parts) or not parts[0].startswith("/"):
        raise UsageError(f"invalid device '{text}'", hint="write HOST[:CONTAINER[:rwm]], as /dev/fuse")
    if len(parts) == 3 and not _are_permissions(parts[2]):
        raise UsageError(f"invalid device '{text}'", hint="what may be done is some of r, w and m")
    target = check_target(parts[1] if len(parts) > 1 else parts[0], text)
    return Device(source=parts[0], target=target, permissions=parts[2] if len(parts) == 3 else "rwm")


def _are_permissions(text: str) -> bool:
    return 0 < len(text) <= 3 and set(text) <= set("rwm")
