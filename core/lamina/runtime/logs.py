"""A container's log, in the form of Docker's json-file: one JSON object a line, `log`, `stream`, `time`.

A line longer than 16 KiB is cut into several objects, all but the last without a newline at the end, as Docker does.
"""

import json
import os
import time
from collections.abc import Iterator
from typing import IO

from lamina.runtime import frames

LINE_BYTES = 16 << 10
_STREAMS = {frames.STDOUT: "stdout", frames.STDERR: "stderr"}


class LogWriter:
    """Appends to a log; what isn't a whole line yet waits for its end."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._partial: dict[int, bytes] = {}

    def write(self, kind: int, data: bytes) -> None:
        """Add bytes of one stream."""
        data = self._partial.pop(kind, b"") + data
        stamp = _now()
        out = []
        start = 0
        while True:
            end = data.find(b"\n", start)
            if end < 0:
                while len(data) - start > LINE_BYTES:
                    cut = _cut(data, start)
                    out.append(_record(data[start:cut], kind, stamp))
                    start = cut
                break
            while end + 1 - start > LINE_BYTES:
                cut = _cut(data, start)
                out.append(_record(data[start:cut], kind, stamp))
                start = cut
            out.append(_record(data[start : end + 1], kind, stamp))
            start = end + 1
        if start < len(data):
            self._partial[kind] = data[start:]
        self._append(out)

    def end_of_stream(self, kind: int) -> None:
        """Write what is left of a stream that has ended."""
        rest = self._partial.pop(kind, b"")
        if rest:
            self._append([_record(rest, kind, _now())])

    def close(self) -> None:
        """Write what is left and close."""
        for kind in list(self._partial):
            self.end_of_stream(kind)
        os.close(self._fd)

    def _append(self, records: list[bytes]) -> None:
        try:
            frames.write_all(self._fd, b"".join(records))
        except OSError:
            pass  # a full disk must not stop the container; the line is lost to the log alone


def _cut(data: bytes, start: int) -> int:
    """Where a line that is too long is cut: after 16 KiB, or up to three bytes before, so that no UTF-8 character is."""
    end = start + LINE_BYTES
    for before in range(4):
        if data[end - before] & 0xC0 != 0x80:
            return end - before
    return end  # it isn't UTF-8


def _record(line: bytes, kind: int, stamp: str) -> bytes:
    text = line.decode("utf-8", "replace")
    return json.dumps({"log": text, "stream": _STREAMS[kind], "time": stamp}, ensure_ascii=False).encode() + b"\n"


def _now() -> str:
    nanoseconds = time.time_ns()
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def read_log(file: IO[str]) -> Iterator[tuple[str, str, str]]:
    """Give (time, stream, text) of each whole record from where the file stands; a half-written last line is left unread."""
    while True:
        position = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(position)
            return
        try:
            record = json.loads(line)
            found = record["time"], record["stream"], record["log"]
        except (ValueError, KeyError, TypeError):
            continue  # a line that a crash cut in two
        yield found
