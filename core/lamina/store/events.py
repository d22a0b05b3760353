"""The journal of events: what happened to containers, images, networks and volumes, one JSON object a line.

Without a daemon nobody hears of all, so each command writes down what it did: one `write` to a file that is opened for appending,
whose lines don't mix (write(2), O_APPEND), without an fsync: a power cut may lose the last ones. A monitor does the same at its
container's end. The file begins anew when it has grown to a megabyte, and one before it is kept. Reading is `usecases/events.py`.
"""

import os
import time
from collections.abc import Mapping

from lamina import json
from lamina.store.operations import locked

FILE_BYTES = 1 << 20
"""About 4000 events. (Docker keeps the last 256, in memory.)"""


class EventJournal:
    """The journal of one root directory."""

    def __init__(self, root_dir: str, run_dir: str) -> None:
        self.path = os.path.join(root_dir, "events.log")
        self._run_dir = run_dir
        self._fd = -1
        self._pid = 0

    def append(self, kind: str, action: str, actor: str, attributes: Mapping[str, str], *, time_ns: int = 0) -> None:
        """Write an event down: `kind` is container, image, network or volume, `actor` its id, or a volume's name.

        It never fails what has happened: a full disk loses it.
        """
        event = {"time": time_ns or time.time_ns(), "type": kind, "action": action, "id": actor, "attributes": dict(attributes)}
        line = json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            if self._pid != os.getpid():  # a child of ours has closed what it didn't need
                self._open()
            os.write(self._fd, line)
            if os.lseek(self._fd, 0, os.SEEK_CUR) >= FILE_BYTES:
                self._begin_anew()
        except OSError:
            pass

    def close(self) -> None:
        """Let go of the file; the next event opens it."""
        if self._pid == os.getpid():
            os.close(self._fd)
        self._pid = 0

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._pid = os.getpid()

    def _begin_anew(self) -> None:
        with locked(self._run_dir, "events"):
            try:
                is_current = os.stat(self.path).st_ino == os.fstat(self._fd).st_ino
            except FileNotFoundError:
                is_current = False
            if is_current:  # else somebody else has done it, and our last event is the old file's last
                os.rename(self.path, f"{self.path}.1")
        self.close()
