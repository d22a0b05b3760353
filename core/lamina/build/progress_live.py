"""Progress on a terminal: a view of all steps that is drawn anew several times a second, with the last lines of those at work.

Only plain control sequences of ECMA-48 are used. One write draws a whole picture, over the one before, line by line, so that
nothing flickers; it is never higher than the terminal, so that it never scrolls. When the build is over the whole list stays on the
screen.
"""

import os
import re
import time
from typing import TextIO

from lamina.build.progress import CACHED, CANCELED, FAILED, FRESH, RUNNING, Step
from lamina.build.progress_plain import readable, report

TICK_S = 0.1
_OUTPUT_LINES = 6
_HIDE, _SHOW, _CLEAR_LINE, _CLEAR_DOWN = "\x1b[?25l", "\x1b[?25h", "\x1b[K", "\x1b[J"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BLUE, _RED, _PLAIN = "\x1b[34m", "\x1b[31m", "\x1b[0m"


class Live:
    """Draws on a terminal."""

    def __init__(self, out: TextIO) -> None:
        self.tick_s: float | None = TICK_S
        self._out = out
        self._steps: list[Step] = []
        self._lines: dict[int, list[str]] = {}
        self._partial: dict[int, bytes] = {}
        self._warnings: list[str] = []
        self._drawn = 0
        self._next_s = 0.0
        self._begun_s = time.monotonic()
        self._colours = "NO_COLOR" not in os.environ
        self._failure: tuple[Step | None, str] | None = None
        self._closed = False

    def step(self, title: str) -> Step:
        made = Step(self, number=len(self._steps) + 1, title=title)
        self._steps.append(made)
        return made

    def changed(self, step: Step) -> None:
        self._draw(force=step.state == RUNNING)

    def output(self, step: Step, data: bytes) -> None:
        lines = (self._partial.pop(step.number, b"") + data[-(1 << 16) :]).split(b"\n")
        self._partial[step.number] = lines[-1][-4096:]
        kept = self._lines.setdefault(step.number, [])
        kept += [_COLOUR.sub("", readable(line)) for line in lines[:-1][-_OUTPUT_LINES:]]
        del kept[:-_OUTPUT_LINES]
        self._draw()

    def said(self, step: Step, text: str) -> None:
        self._lines.setdefault(step.number, []).append(text)

    def warn(self, text: str) -> None:
        self._warnings.append(text)

    def failed(self, step: Step | None, excerpt: str) -> None:
        self._failure = (step, excerpt)

    def tick(self) -> None:
        self._draw()

    def close(self) -> None:
        """Draw the last picture whole, and give the cursor back."""
        if self._closed:
            return
        self._closed = True
        rows = self._rows(width=self._size()[1], height=None)
        text = self._over(rows) + _SHOW
        self._out.write(text)
        for warning in self._warnings:
            self._out.write(f"warning: {warning}\n")
        if self._failure is not None:
            report(self._out, *self._failure)
        self._out.flush()

    def _draw(self, *, force: bool = False) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s and not force:
            return
        self._next_s = now_s + TICK_S
        height, width = self._size()
        rows = self._rows(width=width, height=height - 1)
        self._out.write(_HIDE + self._over(rows))
        self._out.flush()

    def _over(self, rows: list[str]) -> str:
        """Write rows over the picture before. The cursor is left below them."""
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._drawn = len(rows)
        return f"\r{up}" + "".join(f"{row}{_CLEAR_LINE}\n" for row in rows) + _CLEAR_DOWN

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._out.fileno())
        except (OSError, ValueError):
            return 24, 80
        return max(size.lines, 4), max(size.columns, 20)

    def _rows(self, *, width: int, height: int | None) -> list[str]:
        """Write the picture. In one that is limited in height, steps that are over go first, the oldest of them before others."""
        begun = [step for step in self._steps if step.state != FRESH]
        over = sum(step.state not in {FRESH, RUNNING} for step in self._steps)
        head = f"[+] Building {time.monotonic() - self._begun_s:.1f}s ({over}/{len(self._steps)})"
        blocks = [(step, self._block(step, width)) for step in begun]
        if height is not None:
            excess = 1 + sum(len(block) for _, block in blocks) - height
            for at, (step, block) in enumerate(blocks):
                if excess <= 0:
                    break
                if step.state != RUNNING:
                    excess -= len(block)
                    blocks[at] = (step, [])
            for at, (step, block) in enumerate(blocks):
                if excess <= 0:
                    break
                kept = block[: max(1, len(block) - excess)] if block else block
                excess -= len(block) - len(kept)
                blocks[at] = (step, kept)
        rows = [self._fit(head, width), *(row for _, block in blocks for row in block)]
        return rows if height is None else rows[:height]

    def _block(self, step: Step, width: int) -> list[str]:
        mark = {CACHED: "CACHED ", FAILED: "ERROR ", CANCELED: "CANCELED "}.get(step.state, "")
        seconds = f"{step.seconds:.1f}s"
        room = max(width - len(seconds) - 2, 8)
        line = self._fit(f" => {mark}{step.title}", room)
        rows = [self._coloured(f"{line:<{room}} {seconds}", step)]
        if step.state == RUNNING:
            partial = _COLOUR.sub("", readable(self._partial.get(step.number, b"")))
            lines = [*self._lines.get(step.number, ()), *([partial] if partial else [])][-_OUTPUT_LINES:]
            rows += [self._fit(f" => => # {text.expandtabs(4)}", width - 1) for text in lines]
        return rows

    def _fit(self, text: str, width: int) -> str:
        return text if len(text) <= width else text[: max(width - 1, 0)] + "…"

    def _coloured(self, text: str, step: Step) -> str:
        if not self._colours or step.state == RUNNING:
            return text
        return f"{_RED if step.state in {FAILED, CANCELED} else _BLUE}{text}{_PLAIN}"
