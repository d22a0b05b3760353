"""How a container is looked after while nobody looks: restarts, health checks, its log. No I/O.

None in a configuration that asks nothing. Named tuples; write their fields by keyword. Who restarts is `usecases/restarts.py`, who
checks the health `runtime/probes.py` and `lamina.probe`, who writes the log `runtime/logs.py`.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from lamina.errors import UsageError

RESTART_POLICIES = ("no", "always", "unless-stopped", "on-failure")
FIRST_DELAY_MS, LONGEST_DELAY_MS = 100, 60_000
LONG_RUN_NS = 10 * 10**9
"""Docker's back-off: the delay doubles, and is the first again after a run of ten seconds."""

LOG_DRIVERS = ("json-file", "none")
SECOND_NS = 10**9


class HealthCheck(NamedTuple):
    """A command that says whether the container is well; times in nanoseconds, 0 for the default."""

    test: tuple[str, ...] = ()
    """`CMD WORD…`, `CMD-SHELL TEXT`, or `NONE`; empty for the image's."""
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0
    shell: tuple[str, ...] = ()
    """The image's SHELL, for `CMD-SHELL`; empty for `/bin/sh -c`."""

    @property
    def command(self) -> tuple[str, ...]:
        """What is executed; empty if nothing is to be checked."""
        kind, *words = self.test or ("NONE",)
        if kind == "CMD-SHELL" and words:
            return (*(self.shell or ("/bin/sh", "-c")), words[0])
        return tuple(words) if kind == "CMD" else ()

    def with_defaults(self) -> Self:
        """Fill in Docker's defaults: every 30 s, 30 s long at most, unhealthy at the third failure."""
        return self._replace(
            interval_ns=self.interval_ns or 30 * SECOND_NS,
            timeout_ns=self.timeout_ns or 30 * SECOND_NS,
            start_interval_ns=self.start_interval_ns or 5 * SECOND_NS,
            retries=self.retries or 3,
        )

    def over(self, image: "HealthCheck") -> Self:
        """Let an image say what this one doesn't."""
        return type(self)(*(own or theirs for own, theirs in zip(self, image, strict=True)))  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        """The form of `inspect`: Docker's Healthcheck."""
        known = {
            "Test": list(self.test),
            "Interval": self.interval_ns,
            "Timeout": self.timeout_ns,
            "StartPeriod": self.start_period_ns,
            "StartInterval": self.start_interval_ns,
            "Retries": self.retries,
        }
        return {name: value for name, value in known.items() if value}


class Supervision(NamedTuple):
    """One container's `--restart`, `--health-*`, `--log-driver` and `--log-opt`."""

    restart: str = "no"
    """`no`, `always`, `unless-stopped`, `on-failure`."""
    restart_most: int = 0
    """How often at most, for `on-failure`; 0 for no end."""
    health: HealthCheck | None = None
    log_driver: str = ""
    """`json-file` or `none`; "" for the settings' default when it is created."""
    log_options: Mapping[str, str] = MappingProxyType({})
    """`max-size`, `max-file`, as they were typed."""

    def wants_restart(self, *, exit_code: int, restart_count: int) -> bool:
        """Whether a container that ended so, and that nobody stopped, is to run again."""
        if self.restart == "on-failure":
            return exit_code != 0 and (not self.restart_most or restart_count < self.restart_most)
        return self.restart != "no"

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        health = self.health
        return {
            **self._asdict(),
            "health": None if health is None else {**health._asdict(), "test": list(health.test), "shell": list(health.shell)},
            "log_options": dict(self.log_options),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the stored form."""
        health = document.get("health")
        if health is not None:
            health = HealthCheck(**{**health, "test": tuple(health["test"]), "shell": tuple(health.get("shell", ()))})
        return cls(**{**document, "health": health})


def next_delay_ms(previous_ms: int, *, ran_ns: int) -> int:
    """How long to wait before a restart, after the previous delay and a run of that length."""
    if not previous_ms or ran_ns >= LONG_RUN_NS:
        return FIRST_DELAY_MS
    return min(previous_ms * 2, LONGEST_DELAY_MS)


def parse_restart(text: str) -> tuple[str, int]:
    """Read `--restart`: the policy and how often at most. Raises `UsageError`."""
    name, colon, most = text.partition(":")
    if name not in RESTART_POLICIES:
        raise UsageError(
            f"invalid restart policy '{text}'", hint=f"known are {', '.join(RESTART_POLICIES)}; on-failure takes :NUMBER"
        )
    if not colon:
        return name, 0
    if name != "on-failure":
        raise UsageError(f"invalid restart policy '{text}': only on-failure takes a number")
    if not (most.isascii() and most.isdigit() and len(most) < 10):
        raise UsageError(f"invalid restart policy '{text}': '{most}' is no number of restarts", hint="write on-failure:5")
    return name, int(most)


class LogLimits(NamedTuple):
    """How large one file of a log may grow (0 without limit), and how many there are, the oldest going."""

    file_bytes: int = 0
    files: int = 1


_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?) ?(?:([kmgtp])(?:i?b)?|b)?", re.ASCII | re.IGNORECASE)


def log_limits(driver: str, options: Mapping[str, str]) -> LogLimits:
    """Read a log's driver and options. Raises `UsageError` for what it can't keep, so that nothing is dropped in silence."""
    if driver not in LOG_DRIVERS:
        raise UsageError(f"invalid log driver '{driver}'", hint=f"known are {', '.join(LOG_DRIVERS)}")
    if driver == "none" and options:
        raise UsageError("log driver 'none' takes no options")
    for name in options:
        if name not in {"max-size", "max-file"}:
            raise UsageError(f"unknown log option '{name}' for log driver '{driver}'", hint="known are max-size and max-file")
    size, files = options.get("max-size", ""), options.get("max-file", "1")
    if not (files.isascii() and files.isdigit() and len(files) < 5 and int(files) >= 1):
        raise UsageError(f"invalid log option 'max-file={files}'", hint="give a number, 1 or more")
    if not size or size == "-1":
        if "max-file" in options:
            raise UsageError("log option 'max-file' needs max-size", hint="without it there is only one file, of any size")
        return LogLimits()
    match = _SIZE.fullmatch(size)
    size_bytes = int(float(match[1]) * 1000 ** ("kmgtp".index(match[2].lower()) + 1 if match[2] else 0)) if match else 0
    if size_bytes <= 0:
        raise UsageError(f"invalid log option 'max-size={size}'", hint="give a number with an optional unit k, m or g, as in 10m")
    return LogLimits(file_bytes=size_bytes, files=int(files))
