"""A client of a monitor: carries a terminal's or pipes' bytes to a container and back until it ends or the user detaches."""

import errno
import os
import select
import signal
from collections.abc import Callable, Sequence
from typing import Any

from lamina.dataclasses import dataclass, field
from lamina.errors import StateError, UsageError
from lamina.linux import terminal, unix_socket
from lamina.linux.unix_socket import Socket
from lamina.runtime import frames

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
CHUNK_BYTES = 1 << 16


def parse_detach_keys(text: str) -> bytes:
    """Turn "ctrl-p,ctrl-q" into the bytes to look for; "" turns detaching off. Docker's notation."""
    keys = bytearray()
    for word in text.split(",") if text else []:
        if len(word) == 1:
            keys += word.encode()
        elif word.startswith("ctrl-") and len(word) == 6 and word.isascii() and "@" <= word[5].upper() <= "_":
            keys.append(ord(word[5].upper()) & 0x1F)
        else:
            raise UsageError(f"invalid detach keys '{text}'", hint="write single letters or ctrl-LETTER, separated by commas")
    return bytes(keys)


def connect(socket_path: str) -> Socket:
    """Connect to a running container's monitor."""
    try:
        return unix_socket.connect(socket_path)
    except FileNotFoundError:
        raise StateError("the container is not running") from None
    except OSError as error:
        raise StateError(f"the container's monitor doesn't answer: {error.strerror}") from error


@dataclass(slots=True, kw_only=True)
class Relay:
    """One attached session. Descriptors may be -1 for a stream that isn't wanted."""

    channel: Socket
    stdin_fd: int = -1
    stdout_fd: int = -1
    stderr_fd: int = -1
    tty: bool = False
    detach_keys: bytes = b"\x10\x11"
    parser: frames.Parser = field(default_factory=frames.Parser)
    early: Sequence[tuple[int, bytes]] = ()
    pid: int = 0
    """Where signals that this process gets are sent on to; 0 for nowhere."""
    passing: Callable[[int], None] | None = None
    """Called with each of them before it is sent on."""
    detached: bool = False
    _keys_seen: bytes = b""
    _ended_by: int = 0

    def run(self) -> int | None:
        """Relay until the container ends; returns its exit code, or None if the user detached or the monitor is gone.

        A signal that ends this process and isn't sent on ends it here too, but not before the terminal is as it was.
        """
        try:
            return self._run()
        finally:
            if self._ended_by:
                os.kill(os.getpid(), self._ended_by)

    def _run(self) -> int | None:
        raw = self.tty and self.stdin_fd >= 0 and os.isatty(self.stdin_fd)
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = self._watch_signals(wake_write, raw=raw)
        try:
            if self.tty:
                self._send_size()
            if raw:
                with terminal.raw_mode(self.stdin_fd):
                    return self._loop(wake_read, raw=True)
            return self._loop(wake_read, raw=False)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(wake_read)
            os.close(wake_write)
            self.channel.close()

    def _watch_signals(self, wake_fd: int, *, raw: bool) -> dict[int, Any]:
        """Send signals on to the container, as `docker run` does; only a main thread can."""
        numbers = [signal.SIGWINCH] if self.tty else []
        if self.pid:
            numbers += [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2]
        elif raw:
            numbers += [signal.SIGTERM, signal.SIGHUP]

        def wake(number: int, _frame: object) -> None:
            try:
                os.write(wake_fd, bytes([number]))
            except BlockingIOError:
                pass

        try:
            return {number: signal.signal(number, wake) for number in numbers}
        except ValueError:  # not the main thread. Asking `threading` would import it, and its hook runs after each fork
            return {}

    def _loop(self, wake_fd: int, *, raw: bool) -> int | None:
        for kind, payload in self.early:
            code = self._hear(kind, payload)
            if code is not None:
                return code
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        poll.register(wake_fd, select.POLLIN)
        if self.stdin_fd >= 0:
            poll.register(self.stdin_fd, select.POLLIN)
        while True:
            for fd, _events in poll.poll():
                if fd == wake_fd:
                    for number in os.read(wake_fd, 64):
                        self._pass_on(number)
                    if self._ended_by:
                        return None
                elif fd == self.stdin_fd:
                    data = self._read_stdin()
                    if not data:
                        poll.unregister(fd)
                        self.detached = raw  # a raw terminal has no end but hanging up: nobody is there any more
                    passed = self._filter_keys(data)
                    if passed or not data:
                        self._send(frames.pack(frames.STDIN, passed))
                    if self.detached:
                        return None
                else:
                    data = self._receive()
                    if not data:
                        return None
                    for kind, payload in self.parser.feed(data):
                        code = self._hear(kind, payload)
                        if code is not None:
                            return code

    def _read_stdin(self) -> bytes:
        try:
            return os.read(self.stdin_fd, CHUNK_BYTES)
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that has hung up
                raise
            return b""

    def _receive(self) -> bytes:
        try:
            return self.channel.recv(CHUNK_BYTES)
        except ConnectionResetError:
            return b""

    def _send(self, data: bytes) -> None:
        try:
            self.channel.sendall(data)
        except OSError:
            pass  # the container has ended; its exit code is on its way

    def _hear(self, kind: int, payload: bytes) -> int | None:
        if kind == frames.EXIT:
            return int(payload)
        fd = {frames.STDOUT: self.stdout_fd, frames.STDERR: self.stderr_fd}.get(kind, -1)
        if fd >= 0:
            try:
                frames.write_all(fd, payload)
            except OSError as error:
                if error.errno != errno.EIO:  # EPIPE ends this client, as SIGPIPE ends Docker's; the container goes on
                    raise
                self.stdout_fd = self.stderr_fd = -1  # the terminal has hung up
        return None

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGWINCH:
            self._send_size()
        elif self.pid:
            if self.passing is not None:
                self.passing(number)
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass
        else:
            self._ended_by = number

    def _send_size(self) -> None:
        for fd in (self.stdout_fd, self.stdin_fd):
            rows, columns = terminal.size(fd) if fd >= 0 else (0, 0)
            if rows and columns:
                self._send(frames.pack(frames.RESIZE, b"%d %d" % (rows, columns)))
                return

    def _filter_keys(self, data: bytes) -> bytes:
        """Hold back what may be the beginning of the detach keys; set `detached` when they are complete."""
        if not self.tty or not self.detach_keys or not data:
            return data
        out = bytearray()
        for byte in data:
            self._keys_seen += bytes([byte])
            while self._keys_seen and not self.detach_keys.startswith(self._keys_seen):
                out.append(self._keys_seen[0])
                self._keys_seen = self._keys_seen[1:]
            if self._keys_seen == self.detach_keys:
                self.detached = True
                break
        return bytes(out)
