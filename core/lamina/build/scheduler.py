"""Stages side by side, in one thread: each is a generator that yields when it must wait, and is resumed when that has come.

One thread, because SQLite stays with it and because a fork with other threads about is unsafe. What runs at the same time are the
containers of RUN steps, and those are processes. A stage that fails ends the others.
"""

import select
from collections import deque
from collections.abc import Callable, Generator, Sequence

from lamina.build.state import State
from lamina.dataclasses import dataclass

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class NeedStage:
    """Go on when that stage is complete."""

    index: int


@dataclass(frozen=True, slots=True)
class Readable:
    """Go on when something can be read there."""

    fd: int


@dataclass(frozen=True, slots=True)
class Again:
    """Go on a moment later: what is waited for can't be watched, such as a lock that another process holds."""


Wait = NeedStage | Readable | Again
Work = Generator[Wait, None, State]


class Scheduler:
    """Carries stages out. `start` gives a stage's generator; `tick` is called now and then while all of them wait."""

    def __init__(self, start: Callable[[int], Work], *, tick: Callable[[], None], tick_s: float | None = None) -> None:
        self._start = start
        self._tick = tick
        self._tick_s = tick_s
        self._poll = select.poll()
        self._work: dict[int, Work] = {}
        self._ready: deque[int] = deque()
        self._reading: dict[int, int] = {}
        self._again: list[int] = []
        self._waiting: dict[int, list[int]] = {}
        self.states: dict[int, State] = {}

    def run(self, wanted: Sequence[int]) -> None:
        """Complete these stages and all that they come to need."""
        try:
            for index in wanted:
                self._begin(index)
            while self._ready or self._reading or self._again:
                while self._ready:
                    self._resume(self._ready.popleft())
                self._wait()
        except BaseException as error:
            for second in self._close():
                error.add_note(f"while cleaning up: {second}")
            raise

    def _begin(self, index: int) -> None:
        if index not in self._work and index not in self.states:
            self._work[index] = self._start(index)
            self._ready.append(index)

    def _resume(self, index: int) -> None:
        work = self._work[index]
        while True:
            try:
                wait = next(work)
            except StopIteration as end:
                del self._work[index]
                self.states[index] = end.value
                self._ready.extend(self._waiting.pop(index, ()))
                return
            if isinstance(wait, NeedStage):
                if wait.index in self.states:
                    continue
                self._begin(wait.index)
                self._waiting.setdefault(wait.index, []).append(index)
            elif isinstance(wait, Readable):
                self._reading[wait.fd] = index
                self._poll.register(wait.fd, select.POLLIN)
            else:
                self._again.append(index)
            return

    def _wait(self) -> None:
        if not self._reading and not self._again:
            return
        limits = [limit for limit in (self._tick_s, POLL_S if self._again else None) if limit is not None]
        for fd, _events in self._poll.poll(min(limits) * 1000 if limits else None):
            self._poll.unregister(fd)
            self._ready.append(self._reading.pop(fd))
        self._ready.extend(self._again)
        self._again.clear()
        self._tick()

    def _close(self) -> list[Exception]:
        """Let every stage that is still at work undo its step; gives what went wrong in that."""
        errors: list[Exception] = []
        for work in list(self._work.values()):
            try:
                work.close()
            except Exception as error:  # noqa: BLE001 - the others must be closed all the same
                errors.append(error)
        self._work.clear()
        return errors
