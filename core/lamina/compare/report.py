"""All that a comparison found, as one value; and what it comes to: which answers differ, and a few sentences for who must choose.

No I/O, and nothing of how it looks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

FORMAT_VERSION = 1

GROUPS = {
    "identity": ("What a file is known by", "what a file is known by"),
    "descriptors": ("Open files, mappings, locks and watches", "open files, mappings, locks and watches"),
    "copy-up": ("The first change of a file of the image", "the first change of a file"),
    "renames": ("Renaming", "renaming"),
    "links": ("Files with several names, or none", "files with several names"),
    "names": ("Names, and what the file system says of itself", "names and statfs"),
    "attributes": ("Attributes, ACLs and capabilities", "attributes"),
    "special": ("Sockets, fifos, devices, handles", "devices and file handles"),
    "directories": ("Directories", "directories and what they leave on disk"),
    "data": ("Moving bytes", "moving bytes"),
}
"""Each group of probes, as a heading and in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a driver answered. A failure is a question that couldn't be asked, and says nothing of the file system."""

    text: str
    is_failure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A driver that was asked for; if it can't work here, `reason` says why and it has no answers."""

    name: str
    method: str = ""
    reason: str = ""
    hint: str = ""

    @property
    def is_compared(self) -> bool:
        """Whether it has answers."""
        return not self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A file system that isn't here, by a record of what it answered: its own column beside the driver that stands in for it."""

    name: str
    beside: str
    title: str
    answers: Mapping[str, str]
    """By the probe's id; what the record doesn't tell is left out."""
    operations: Mapping[str, str] = field(default_factory=dict)
    """By the probe's id: which operation of the record says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRow:
    """One question and every answer."""

    id: str
    group: str
    title: str
    why: str
    plain: str
    answers: Mapping[str, Answer]
    recorded: Mapping[str, str] = field(default_factory=dict)

    @property
    def differs(self) -> bool:
        """Whether two of the drivers answered differently."""
        return len({answer.text for answer in self.answers.values()}) > 1

    def is_plain(self, driver: str) -> bool:
        """Whether a driver does as a plain file system does."""
        return self.answers[driver].text == self.plain


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRow:
    """What one state of things takes with each driver, in bytes as du(1) counts them."""

    id: str
    title: str
    why: str
    size_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The middle, and the two ends."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(median=median(values), low=min(values), high=max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingRow:
    """How long one piece of work took, round by round: all drivers have equally many, in the order of the rounds."""

    id: str
    title: str
    why: str
    seconds: Mapping[str, Sequence[float]]

    def time(self, driver: str) -> Spread:
        """Seconds."""
        return Spread.of(self.seconds[driver])

    def ratio(self, driver: str, first: str) -> Spread:
        """To the first driver, each round by itself: what slowed the machine down for a while slowed both."""
        return Spread.of([mine / max(its, 1e-9) for mine, its in zip(self.seconds[driver], self.seconds[first], strict=True)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The whole."""

    machine: Mapping[str, str]
    subjects: Sequence[Subject]
    recorded: Sequence[Recorded] = ()
    probes: Sequence[ProbeRow] = ()
    disk: Sequence[DiskRow] = ()
    timings: Sequence[TimingRow] = ()
    took_s: float = 0.0

    @property
    def drivers(self) -> list[str]:
        """The drivers that have answers, in the order in which they were asked for."""
        return [subject.name for subject in self.subjects if subject.is_compared]

    @property
    def differences(self) -> list[ProbeRow]:
        """The questions that the drivers answer differently."""
        return [row for row in self.probes if row.differs]

    def unlike_plain(self, driver: str) -> list[ProbeRow]:
        """The questions that a driver answers unlike a plain file system, those that couldn't be asked left out."""
        return [row for row in self.probes if not row.is_plain(driver) and not row.answers[driver].is_failure]

    def unanswered(self, driver: str) -> list[ProbeRow]:
        """The questions that couldn't be asked."""
        return [row for row in self.probes if row.answers[driver].is_failure]

    def departures(self, record: Recorded) -> list[ProbeRow]:
        """Where the driver beside a record answers differently from the record."""
        return [
            row
            for row in self.probes
            if record.beside in row.answers
            and row.id in record.answers
            and row.answers[record.beside].text != record.answers[row.id]
        ]


def document(comparison: Comparison) -> dict[str, Any]:
    """The whole as JSON has it."""
    first = comparison.drivers[0] if comparison.drivers else ""
    return {
        "Version": FORMAT_VERSION,
        "Machine": dict(comparison.machine),
        "TookSeconds": round(comparison.took_s, 1),
        "Drivers": [
            {"Name": each.name, "Compared": each.is_compared, "Method": each.method, "Reason": each.reason, "Hint": each.hint}
            for each in comparison.subjects
        ],
        "Recorded": [{"Name": each.name, "Beside": each.beside, "Title": each.title} for each in comparison.recorded],
        "Summary": summary(comparison),
        "Probes": [
            {
                "ID": row.id, "Group": row.group, "Title": row.title, "Why": row.why, "Plain": row.plain, "Differs": row.differs,
                "Answers": {name: answer.text for name, answer in row.answers.items()},
                "Unanswered": [name for name, answer in row.answers.items() if answer.is_failure],
                "Recorded": dict(row.recorded),
                "Operations": {each.name: each.operations[row.id] for each in comparison.recorded if row.id in each.operations},
            }
            for row in comparison.probes
        ],
        "Disk": [{"ID": row.id, "Title": row.title, "Why": row.why, "Bytes": dict(row.size_bytes)} for row in comparison.disk],
        "Timings": [
            {
                "ID": row.id, "Title": row.title, "Why": row.why,
                "Seconds": {name: [round(value, 6) for value in values] for name, values in row.seconds.items()},
                "Ratio": {name: _spread(row.ratio(name, first)) for name in row.seconds},
            }
            for row in comparison.timings
        ],
    }  # fmt: skip


def _spread(spread: Spread) -> dict[str, float]:
    return {"Median": round(spread.median, 3), "Min": round(spread.low, 3), "Max": round(spread.high, 3)}


def summary(comparison: Comparison) -> list[str]:
    """Say in sentences what a person who must choose wants to know first."""
    told = [
        f"{each.name} can't work here and isn't compared: {each.reason}{f' ({each.hint})' if each.hint else ''}."
        for each in comparison.subjects
        if not each.is_compared
    ]
    return told + _of_probes(comparison) + _of_disk(comparison) + _of_timings(comparison)


def _of_probes(comparison: Comparison) -> list[str]:
    if not comparison.probes or not comparison.drivers:
        return []
    total = len(comparison.probes)
    told = [f"Of {total} questions, {_count(len(comparison.differences), 'is', 'are')} answered differently by these drivers."]
    if len(comparison.drivers) == 1:
        told = []
    for driver in comparison.drivers:
        unlike, unanswered = comparison.unlike_plain(driver), comparison.unanswered(driver)
        asked = total - len(unanswered)
        if unlike:
            told.append(
                f"{driver} does as a plain file system does in {asked - len(unlike)} of {asked} questions. "
                f"The others are about {_groups(unlike)}."
            )
        else:
            told.append(f"{driver} does as a plain file system does in all {asked} questions.")
        if unanswered:
            told.append(f"{driver} couldn't be asked {_count(len(unanswered), 'question', 'questions')}.")
    for record in comparison.recorded:
        if record.beside in comparison.drivers:
            known = sum(row.id in record.answers for row in comparison.probes)
            told.append(
                f"{record.title} is on record with {_count(known, 'answer', 'answers')}; the driver {record.beside}, here by "
                f"{_method(comparison, record.beside)}, departs from {len(comparison.departures(record))} of them."
            )
    return told


def _groups(rows: Sequence[ProbeRow]) -> str:
    """Say what questions are about, what most are about first."""
    counted = Counter(row.group for row in rows)
    parts = [f"{GROUPS.get(group, (group, group))[1]} ({number})" for group, number in counted.most_common()]
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _of_disk(comparison: Comparison) -> list[str]:
    told = []
    for row in comparison.disk[-1:] if len(comparison.drivers) > 1 else []:
        least = min(row.size_bytes, key=lambda name: row.size_bytes[name])
        most = max(row.size_bytes, key=lambda name: row.size_bytes[name])
        factor = row.size_bytes[most] / max(row.size_bytes[least], 1)
        if factor < 1.05:
            told.append("They take the same disk space.")
        else:
            told.append(f"{most} takes the most disk, {factor:.1f} times what {least} takes in the fullest state measured.")
    return told


def _of_timings(comparison: Comparison) -> list[str]:
    drivers, told = comparison.drivers, []
    for driver in drivers[1:] if comparison.timings else []:
        slower, faster = [], []
        for row in comparison.timings:
            ratio = row.ratio(driver, drivers[0])
            if ratio.low > 1.1:
                slower.append((ratio.median, f"{row.title} ({times(ratio.median)})"))
            elif ratio.high < 0.9:
                faster.append((1 / max(ratio.median, 1e-9), f"{row.title} ({times(1 / max(ratio.median, 1e-3))})"))
        parts = [
            f"{word} in {len(found)} of {len(comparison.timings)} kinds of work, the most in: {max(found)[1]}"
            for word, found in (("slower", slower), ("faster", faster))
            if found
        ]
        told.append(
            f"Against {drivers[0]}, {driver} is "
            + ("; ".join(parts) if parts else "neither slower nor faster in every round")
            + "."
        )
    return told


def times(value: float) -> str:
    """Say how many times, no more exactly than it is known."""
    if value >= 1000:
        return "over 1000 times"
    return f"{value:.0f} times" if value >= 20 else f"{value:.1f} times"


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _method(comparison: Comparison, driver: str) -> str:
    return next((subject.method for subject in comparison.subjects if subject.name == driver), "") or "its own method"
