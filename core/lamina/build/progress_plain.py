"""Progress as lines, one after another, as BuildKit's `plain`: for logs, pipes, and terminals that can't do better.

#5 [build 2/4] RUN make
#5 0.123 cc -c main.c
#5 DONE 0.4s
"""

import sys
import time
from typing import TextIO

from lamina.build.progress import CACHED, CANCELED, DONE, FAILED, RUNNING, Silent, Step


class Plain:
    """Writes lines to standard error."""

    tick_s: float | None = None

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stderr
        self._steps = 0
        self._told: set[int] = set()
        self._shown: Step | None = None
        self._unended: dict[int, bytes] = {}

    def step(self, title: str) -> Step:
        self._steps += 1
        return Step(self, number=self._steps, title=title)

    def changed(self, step: Step) -> None:
        if step.state == RUNNING:
            self._title(step)
            self._out.flush()
            return
        self._flush(step)
        self._title(step)
        texts = {CACHED: "CACHED", DONE: f"DONE {step.seconds:.1f}s", CANCELED: "CANCELED", FAILED: "ERROR"}
        self._line(f"#{step.number} {texts[step.state]}")
        self._out.write("\n")
        self._shown = None
        self._out.flush()

    def output(self, step: Step, data: bytes) -> None:
        lines = (self._unended.pop(step.number, b"") + data).split(b"\n")
        if len(lines[-1]) > 1 << 16:
            lines.append(b"")
        for line in lines[:-1]:
            self._output_line(step, line)
        if lines[-1]:
            self._unended[step.number] = lines[-1]
        self._out.flush()

    def said(self, step: Step, text: str) -> None:
        self._title(step)
        self._line(f"#{step.number} {text}")
        self._out.flush()

    def warn(self, text: str) -> None:
        self._line(f"warning: {text}")
        self._out.flush()

    def failed(self, step: Step | None, excerpt: str) -> None:
        report(self._out, step, excerpt)

    def tick(self) -> None:
        pass

    def close(self) -> None:
        self._out.flush()

    def _flush(self, step: Step) -> None:
        rest = self._unended.pop(step.number, b"")
        if rest:
            self._output_line(step, rest)

    def _output_line(self, step: Step, line: bytes) -> None:
        self._title(step)
        self._line(f"#{step.number} {time.monotonic() - step.started_s:.3f} {readable(line)}")

    def _title(self, step: Step) -> None:
        """Say whose lines follow, when they are another step's than those before."""
        if self._shown is not step:
            if self._shown is not None:
                self._out.write("\n")
            if step.number not in self._told or step.state == RUNNING:
                self._line(f"#{step.number} {step.title}")
            self._told.add(step.number)
            self._shown = step

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")


class OnlyFailures(Silent):
    """Quiet: nothing is shown but what a failed command has written, and where it stands."""

    def __init__(self, out: TextIO | None = None) -> None:
        super().__init__()
        self._out = out if out is not None else sys.stderr

    def failed(self, step: Step | None, excerpt: str) -> None:
        if step is not None and step.kept:
            report(self._out, step, excerpt)


def report(out: TextIO, step: Step | None, excerpt: str) -> None:
    """Write what a failed step has said at the end, and its lines of the Dockerfile."""
    if step is not None and step.kept:
        out.write(f"------\n > {step.title}:\n")
        for line in bytes(step.kept).removesuffix(b"\n").split(b"\n")[-25:]:
            out.write(readable(line) + "\n")
        out.write("------\n")
    out.write(excerpt + "\n")
    out.flush()


def readable(line: bytes) -> str:
    """Write a command's line so that it does nothing to a terminal but colour it; of what was overwritten only the last stays."""
    text = line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
    return (
        "".join(one if one.isprintable() or one in "\t\x1b" else "\ufffd" for one in text)
        if "\x1b" not in text
        else _coloured(text)
    )


def _coloured(text: str) -> str:
    import re

    parts = re.split(r"(\x1b\[[0-9;]*m)", text)
    plain = ["".join(one if one.isprintable() or one == "\t" else "" for one in part) for part in parts[::2]]
    colours = [*parts[1::2], ""]
    ends = "\x1b[0m" if len(parts) > 1 else ""
    return "".join(one for pair in zip(plain, colours, strict=True) for one in pair) + ends
