"""One command, timed: wall clock from its start to its end, and processor time of it, its children and a daemon that works for it.

Commands are started by posix_spawn(3), which copies no page tables, so the harness's own size isn't measured. What they print
goes to files, so that no thread of the harness reads along.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lamina.linux import namespace
from lamina_bench.report import Figures
from lamina_bench.work import FailedError

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is run, and where: `namespaces` are entered first, outside of the timed part."""

    words: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stdin_path: str = "/dev/null"
    namespaces: tuple["Place", ...] = ()
    daemon_pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A namespace by its descriptor, and the one to come back to."""

    kind: int
    fd: int
    home_fd: int


class Spawner:
    """Runs commands; what they print goes to two files of `directory`."""

    def __init__(self, directory: str) -> None:
        self._out = f"{directory}/stdout"
        self._err = f"{directory}/stderr"

    def run(self, command: Command, *, fine: Sequence[int] = (0,)) -> Figures:
        """Run a command to its end and time it. Raises `FailedError` unless its exit code is one of `fine`."""
        before = daemon_cpu_s(command.daemon_pids)
        with entered(command.namespaces):
            began = time.perf_counter()
            pid = self._spawn(command)
            _, status, usage = os.wait4(pid, 0)
            wall_s = time.perf_counter() - began
        self._check(command, status, fine)
        cpu_s = usage.ru_utime + usage.ru_stime + daemon_cpu_s(command.daemon_pids) - before
        return Figures(wall_s=wall_s, cpu_s=cpu_s)

    def output(self, command: Command) -> str:
        """Run a command and give what it printed to standard output, without the last line's end."""
        self.run(command)
        with open(self._out, encoding="utf-8", errors="replace") as file:
            return file.read().removesuffix("\n")

    def run_all(self, commands: Sequence[Command], *, at_once: int) -> Figures:
        """Run commands of one engine, so many at a time, from the first one's start to the last one's end."""
        waiting = list(reversed(commands))
        running: dict[int, Command] = {}
        cpu_s = -daemon_cpu_s(commands[0].daemon_pids)
        wrong: list[tuple[Command, int]] = []
        with entered(commands[0].namespaces):
            began = time.perf_counter()
            while waiting or running:
                while waiting and len(running) < at_once:
                    command = waiting.pop()
                    running[self._spawn(command)] = command
                pid, status, usage = os.wait4(-1, 0)
                done = running.pop(pid, None)
                if done is not None:
                    cpu_s += usage.ru_utime + usage.ru_stime
                    if status:
                        wrong.append((done, status))
            wall_s = time.perf_counter() - began
        for command, status in wrong:
            self._check(command, status, (0,))
        return Figures(wall_s=wall_s, cpu_s=cpu_s + daemon_cpu_s(commands[0].daemon_pids))

    def _spawn(self, command: Command) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        files = [
            (os.POSIX_SPAWN_OPEN, 0, command.stdin_path, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, self._out, flags, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, self._err, flags, 0o600),
        ]
        return os.posix_spawnp(command.words[0], command.words, {**os.environ, **command.env}, file_actions=files)

    def _check(self, command: Command, status: int, fine: Sequence[int]) -> None:
        code = os.waitstatus_to_exitcode(status)
        if code not in fine:
            with open(self._err, encoding="utf-8", errors="replace") as file:
                said = " ".join(file.read().split()[-60:])
            raise FailedError(f"'{' '.join(command.words[:24])}' ended with {code}: {said or 'without a word'}")


@contextlib.contextmanager
def entered(places: Sequence[Place]) -> Iterator[None]:
    """Be in namespaces for a block. The harness has one thread, or setns(2) would refuse."""
    for place in places:
        namespace.setns(place.fd, place.kind)
    try:
        yield
    finally:
        for place in reversed(places):
            namespace.setns(place.home_fd, place.kind)


def daemon_cpu_s(pids: Sequence[int]) -> float:
    """The processor time that processes and their ended children have had until now (proc(5), /proc/PID/stat, fields 14 to 17)."""
    found = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            found += sum(int(each) for each in file.read().rpartition(b")")[2].split()[11:15])
    return found / TICKS
