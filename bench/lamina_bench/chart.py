"""The report as a plot: each target a dot with a whisker on a logarithmic scale of what was measured to what is asked at most.

Left of the line is good. A tick in the row is the aim. The numbers stand beside the marks, so that it can be read without colours.
"""

import math
from collections.abc import Sequence
from html import escape

from lamina_bench.report import Kind, Outcome, Report, Spread, Verdict
from lamina_bench.table import outcomes, value

WIDTH, LABEL, AFTER = 1000, 430, 190
ROW, TOP, BOTTOM = 24, 58, 30
LOW, HIGH = 0.1, 10.0
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
COLOURS = {Verdict.AIM: "#1b7f4d", Verdict.HOLDS: "#2f6fb3", Verdict.MISSES: "#b3372f", Verdict.OPEN: "#777777"}
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.title{font-weight:600;font-size:15px}.small{font-size:11px;fill:#666}"
    ".grid{stroke:#e4e4e4}.one{stroke:#222}.aim{stroke:#999;stroke-width:2}"
    "@media (prefers-color-scheme:dark){text{fill:#ddd}.small{fill:#aaa}.grid{stroke:#333}.one{stroke:#ddd}.back{fill:#111}}"
)


def chart(report: Report) -> str:
    """Draw it, as an SVG file."""
    shown = [each for each in outcomes(report) if each.value is not None and each.target.limit is not None]
    height = TOP + ROW * len(shown) + BOTTOM
    parts = [f'<rect class="back" width="{WIDTH}" height="{height}" fill="#fff"/>', *_head(report)]
    for tick in TICKS:
        kind = "one" if tick == 1 else "grid"
        parts.append(f'<line class="{kind}" x1="{_at(tick):.1f}" x2="{_at(tick):.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
        parts.append(f'<text class="small" text-anchor="middle" x="{_at(tick):.1f}" y="{height - BOTTOM + 16}">{tick:g}</text>')
    for number, outcome in enumerate(shown):
        parts += _row(outcome, TOP + ROW * number + ROW / 2)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(_told(shown), quote=True)}"><style>{STYLE}</style>{"".join(parts)}</svg>\n'
    )


def share(outcome: Outcome, number: float) -> float:
    """A figure as a part of what is asked at most; of a rate, which has to be more, the other way round."""
    limit = outcome.target.limit or math.nan
    if outcome.target.kind is Kind.RATE:
        return limit / number if number else math.inf
    return number / limit


def _head(report: Report) -> list[str]:
    rough = "" if report.quiet.is_quiet else " The machine was not quiet: rough figures."
    return [
        '<text class="title" x="10" y="22">Measured, to what is asked at most</text>',
        f'<text class="small" x="10" y="40">{escape(report.began)}, {report.machine.cores} cores, '
        f"Linux {escape(report.machine.kernel)}.{rough} "
        "Left of 1 holds; the grey mark is the aim; whiskers are p10 to p90 of the rounds.</text>",
    ]


def _row(outcome: Outcome, middle: float) -> list[str]:
    target, spread, colour = outcome.target, outcome.value or Spread(median=1, p10=1, p90=1), COLOURS[outcome.verdict]
    low, median, high = (_at(share(outcome, number)) for number in (spread.p10, spread.median, spread.p90))
    parts = [f'<text text-anchor="end" x="{LABEL - 14}" y="{middle + 4}">{escape(target.title)}</text>']
    if target.aim is not None:
        x = _at(share(outcome, target.aim))
        parts.append(f'<line class="aim" x1="{x:.1f}" x2="{x:.1f}" y1="{middle - 7}" y2="{middle + 7}"/>')
    parts.append(f'<line stroke="{colour}" stroke-width="2" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>')
    parts.append(f'<circle fill="{colour}" cx="{median:.1f}" cy="{middle}" r="5"/>')
    asked = f"{'at least' if target.kind is Kind.RATE else 'at most'} {value(target, target.limit or 0)}"
    told = f'{value(target, spread.median)} <tspan class="small">{asked}</tspan>'
    parts.append(f'<text x="{WIDTH - AFTER + 14}" y="{middle + 4}">{told}</text>')
    return parts


def _at(number: float) -> float:
    part = (math.log(min(max(number, LOW), HIGH)) - math.log(LOW)) / (math.log(HIGH) - math.log(LOW))
    return LABEL + (WIDTH - LABEL - AFTER) * part


def _told(shown: Sequence[Outcome]) -> str:
    return "; ".join(f"{each.target.title}: {value(each.target, each.value.median)}" for each in shown if each.value is not None)
