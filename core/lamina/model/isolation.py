"""Which namespaces a container has of its own, and what its processes are born with: ids, ulimits, sysctls. No I/O.

None in a configuration that asks nothing. A named tuple; write its fields by keyword.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self


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
    """"" for the default, `private`, or `host`."""
    user_namespace: str = ""
    """"" for the host's, or `private`: a range of ids of the container's own."""
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Mapping[str, str] = MappingProxyType({})
    shm_bytes: int = 0
    """Of /dev/shm; 0 for 64 MiB."""
    groups: tuple[str, ...] = ()
    """Supplementary groups, by name or number."""
    oom_score_adj: int | None = None
    """None for the engine's own."""

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {**self._asdict(), "ulimits": [list(each) for each in self.ulimits], "sysctls": dict(self.sysctls)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the stored form."""
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
        values["ulimits"] = tuple(Ulimit(*each) for each in document.get("ulimits", ()))
        return cls(**values)
