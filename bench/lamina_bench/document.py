"""The report as JSON: every figure of every round, so that others can count again; and back, so that runs can be put together."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from lamina_bench.report import (
    Column,
    Figures,
    Kind,
    Left,
    Machine,
    Metric,
    Outcome,
    Quiet,
    Report,
    Spread,
    Target,
    WorkReport,
    judge,
)

FORMAT_VERSION = 1


def document(report: Report) -> str:
    """Write it. Times are in seconds, sizes in bytes; what a contender doesn't tell is null."""
    found = {
        "format": FORMAT_VERSION,
        "began": report.began,
        "took_s": report.took_s,
        "machine": {
            **asdict(report.machine),
            "versions": dict(report.machine.versions),
            "absent": dict(report.machine.absent),
        },
        "load": asdict(report.quiet),
        "works": [_work(work) for work in report.works],
    }
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(text: str) -> Report:
    """Read what `document` has written. Raises `ValueError` for anything else."""
    try:
        found = json.loads(text)
        if found["format"] != FORMAT_VERSION:
            raise ValueError(f"it has the format {found['format']}, not {FORMAT_VERSION}")
        machine = found["machine"]
        pairs = {name: tuple(machine[name].items()) for name in ("versions", "absent")}
        return Report(
            began=found["began"],
            took_s=found["took_s"],
            machine=Machine(**{**machine, **pairs}),
            quiet=Quiet(**found["load"]),
            works=tuple(_read_work(work) for work in found["works"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no benchmark's: {error!r}") from error


def together(reports: Sequence[Report], order: Sequence[str]) -> Report:
    """Put runs together: of a work that several have the last one's figures, in the order of the catalogue; quiet if all were."""
    works = {work.name: work for report in reports for work in report.works}
    first, last = reports[0], reports[-1]
    quiet = Quiet(
        load_before=max(each.quiet.load_before for each in reports),
        busy_before=max(each.quiet.busy_before for each in reports),
        load_after=max(each.quiet.load_after for each in reports),
        is_quiet=all(each.quiet.is_quiet for each in reports),
    )
    return replace(
        last,
        began=first.began if len(reports) == 1 else f"{first.began} to {last.began}",
        took_s=sum(each.took_s for each in reports),
        quiet=quiet,
        works=tuple(works[name] for name in order if name in works),
    )


def _read_work(work: Mapping[str, Any]) -> WorkReport:
    columns = tuple(
        Column(label=each["label"], figures=tuple(_read_figures(one) for one in each["rounds"])) for each in work["contenders"]
    )
    targets = [
        Target(
            title=each["title"],
            of=each["of"],
            to=tuple(each["to"]),
            kind=Kind(each["kind"]),
            metric=Metric(each["metric"]),
            limit=each["limit"],
            aim=each["aim"],
        )
        for each in work["targets"]
    ]
    return WorkReport(
        name=work["name"],
        title=work["title"],
        what=work["what"],
        columns=columns,
        left=tuple(Left(**each) for each in work["left_out"]),
        outcomes=tuple(judge(target, columns) for target in targets),
        **work.get("pace", {}),
    )


def _read_figures(one: Mapping[str, float | None]) -> Figures:
    wall_s, cpu_s, memory_bytes = (math.nan if one[metric] is None else float(one[metric] or 0) for metric in Metric)
    return Figures(wall_s=wall_s, cpu_s=cpu_s, memory_bytes=memory_bytes)


def _work(work: WorkReport) -> dict[str, Any]:
    return {
        "name": work.name,
        "title": work.title,
        "what": work.what,
        "contenders": [
            {
                "label": column.label,
                "rounds": [{metric: _number(figures.get(metric)) for metric in Metric} for figures in column.figures],
                **{metric: _spread(column.spread(metric)) for metric in Metric},
            }
            for column in work.columns
        ],
        "left_out": [asdict(left) for left in work.left],
        "targets": [_outcome(outcome) for outcome in work.outcomes],
        "pace": {"is_steady": work.is_steady, "again": work.again, "given_up": work.given_up},
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome.target), "against": outcome.against, "value": _spread(outcome.value), "verdict": outcome.verdict}


def _spread(spread: Spread | None) -> dict[str, float | None] | None:
    return None if spread is None else {name: _number(number) for name, number in asdict(spread).items()}


def _number(number: float) -> float | None:
    return number if math.isfinite(number) else None
