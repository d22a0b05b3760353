"""Limits of containers as use cases: refusing what can't be held, and changing those of a container that exists (`update`)."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from lamina.dataclasses import replace
from lamina.errors import StateError
from lamina.linux.cgroup import MOUNT_POINT, Cgroup, hierarchies
from lamina.model.container import Container, ContainerConfig, Status
from lamina.model.limits import Limits
from lamina.runtime import limits as held
from lamina.runtime.cgroups import CONTROLLERS, PARENT, own_cgroup
from lamina.runtime.devices import given_devices
from lamina.store.operations import locked
from lamina.usecases.context import Context


def check(config: ContainerConfig) -> None:
    """Refuse limits that can't be meant, or that this machine can't hold. Raises `UsageError`, `StateError`, `NotFoundError`."""
    if config.limits is not None:
        held.check(config.limits.checked(processors=os.cpu_count() or 1))
        given_devices(config)


def cgroup_abilities() -> dict[str, Any]:
    """Say which limits this machine can hold, under the names of Docker's `info`."""
    machine = hierarchies()
    second = machine.unified == MOUNT_POINT
    above = Cgroup(machine, PARENT)
    with contextlib.suppress(OSError):  # then nothing of it can be held, and that is what is told
        above.make_parent([*CONTROLLERS, "cpuset"])

    def has(controller: str, first: str, then: str) -> bool:
        return above.has(controller, then if machine.version(controller) == 2 else first)

    return {
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if second else "1",
        "MemoryLimit": has("memory", "memory.limit_in_bytes", "memory.max"),
        "SwapLimit": has("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
        "CpuCfsPeriod": has("cpu", "cpu.cfs_period_us", "cpu.max"),
        "CpuCfsQuota": has("cpu", "cpu.cfs_quota_us", "cpu.max"),
        "CPUShares": has("cpu", "cpu.shares", "cpu.weight"),
        "CPUSet": has("cpuset", "cpuset.cpus", "cpuset.cpus"),
        "PidsLimit": has("pids", "pids.max", "pids.max"),
        "OomKillDisable": above.has("memory", "memory.oom_control"),
    }


def update(context: Context, container: Container, changes: Mapping[str, Any]) -> Container:
    """Change limits by their fields' names in `Limits`; a running container has them when this returns.

    Raises what `check` raises; `StateError` if the kernel refuses, for instance less memory than is in use: then all is as it was.
    """
    with locked(context.run_dir, f"container-{container.id}"):
        current = context.records.by_id(container.id)
        if current is None or current.status is Status.REMOVING:
            raise StateError(f"container '{container.name}' is being removed")
        before = current.config.limits or Limits()
        if "nano_cpus" in changes:  # the other way to say the same
            before_cleared = before._replace(cpu_period_us=0, cpu_quota_us=0)
        elif "cpu_period_us" in changes or "cpu_quota_us" in changes:
            before_cleared = before._replace(nano_cpus=0)
        else:
            before_cleared = before
        wanted = before_cleared._replace(**changes)
        updated = replace(current, config=replace(current.config, limits=wanted))
        check(updated.config)
        if current.is_active:
            cgroup = own_cgroup(current)
            if (wanted.cpuset_cpus or wanted.cpuset_mems) and not (before.cpuset_cpus or before.cpuset_mems):
                cgroup.add("cpuset")
            held.apply(cgroup, wanted, instead_of=before)
        with context.database.transaction(durable=True) as tx:
            context.records.update_document(tx, updated)
    return updated
