"""A comparison as lines for a terminal: the differences first, then disk and times. It decides how it looks, and prints nothing.

`*` stands before a question that the drivers answer differently, `!` after an answer that isn't a plain file system's.
"""

from collections.abc import Iterator, Sequence
from textwrap import wrap

from lamina.compare.report import Comparison, ProbeRow, Spread, summary

QUESTION_WIDTH, ANSWER_WIDTH = 48, 20
UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def lines(comparison: Comparison, *, everything: bool = False) -> Iterator[str]:
    """Yield the lines; without `everything` the answers that all drivers share, and a plain file system too, are only counted."""
    yield from summary(comparison)
    if comparison.probes:
        yield ""
        yield from _probes(comparison, everything=everything)
    if comparison.disk:
        yield ""
        head = ["DISK, in the driver's folder", *comparison.drivers]
        yield from table(
            [head, *([row.title, *(size(row.size_bytes[name]) for name in comparison.drivers)] for row in comparison.disk)]
        )
    if comparison.timings:
        yield ""
        yield from _timings(comparison)


def _probes(comparison: Comparison, *, everything: bool) -> Iterator[str]:
    drivers = comparison.drivers
    shown = [row for row in comparison.probes if everything or not _is_dull(row, drivers)]
    rows = [["  QUESTION", *drivers, *(each.name for each in comparison.recorded)]]
    group = ""
    for row in shown:
        if row.group != group:
            group = row.group
            rows.append([group.upper().replace("-", " ")])
        told = [_answer(row, name) for name in drivers]
        rows.append(
            [("* " if row.differs else "  ") + row.title, *told, *(row.recorded.get(each.name, "") for each in comparison.recorded)]
        )
    yield from table([cells for row in rows for cells in _wrapped(row)])
    if len(shown) < len(comparison.probes):
        left = len(comparison.probes) - len(shown)
        yield f"  {left} more are answered by all as a plain file system answers them (--all shows them)"
    yield "  * the drivers differ   ! not as a plain file system"


def _wrapped(row: Sequence[str]) -> Iterator[list[str]]:
    """Break a row's cells into lines, so that a question and four columns of answers fit a terminal."""
    if len(row) == 1:
        yield list(row)
        return
    parts = [wrap(row[0], QUESTION_WIDTH, subsequent_indent="    ", drop_whitespace=True)]
    parts[0][0] = row[0][:2] + parts[0][0].removeprefix(row[0][:2]).lstrip()
    parts += [wrap(cell, ANSWER_WIDTH) for cell in row[1:]]
    for number in range(max(len(part) for part in parts)):
        yield [part[number] if number < len(part) else "" for part in parts]


def _is_dull(row: ProbeRow, drivers: Sequence[str]) -> bool:
    """Whether there is nothing to see."""
    return all(row.is_plain(name) for name in drivers)


def _answer(row: ProbeRow, driver: str) -> str:
    return row.answers[driver].text + ("" if row.is_plain(driver) else " !")


def _timings(comparison: Comparison) -> Iterator[str]:
    drivers = comparison.drivers
    first = drivers[0]
    rows = [["TIME, median (least-most)", first, *(f"{name} / {first}" for name in drivers[1:])]]
    for row in comparison.timings:
        took = row.time(first)
        mine = f"{seconds(took.median)} ({seconds(took.low)}-{seconds(took.high)})"
        rows.append([row.title, mine, *(ratio(row.ratio(name, first)) for name in drivers[1:])])
    yield from table(rows)
    counted = {len(row.seconds[first]) for row in comparison.timings}
    yield f"  rounds: {' or '.join(str(each) for each in sorted(counted))}, the drivers taking turns"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align cells; a row of one cell is a heading and counts for no width."""
    widths: dict[int, int] = {}
    for row in rows:
        for number, cell in enumerate(row if len(row) > 1 else ()):
            widths[number] = max(widths.get(number, 0), len(cell))
    for row in rows:
        if len(row) == 1:
            yield row[0]
        else:
            yield "  ".join(f"{cell:<{widths[number]}}" for number, cell in enumerate(row)).rstrip()


def size(size_bytes: float) -> str:
    """Write a size as du -h does, one digit after the point."""
    for unit, name in UNITS:
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes:.0f} B"


def seconds(value: float) -> str:
    """Write a time with three digits."""
    for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1 or name == "µs":
            return f"{value * factor:.3g} {name}"
    raise AssertionError


def ratio(spread: Spread) -> str:
    """Write a ratio with its spread."""
    return f"{factor(spread.median)} ({factor(spread.low)}-{factor(spread.high)})"


def factor(value: float) -> str:
    """Write how many times."""
    if value < 0.01:
        return f"{value:.1g}x" if value >= 0.001 else "~0x"
    return f"{value:.0f}x" if value >= 20 else f"{value:.1f}x" if value >= 2 else f"{value:.2f}x"
