"""A bar for long work, on a terminal's standard error and nowhere else. What is counted are bytes done.

    with progress("loading", total_bytes) as advance:
        engine.images.load(file, progress=advance)

The line is taken away at the end, so that what stays on the screen is what the command says.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lamina.cli.units import human_size

INTERVAL_S = 0.1
_CLEAR = "\r\x1b[K"


@contextmanager
def progress(label: str, total_bytes: int | None = None, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """Yield a function to be told how many bytes are done so far. Without a total only their number is shown.

    Nothing is written unless standard error is a terminal; `hidden` is for `--quiet`.
    """
    if hidden or not sys.stderr.isatty():
        yield lambda _done_bytes: None
        return
    bar = _Bar(label, total_bytes)
    try:
        yield bar.advance
    finally:
        bar.clear()


class _Bar:
    def __init__(self, label: str, total_bytes: int | None) -> None:
        self._label = label
        self._total_bytes = total_bytes
        self._next_s = time.monotonic() + INTERVAL_S  # work that ends at once shows no bar
        self._is_shown = False

    def advance(self, done_bytes: int) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + INTERVAL_S
        self._is_shown = True
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
        except (OSError, ValueError):
            columns = 80
        line = line_of(self._label, done_bytes, self._total_bytes, columns=columns or 80)
        sys.stderr.write(_CLEAR + line)
        sys.stderr.flush()

    def clear(self) -> None:
        if self._is_shown:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()


def line_of(label: str, done_bytes: int, total_bytes: int | None, *, columns: int) -> str:
    """Write the bar's line, one column shorter than the terminal so that it never wraps."""
    if not total_bytes:
        return f"{label}  {human_size(done_bytes)}"[: max(columns - 1, 0)]
    share = min(done_bytes / total_bytes, 1.0)
    after = f" {share:4.0%}  {human_size(done_bytes)}/{human_size(total_bytes)}"
    room = min(columns - len(label) - len(after) - 5, 40)
    if room < 5:
        return f"{label}{after}"[: max(columns - 1, 0)]
    full = int(room * share)
    return f"{label}  [{('=' * full + '>')[:room]:<{room}}]{after}"


def size_of(file: object) -> int | None:
    """How many bytes a file object will give, None for a pipe or a terminal."""
    import stat

    try:
        found = os.fstat(file.fileno())  # type: ignore[attr-defined]
    except (OSError, AttributeError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
