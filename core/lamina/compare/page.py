"""A comparison as one HTML page that needs nothing else: no script, no font, no image from anywhere, light or dark, printable.

For someone who has to choose a driver: the summary in words, what differs, the charts, then every question with its sentence.
"""

import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

from lamina.compare import charts
from lamina.compare.report import GROUPS, Comparison, ProbeRow, Recorded, summary
from lamina.compare.text import seconds


def page(comparison: Comparison) -> str:
    """Write the whole page."""
    style = files("lamina.compare").joinpath("data/page.css").read_text(encoding="utf-8")
    names = " and ".join(filter(None, [", ".join(comparison.drivers[:-1]), *comparison.drivers[-1:]]))
    title = f"Storage drivers compared: {names}"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<link rel="icon" href="data:,"><style>{style}</style></head><body><main>',
            *_head(comparison, names),
            *_differences(comparison),
            *_disk(comparison),
            *_timings(comparison),
            *_questions(comparison),
            *_foot(comparison),
            "</main></body></html>",
            "",
        ]
    )


def _head(comparison: Comparison, names: str) -> Iterator[str]:
    yield f'<header><p class="over">Storage drivers, side by side</p><h1>{escape(names)}</h1><ul class="drivers">'
    for number, name in enumerate(comparison.drivers):
        subject = next(each for each in comparison.subjects if each.name == name)
        yield f'<li><span class="key k{number}"></span><b>{escape(name)}</b> {escape(subject.method)}</li>'
    for subject in comparison.subjects:
        if not subject.is_compared:
            yield f'<li class="out"><span class="key"></span><b>{escape(subject.name)}</b> '
            yield f"not compared: {escape(subject.reason)}</li>"
    yield "</ul></header>"
    yield '<section class="summary"><h2>In short</h2><ul>'
    yield from (f"<li>{escape(sentence)}</li>" for sentence in summary(comparison))
    yield "</ul>"
    if comparison.probes:
        yield from _tally(comparison)
    yield "</section>"


def _tally(comparison: Comparison) -> Iterator[str]:
    """Draw how much of the catalogue each driver answers as a plain file system."""
    yield '<div class="tally">'
    for number, name in enumerate(comparison.drivers):
        asked = len(comparison.probes) - len(comparison.unanswered(name))
        plain = asked - len(comparison.unlike_plain(name))
        yield (
            f'<div><b class="big">{plain}<small>/{asked}</small></b><span>{escape(name)}</span>'
            f'<i class="track"><i class="k{number}" style="width:{100 * plain / max(asked, 1):.1f}%"></i></i></div>'
        )
    yield '</div><p class="note">Questions answered as a plain file system answers them.</p>'


def _differences(comparison: Comparison) -> Iterator[str]:
    rows = comparison.differences
    if not rows:
        return
    yield f'<section><h2>Where they differ</h2><p class="note">{len(rows)} of {len(comparison.probes)} questions. '
    yield f"A cell in {_mark('bold on colour')} isn’t what a plain file system answers.</p>"
    yield from _table(comparison, rows, why=False)
    yield "</section>"


def _prose(text: str) -> str:
    """Write a sentence; what stands in backquotes is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _mark(text: str) -> str:
    return f'<span class="unlike">{text}</span>'


def _table(comparison: Comparison, rows: Sequence[ProbeRow], *, why: bool) -> Iterator[str]:
    yield '<div class="scroll"><table><thead><tr><th>Question</th>'
    for name, record in _columns(comparison):
        yield f'<th class="{"record" if record else ""}">{escape(name)}</th>'
    yield "</tr></thead><tbody>"
    for row in rows:
        sentence = f'<p class="why">{_prose(row.why)}</p>' if why else ""
        yield f'<tr class="{"differs" if row.differs else ""}"><th scope="row">{_prose(row.title)}{sentence}</th>'
        for name, record in _columns(comparison):
            yield _cell(row, name, record)
        yield "</tr>"
    yield "</tbody></table></div>"


def _columns(comparison: Comparison) -> Iterator[tuple[str, Recorded | None]]:
    """Name the columns: each driver, and beside it what is on record."""
    for name in comparison.drivers:
        yield name, None
        yield from ((record.name, record) for record in comparison.recorded if record.beside == name)


def _cell(row: ProbeRow, name: str, record: Recorded | None) -> str:
    if record is None:
        answer = row.answers[name]
        kind = "failed" if answer.is_failure else "" if row.is_plain(name) else "unlike"
        return f'<td><span class="{kind}">{escape(answer.text)}</span></td>'
    if row.id not in record.answers:
        return '<td class="record"><span class="none">not recorded</span></td>'
    text = record.answers[row.id]
    departs = row.answers[record.beside].text != text
    kind = "" if text == row.plain else "unlike"
    return f'<td class="record"><span class="{kind}">{escape(text)}</span>{" ≠" if departs else ""}</td>'


def _disk(comparison: Comparison) -> Iterator[str]:
    if not comparison.disk:
        return
    yield '<section><h2>Disk</h2><p class="note">What the driver’s folder takes, as <code>du</code> counts it. '
    yield "Each state holds those before it.</p>"
    most = max(max(row.size_bytes.values()) for row in comparison.disk)
    for row in comparison.disk:
        yield f'<figure><figcaption>{escape(row.title)} <span class="why">{_prose(row.why)}</span></figcaption>'
        yield charts.bars(row.size_bytes, most, comparison.drivers) + "</figure>"
    yield "</section>"


def _timings(comparison: Comparison) -> Iterator[str]:
    if not comparison.timings:
        return
    first = comparison.drivers[0]
    spreads = [{name: row.ratio(name, first) for name in comparison.drivers} for row in comparison.timings]
    # one that is far off must not press the others together
    low = max(min(spread.low for each in spreads for spread in each.values()), 0.02)
    high = min(max(spread.high for each in spreads for spread in each.values()), 500)
    yield f'<section><h2>Time</h2><p class="note">How many times as long as {escape(first)}, on a logarithmic scale: '
    yield "the dot is the median of the rounds, the line goes from the least to the most. In every round the drivers took turns, "
    yield "so that each ratio is of two measurements made one after the other. "
    yield "Left is faster; what is off the scale stands at its end.</p>"
    yield f'<figure class="axis">{charts.axis(low, high)}</figure>'
    for row, each in zip(comparison.timings, spreads, strict=True):
        took = ", ".join(f"{name} {seconds(row.time(name).median)}" for name in comparison.drivers)
        yield f'<figure><figcaption>{escape(row.title[0].upper() + row.title[1:])} <span class="why">{_prose(row.why)} '
        yield f"Median: {escape(took)}.</span></figcaption>"
        yield charts.ratios(each, low, high, comparison.drivers) + "</figure>"
    yield "</section>"


def _questions(comparison: Comparison) -> Iterator[str]:
    if not comparison.probes:
        return
    yield "<section><h2>Every question, and why it matters</h2>"
    for group in dict.fromkeys(row.group for row in comparison.probes):
        rows = [row for row in comparison.probes if row.group == group]
        yield f"<h3>{escape(GROUPS.get(group, (group, group))[0])}</h3>"
        yield from _table(comparison, rows, why=True)
    if comparison.recorded:
        yield '<p class="note">≠ stands where a record says otherwise than the driver beside it.</p>'
    yield "</section>"


def _foot(comparison: Comparison) -> Iterator[str]:
    machine = comparison.machine
    told = [
        f"Linux {machine.get('Kernel', '')} on {machine.get('Architecture', '')}",
        f"{machine.get('CPUs', '')} CPUs",
        f"on {machine.get('FileSystem', '')}",
        machine.get("Date", ""),
        f"took {comparison.took_s:.0f} s",
    ]
    yield f"<footer><p>Made by <code>lamina compare</code>. {escape(', '.join(told))}.</p>"
    yield "<p>Other machines give other times; answers depend on the kernel and on the file system below.</p>"
    for record in comparison.recorded:
        yield f"<p>{escape(record.name)}: {escape(record.title)}, with the same files, written down once.</p>"
    yield "</footer>"
