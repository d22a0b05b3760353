"""Durations as Go writes them: `300ms`, `1.5h`, `1m30s`. How people read them (2 minutes ago) is `cli/units.py`'s."""

import re

from lamina.errors import UsageError

_UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_STEP = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_DURATION = re.compile(rf"([+-]?)(0|(?:{_STEP.pattern})+)", re.ASCII)


def is_duration(text: str) -> bool:
    """Tell whether a text has a duration's form."""
    return len(text) <= 100 and _DURATION.fullmatch(text) is not None


def parse_duration(text: str) -> int:
    """Read a Go duration in nanoseconds: 300ms, 1.5h, 1m30s, -10s. A bare number but 0 is refused, as in Go.

    Raises `UsageError`.
    """
    match = _DURATION.fullmatch(text) if len(text) <= 100 else None
    if not match:
        raise UsageError(f"invalid duration '{text}'", hint="give numbers with units ns, us, ms, s, m or h, as in 1m30s")
    total = 0
    for number, unit in _STEP.findall(match.group(2)):
        whole, _, part = number.partition(".")
        total += int(whole or 0) * _UNITS_NS[unit] + (int(part) * _UNITS_NS[unit] // 10 ** len(part) if part else 0)
    if total >= 1 << 63:
        raise UsageError(f"invalid duration '{text}': more than 292 years")
    return -total if match.group(1) == "-" else total
