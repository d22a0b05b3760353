"""What is shown of a pull or a push: a bar for each layer on a terminal's standard error, plain lines elsewhere.

    with showing(quiet=quiet) as report:
        engine.images.pull(name, report=report)

Lines are Docker's: `a3ed95caeb02: Pull complete`. Only news that is for good is a line when nobody watches.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from lamina.cli.progress import INTERVAL_S, line_of

if TYPE_CHECKING:
    from lamina.registry.report import Report, Transferred

_FOR_GOOD = frozenset(
    {"Download complete", "Pull complete", "Already exists", "Pushed", "Layer already exists", "Mounted from", "Retrying"}
)
_MOVING = frozenset({"Downloading", "Pushing"})


@contextmanager
def showing(*, quiet: bool = False) -> "Iterator[Report]":
    """Give who is to be told of a transfer's news, until the block ends."""
    if quiet:
        yield lambda _news: None
    elif sys.stderr.isatty():
        bars = Bars(sys.stderr)
        try:
            yield bars.tell
        finally:
            bars.draw(last=True)
    else:
        lines = Lines(sys.stderr)
        yield lines.tell


def text_of(news: "Transferred", *, columns: int = 0) -> str:
    """Write news of one blob, a bar in it if there are columns for one."""
    label = f"{news.digest.short}: {news.state}"
    if news.detail and news.state == "Mounted from":
        return f"{label} {news.detail}"
    if columns and news.state in _MOVING and news.total_bytes:
        return line_of(label, news.done_bytes, news.total_bytes, columns=columns)
    return label


class Lines:
    """A line for each news that is for good, once."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def tell(self, news: "Transferred") -> None:
        """Print the news if that is worth a line."""
        text = text_of(news)
        with self._lock:
            if news.state in _FOR_GOOD and text not in self._said:
                self._said.add(text)
                print(text, file=self._out, flush=True)


class Bars:
    """A line of the terminal for each blob, drawn again where it stands; no more lines than the terminal has."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._news: dict[str, Transferred] = {}
        self._drawn_lines = 0
        self._next_s = 0.0
        self._lock = threading.Lock()

    def tell(self, news: "Transferred") -> None:
        """Take the news, and draw now and then."""
        with self._lock:
            known = self._news.get(news.digest)
            self._news[news.digest] = news
            is_change = known is None or known.state != news.state
            now_s = time.monotonic()
            if not is_change and now_s < self._next_s:
                return
            self._next_s = now_s + INTERVAL_S
            self._draw()

    def draw(self, *, last: bool) -> None:
        """Draw it once more; the last time every line stays."""
        with self._lock:
            self._draw(everything=last)

    def _draw(self, *, everything: bool = False) -> None:
        try:
            columns, rows = os.get_terminal_size(self._out.fileno())
        except (OSError, ValueError):
            columns, rows = 80, 24
        columns, rows = columns or 80, rows or 24
        lines = [text_of(each, columns=columns)[: columns - 1] for each in self._news.values()]
        if not everything and len(lines) > rows - 1:
            moving = [text_of(each, columns=columns)[: columns - 1] for each in self._news.values() if each.state in _MOVING]
            lines = [f"{len(lines)} layers"[: columns - 1], *moving][: rows - 1]
        up = f"\x1b[{self._drawn_lines}A" if self._drawn_lines else ""
        self._out.write(up + "\r\x1b[J" + "".join(f"{line}\n" for line in lines))
        self._out.flush()
        self._drawn_lines = len(lines)
