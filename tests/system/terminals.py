"""A person at a terminal: a program with a pseudo-terminal of its own, keys typed into it, what it shows waited for."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from types import TracebackType
from typing import Self

from cases import SLOWNESS

CTRL_C, CTRL_P, CTRL_Q, CTRL_Z, CTRL_D = b"\x03", b"\x10", b"\x11", b"\x1a", b"\x04"


class Terminal:
    """A session on a terminal of its own, whose leader is the program."""

    def __init__(self, command: list[str], *, rows: int = 24, columns: int = 80) -> None:
        self.shown = ""
        """What has come so far and no `expect` has taken yet."""
        self.all = ""
        self.code: int | None = None
        size = struct.pack("HHHH", rows, columns, 0, 0)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, size)
                os.execv(command[0], command)
            finally:
                os._exit(127)
        os.set_inheritable(self.fd, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.hang_up()
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def type(self, keys: str | bytes) -> None:
        """Type; a line's end is the return key."""
        os.write(self.fd, keys.encode().replace(b"\n", b"\r") if isinstance(keys, str) else keys)

    def expect(self, pattern: str, timeout_s: float = 10) -> re.Match[str]:
        """Wait until what it shows matches, and take everything up to there."""
        deadline = time.monotonic() + timeout_s * SLOWNESS
        while (found := re.search(pattern, self.shown)) is None:
            assert self._read(deadline - time.monotonic()), f"no {pattern!r} in {self.all[-2000:]!r}"
        self.shown = self.shown[found.end() :]
        return found

    def resize(self, rows: int, columns: int) -> None:
        """Pull the window to another size."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self, timeout_s: float = 15) -> int:
        """Wait until the program has ended; gives its exit code."""
        deadline = time.monotonic() + timeout_s * SLOWNESS
        while self.code is None:
            self._read(min(0.02, deadline - time.monotonic()))
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.code = os.waitstatus_to_exitcode(status)
            else:
                assert time.monotonic() < deadline, f"still running; shown: {self.all[-2000:]!r}"
        while self._read(0.02):
            pass
        return self.code

    def mode(self) -> list[object]:
        """How the terminal treats keys (termios(3))."""
        return termios.tcgetattr(self.fd)

    def hang_up(self) -> None:
        """Close the window: the session gets SIGHUP."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _read(self, timeout_s: float) -> bool:
        if timeout_s <= 0 or not select.select([self.fd], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # EIO: nobody has the other end open any more
            return False
        text = data.decode("utf-8", "replace")
        self.shown += text
        self.all += text
        return bool(data)
