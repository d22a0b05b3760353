"""A container's log, in the form of Docker's json-file: one JSON object a line, `log`, `stream`, `time`.

A line longer than 16 KiB is cut into several objects, all but the last without a newline at the end, as Docker does.

With a limit the log is several files, `…-json.log` the newest, then `.1`, `.2` and so on. A file is never cut or written anew: it
gets its next name, and the last one is deleted, so that who reads it loses and repeats nothing (`usecases/follow.py`).
"""

import os
import time

from lamina import json
from lamina.runtime import frames

LINE_BYTES = 16 << 10
_STREAMS = {frames.STDOUT: "stdout", frames.STDERR: "stderr"}


class LogWriter:
    """Appends to a log; what isn't a whole line yet waits for its end."""

    def __init__(self, path: str, *, file_bytes: int = 0, files: int = 1) -> None:
        self._path = path
        self._file_bytes = file_bytes
        self._files = files
        self.partial: dict[int, bytes] = {}
        """What has come of each stream's last line."""
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.lseek(self._fd, 0, os.SEEK_END) if self._file_bytes else 0

    def write(self, kind: int, data: bytes) -> None:
        """Add bytes of one stream."""
        data = self.partial.pop(kind, b"") + data
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
            self.partial[kind] = data[start:]
        self._append(out)

    def end_of_stream(self, kind: int) -> None:
        """Write what is left of a stream that has ended."""
        rest = self.partial.pop(kind, b"")
        if rest:
            self._append([_record(rest, kind, _now())])

    def close(self) -> None:
        """Write what is left and close."""
        for kind in list(self.partial):
            self.end_of_stream(kind)
        os.close(self._fd)

    def _append(self, records: list[bytes]) -> None:
        try:
            if not self._file_bytes:
                frames.write_all(self._fd, b"".join(records))
                return
            for record in records:
                if self._size >= self._file_bytes:  # as Docker's: the record that goes beyond is still written
                    self._rotate()
                frames.write_all(self._fd, record)
                self._size += len(record)
        except OSError:
            pass  # a full disk must not stop the container; the line is lost to the log alone

    def _rotate(self) -> None:
        for number in range(self._files - 1, 0, -1):
            try:
                os.rename(f"{self._path}.{number - 1}" if number > 1 else self._path, f"{self._path}.{number}")
            except FileNotFoundError:
                pass
        if self._files == 1:
            os.unlink(self._path)
        old_fd = self._fd
        self._open()
        os.close(old_fd)


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
