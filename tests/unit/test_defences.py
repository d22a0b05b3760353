"""The table of what `make defences` takes out is true of the source and whole: nothing in `docs/security.md` is left aside."""

import re
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(TOP / "tests/defences"))

from table import DEFENCES, KEPT, Defence  # noqa: E402

ROWS = re.findall(r"^\| (.+?) \| .+? \| ((?:`tests/).+?) \| \w+ \|$", (TOP / "docs/security.md").read_text(encoding="utf-8"), re.M)
"""Each attack with the cell of its tests."""


def named_in(cell: str) -> set[str]:
    """The tests that a cell of the page names, as pytest does."""
    found, file = set(), ""
    for word in re.findall(r"`([^`]+)`", cell):
        if word.startswith("tests/"):
            file = word
        else:
            found.add(f"{file}::test_{word}")
    return found


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda each: f"{each.attack}-{each.without}")
def test_what_is_taken_out_is_there_once_and_leaves_a_program(defence: Defence, tmp_path: Path):
    defence.write_without(tmp_path)
    for cut in defence.cuts:
        compile((tmp_path / cut.path).read_text(encoding="utf-8"), cut.path, "exec")


def test_every_test_of_every_attack_is_seen_to_fail_or_said_why_not():
    for attack, cell in ROWS:
        shown = {test for each in DEFENCES if attack.startswith(each.attack) for test in each.tests}
        kept = {test for test in KEPT if test in named_in(cell)}
        assert named_in(cell) == shown | kept, attack


def test_every_defence_is_against_an_attack_of_the_page():
    assert len(ROWS) > 40
    for each in DEFENCES:
        assert len([attack for attack, _ in ROWS if attack.startswith(each.attack)]) == 1, each.attack
    assert not KEPT.keys() - {test for _, cell in ROWS for test in named_in(cell)}
