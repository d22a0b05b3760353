"""Launching: forks the monitor, and hears from it how the start went.

    engine                      monitor                     the container's first process
    launch ───── fork ────────▶ start ─────── fork ───────▶
    mounts the root, makes the cgroup
           ───── BEGIN ───────▶ ─────────────── one byte ──▶ steps up to the command
           ◀──── READY, pid ─── ◀───────────── "ready" ─────
    records the pid
    go     ───── GO ──────────▶ ─────────────── one byte ──▶ execve
           ◀──── STARTED ────── ◀──────── the pipe closes ──
           ◀──── output, EXIT   relays, reaps

The two forks take as long as what the creator has to make ready, so both happen at once. Until GO the creator's death undoes
everything by itself: the monitor sees the channel close, the child sees the pipe close.
"""

import os
import sys

from lamina.dataclasses import dataclass, field
from lamina.errors import StartError
from lamina.linux import process, unix_socket
from lamina.linux.unix_socket import Socket
from lamina.runtime import frames, monitor


@dataclass(slots=True, kw_only=True)
class Launch:
    """A container on its way up, seen from its creator."""

    channel: Socket
    monitor_pid: int
    parser: frames.Parser = field(default_factory=frames.Parser)
    early: list[tuple[int, bytes]] = field(default_factory=list)
    """Frames that came with those waited for; output may come right behind STARTED."""
    pid: int = 0
    made_mountpoints: tuple[str, ...] = ()

    def wait_ready(self) -> None:
        """Say that all is there that the steps need, and wait until the command could run; sets `pid` and `made_mountpoints`.

        Raises `StartError`.
        """
        self._say(frames.BEGIN)
        payload = self._expect(frames.READY)
        pid, *made = payload.split(b"\0")
        self.pid = int(pid)
        self.made_mountpoints = tuple(os.fsdecode(path) for path in made)

    def go(self) -> None:
        """Let the command run and wait until it does. Raises `StartError`."""
        self._say(frames.GO)
        self._expect(frames.STARTED)

    def leave(self) -> bool:
        """Let the container run on by itself; gives whether it has ended meanwhile, as we were told: then the caller settles it.

        The monitor relies on whoever has heard the exit code; who closes the channel without having read it hasn't.
        """
        self.channel.close()
        return any(kind == frames.EXIT for kind, _ in self.early)

    def abandon(self) -> None:
        """Give up before GO: the monitor and the child end by themselves."""
        self.channel.close()
        _reap(self.monitor_pid)

    def _say(self, kind: int) -> None:
        try:
            self.channel.sendall(frames.pack(kind))
        except OSError:
            pass  # it has failed, or was killed: what it has said before tells which

    def _expect(self, wanted: int) -> bytes:
        while True:
            for index, (kind, payload) in enumerate(self.early):
                if kind == wanted:
                    del self.early[index]
                    return payload
                if kind == frames.FAILED:
                    self.channel.close()
                    _reap(self.monitor_pid)
                    raise _start_error(payload)
            try:
                data = self.channel.recv(4096)
            except ConnectionResetError:
                data = b""
            if not data:
                self.channel.close()
                _reap(self.monitor_pid)
                raise StartError("the container's monitor was killed during the start")
            self.early += self.parser.feed(data)


def launch(plan: monitor.MonitorPlan) -> Launch:
    """Fork the monitor of one container. The caller's database must be closed, or not be used by the child: it isn't."""
    ours, theirs = unix_socket.pair()
    sys.stdout.flush()
    sys.stderr.flush()
    launched = Launch(channel=ours, monitor_pid=0)
    launched.monitor_pid = process.fork()
    if launched.monitor_pid == 0:
        ours.close()  # else the monitor would not see its other end close
        monitor.run(plan, theirs)
        os._exit(1)
    theirs.close()
    return launched


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def _start_error(payload: bytes) -> StartError:
    code, _errno, step, message = payload.decode("utf-8", "surrogateescape").split("\0", 3)
    return StartError(message, exit_code=int(code), step=step)
