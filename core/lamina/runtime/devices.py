"""The devices that a container is given (`--device`, `--privileged`): as nodes to make, and as rules of its cgroup."""

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from lamina.errors import NotFoundError, UsageError
from lamina.model.container import ContainerConfig
from lamina.model.limits import Device

_NO_DEVICES = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})
"""What of the host's /dev `--privileged` leaves out: file systems of their own; Docker's list."""


class GivenDevices(NamedTuple):
    """Nodes as `MakeDevices` takes them, and a rule for each."""

    nodes: tuple[tuple[str, int, int, int, int], ...] = ()
    rules: tuple[str, ...] = ()


def given_devices(config: ContainerConfig) -> GivenDevices:
    """Look at the host's devices that a container is given. Raises `NotFoundError`, `UsageError`."""
    asked: tuple[Device, ...] = config.limits.devices if config.limits is not None else ()
    nodes: dict[str, tuple[str, int, int, int, int]] = {}
    rules: dict[str, None] = {}
    if config.confinement is not None and config.confinement.privileged:
        nodes = {node[0]: node for node in _nodes("/dev", "/dev") if node[0] != "/dev/console"}
    for device in asked:
        if not os.path.exists(device.source):
            raise NotFoundError(f"the device '{device.source}' doesn't exist")
        found = list(_nodes(device.source, device.target))
        if not found:
            raise UsageError(f"'{device.source}' is not a device")
        for node in found:
            nodes[node[0]] = node
            rules[device_rule(node[1], node[2], device.permissions)] = None
    return GivenDevices(tuple(nodes.values()), tuple(rules))


def device_rule(mode: int, number: int, permissions: str) -> str:
    """Write the rule of one device."""
    return f"{'b' if stat.S_ISBLK(mode) else 'c'} {os.major(number)}:{os.minor(number)} {permissions}"


def _nodes(source: str, target: str) -> Iterator[tuple[str, int, int, int, int]]:
    """The device at a path, or all those below it."""
    found = os.stat(source)
    if stat.S_ISDIR(found.st_mode):
        for name in sorted(os.listdir(source)):
            path = f"{source}/{name}"
            if not os.path.islink(path) and not (name in _NO_DEVICES and os.path.isdir(path)):
                yield from _nodes(path, f"{target.rstrip('/')}/{name}")
    elif stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode):
        yield target, found.st_mode, found.st_rdev, found.st_uid, found.st_gid
