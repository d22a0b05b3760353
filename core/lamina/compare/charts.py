"""Charts as SVG in the page itself: bars for sizes, dots with whiskers for ratios. Colours are the page's, by class.

A chart's numbers stand beside its marks as text, so that it can be read without colours, and printed.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

from lamina.compare.report import Spread
from lamina.compare.text import factor, size

WIDTH, LABEL, AFTER = 720, 84, 164
BAR, GAP, TOP = 18, 6, 4


def bars(sizes: Mapping[str, int], most: int, drivers: Sequence[str]) -> str:
    """Draw a bar for each driver, the longest being `most` bytes."""
    room = WIDTH - LABEL - AFTER
    parts = []
    for number, name in enumerate(drivers):
        y = TOP + number * (BAR + GAP)
        width = max(room * sizes[name] / max(most, 1), 1.5)
        parts.append(_label(name, y))
        parts.append(f'<rect class="d{number}" x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" rx="3"/>')
        parts.append(f'<text class="value" x="{LABEL + width + 8:.1f}" y="{y + 13}">{size(sizes[name])}</text>')
    told = ", ".join(f"{name} {size(sizes[name])}" for name in drivers)
    return _svg(parts, TOP + len(drivers) * (BAR + GAP), told)


def ratios(spreads: Mapping[str, Spread], low: float, high: float, drivers: Sequence[str]) -> str:
    """Draw ratios to the first driver on a logarithmic scale from `low` to `high`: a dot each, and a line from least to most."""
    room = WIDTH - LABEL - AFTER
    low, high = min(low, 0.8), max(high, 1.25)

    def at(value: float) -> float:
        share = (math.log(max(value, 1e-6)) - math.log(low)) / (math.log(high) - math.log(low))
        return LABEL + room * min(max(share, 0.0), 1.0)

    height = TOP + len(drivers) * (BAR + GAP)
    parts = [f'<line class="grid" x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="0" y2="{height}"/>' for tick in ticks(low, high)]
    parts.append(f'<line class="one" x1="{at(1):.1f}" x2="{at(1):.1f}" y1="0" y2="{height}"/>')
    for number, name in enumerate(drivers):
        y, spread = TOP + number * (BAR + GAP), spreads[name]
        middle = y + BAR / 2
        parts.append(_label(name, y))
        parts.append(
            f'<line class="s{number}" x1="{at(spread.low):.1f}" x2="{at(spread.high):.1f}" y1="{middle}" y2="{middle}"/>'
            f'<circle class="d{number}" cx="{at(spread.median):.1f}" cy="{middle}" r="5.5"/>'
            f'<text class="value" x="{WIDTH - AFTER + 16}" y="{y + 13}">{_ratio(spread)}</text>'
        )
    told = ", ".join(f"{name} {factor(spreads[name].median)}" for name in drivers)
    return _svg(parts, height, told)


def axis(low: float, high: float) -> str:
    """Draw the scale that the ratios share."""
    room = WIDTH - LABEL - AFTER
    low, high = min(low, 0.8), max(high, 1.25)
    parts = []
    for tick in ticks(low, high):
        x = LABEL + room * (math.log(tick) - math.log(low)) / (math.log(high) - math.log(low))
        parts.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="13">{tick:g}×</text>')
    return _svg(parts, 18, "the scale")


def ticks(low: float, high: float) -> list[float]:
    """Choose values of a logarithmic scale: at most seven, 1 among them."""
    steps = [factor_ * 10.0**power for power in range(-4, 6) for factor_ in (1, 2, 5)]
    found = [step for step in steps if low <= step <= high]
    if len(found) > 7:
        found = [10.0**power for power in range(-4, 6) if low <= 10.0**power <= high]
    return found


def _ratio(spread: Spread) -> str:
    if spread.low == spread.high:
        return factor(spread.median)
    return f'{factor(spread.median)}<tspan class="spread" dx="7">{factor(spread.low)} to {factor(spread.high)}</tspan>'


def _label(name: str, y: int) -> str:
    shown = name if len(name) <= 11 else name[:10] + "…"
    return f'<text class="name" text-anchor="end" x="{LABEL - 10}" y="{y + 13}">{escape(shown)}</text>'


def _svg(parts: Sequence[str], height: int, told: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(told, quote=True)}">' + "".join(parts) + "</svg>"
