"""Sizes, durations and times as Docker's users read and type them. Pure functions: the caller brings the clock.

    human_size(1_234_567)                  1.23MB       decimal, as images and ps show sizes
    human_duration(130 * SECOND_NS)        2 minutes    as in "Up 2 minutes", "2 minutes ago"
    format_time_ns(0)                      1970-01-01T00:00:00Z
    parse_time("10m", now_ns=...)          ten minutes before now

Times are integers, nanoseconds since 1970 in UTC; a float would lose the last digits.
"""

import re
import time

from lamina.errors import UsageError
from lamina.model.durations import is_duration, parse_duration

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 60 * MINUTE_NS

# Go's zero time.Time, which Docker writes for "never": StartedAt of a container that hasn't started.
NEVER_NS = -62_135_596_800 * SECOND_NS

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def human_size(size_bytes: float, *, digits: int = 3) -> str:
    """Write a size in powers of 1000: three significant digits as in lists, four (`digits=4`) as in `info` and `system df`."""
    return _scale(size_bytes, 1000.0, _DECIMAL, digits)


def human_binary_size(size_bytes: float, *, digits: int = 4) -> str:
    """Write a size in powers of 1024, as memory limits are shown: 64MiB."""
    return _scale(size_bytes, 1024.0, _BINARY, digits)


def _scale(size: float, base: float, units: tuple[str, ...], digits: int) -> str:
    power = 0
    while size >= base and power < len(units) - 1:
        size /= base
        power += 1
    text = f"{size:.{digits}g}"
    if "e" in text:
        # 999.95 kB rounded to three digits has four; Docker writes 1e+03kB here, which nobody wants back
        text = f"{size:.0f}"
        if float(text) >= base and power < len(units) - 1:
            text, power = "1", power + 1
    return f"{text}{units[power]}"


def human_duration(duration_ns: int) -> str:
    """Say roughly how long, in the words of `docker ps`."""
    seconds = max(duration_ns, 0) // SECOND_NS
    minutes = seconds // 60
    hours = (seconds + 1800) // 3600  # the nearest, while minutes and days are cut off
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{seconds // 3600 // 24 // 365} years"


def human_ago(then_ns: int, *, now_ns: int) -> str:
    """Say how long ago something was: "2 weeks ago"; "N/A" for what never was."""
    return "N/A" if then_ns == NEVER_NS else f"{human_duration(now_ns - then_ns)} ago"


def format_time_ns(time_ns: int) -> str:
    """Write a time as Docker's JSON has it: RFC 3339 in UTC, the fraction without trailing zeros."""
    seconds, fraction = divmod(time_ns, SECOND_NS)
    t = time.gmtime(seconds)
    part = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}{part}Z"


def format_list_time(time_ns: int) -> str:
    """Write a time as lists have it in `CreatedAt`, in the local zone: 2026-11-24 04:13:14 +0000 UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(time_ns // SECOND_NS))


_TIME = r"(?a)(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d)(?::(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)?)?([Zz]|[+-]\d\d:\d\d)?"
_UNIX = r"(?a)(-?)(\d{1,11})(?:\.(\d+))?"


def parse_time(text: str, *, now_ns: int) -> int:
    """Read a point in time as `--since` and `--until` take it, in nanoseconds since 1970.

    It is RFC 3339, also cut short (2026-11-24, 2026-11-24T04:06) and without a zone, then local; or Unix seconds with an optional
    fraction; or a Go duration, meaning that long before now. Raises `UsageError`.
    """
    if match := re.fullmatch(_UNIX, text):
        sign, whole, part = match.groups()
        since_epoch = int(whole) * SECOND_NS + _fraction_ns(part)
        return -since_epoch if sign else since_epoch
    if match := re.fullmatch(_TIME, text):
        return _calendar_ns(match, text)
    if text and is_duration(text):
        return now_ns - parse_duration(text)
    raise _bad_time(text)


def _bad_time(text: str) -> UsageError:
    return UsageError(
        f"invalid time '{text}'", hint="give 2026-11-24T04:06:31Z or shorter, seconds since 1970, or how long ago, as in 10m"
    )


def _fraction_ns(digits: str | None) -> int:
    return int((digits or "0")[:9].ljust(9, "0"))


def _calendar_ns(match: re.Match[str], text: str) -> int:
    from datetime import datetime, timedelta, timezone  # 3 ms on Python 3.11, and few commands read a time

    year, month, day, hour, minute, second, part, zone = match.groups()
    try:
        when = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
        if zone is None:
            when = when.astimezone()
        else:
            hours, minutes = (0, 0) if zone in "Zz" else (int(zone[:3]), int(zone[0] + zone[4:]))
            when = when.replace(tzinfo=timezone(timedelta(hours=hours, minutes=minutes)))
    except (ValueError, OverflowError):
        raise _bad_time(text) from None
    passed = when - datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - datetime.UTC would be a second import
    return (passed.days * 86400 + passed.seconds) * SECOND_NS + _fraction_ns(part)
