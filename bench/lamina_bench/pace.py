"""Whether the machine keeps its full pace: cores that are shared with other virtual machines, or whose clock goes up and down, are
slower for a tenth of a second or for minutes, and no load tells of it.

The yardstick is a fixed piece of Python's own work, timed on each core. It is held to the least that it has ever taken there.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

SLACK = 1.15
"""How many times its least the yardstick may take."""
TRIES = 20
"""How often a turn is done at most."""
WAIT_S = 5.0
"""How long the pace is waited for before a turn."""
FIRST_LOOKS = 200
"""How often the yardstick is timed before the first turn, so that its least is a good one."""


def yardstick() -> list[float]:
    """Time the work on each core that the process may use; seconds."""
    cores = os.sched_getaffinity(0)
    try:
        return [_on(core) for core in sorted(cores)]
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, cores)


class Pace:
    """Tells whether a turn counts: the pace was full just before it and just after."""

    def __init__(self, look: Callable[[], Sequence[float]] = yardstick, *, is_asked: bool = True) -> None:
        self._look = look
        self.is_asked = is_asked
        self._least = list(look())
        self._tries = 0
        self.again = 0
        """Turns that were done once more."""
        self.given_up = 0
        """Turns that count though the pace wasn't kept, as it never was."""
        for _ in range(FIRST_LOOKS):
            self._is_full()

    def wait(self) -> None:
        """Wait until the pace is full, or for `WAIT_S`."""
        until = time.monotonic() + WAIT_S
        while not self._is_full() and time.monotonic() < until:
            time.sleep(0.02)

    def was_kept(self) -> bool:
        """Whether the turn that has just ended counts."""
        self._tries += 1
        if not self._is_full():
            if self._tries < TRIES:
                self.again += 1
                return False
            self.given_up += 1
        self._tries = 0
        return True

    def _is_full(self) -> bool:
        took = self._look()
        self._least = [min(pair) for pair in zip(self._least, took, strict=True)]
        return all(now <= SLACK * least for now, least in zip(took, self._least, strict=True))


def any_pace() -> Pace:
    """One by which every turn counts."""
    return Pace(tuple, is_asked=False)


def _on(core: int) -> float:
    os.sched_setaffinity(0, {core})
    made = {}
    began = time.perf_counter()
    for number in range(6000):
        made[number & 1023] = str(number)
    return time.perf_counter() - began
