"""Figures become medians, spreads, ratios and verdicts. Arithmetic alone: nothing here measures, reads or prints.

A ratio is the median of the rounds' own ratios, and so is its spread: within a round both sides saw the same machine. Which of
several peers is the fastest is told by their medians.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median


class Metric(StrEnum):
    """What is measured."""

    WALL = "wall"
    CPU = "cpu"
    MEMORY = "memory"


class Kind(StrEnum):
    """How a target compares."""

    RATIO = "ratio"
    """The first's figure to the fastest other one's: less is better."""
    RATE = "rate"
    """How many times as much is done in the same time: more is better."""
    DIFFERENCE = "difference"
    """The first's figure less the other's, in seconds: less is better."""
    VALUE = "value"
    """The figure itself, in seconds: less is better."""


class Verdict(StrEnum):
    """How a target fares."""

    AIM = "aim"
    HOLDS = "holds"
    MISSES = "misses"
    OPEN = "open"
    """No peer was there, or it is told without a target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run of one contender took; NaN for what it doesn't tell."""

    wall_s: float = math.nan
    cpu_s: float = math.nan
    memory_bytes: float = math.nan

    def get(self, metric: Metric) -> float:
        """The figure of a metric."""
        return {Metric.WALL: self.wall_s, Metric.CPU: self.cpu_s, Metric.MEMORY: self.memory_bytes}[metric]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A median, and between which values eight of ten lie."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value; of few, p10 and p90 are the extremes or near them."""
        return cls(median=median(values), p10=quantile(values, 0.1), p90=quantile(values, 0.9))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What must hold of a work, and what is aimed for; None where nothing is asked."""

    title: str
    of: str
    to: tuple[str, ...] = ()
    kind: Kind = Kind.RATIO
    metric: Metric = Metric.WALL
    limit: float | None = None
    aim: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """All that one contender took, round by round."""

    label: str
    figures: tuple[Figures, ...]

    def values(self, metric: Metric) -> list[float]:
        """The figures of a metric; empty if it has none."""
        found = [each.get(metric) for each in self.figures]
        return [] if any(math.isnan(each) for each in found) else found

    def spread(self, metric: Metric) -> Spread | None:
        """Their spread."""
        values = self.values(metric)
        return Spread.of(values) if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A contender that wasn't measured, and why. `failed` if it should have been."""

    label: str
    reason: str
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a target. `against` is the contender that it was measured against."""

    target: Target
    against: str = ""
    value: Spread | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether it is met, by the median."""
        if self.value is None or self.target.limit is None:
            return Verdict.OPEN
        for asked, verdict in ((self.target.aim, Verdict.AIM), (self.target.limit, Verdict.HOLDS)):
            if asked is not None and (self.value.median >= asked if self.target.kind is Kind.RATE else self.value.median <= asked):
                return verdict
        return Verdict.MISSES


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkReport:
    """One work: its contenders side by side, its targets.

    `is_steady` if turns in which the machine was slow didn't count: `again` were done once more, `given_up` counted after all.
    """

    name: str
    title: str
    what: str
    columns: tuple[Column, ...]
    left: tuple[Left, ...]
    outcomes: tuple[Outcome, ...]
    is_steady: bool = False
    again: int = 0
    given_up: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was measured on, and what was measured."""

    processor: str
    cores: int
    memory_bytes: int
    kernel: str
    system: str
    filesystem: str
    python: str
    versions: tuple[tuple[str, str], ...]
    absent: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """How busy the machine was before anything was measured, and at the end; and whether that was too much."""

    load_before: float
    busy_before: float
    load_after: float
    is_quiet: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run of the benchmark."""

    began: str
    took_s: float
    machine: Machine
    quiet: Quiet
    works: tuple[WorkReport, ...]

    @property
    def failed(self) -> list[tuple[str, Left]]:
        """What should have been measured and wasn't, with its work."""
        return [(work.name, left) for work in self.works for left in work.left if left.failed]


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies, between two neighbours by their distance (R-7, as spreadsheets and NumPy have it)."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def judge(target: Target, columns: Sequence[Column]) -> Outcome:
    """Measure a target: the median against the best of those that are there."""
    by_label = {column.label: column for column in columns if column.values(target.metric)}
    mine = by_label.get(target.of)
    if mine is None:
        return Outcome(target=target)
    if target.kind is Kind.VALUE:
        return Outcome(target=target, value=mine.spread(target.metric))
    peers = [by_label[label] for label in target.to if label in by_label]
    if not peers:
        return Outcome(target=target)
    best = min(peers, key=lambda column: median(column.values(target.metric)))
    own, other = mine.values(target.metric), best.values(target.metric)
    rounds = [_compare(target.kind, a, b) for a, b in zip(own, other, strict=False)]
    return Outcome(target=target, against=best.label, value=Spread.of(rounds))


def _compare(kind: Kind, mine: float, other: float) -> float:
    if kind is Kind.DIFFERENCE:
        return mine - other
    above, below = (other, mine) if kind is Kind.RATE else (mine, other)
    return above / below if below else math.inf
