"""The options of `run` and `create` about namespaces, ulimits, sysctls, groups, and how their texts become an `Isolation`.

Its values are imported where an option asks for them: a container of which nothing is asked pays for nothing.
"""

from typing import TYPE_CHECKING, Any

import click

from lamina.errors import ConflictError

if TYPE_CHECKING:
    from lamina.model.isolation import Isolation

ISOLATION_OPTIONS: tuple[Any, ...] = (
    click.option("--pid", default="", metavar="host|container:NAME", help="The PID namespace.  [one of its own]"),
    click.option(
        "--ipc", default="", metavar="private|shareable|none|host|container:NAME", help="The IPC namespace and /dev/shm.  [private]"
    ),
    click.option("--uts", default="", metavar="host", help="The UTS namespace, which has the host name.  [one of its own]"),
    click.option("--cgroupns", default="", metavar="private|host", help="The cgroup namespace.  [private]"),
    click.option(
        "--userns", default="", metavar="host|private", help="The user namespace; private: a range of ids of its own.  [host]"
    ),
    click.option("--ulimit", "ulimits", multiple=True, metavar="NAME=SOFT[:HARD]", help="Set a resource limit."),
    click.option("--sysctl", "sysctls", multiple=True, metavar="NAME=VALUE", help="Set a parameter of its network or IPC."),
    click.option("--shm-size", default="", metavar="SIZE", help="The size of /dev/shm.  [64m]"),
    click.option("--group-add", "groups", multiple=True, metavar="GROUP", help="Add a group to the user's."),
    click.option("--oom-score-adj", type=int, default=None, metavar="NUMBER", help="How readily it is ended, -1000 to 1000."),
)  # fmt: skip

_NAMES = ("pid", "ipc", "uts", "cgroupns", "userns", "ulimits", "sysctls", "shm_size", "groups", "oom_score_adj")


def read_isolation(options: dict[str, Any]) -> "Isolation | None":
    """Take this module's options out of all; give what they ask for, None for nothing. Raises `UsageError`."""
    asked = {name: options.pop(name, None) for name in _NAMES}
    if not any(value or value == 0 for value in asked.values()):
        return None
    from lamina.model.isolation import JOIN_PREFIX, Isolation, check_mode, parse_sysctl, parse_ulimit
    from lamina.model.sizes import parse_size

    def mode(name: str, *words: str) -> str:
        return check_mode(f"--{name}", asked[name], words) if asked[name] else ""

    pid = mode("pid", "host", JOIN_PREFIX)
    ipc = mode("ipc", "private", "shareable", "none", "host", JOIN_PREFIX)
    cgroup_namespace = mode("cgroupns", "private", "host")
    users = mode("userns", "host", "private", "auto")
    shm_bytes = parse_size(asked["shm_size"]) if asked["shm_size"] else 0
    if shm_bytes and (ipc in {"host", "none"} or ipc.startswith(JOIN_PREFIX)):
        raise ConflictError(f"with --ipc {ipc} a container has no /dev/shm of its own", hint="leave --shm-size out")
    return Isolation(
        pid=pid,
        ipc=ipc,
        uts=mode("uts", "host"),
        cgroup_namespace="" if cgroup_namespace == "private" else cgroup_namespace,
        user_namespace="private" if users in {"private", "auto"} else "",
        ulimits=tuple({each.name: each for each in map(parse_ulimit, asked["ulimits"] or ())}.values()),
        sysctls=dict(map(parse_sysctl, asked["sysctls"] or ())),
        shm_bytes=shm_bytes,
        groups=tuple(asked["groups"] or ()),
        oom_score_adj=asked["oom_score_adj"],
    )
