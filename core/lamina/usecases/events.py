"""Reading the journal of events: those of a stretch of time in their order, and those to come, from every process.

Its file is followed as a log is (`follow.py`): looked at ten times a second, over its renames.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lamina import json
from lamina.usecases.follow import INTERVAL_MS, LogFiles


class Event(NamedTuple):
    """What happened: `action` in Docker's words, `id` an id, or the name of an image that is pulled or of a volume."""

    time_ns: int
    type: str
    action: str
    id: str
    attributes: dict[str, str]

    def document(self) -> dict[str, Any]:
        """Docker's form of it."""
        base = {
            "Type": self.type,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": self.attributes},
            "scope": "local",
            "time": self.time_ns // 10**9,
            "timeNano": self.time_ns,
        }
        if self.type not in {"container", "image"}:
            return base
        old = {"status": self.action, "id": self.id}
        return {**old, **({"from": self.attributes.get("image", "")} if self.type == "container" else {}), **base}


def read_events(
    path: str, *, since_ns: int | None = None, until_ns: int | None = None, matches: Callable[[Event], bool] = lambda _event: True
) -> Iterator[Event]:
    """Give the events since a moment, in their order, or none of the past; then those to come, without end or until a moment."""
    with LogFiles(path, None if since_ns is not None else 0) as files:
        read = [event for line in files.lines() if (event := _parse(line)) is not None]
        past = sorted(read, key=lambda event: event.time_ns)  # at one moment as they were written: oom, then die
        yield from (event for event in past if _is_between(event, since_ns or 0, until_ns) and matches(event))
        while until_ns is None or time.time_ns() < until_ns:
            left_s = INTERVAL_MS / 1000 if until_ns is None else min(INTERVAL_MS / 1000, (until_ns - time.time_ns()) / 1e9)
            time.sleep(max(left_s, 0))
            for line in files.lines():
                event = _parse(line)
                if event is not None and _is_between(event, since_ns or 0, until_ns) and matches(event):
                    yield event


def _is_between(event: Event, since_ns: int, until_ns: int | None) -> bool:
    return event.time_ns >= since_ns and (until_ns is None or event.time_ns <= until_ns)


def _parse(line: bytes) -> Event | None:
    try:
        found = json.loads(line)
        return Event(found["time"], found["type"], found["action"], found["id"], found["attributes"])
    except (ValueError, KeyError, TypeError):
        return None  # a line that a crash cut in two
