"""Reading a container's log: its last lines, a stretch of time, and what is still being written.

A log grows at its end and is never rewritten. Following sleeps on the monitor's pidfd and looks at the file's size ten times a
second; the container's end is noticed at once. Who writes the log, and its form, is `lamina.runtime.logs`.
"""

import json
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from lamina.dataclasses import dataclass
from lamina.linux import process
from lamina.model.container import Container

BLOCK_BYTES = 1 << 16
INTERVAL_MS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One record. `time` is RFC 3339 in UTC with nine digits, so that texts compare as times do."""

    time: str
    stream: str
    text: str


def read_lines(
    path: str, *, tail: int | None = None, since_ns: int | None = None, until_ns: int | None = None,
    follow: Callable[[], Container | None] | None = None,
) -> Iterator[LogLine]:  # fmt: skip
    """Give the lines of a log in their order: the last `tail` of those that are there, then with `follow` those to come.

    `follow` gives the container as it is now, None if it is gone; following ends when the container has, or at `until_ns`.
    """
    since = _stamp(since_ns) if since_ns is not None else ""
    until = _stamp(until_ns) if until_ns is not None else ""
    try:
        file = open(path, "rb", buffering=BLOCK_BYTES)  # noqa: SIM115 - closed below; opened here for the except clause's sake
    except FileNotFoundError:
        return  # it has never been started
    with file:
        if tail is not None:
            file.seek(_tail_offset(file, tail))
        for line in _follow(file, follow, until_ns) if follow is not None else _whole_lines(file):
            record = _parse(line)
            if record is None or record.time < since:
                continue
            if until and record.time > until:
                return
            yield record


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Give lines up to the end; a half-written last one is left for the next call."""
    while line := file.readline():
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield line


def _follow(file: BinaryIO, current: Callable[[], Container | None], until_ns: int | None) -> Iterator[bytes]:
    with _Watched(current()) as watched:
        while True:
            ended = watched.has_ended()  # before reading: what was written until then is there to be read
            yield from _whole_lines(file)
            if ended or (until_ns is not None and time.time_ns() > until_ns):
                return
            watched.wait()


class _Watched:
    """The process whose end means that nothing more comes: the monitor, or without one the container's own first."""

    def __init__(self, container: Container | None) -> None:
        self._pidfd = -1
        if container is None or not container.is_active:
            return
        for pid, started in ((container.monitor_pid, container.monitor_started), (container.pid, container.pid_started)):
            if process.is_alive(pid, started):
                try:
                    self._pidfd = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
                break

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(self, *_error: object) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)

    def has_ended(self) -> bool:
        return self._pidfd < 0 or self._poll(0)

    def wait(self) -> None:
        self._poll(INTERVAL_MS)

    def _poll(self, timeout_ms: int) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout_ms))


def _tail_offset(file: BinaryIO, lines: int) -> int:
    """Find where the last so many lines begin, from the end backwards."""
    end = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return end
    seen, position = 0, end
    while position > 0:
        start = max(0, position - BLOCK_BYTES)
        file.seek(start)
        block = file.read(position - start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if start + at + 1 == end:
                continue  # the last line's own
            seen += 1
            if seen == lines:
                return start + at + 1
        position = start
    return 0


def _parse(line: bytes) -> LogLine | None:
    try:
        record = json.loads(line)
        return LogLine(time=record["time"], stream=record["stream"], text=record["log"])
    except (ValueError, KeyError, TypeError):
        return None  # a line that a crash cut in two


def _stamp(time_ns: int) -> str:
    seconds, rest = divmod(max(time_ns, 0), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
