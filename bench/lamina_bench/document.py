"""The report as JSON: every figure of every round, so that others can count again."""

import json
import math
from dataclasses import asdict
from typing import Any

from lamina_bench.report import Metric, Outcome, Report, Spread, WorkReport

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
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome.target), "against": outcome.against, "value": _spread(outcome.value), "verdict": outcome.verdict}


def _spread(spread: Spread | None) -> dict[str, float | None] | None:
    return None if spread is None else {name: _number(number) for name, number in asdict(spread).items()}


def _number(number: float) -> float | None:
    return number if math.isfinite(number) else None
