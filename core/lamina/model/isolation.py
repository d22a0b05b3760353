"""Which namespaces a container has of its own, and what its processes are born with: ids, ulimits, sysctls. No I/O.

None in a configuration that asks nothing. A named tuple; write its fields by keyword.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from lamina.errors import UsageError

JOIN_PREFIX = "container:"
UNLIMITED = -1

ULIMITS = {
    "cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8, "as": 9, "locks": 10,
    "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}  # fmt: skip
"""The kernel's numbers of resource limits (asm-generic/resource.h), by their names in getrlimit(2)."""

IPC_SYSCTLS = frozenset(
    f"kernel/{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)  # fmt: skip
"""What of /proc/sys/kernel belongs to an IPC namespace (ipc_namespaces(7))."""

OOM_SCORE_ADJ_MIN, OOM_SCORE_ADJ_MAX = -1000, 1000


class Ulimit(NamedTuple):
    """One resource limit (getrlimit(2)), by its name in lower case without RLIMIT_; -1 is unlimited."""

    name: str
    soft: int
    hard: int


class Isolation(NamedTuple):
    """One container's `--pid`, `--ipc`, `--uts`, `--cgroupns`, `--userns`, `--ulimit`, `--sysctl`, `--shm-size`, `--group-add`."""

    pid: str = ""
    """"" for one of its own, `host`, or `container:ID`."""
    ipc: str = ""
    """"" or `private`, `shareable`, `none`, `host`, `container:ID`."""
    uts: str = ""
    """"" or `host`."""
    cgroup_namespace: str = ""
    """"" for one of its own, or `host`."""
    user_namespace: str = ""
    """"" for the host's, or `private`: a range of ids of the container's own."""
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Mapping[str, str] = MappingProxyType({})
    """Paths below /proc/sys, such as `net/ipv4/ip_forward`, and their values."""
    shm_bytes: int = 0
    """Of /dev/shm; 0 for 64 MiB."""
    groups: tuple[str, ...] = ()
    """Supplementary groups, by name or number."""
    oom_score_adj: int | None = None
    """None for the engine's own."""

    @property
    def has_own_users(self) -> bool:
        """Whether it has a user namespace of its own."""
        return self.user_namespace == "private"

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {**self._asdict(), "ulimits": [list(each) for each in self.ulimits], "sysctls": dict(self.sysctls)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the stored form; keys of a newer release are left aside."""
        known = {key: value for key, value in document.items() if key in cls._fields}
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
        values["ulimits"] = tuple(Ulimit(*each) for each in document.get("ulimits", ()))
        return cls(**values)


def check_mode(option: str, text: str, words: Iterable[str]) -> str:
    """Return a namespace option's value if it is one of the words, or `container:NAME` where that is among them."""
    known = tuple(words)
    name = text.removeprefix(JOIN_PREFIX)
    if (text in known and text != JOIN_PREFIX) or (name != text and name and JOIN_PREFIX in known):
        return text
    said = [f"{word}NAME" if word == JOIN_PREFIX else word for word in known]
    raise UsageError(f"invalid {option} '{text}'", hint=f"it is {' or '.join(said)}")


def parse_ulimit(text: str) -> Ulimit:
    """Read `NAME=SOFT[:HARD]`; the hard limit is the soft one if it is left out, -1 or `unlimited` is none."""
    name, equals, values = text.partition("=")
    if name not in ULIMITS or not equals:
        raise UsageError(f"invalid ulimit '{text}'", hint=f"write NAME=SOFT[:HARD], with NAME one of {', '.join(sorted(ULIMITS))}")
    first, colon, second = values.partition(":")
    soft = _limit(first, text)
    hard = _limit(second, text) if colon else soft
    if hard != UNLIMITED and (soft > hard or soft == UNLIMITED):
        raise UsageError(f"invalid ulimit '{text}': the soft limit is above the hard one")
    return Ulimit(name, soft, hard)


def _limit(text: str, whole: str) -> int:
    if text in {"-1", "unlimited"}:
        return UNLIMITED
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) >= 1 << 63:
        raise UsageError(f"invalid ulimit '{whole}': '{text}' is not a number", hint="-1 or unlimited is no limit")
    return int(text)


def parse_sysctl(text: str) -> tuple[str, str]:
    """Read `NAME=VALUE`; gives the path below /proc/sys and the value. The names' separator is the first `.` or `/` (sysctl(8)).

    Only what belongs to a network or an IPC namespace is accepted: whatever else is written is the whole machine's.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"invalid sysctl '{text}'", hint="write NAME=VALUE")
    dot, slash = name.find("."), name.find("/")
    if dot >= 0 and (slash < 0 or dot < slash):  # then a / within a name is one of its dots, as in net.ipv4.conf.eth0/100.rp_filter
        name = name.translate(_SWAPPED)
    if not name.isprintable() or not value.isprintable():
        raise UsageError(f"invalid sysctl '{text}'", hint="write NAME=VALUE")
    if not sysctl_namespace(name):
        raise UsageError(
            f"sysctl '{sysctl_name(name)}' is not a namespace's but the whole machine's",
            hint="a container can have net.*, kernel.msg*, kernel.sem, kernel.shm* and fs.mqueue.*",
        )
    return name, value


_SWAPPED = {ord("."): "/", ord("/"): "."}


def sysctl_name(path: str) -> str:
    """Give the usual name of a path below /proc/sys: net.ipv4.ip_forward, net.ipv4.conf.eth0/100.rp_filter."""
    return path.translate(_SWAPPED)


def sysctl_namespace(path: str) -> str:
    """Say to which kind of namespace a path below /proc/sys belongs: `net`, `ipc`, or "" for none, and for a crooked path."""
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        return ""
    if path.startswith("net/"):
        return "net"
    return "ipc" if path in IPC_SYSCTLS or path.startswith("fs/mqueue/") else ""
