"""A container's limits as what the kernel's files are given, in either version of cgroups; and what this machine can't hold.

A limit that the machine has no file for is refused, never left out. Sources: the kernel's cgroup-v2.rst, cgroup-v1/memory.rst,
blkio-controller.rst, sched-bwc.rst; for the conversions the OCI runtime specification (config-linux.md) and runc.
"""

import errno
import math
import os
import stat
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lamina.errors import NotFoundError, StateError, UsageError
from lamina.linux.cgroup import Cgroup, Hierarchies, hierarchies
from lamina.model.limits import CPU_PERIOD_US, DeviceRate, Limits, numbers_of
from lamina.runtime.cgroups import CONTROLLERS, PARENT


class Setting(NamedTuple):
    """One write to one of the kernel's files; `option` is what asked for it."""

    option: str
    controller: str
    file: str
    value: str


def settings(limits: Limits, machine: Hierarchies) -> list[Setting]:
    """Say what is to be written, in order. Raises `StateError` for what this version of cgroups doesn't have, `NotFoundError`."""
    return [*_memory(limits, machine), *_processor(limits, machine), *_disk(limits, machine)]


def _memory(limits: Limits, machine: Hierarchies) -> Iterable[Setting]:
    second = machine.version("memory") == 2
    memory, both = limits.memory_bytes, limits.memory_swap_bytes
    if memory:
        yield Setting("--memory", "memory", "memory.max" if second else "memory.limit_in_bytes", str(memory))
        implied = both == 0
        both = memory * 2 if implied else both
        option = "" if implied else "--memory-swap"  # what nobody asked for is not refused where it can't be held
        if second:
            yield Setting(option, "memory", "memory.swap.max", "max" if both < 0 else str(both - memory))
        else:
            yield Setting(option, "memory", "memory.memsw.limit_in_bytes", str(both))
    if limits.memory_reservation_bytes:
        file = "memory.low" if second else "memory.soft_limit_in_bytes"
        yield Setting("--memory-reservation", "memory", file, str(limits.memory_reservation_bytes))
    if limits.memory_swappiness >= 0:
        yield Setting("--memory-swappiness", "memory", "memory.swappiness", str(limits.memory_swappiness))  # version 1 alone
    if limits.oom_kill_disabled:
        yield Setting("--oom-kill-disable", "memory", "memory.oom_control", "1")  # version 1 alone


def _processor(limits: Limits, machine: Hierarchies) -> Iterable[Setting]:
    second = machine.version("cpu") == 2
    period = limits.cpu_period_us or CPU_PERIOD_US
    quota = limits.nano_cpus * CPU_PERIOD_US // 1_000_000_000 if limits.nano_cpus else limits.cpu_quota_us
    option = "--cpus" if limits.nano_cpus else "--cpu-quota" if limits.cpu_quota_us else "--cpu-period"
    if quota or limits.cpu_period_us:
        if second:
            yield Setting(option, "cpu", "cpu.max", f"{quota if quota > 0 else 'max'} {period}")
        else:
            yield Setting(option, "cpu", "cpu.cfs_period_us", str(period))
            if quota:
                yield Setting(option, "cpu", "cpu.cfs_quota_us", str(quota))
    if limits.cpu_shares:
        value = cpu_weight(limits.cpu_shares) if second else limits.cpu_shares
        yield Setting("--cpu-shares", "cpu", "cpu.weight" if second else "cpu.shares", str(value))
    for option, file, text in (
        ("--cpuset-cpus", "cpuset.cpus", limits.cpuset_cpus), ("--cpuset-mems", "cpuset.mems", limits.cpuset_mems),
    ):  # fmt: skip
        if text:
            yield Setting(option, "cpuset", file, text)
    if limits.pids:
        yield Setting("--pids-limit", "pids", "pids.max", "max" if limits.pids < 0 else str(limits.pids))


def _disk(limits: Limits, machine: Hierarchies) -> Iterable[Setting]:
    second = machine.version("io") == 2
    if limits.blkio_weight:
        if second:
            yield Setting("--blkio-weight", "io", "io.weight", str(io_weight(limits.blkio_weight)))
        else:
            yield Setting("--blkio-weight", "blkio", "blkio.weight", str(limits.blkio_weight))
    for rate in limits.device_rates:
        option = f"--device-{rate.direction}-{rate.unit}"
        number = _disk_number(rate)
        if second:
            yield Setting(option, "io", "io.max", f"{number} {rate.direction[0]}{rate.unit}={rate.per_second}")
        else:
            file = f"blkio.throttle.{rate.direction}_{rate.unit}_device"
            yield Setting(option, "blkio", file, f"{number} {rate.per_second}")


def _disk_number(rate: DeviceRate) -> str:
    try:
        found = os.stat(rate.device)
    except OSError as error:
        raise NotFoundError(f"the device '{rate.device}' can't be looked at: {(error.strerror or '').lower()}") from error
    if not stat.S_ISBLK(found.st_mode):
        raise UsageError(f"'{rate.device}' is not a block device")
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def cpu_weight(shares: int) -> int:
    """Turn version 1's shares, 2 to 262144, into version 2's weight, 1 to 10000, so that 1024, the usual, is 100, the usual.

    runc's since 1.4 (opencontainers/cgroups, ConvertCPUSharesToCgroupV2Value): a quadratic function of the logarithms.
    """
    if shares <= 2:
        return 1
    exponent = math.log2(shares)
    return min(math.ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34)), 10000)


def io_weight(weight: int) -> int:
    """Turn version 1's weight, 10 to 1000, into version 2's, 1 to 10000: in proportion, as Docker's runtimes do."""
    return 1 + (weight - 10) * 9999 // 990


WEIGHT_BY_BFQ: Mapping[str, str] = {"io.weight": "io.bfq.weight", "blkio.weight": "blkio.bfq.weight"}
"""Where the BFQ scheduler is what weighs. It takes the weight as it was said, up to 1000."""


def check(limits: Limits) -> None:
    """Refuse what this machine can't hold. Raises `StateError`, `NotFoundError`, `UsageError`."""
    machine = hierarchies()
    above = Cgroup(machine, PARENT)
    wanted = settings(limits, machine)
    try:
        above.make_parent([*CONTROLLERS, *(["cpuset"] if limits.cpuset_cpus or limits.cpuset_mems else [])])
    except OSError as error:
        raise StateError(
            f"this machine's cgroups can't be changed: {(error.strerror or '').lower()}: '{error.filename}'"
        ) from error
    for setting in wanted:
        _file_for(setting, above, limits)
    for option, file, text in (
        ("--cpuset-cpus", "cpus", limits.cpuset_cpus), ("--cpuset-mems", "mems", limits.cpuset_mems),
    ):  # fmt: skip
        if text:
            names = ("cpuset.effective_" + file, f"cpuset.{file}.effective")
            there = next((numbers_of(above.read("cpuset", name)) for name in names if above.has("cpuset", name)), set())
            if not numbers_of(text) <= there and there:
                have = ",".join(str(number) for number in sorted(there))
                raise UsageError(f"{option} '{text}': this machine has {have}")


def _file_for(setting: Setting, cgroup: Cgroup, limits: Limits) -> Setting | None:
    """Give the setting with the file that this machine has for it, None if it has none and nobody asked. Raises `StateError`."""
    if cgroup.has(setting.controller, setting.file):
        return setting
    other = WEIGHT_BY_BFQ.get(setting.file, "")
    if other and cgroup.has(setting.controller, other):
        return setting._replace(file=other, value=str(limits.blkio_weight))
    if not setting.option:
        return None
    version = cgroup.machine.version(setting.controller)
    why = f"cgroup v{version} has no '{setting.file}' here" if version else f"there is no {setting.controller} controller"
    raise StateError(f"{setting.option} can't be held on this machine: {why}", hint=_HINTS.get(setting.option, ""))


_HINTS = {
    "--memory-swap": "boot with swapaccount=1, or leave it out",
    "--blkio-weight": "a disk scheduler that weighs is needed: BFQ, or blk-iocost",
    "--oom-kill-disable": "cgroup v2 always lets the kernel kill",
    "--memory-swappiness": "cgroup v2 has one for the whole machine: /proc/sys/vm/swappiness",
}


def apply(cgroup: Cgroup, limits: Limits, *, instead_of: Limits | None = None) -> None:
    """Write limits into a container's cgroup; `instead_of` are those of now. If this raises `StateError` they still hold."""
    before = settings(instead_of, cgroup.machine) if instead_of is not None else []
    found = [_file_for(each, cgroup, limits) for each in settings(limits, cgroup.machine)]
    wanted = [each for each in found if each is not None and each not in before]
    kept = (
        [each._replace(value=cgroup.read(each.controller, each.file).strip()) for each in wanted] if instead_of is not None else []
    )
    try:
        _write_all(cgroup, wanted)
    except StateError:
        _write_all(cgroup, kept)
        raise


def _write_all(cgroup: Cgroup, wanted: Iterable[Setting]) -> None:
    late = []
    for setting in wanted:
        try:
            cgroup.write(setting.controller, setting.file, setting.value)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EBUSY}:
                raise _refused(setting, error) from error
            late.append(setting)  # memory and memory with swap are checked against each other: the other one first
    for setting in late:
        try:
            cgroup.write(setting.controller, setting.file, setting.value)
        except OSError as error:
            raise _refused(setting, error) from error


def _refused(setting: Setting, error: OSError) -> StateError:
    why = "more is in use" if error.errno == errno.EBUSY else (error.strerror or str(error)).lower()
    return StateError(f"{setting.option or setting.file} can't be set to '{setting.value}': {why}")
