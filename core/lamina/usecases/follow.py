"""Reading a container's log: its last lines, a stretch of time, and what is still being written.

A log grows at its end; with a limit it is several files, which are renamed and never rewritten. Following sleeps on the monitor's
pidfd and looks at the files ten times a second; the container's end is noticed at once, and is no end if it is restarted. Who
writes the log, and its form, is `lamina.runtime.logs`.
"""

import os
import select
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from lamina import json
from lamina.dataclasses import dataclass
from lamina.linux import process
from lamina.model.container import Container

BLOCK_BYTES = 1 << 16
INTERVAL_MS = 100
ATTEMPTS = 20


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
    with LogFiles(path, tail) as log:
        for line in _follow(log, follow, until_ns) if follow is not None else log.lines():
            record = _parse(line)
            if record is None or record.time < since:
                continue
            if until and record.time > until:
                return
            yield record


class LogFiles:
    """A log's files as one, from the `tail`th last line on; None is from the beginning.

    `LogWriter` renames files while they are read. So a file is known by its inode, which can't be another file's while it is open;
    the next one to read is the one that the names, looked at from the newest to the oldest, have before it. A file that was deleted
    before it was read is lost to the reader: there were too many meanwhile.
    """

    def __init__(self, path: str, tail: int | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        files = [file for name in self._names() if (file := _opened(name)) is not None]  # the newest first
        for file in files:
            if self._file is not None:
                self._file.close()
            self._file = file
            if tail is None:
                continue
            offset, found = _tail_offset(file, tail)
            file.seek(offset)
            tail -= found
            if tail <= 0:
                break
        for file in files:
            if file is not self._file:
                file.close()

    def __enter__(self) -> "LogFiles":
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()

    def lines(self) -> Iterator[bytes]:
        """Give whole lines up to the end as it is now; may be called again for those that have come since."""
        if self._file is None:
            self._file = _opened(self._path)
        while self._file is not None:
            yield from _whole_lines(self._file)
            after = self._next(os.fstat(self._file.fileno()).st_ino)
            if after is None:
                return
            yield from _whole_lines(self._file)  # what was written after we looked and before it got its next name
            self._file.close()
            self._file = after

    def _next(self, inode: int) -> BinaryIO | None:
        while names := self._names():
            inodes = list(names.values())
            place = inodes.index(inode) if inode in inodes else len(inodes)
            if place == 0:
                return None
            file = _opened(list(names)[place - 1])
            if file is not None and os.fstat(file.fileno()).st_ino == inodes[place - 1]:
                return file
            if file is not None:
                file.close()  # it was renamed in between
        return None

    def _names(self) -> dict[str, int]:
        """The files that are there, the newest first: name to inode, each inode once.

        Going with the renames, it misses none: what has moved on is met again. A name may be missing for a moment, but never two.
        """
        for _ in range(ATTEMPTS):
            found: dict[str, int] = {}
            number = missing = 0
            while missing < 2:
                name = f"{self._path}.{number}" if number else self._path
                number += 1
                try:
                    inode = os.stat(name).st_ino
                except FileNotFoundError:
                    missing += 1
                    continue
                missing = 0
                if inode not in found.values():
                    found[name] = inode
            try:
                if found.get(self._path) == os.stat(self._path).st_ino:
                    break
            except FileNotFoundError:
                if self._path not in found:
                    break
        return found


def _opened(path: str) -> BinaryIO | None:
    try:
        return open(path, "rb", buffering=BLOCK_BYTES)
    except FileNotFoundError:
        return None  # it has never been started, or that file was deleted as the oldest


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Give lines up to the end; a half-written last one is left for the next call."""
    while line := file.readline():
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield line


def _follow(log: LogFiles, current: Callable[[], Container | None], until_ns: int | None) -> Iterator[bytes]:
    while True:
        container = current()
        with _Watched(container) as watched:
            while True:
                ended = watched.has_ended()  # before reading: what was written until then is there to be read
                yield from log.lines()
                if until_ns is not None and time.time_ns() > until_ns:
                    return
                if ended:
                    break
                watched.wait()
        if container is None or not _goes_on(current):
            return


def _goes_on(current: Callable[[], Container | None]) -> bool:
    """Whether a container runs again, or will, after what was watched has ended: its restart policy has started it."""
    for _ in range(ATTEMPTS):
        container = current()
        if container is None or not container.is_up or container.config.supervision is None:
            return False
        if process.is_alive(container.monitor_pid, container.monitor_started):
            return True
        time.sleep(INTERVAL_MS / 1000)  # it is being settled
    return False


class _Watched:
    """The process whose end means that nothing more comes: the monitor, or without one the container's own first."""

    def __init__(self, container: Container | None) -> None:
        self._pidfd = -1
        if container is None or not container.is_up:
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


def _tail_offset(file: BinaryIO, lines: int) -> tuple[int, int]:
    """Find where the last so many lines begin, from the end backwards, and how many they are."""
    end = file.seek(0, os.SEEK_END)
    if lines <= 0 or not end:
        return end, 0
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
                return start + at + 1, lines
        position = start
    return 0, seen + 1


def _parse(line: bytes) -> LogLine | None:
    try:
        record = json.loads(line)
        return LogLine(time=record["time"], stream=record["stream"], text=record["log"])
    except (ValueError, KeyError, TypeError):
        return None  # a line that a crash cut in two


def _stamp(time_ns: int) -> str:
    seconds, rest = divmod(max(time_ns, 0), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
