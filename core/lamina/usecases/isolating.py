"""What a container's isolation comes to on this machine: checked when it is created, made into namespaces and ids when it starts.

What can't be had is refused here, before anything is done: nothing that was asked for is left out in silence.
"""

import os
from collections.abc import Sequence

from lamina.dataclasses import replace
from lamina.errors import ConflictError, NotUsableError, StateError, UsageError
from lamina.linux import namespace, process
from lamina.model.container import Container, ContainerConfig
from lamina.model.isolation import (
    JOIN_PREFIX,
    OOM_SCORE_ADJ_MAX,
    OOM_SCORE_ADJ_MIN,
    ULIMITS,
    Isolation,
    check_mode,
    sysctl_name,
    sysctl_namespace,
)
from lamina.runtime.plan import Spaces
from lamina.store import id_ranges
from lamina.usecases.context import Context

_SHARED_IPC = "shareable"
_HINT = "leave --userns out"


def settled(context: Context, config: ContainerConfig, asked: Isolation) -> ContainerConfig:
    """Check what was asked and give joined containers their whole ids. Raises `UsageError`, `ConflictError`, `NotFoundError`."""
    check_mode("--pid", asked.pid, ("", "host", JOIN_PREFIX))
    check_mode("--ipc", asked.ipc, ("", "private", _SHARED_IPC, "none", "host", JOIN_PREFIX))
    check_mode("--uts", asked.uts, ("", "host"))
    check_mode("--cgroupns", asked.cgroup_namespace, ("", "host"))
    check_mode("--userns", asked.user_namespace, ("", "private"))
    if asked.uts and (config.hostname or config.domainname):
        raise ConflictError("with --uts host a container has the host's name", hint="leave --hostname and --domainname out")
    if asked.pid.startswith(JOIN_PREFIX):
        asked = asked._replace(pid=JOIN_PREFIX + context.records.find(asked.pid.removeprefix(JOIN_PREFIX)).id)
    if asked.ipc.startswith(JOIN_PREFIX):
        other = context.records.find(asked.ipc.removeprefix(JOIN_PREFIX))
        _check_shares_ipc(other)
        asked = asked._replace(ipc=JOIN_PREFIX + other.id)
    _check_sysctls(config, asked)
    if asked.has_own_users:
        _check_own_users(config, asked)
    check_raised(asked)
    if asked.uts:
        config = replace(config, hostname=os.uname().nodename)
    return replace(config, isolation=asked)


def check_raised(asked: Isolation) -> None:
    """Refuse what this process isn't allowed to give: higher hard limits, a lower score. Raises `UsageError`."""
    is_able = process.CAPABILITIES.index("SYS_RESOURCE") in process.own_capabilities()
    for each in asked.ulimits:
        hard = process.limit(ULIMITS[each.name])[1] if each.name in ULIMITS else None
        if hard is None:
            raise UsageError(f"there is no ulimit '{each.name}'")
        if not is_able and hard >= 0 and (each.hard < 0 or each.hard > hard):
            wanted = "unlimited" if each.hard < 0 else str(each.hard)
            raise UsageError(
                f"ulimit '{each.name}' can't be {wanted}: the hard limit here is {hard}",
                hint="raising a hard limit needs CAP_SYS_RESOURCE, which this process hasn't",
            )
    if asked.oom_score_adj is not None:
        if not OOM_SCORE_ADJ_MIN <= asked.oom_score_adj <= OOM_SCORE_ADJ_MAX:
            raise UsageError(
                f"invalid --oom-score-adj '{asked.oom_score_adj}'", hint=f"it is {OOM_SCORE_ADJ_MIN} to {OOM_SCORE_ADJ_MAX}"
            )
        with open("/proc/self/oom_score_adj", encoding="utf-8") as file:
            own = int(file.read())
        if asked.oom_score_adj < own and not is_able:
            raise UsageError(
                f"the score for running out of memory can't be {asked.oom_score_adj}: it is {own} here",
                hint="lowering it needs CAP_SYS_RESOURCE, which this process hasn't",
            )


def _check_shares_ipc(other: Container) -> None:
    mode = other.config.isolation.ipc if other.config.isolation is not None else ""
    if mode not in {_SHARED_IPC, "host"}:
        raise ConflictError(
            f"the IPC namespace of container '{other.name}' can't be joined", hint=f"create that one with --ipc {_SHARED_IPC}"
        )


def _check_sysctls(config: ContainerConfig, asked: Isolation) -> None:
    is_joining = config.network.startswith(JOIN_PREFIX) or config.network == "host"
    shared = {"net": is_joining, "ipc": asked.ipc == "host" or asked.ipc.startswith(JOIN_PREFIX), "": True}
    for path in asked.sysctls:
        if shared[sysctl_namespace(path)]:
            raise ConflictError(
                f"sysctl '{sysctl_name(path)}' would be set for others, too: the container has no such namespace of its own"
            )


def _check_own_users(config: ContainerConfig, asked: Isolation) -> None:
    """Refuse to share a namespace that belongs to other users: nothing could be mounted or set in it. Docker's rule."""
    if not namespace.has_users():
        raise NotUsableError("this machine makes no user namespaces", hint="look at the sysctl user.max_user_namespaces")
    if config.confinement is not None and config.confinement.privileged:
        raise ConflictError("a privileged container can't have users of its own", hint=_HINT)
    for option, mode in (("network", config.network), ("pid", asked.pid), ("ipc", asked.ipc)):
        if mode == "host" or mode.startswith(JOIN_PREFIX):
            whose = "the host's" if mode == "host" else "another container's"
            raise ConflictError(f"a container with users of its own can't share {whose} {option} namespace", hint=_HINT)


def joined_containers(context: Context, asked: Isolation) -> Sequence[Container]:
    """The containers whose namespaces are joined. Raises `NotFoundError`; `StateError` for one that doesn't run."""
    names = [mode.removeprefix(JOIN_PREFIX) for mode in (asked.pid, asked.ipc) if mode.startswith(JOIN_PREFIX)]
    found = [context.records.find(name) for name in names]
    for other in found:
        if not (other.is_active and process.is_alive(other.pid, other.pid_started)):
            raise StateError(
                f"container '{other.name}', whose namespace is to be joined, is not running", hint=f"`lamina start {other.name}`"
            )
    return found


def spaces(context: Context, container: Container, asked: Isolation, *, root_is_mapped: bool) -> Spaces:
    """What the plan needs to know of the container's isolation just now."""
    ipc_pid = context.records.find(asked.ipc.removeprefix(JOIN_PREFIX)).pid if asked.ipc.startswith(JOIN_PREFIX) else 0
    return Spaces(ipc_pid=ipc_pid, first_id=own_first_id(context, container), root_is_mapped=root_is_mapped)


def own_first_id(context: Context, container: Container) -> int:
    """The host's id of the container's root; 0 if it has the host's users."""
    asked = container.config.isolation
    return id_ranges.first_id(context.database.connection, container.id) if asked is not None and asked.has_own_users else 0


def pid_namespace(context: Context, asked: Isolation) -> str:
    """The PID namespace that the first process is forked into: "" for a new one, else a path."""
    if asked.pid.startswith(JOIN_PREFIX):
        return f"/proc/{context.records.find(asked.pid.removeprefix(JOIN_PREFIX)).pid}/ns/pid"
    return "/proc/self/ns/pid" if asked.pid or asked.has_own_users else ""
