"""The report as text for a terminal, and its table of targets as Markdown for a page."""

import math
from collections.abc import Iterator, Sequence

from lamina_bench.report import Kind, Metric, Outcome, Report, Spread, Target, Verdict, WorkReport

VERDICTS = {Verdict.AIM: "aim met", Verdict.HOLDS: "holds", Verdict.MISSES: "MISSES", Verdict.OPEN: ""}
BEGIN, END = "<!-- figures of make bench: begin -->", "<!-- figures of make bench: end -->"


def text(report: Report) -> str:
    """All of it."""
    lines = [*_head(report), ""]
    for work in report.works:
        lines += [*_work(work), ""]
    lines += _aligned(
        [["TARGET", "MEASURED", "p10 to p90", "AT MOST", "AIM", ""], *(_row(outcome) for outcome in outcomes(report))]
    )
    for name, left in report.failed:
        lines.append(f"failed in {name}: {left.label}: {left.reason}")
    return "\n".join(lines) + "\n"


def markdown(report: Report) -> str:
    """What was measured on, the targets and each work's medians, as Markdown."""
    lines = ["\n".join(_head(report)).replace("\n", "  \n"), ""]
    lines += _markdown([["target", "measured", "p10 to p90", "at most", "aim", ""], *(_row(each) for each in outcomes(report))])
    lines += ["", *_markdown([["work", "who", "median", "p10 to p90", "CPU", "rounds"], *_medians(report)])]
    return "\n".join(lines) + "\n"


def into_page(page: str, report: Report) -> str:
    """Put the Markdown between the page's two marks. Raises `ValueError` without them."""
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    return f"{page[:begin]}\n{markdown(report)}{page[end:]}"


def outcomes(report: Report) -> list[Outcome]:
    """Of all works."""
    return [outcome for work in report.works for outcome in work.outcomes]


def value(target: Target, number: float) -> str:
    """Write a target's figure: a ratio, or a time."""
    if target.kind in (Kind.DIFFERENCE, Kind.VALUE):
        return seconds(number)
    return f"{number:.2f}" if number < 10 else f"{number:.1f}"


def seconds(number: float) -> str:
    """Write a time with three digits."""
    size = abs(number)
    unit, factor = ("s", 1.0) if size >= 0.9995 else ("ms", 1e3) if size >= 0.9995e-3 else ("µs", 1e6)
    return f"{number * factor:.3g} {unit}" if size * factor < 999.5 else f"{number * factor:.0f} {unit}"


def measured(spread: Spread, metric: Metric) -> tuple[str, str]:
    """Write a median and its spread."""
    write = (lambda number: f"{number / 1e6:.2f} MB") if metric is Metric.MEMORY else seconds
    return write(spread.median), f"{write(spread.p10)} to {write(spread.p90)}"


def _head(report: Report) -> Iterator[str]:
    machine, quiet = report.machine, report.quiet
    yield (
        f"{report.began}, {machine.cores} cores ({machine.processor}), {machine.memory_bytes / 2**30:.0f} GiB, {machine.system}, "
        f"Linux {machine.kernel}, {machine.filesystem}, Python {machine.python}."
    )
    yield (
        f"Load {quiet.load_before:.2f} before, {quiet.load_after:.2f} at the end, {quiet.busy_before:.0%} of "
        f"the processors busy before" + ("." if quiet.is_quiet else ": NOT QUIET, so the figures are rough.")
    )
    yield f"{'; '.join(f'{name}: {version}' for name, version in machine.versions)}."
    if machine.absent:
        yield f"Left out: {'; '.join(f'{name} ({reason})' for name, reason in machine.absent)}."


def _work(work: WorkReport) -> Iterator[str]:
    yield work.title + (f", at full pace: {work.again} turns done again, {work.given_up} count after all" if work.is_steady else "")
    rows = []
    for label, metric, spread, cpu, rounds in _spreads(work):
        median, between = measured(spread, metric)
        rows.append([f"  {label}", median, between, f"CPU {cpu}" if cpu else "", f"{rounds} rounds"])
    yield from _aligned(rows)
    for left in work.left:
        yield f"  {left.label}: left out: {left.reason}"


def _title(work: WorkReport) -> str:
    return f"{work.title} (at full pace)" if work.is_steady else work.title


def _spreads(work: WorkReport) -> Iterator[tuple[str, Metric, Spread, str, int]]:
    for column in work.columns:
        metric = Metric.WALL if column.values(Metric.WALL) else Metric.MEMORY
        spread, cpu = column.spread(metric), column.spread(Metric.CPU)
        if spread is not None:
            yield column.label, metric, spread, seconds(cpu.median) if cpu else "", len(column.figures)


def _medians(report: Report) -> Iterator[list[str]]:
    for work in report.works:
        for number, (label, metric, spread, cpu, rounds) in enumerate(_spreads(work)):
            yield ["" if number else _title(work), label, *measured(spread, metric), cpu, str(rounds)]


def _row(outcome: Outcome) -> list[str]:
    target = outcome.target
    asked = ["" if each is None else value(target, each) for each in (target.limit, target.aim)]
    if target.kind is Kind.RATE:
        asked = [f"at least {each}" if each else "" for each in asked]
    if outcome.value is None or math.isnan(outcome.value.median):
        return [target.title, "not measured", "", *asked, ""]
    between = f"{value(target, outcome.value.p10)} to {value(target, outcome.value.p90)}"
    against = f" ({outcome.against})" if outcome.against and len(target.to) > 1 else ""
    return [target.title, value(target, outcome.value.median) + against, between, *asked, VERDICTS[outcome.verdict]]


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))] if rows else []
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield f"| {' | '.join(row)} |"
        if number == 0:
            yield f"|{'---|' * len(row)}"
