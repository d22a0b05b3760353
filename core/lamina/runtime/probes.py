"""When a container's health is checked: the monitor's part of it. What a check does is `lamina.probe`, a process for each.

The next check begins an interval after the last one's end, Docker's rule; in the start period the shorter interval counts until the
container was healthy once. A check says by its exit code whether that is still to come.
"""

import os
import signal
import time
from collections.abc import Sequence

STARTING = 3
"""The exit code of a check after which the container is neither healthy nor unhealthy yet."""


class ProbePlan:
    """The program to run, and how long to wait before each run."""

    def __init__(self, *, command: Sequence[str], interval_s: float, start_interval_s: float, start_period_s: float) -> None:
        self.command = command
        self.interval_s = interval_s
        self.start_interval_s = start_interval_s
        self.start_period_s = start_period_s


class Probes:
    """The checks of one running container: at most one at a time."""

    def __init__(self, plan: ProbePlan) -> None:
        self.plan = plan
        self.pid = 0
        self.pidfd = -1
        self._begun_s = time.monotonic()
        self._is_starting = True
        self._due_s = self._next_due()

    def _next_due(self) -> float:
        now_s = time.monotonic()
        in_period = self._is_starting and now_s - self._begun_s < self.plan.start_period_s
        return now_s + (self.plan.start_interval_s if in_period else self.plan.interval_s)

    def state(self) -> tuple[float, bool, float]:
        """What `resume` needs in another program of the same process; CLOCK_MONOTONIC is the machine's. None may be running."""
        return self._begun_s, self._is_starting, self._due_s

    def resume(self, state: tuple[float, bool, float]) -> None:
        """Go on where `state` was."""
        self._begun_s, self._is_starting, self._due_s = state

    def timeout_ms(self) -> int:
        """How long the monitor may sleep: until the next check is due, and without end while one runs."""
        return -1 if self.pid else max(0, int((self._due_s - time.monotonic()) * 1000) + 1)

    def go_on(self) -> None:
        """Begin a check that is due; note the end of one that has ended."""
        if self.pid:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if not pid:
                return
            os.close(self.pidfd)
            self.pid, self.pidfd = 0, -1
            self._is_starting = os.waitstatus_to_exitcode(status) == STARTING
            self._due_s = self._next_due()
        elif time.monotonic() >= self._due_s:
            try:
                self.pid = os.posix_spawn(self.plan.command[0], list(self.plan.command), os.environ, setsid=True)
                self.pidfd = os.pidfd_open(self.pid)
            except OSError:  # no memory, or too many processes: the next time
                self._due_s = self._next_due()

    def end(self) -> None:
        """End a check that still runs: its container has ended."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
