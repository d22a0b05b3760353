"""What a build tells while it works: its steps, their output, how they ended. `progress_plain.py` and `progress_live.py` show it.

This file has the events and the silent form, so that a library's build prints nothing.
"""

import time
from typing import Protocol

FRESH, RUNNING, CACHED, DONE, FAILED, CANCELED = "fresh", "running", "cached", "done", "failed", "canceled"
KEPT_OUTPUT_BYTES = 256 << 10


class Step:
    """One step that a person sees, such as `[build 2/4] RUN make`. It may be begun, and then ends in one way."""

    def __init__(self, progress: "Progress", *, number: int, title: str) -> None:
        self.progress = progress
        self.number = number
        self.title = title
        self.state = FRESH
        self.started_s = 0.0
        self.ended_s = 0.0
        self.kept = bytearray()
        """The last of its output, for the report of a failure."""

    @property
    def seconds(self) -> float:
        """How long it has taken so far, or took."""
        return (self.ended_s or time.monotonic()) - self.started_s if self.started_s else 0.0

    def begin(self) -> None:
        """It is at work."""
        if self.state == FRESH:
            self.state = RUNNING
            self.started_s = time.monotonic()
            self.progress.changed(self)

    def output(self, data: bytes) -> None:
        """Its command has written something."""
        self.kept += data
        if len(self.kept) > 2 * KEPT_OUTPUT_BYTES:
            del self.kept[:-KEPT_OUTPUT_BYTES]
        self.progress.output(self, data)

    def say(self, text: str) -> None:
        """Note something about it, a line."""
        self.progress.said(self, text)

    def end(self, state: str) -> None:
        """It is over: cached, done, failed or canceled."""
        if self.state in {FRESH, RUNNING}:
            self.ended_s = time.monotonic()
            self.state = state
            self.progress.changed(self)


class Progress(Protocol):
    """Who shows a build."""

    tick_s: float | None
    """How often `tick` wants to be called; None if it need not be."""

    def step(self, title: str) -> Step:
        """Make the next step."""

    def changed(self, step: Step) -> None:
        """A step has begun or ended."""

    def output(self, step: Step, data: bytes) -> None:
        """A step's command has written something."""

    def said(self, step: Step, text: str) -> None:
        """Something is to be known of a step."""

    def warn(self, text: str) -> None:
        """Something is to be known of the whole."""

    def failed(self, step: Step | None, excerpt: str) -> None:
        """The build fails at a step; `excerpt` shows the Dockerfile's lines around it. The error itself is raised after this."""

    def tick(self) -> None:
        """Time goes by."""

    def close(self) -> None:
        """The build is over, well or not."""


class Silent:
    """Shows nothing."""

    tick_s: float | None = None

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def step(self, title: str) -> Step:
        made = Step(self, number=len(self.steps) + 1, title=title)
        self.steps.append(made)
        return made

    def changed(self, step: Step) -> None:
        pass

    def output(self, step: Step, data: bytes) -> None:
        pass

    def said(self, step: Step, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def failed(self, step: Step | None, excerpt: str) -> None:
        pass

    def tick(self) -> None:
        pass

    def close(self) -> None:
        pass
