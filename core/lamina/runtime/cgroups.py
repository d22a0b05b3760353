"""A container's own cgroup: what it is called, which controllers it has, which devices it may use. It is there from before the
container's first process until after its last.

Limits that were asked for are in `limits.py`, which a container without them doesn't import; how the kernel is spoken to is in
`lamina.linux.cgroup`.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lamina.errors import StateError
from lamina.linux.cgroup import MOUNT_POINT, Cgroup, hierarchies
from lamina.linux.fs import read_bytes

if TYPE_CHECKING:
    from lamina.model.container import Container, ContainerConfig
    from lamina.model.limits import Limits
    from lamina.runtime.cgroup_steps import PlannedCgroup

PARENT = "lamina"
"""The cgroup that all of them are in, unless `--cgroup-parent` names another."""

CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "devices", "blkio", "io")
"""What every container has, so far as the machine does; `cpuset` comes with the limits that need it."""

DEVICE_RULES = (
    "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm",
)  # fmt: skip
"""Docker's: a node may be made of any device; only null, zero, full, random, urandom, tty, ptmx and pts may be opened."""

ALL_DEVICES = ("a *:* rwm",)


def cgroup_of(container_id: str, limits: "Limits | None") -> Cgroup:
    """Name the cgroup of a container; nothing is looked for in it."""
    parent = limits.cgroup_parent if limits is not None and limits.cgroup_parent else PARENT
    return Cgroup(hierarchies(), f"{parent.strip('/')}/{container_id}")


def own_cgroup(container: "Container") -> Cgroup:
    """Name the cgroup of a container."""
    return cgroup_of(container.id, container.config.limits)


def controllers(limits: "Limits | None") -> tuple[str, ...]:
    """Say which controllers a container of these limits uses."""
    return (*CONTROLLERS, "cpuset") if limits is not None and (limits.cpuset_cpus or limits.cpuset_mems) else CONTROLLERS


def planned(cgroup: Cgroup, limits: "Limits | None") -> "tuple[PlannedCgroup, ...]":
    """List a container's directories for its plan."""
    from lamina.runtime.cgroup_steps import PlannedCgroup  # `inspect` of a running container needs no step

    found = cgroup.directories(controllers(limits))
    names = [os.path.basename(directory.removesuffix(f"/{cgroup.name}")) for directory in found]
    if found == [f"{MOUNT_POINT}/{cgroup.name}"]:
        names = [""]
    return tuple(
        PlannedCgroup(name=name, directory=directory, entrance=cgroup.entrance(directory))
        for name, directory in zip(names, found, strict=True)
    )


def device_rules(config: "ContainerConfig", of_devices: Sequence[str] = ()) -> tuple[str, ...]:
    """Say which devices a container may use; `of_devices` are the rules of those that it was given."""
    if config.confinement is not None and config.confinement.privileged:
        return ALL_DEVICES
    return (*DEVICE_RULES, *of_devices, *(config.limits.device_rules if config.limits is not None else ()))


def prepare(cgroup: Cgroup, *, limits: "Limits | None", rules: Sequence[str]) -> None:
    """Make a container's cgroup with all that is to hold in it, before there is a process. Nothing is left if it fails."""
    try:
        cgroup.make(controllers(limits))
        _confine_devices(cgroup, rules)
        if limits is not None:
            from lamina.runtime.limits import apply

            apply(cgroup, limits)
    except BaseException as error:
        cgroup.remove()
        if isinstance(error, OSError):
            raise StateError(
                f"the container's cgroup can't be set up: {(error.strerror or str(error)).lower()}: '{error.filename}'",
                hint="lamina needs the cgroup file systems writable, as root of them has them",
            ) from error
        raise


def _confine_devices(cgroup: Cgroup, rules: Sequence[str]) -> None:
    version = cgroup.machine.version("devices")
    if rules == ALL_DEVICES:
        return  # a new one may use what the one above it may
    if version == 1:
        cgroup.write("devices", "devices.deny", "a")
        cgroup.write("devices", "devices.allow", *rules)
    elif cgroup.machine.unified:
        from lamina.linux.device_filter import attach

        attach(f"{cgroup.machine.unified}/{cgroup.name}", rules)
    else:
        raise StateError(
            "this machine can't keep a container from its devices: it has no devices controller and no cgroup2",
            hint="mount cgroup2 at /sys/fs/cgroup, or say --privileged",
        )


def counts_swap() -> bool:
    """Whether swap can be limited here."""
    machine = hierarchies()
    file = "memory.swap.max" if machine.version("memory") == 2 else "memory.memsw.limit_in_bytes"
    return Cgroup(machine, PARENT).has("memory", file)


def oom_path(cgroup: Cgroup) -> str:
    """The file in which its processes are counted that were killed for want of memory; "" without a memory controller."""
    version = cgroup.machine.version("memory")
    return f"{cgroup.directory('memory')}/{'memory.events' if version == 2 else 'memory.oom_control'}" if version else ""


def oom_kills(cgroup: Cgroup) -> int:
    """Count its processes that were killed for want of memory; 0 if it is gone, or has no memory controller."""
    try:
        lines = read_bytes(oom_path(cgroup)).splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(b"oom_kill ")), 0)


def set_frozen(cgroup: Cgroup, *, frozen: bool) -> None:
    """Stop every process of a container, unseen by itself, or let them go on. Raises `StateError`."""
    if not cgroup.machine.freezer:
        raise StateError("this machine has no freezer", hint="mount a cgroup2 file system at /sys/fs/cgroup")
    try:
        cgroup.set_frozen(frozen=frozen)
    except TimeoutError as error:
        raise StateError(
            "the container's processes could not be frozen", hint="a process waits in the kernel; try again later"
        ) from error
