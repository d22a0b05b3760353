"""How a container is looked after while nobody looks: restarts, health checks, its log. No I/O.

None in a configuration that asks nothing. A named tuple; write its fields by keyword.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self


class HealthCheck(NamedTuple):
    """A command that says whether the container is well; times in nanoseconds, 0 for the default."""

    test: tuple[str, ...] = ()
    """`CMD WORD…`, `CMD-SHELL TEXT`, or `NONE`; empty for the image's."""
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


class Supervision(NamedTuple):
    """One container's `--restart`, `--health-*`, `--log-driver` and `--log-opt`."""

    restart: str = "no"
    """`no`, `always`, `unless-stopped`, `on-failure`."""
    restart_most: int = 0
    """How often at most, for `on-failure`; 0 for no end."""
    health: HealthCheck | None = None
    log_driver: str = "json-file"
    """`json-file` or `none`."""
    log_options: Mapping[str, str] = MappingProxyType({})
    """`max-size`, `max-file`, as they were typed."""

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {
            **self._asdict(),
            "health": None if self.health is None else {**self.health._asdict(), "test": list(self.health.test)},
            "log_options": dict(self.log_options),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the stored form."""
        health = document.get("health")
        return cls(**{**document, "health": None if health is None else HealthCheck(**{**health, "test": tuple(health["test"])})})
