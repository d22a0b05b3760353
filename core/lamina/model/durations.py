"""Durations as Go writes them: `300ms`, `1.5h`, `1m30s`. How people read them (2 minutes ago) is `cli/units.py`'s."""

import re

from lamina.errors import UsageError

_UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_STEP = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = rf"([+-]?)(0|(?:{_STEP})+)"


def is_duration(text: str) -> bool:
    """Tell whether a text has a duration's form."""
    return len(text) <= 100 and re.fullmatch(_DURATION, text) is not None


def format_duration(duration_ns: int) -> str:
    """Write a duration of 0 or more as Go does: 300ms, 1.5s, 1m30s, 1h0m0s."""
    if duration_ns < 10**9:
        unit = "ms" if duration_ns >= 10**6 else "µs" if duration_ns >= 10**3 else "ns"
        return f"{_decimal(duration_ns, _UNITS_NS[unit])}{unit}" if duration_ns else "0s"
    minutes, rest_ns = divmod(duration_ns, 60 * 10**9)
    seconds = f"{_decimal(rest_ns, 10**9)}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds


def _decimal(value: int, unit: int) -> str:
    whole, part = divmod(value, unit)
    return f"{whole}.{part:0{len(str(unit)) - 1}d}".rstrip("0").rstrip(".") if part else str(whole)


def parse_duration(text: str) -> int:
    """Read a Go duration in nanoseconds: 300ms, 1.5h, 1m30s, -10s. A bare number but 0 is refused, as in Go.

    Raises `UsageError`.
    """
    match = re.fullmatch(_DURATION, text) if len(text) <= 100 else None
    if not match:
        raise UsageError(f"invalid duration '{text}'", hint="give numbers with units ns, us, ms, s, m or h, as in 1m30s")
    total = 0
    for number, unit in re.findall(_STEP, match.group(2)):
        whole, _, part = number.partition(".")
        total += int(whole or 0) * _UNITS_NS[unit] + (int(part) * _UNITS_NS[unit] // 10 ** len(part) if part else 0)
    if total >= 1 << 63:
        raise UsageError(f"invalid duration '{text}': more than 292 years")
    return -total if match.group(1) == "-" else total
