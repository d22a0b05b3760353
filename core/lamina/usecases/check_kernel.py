"""What the kernel holds for nobody: mounts below the root directory and cgroups of containers that don't run.

Cgroups have the containers' ids for names, beside those of other root directories: one of an id that this database doesn't know may
be theirs, and is let be.

Mounts are those of this process's mount namespace; a container's own ones, in its own namespace, end with its processes.
"""

import os

from lamina.api.types import View
from lamina.errors import LaminaError
from lamina.linux import mount, mountinfo
from lamina.linux.cgroup import Cgroup
from lamina.runtime import cgroups
from lamina.store.operations import locked
from lamina.usecases.check import Check


def check_kernel(run: Check) -> None:
    """Check the mounts at the places of drivers' layers, then the cgroups."""
    _check_mounts(run)
    _check_cgroups(run)


def _check_cgroups(run: Check) -> None:
    context = run.context
    for container in context.records.all():
        cgroup = cgroups.own_cgroup(container)
        if container.is_active or not _directories(cgroup):
            continue
        with locked(context.run_dir, f"container-{container.id}"):
            current = context.records.by_id(container.id)
            if current is None or current.is_active or not _directories(cgroup):
                continue

            def remove(cgroup: Cgroup = cgroup) -> str:
                cgroup.remove()
                return "removed"

            run.found("cgroup", cgroup.name, f"container '{current.name}' doesn't run and has it still", repair=remove)


def _directories(cgroup: Cgroup) -> list[str]:
    return [each for each in cgroup.directories([*cgroup.machine.controllers, "devices"]) if os.path.isdir(each)]


def _check_mounts(run: Check) -> None:
    context = run.context
    prefix = context.root_dir.rstrip("/") + "/"
    for target in [each.target for each in mountinfo.mounts() if each.target.startswith(prefix)]:
        key = _key_of(run, target)
        if key is None:
            continue
        with locked(context.run_dir, f"container-{key}"):
            if not _is_mounted(target) or _has_owner(run, key):
                continue

            def unmount(target: str = target) -> str:
                mount.unmount(target, detach=True)
                return "unmounted"

            run.found("mount", target, "it is mounted, and nothing that runs needs it", repair=unmount)


def _key_of(run: Check, target: str) -> str | None:
    """Which layer's view a mount is; None for what isn't one: a volume that somebody mounted, the root's own file system."""
    parts = os.path.relpath(target, run.context.root_dir).split("/")
    if parts[0] not in run.context.host.names("storage"):
        return None
    return next((part for part in parts[1:] if len(part) == 64 and all(char in "0123456789abcdef" for char in part)), None)


def _is_mounted(target: str) -> bool:
    return any(each.target == target for each in mountinfo.mounts())


def _has_owner(run: Check, key: str) -> bool:
    """Whether a container that runs, a build's step, or a view that must be attached to be read has the mount."""
    context = run.context
    container = context.records.by_id(key)
    if container is not None and container.is_active:
        return True
    row = context.database.connection.execute("SELECT driver, operation FROM layers WHERE key = ?", (key,)).fetchone()
    if row is None:
        return False
    if row["operation"] is not None:
        return True
    try:
        view: View = context.layers.driver(row["driver"]).mounts(key, context.layers.parents(row["driver"], key), readonly=True)
    except (LaminaError, OSError):
        return False
    from lamina.store.views import can_detach

    return not all(can_detach(each) for each in view.mounts)
