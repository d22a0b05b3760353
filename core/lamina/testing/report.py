"""Outcomes for people, for programs (JSON) and for continuous integration (JUnit)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lamina import json
from lamina.testing.check import GROUPS
from lamina.testing.run import Outcome, Verdict

_COLUMNS = (Verdict.PASS, Verdict.FAIL, Verdict.NOT_CLAIMED, Verdict.SKIPPED)


def count_rows(verdicts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Write the table of counts, a line for each group, from pairs of group and verdict."""
    counts: dict[str, dict[str, int]] = {}
    for group, verdict in verdicts:
        row = counts.setdefault(group, dict.fromkeys((each.value for each in _COLUMNS), 0))
        row[verdict] += 1
    yield "GROUP           CHECKS   PASS   FAIL   NOT CLAIMED   SKIPPED"
    total = dict.fromkeys((each.value for each in _COLUMNS), 0)
    for group in sorted(counts, key=GROUPS.index):
        yield _row(group, counts[group])
        for verdict, number in counts[group].items():
            total[verdict] += number
    yield _row("all", total)


def _row(name: str, counts: dict[str, int]) -> str:
    passed, failed, unclaimed, skipped = (counts[each.value] for each in _COLUMNS)
    return f"{name:<14}{passed + failed + unclaimed + skipped:>8}{passed:>7}{failed:>7}{unclaimed:>14}{skipped:>10}"


def lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Write everything that a person wants to know: the table, failures, skips with their reasons, what was recorded."""
    yield from count_rows((each.check.group, each.verdict.value) for each in outcomes)
    for title, verdict in (("Failed", Verdict.FAIL), ("Not claimed", Verdict.NOT_CLAIMED), ("Skipped", Verdict.SKIPPED)):
        chosen = [each for each in outcomes if each.verdict is verdict]
        yield from _section(title, [(each.check, each.reason) for each in chosen], tells_why=verdict is Verdict.FAIL)
    unclaimed = unclaimed_abilities(outcomes)
    if unclaimed:
        yield ""
        yield f"Claims less than it does: {', '.join(unclaimed)}"
    yield from _section("Recorded", [(each.check, note) for each in outcomes for note in each.notes], tells_why=False)


def _section(title: str, rows: list[tuple[Any, str]], *, tells_why: bool) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield f"{title}:"
    for check, text in rows:
        yield f"  {check.group}: {check.name}"
        yield f"      {text}"
        if tells_why and check.about:
            yield f"      why: {check.about}"


def unclaimed_abilities(outcomes: Sequence[Outcome]) -> list[str]:
    """List the claims that the driver doesn't make and could: every check of them passes."""
    held: dict[str, bool] = {}
    for each in outcomes:
        if each.check.claim is not None:
            held[each.check.claim.value] = held.get(each.check.claim.value, True) and each.underclaimed
    return sorted(claim for claim, all_held in held.items() if all_held)


def document(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Make the document of `--format json`."""
    return {
        "Driver": name,
        "Passed": not any(each.verdict is Verdict.FAIL for each in outcomes),
        "Counts": {verdict.value.replace(" ", "_"): sum(each.verdict is verdict for each in outcomes) for verdict in _COLUMNS},
        "ClaimsLess": unclaimed_abilities(outcomes),
        "Checks": [
            {
                "Group": each.check.group,
                "Name": each.check.name,
                "About": each.check.about,
                "Claim": None if each.check.claim is None else each.check.claim.value,
                "Verdict": each.verdict.value,
                "Reason": each.reason,
                "Works": each.verdict is Verdict.PASS or each.underclaimed,
                "Recorded": list(each.notes),
                "Seconds": round(each.duration_s, 4),
            }
            for each in outcomes
        ],
    }


def to_json(name: str, outcomes: Sequence[Outcome]) -> str:
    """Write the document."""
    return json.dumps(document(name, outcomes), indent=2)


def to_junit(name: str, outcomes: Sequence[Outcome]) -> str:
    """Write what CI systems read: a test suite for each group."""
    from xml.etree import ElementTree  # 12 ms

    top = ElementTree.Element("testsuites", name=f"lamina storage driver {name}")
    for group in GROUPS:
        chosen = [each for each in outcomes if each.check.group == group]
        if not chosen:
            continue
        suite = ElementTree.SubElement(
            top,
            "testsuite",
            name=group,
            tests=str(len(chosen)),
            failures=str(sum(each.verdict is Verdict.FAIL for each in chosen)),
            skipped=str(sum(each.verdict in {Verdict.SKIPPED, Verdict.NOT_CLAIMED} for each in chosen)),
            time=f"{sum(each.duration_s for each in chosen):.3f}",
        )
        for each in chosen:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=f"{name}.{group.replace(' ', '-')}",
                name=each.check.name,
                time=f"{each.duration_s:.3f}",
            )
            if each.verdict is Verdict.FAIL:
                ElementTree.SubElement(case, "failure", message=_plain(each.reason)).text = _plain(each.check.about)
            elif each.verdict is not Verdict.PASS:
                word = "not claimed: " if each.verdict is Verdict.NOT_CLAIMED else ""
                ElementTree.SubElement(case, "skipped", message=_plain(word + each.reason))
    ElementTree.indent(top)
    return ElementTree.tostring(top, encoding="unicode", xml_declaration=True)


def _plain(text: str) -> str:
    """Escape what XML 1.0 can't hold."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
