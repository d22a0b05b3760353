"""The benchmark's arithmetic, turns, tables, JSON, plot and list of works. Nothing is timed."""

import json
import math
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from lamina_bench.__main__ import main
from lamina_bench.catalogue import WORKS, chosen
from lamina_bench.chart import chart, share
from lamina_bench.document import document, read, together
from lamina_bench.pace import FIRST_LOOKS, TRIES, Pace, any_pace, yardstick
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
    Verdict,
    WorkReport,
    judge,
    quantile,
)  # fmt: skip
from lamina_bench.rounds import measure
from lamina_bench.table import BEGIN, END, into_page, seconds, text
from lamina_bench.work import AbsentError, Contender, FailedError, Missing, Work

TOP = Path(__file__).parents[2]


def column(label: str, *wall_s: float) -> Column:
    return Column(label=label, figures=tuple(Figures(wall_s=each, cpu_s=each / 2) for each in wall_s))


def target(**more) -> Target:
    return Target(**{"title": "work, to the faster", "of": "lamina", "to": ("docker", "podman"), "limit": 0.6, "aim": 0.4, **more})


def report(*works: WorkReport, is_quiet: bool = True) -> Report:
    machine = Machine(
        processor="a processor", cores=2, memory_bytes=4 << 30, kernel="6.1.0", system="Debian", filesystem="ext4", python="3.11.2",
        versions=(("lamina", "0.1.0"),), absent=(("podman", "podman is not installed"),),
    )  # fmt: skip
    quiet = Quiet(load_before=0.1, busy_before=0.01, load_after=1.0, is_quiet=is_quiet)
    return Report(began="2026-01-02 03:04 UTC", took_s=5.0, machine=machine, quiet=quiet, works=works)


def work_report(*targets: Target, left: tuple[Left, ...] = ()) -> WorkReport:
    columns = (column("lamina", 0.1, 0.2, 0.3), column("docker", 0.4, 0.5, 0.6))
    outcomes = tuple(judge(each, columns) for each in targets)
    return WorkReport(name="work", title="a work", what="`a work`", columns=columns, left=left, outcomes=outcomes)


@pytest.mark.parametrize(("share_", "found"), [(0.0, 1), (0.1, 1.4), (0.5, 3), (0.9, 4.6), (1.0, 5)])
def test_a_quantile_lies_between_its_neighbours(share_: float, found: float):
    assert quantile([5, 3, 1, 4, 2], share_) == pytest.approx(found)
    assert quantile([7.0], share_) == 7.0


def test_a_ratio_is_the_median_of_the_rounds_ratios_to_the_fastest_peer():
    # the machine was slow in the second round, for all: the ratio doesn't tell of it
    columns = [column("lamina", 1, 10, 2), column("docker", 2, 20, 8), column("podman", 3, 30, 9)]
    outcome = judge(target(), columns)
    assert outcome.against == "docker"
    assert outcome.value == Spread(median=0.5, p10=pytest.approx(0.3), p90=0.5)
    assert outcome.verdict is Verdict.HOLDS


@pytest.mark.parametrize(
    ("value", "kind", "verdict"),
    [
        (0.4, Kind.RATIO, Verdict.AIM),
        (0.6, Kind.RATIO, Verdict.HOLDS),
        (0.61, Kind.RATIO, Verdict.MISSES),
        (math.inf, Kind.RATIO, Verdict.MISSES),
        (0.61, Kind.RATE, Verdict.HOLDS),
        (0.59, Kind.RATE, Verdict.MISSES),
    ],
)
def test_a_verdict_is_by_the_median(value: float, kind: Kind, verdict: Verdict):
    limits = {"limit": 0.6, "aim": 0.4} if kind is Kind.RATIO else {"limit": 0.6, "aim": 1.0}
    assert Outcome(target=target(kind=kind, **limits), value=Spread(median=value, p10=0, p90=9)).verdict is verdict


def test_a_rate_is_more_for_who_takes_less():
    outcome = judge(target(kind=Kind.RATE, to=("docker",), limit=2.0, aim=4.0), [column("lamina", 2), column("docker", 8)])
    assert outcome.value is not None
    assert outcome.value.median == 4.0
    assert outcome.verdict is Verdict.AIM


def test_a_difference_and_a_value_are_in_seconds():
    columns = [column("lamina", 0.25, 0.27), column("docker", 0.125, 0.145)]
    difference = judge(target(kind=Kind.DIFFERENCE, to=("docker",), limit=0.03, aim=None), columns)
    alone = judge(target(kind=Kind.VALUE, to=(), limit=0.3, aim=0.1), columns)
    assert difference.value is not None
    assert alone.value is not None
    assert difference.value.median == pytest.approx(0.125)
    assert alone.value.median == pytest.approx(0.26)
    assert (difference.verdict, alone.verdict) == (Verdict.MISSES, Verdict.HOLDS)


@pytest.mark.parametrize("columns", [[], [column("lamina", 1)], [column("docker", 1)], [column("lamina"), column("docker")]])
def test_without_both_sides_a_target_is_open(columns: list[Column]):
    assert judge(target(), columns).verdict is Verdict.OPEN


def test_a_metric_that_a_contender_does_not_tell_is_not_compared():
    memory = Column(label="docker", figures=(Figures(memory_bytes=100),))
    assert judge(target(metric=Metric.WALL), [column("lamina", 1), memory]).value is None
    assert memory.spread(Metric.MEMORY) == Spread(median=100, p10=100, p90=100)


class Counted(Contender):
    """Notes what it is asked to do."""

    def __init__(self, label: str, notes: list[str], fails_in: str = "", error: Exception | None = None) -> None:
        super().__init__(label)
        self._notes, self._fails_in, self._error = notes, fails_in, error or FailedError("it broke")

    def _note(self, step: str) -> None:
        self._notes.append(f"{self.label} {step}")
        if step == self._fails_in:
            raise self._error

    def set_up(self) -> None:
        self._note("set_up")

    def before(self) -> None:
        self._note("before")

    def run(self) -> Figures:
        self._note("run")
        return Figures(wall_s=1, cpu_s=1)

    def after(self) -> None:
        self._note("after")

    def tear_down(self) -> None:
        self._note("tear_down")


def measured(*contenders: Contender | Missing, rounds: int = 3, warm_up: int = 1, pace: Pace | None = None) -> WorkReport:
    work = Work(
        name="w", title="w", what="w", contenders=lambda _lab: contenders, rounds=rounds, warm_up=warm_up, targets=[target()]
    )
    lab = SimpleNamespace()  # no contender asks it
    return measure(work, lab, rounds=rounds, pace=pace or any_pace(), told=lambda _line: None)  # type: ignore[arg-type]


def test_contenders_take_turns_each_round_another_begins():
    notes: list[str] = []
    found = measured(*(Counted(label, notes) for label in ("a", "b", "c")), rounds=3, warm_up=0)
    ran = [note[0] for note in notes if note.endswith("run")]
    assert "".join(ran) == "abcbcacab"
    assert [len(each.figures) for each in found.columns] == [3, 3, 3]
    assert notes[-3:] == ["c tear_down", "b tear_down", "a tear_down"]


def test_a_warm_up_does_not_count():
    notes: list[str] = []
    found = measured(Counted("a", notes), rounds=2, warm_up=2)
    assert notes.count("a run") == 4
    assert len(found.columns[0].figures) == 2


def test_a_turn_in_which_a_core_was_slow_is_done_again():
    notes: list[str] = []

    def look() -> list[float]:
        turns = sum(note.endswith("run") for note in notes)
        return [1.0, 1.16 if turns in {1, 2} else 1.14]  # seconds that the yardstick takes on each of two cores

    pace = Pace(lambda: [1.0, 1.0] if not notes else look())
    found = measured(Counted("a", notes), Counted("b", notes), rounds=1, warm_up=0, pace=pace)
    assert [note for note in notes if note.endswith("run")] == ["a run", "a run", "a run", "b run"]
    assert notes.count("a before") == notes.count("a after") == 3
    assert [len(each.figures) for each in found.columns] == [1, 1]
    assert (pace.again, pace.given_up) == (2, 0)


def test_a_turn_counts_after_all_where_the_pace_is_never_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lamina_bench.pace.WAIT_S", 0)
    notes: list[str] = []
    looks = iter([1.0] * (FIRST_LOOKS + 1))
    pace = Pace(lambda: [next(looks, 2.0)])
    found = measured(Counted("a", notes), rounds=1, warm_up=0, pace=pace)
    assert notes.count("a run") == TRIES
    assert len(found.columns[0].figures) == 1
    assert (pace.again, pace.given_up) == (TRIES - 1, 1)
    steady = report(found)
    assert f"w, at full pace: {TRIES - 1} turns done again, 1 count after all" in text(steady)
    assert "| w (at full pace) | a |" in into_page(f"{BEGIN}{END}", steady)
    (again,) = read(document(steady)).works
    assert (again.is_steady, again.again, again.given_up) == (True, TRIES - 1, 1)


def test_the_yardstick_is_timed_on_each_core_and_leaves_none_out():
    cores = os.sched_getaffinity(0)
    assert len(yardstick()) == len(cores)
    assert os.sched_getaffinity(0) == cores


@pytest.mark.parametrize("step", ["set_up", "before", "run", "after"])
def test_who_fails_is_taken_away_and_left_out_and_the_others_go_on(step: str):
    notes: list[str] = []
    found = measured(
        Counted("a", notes), Counted("b", notes, step), Counted("c", notes), Missing(label="d", reason="not installed")
    )
    assert [each.label for each in found.columns] == ["a", "c"]
    assert [len(each.figures) for each in found.columns] == [3, 3]
    assert Left(label="b", reason="it broke", failed=True) in found.left
    assert Left(label="d", reason="not installed") in found.left
    assert notes.count("b tear_down") == 1


def test_an_engine_that_cannot_do_a_work_is_no_failure():
    found = measured(Counted("a", [], "set_up", AbsentError("has no bridge")))
    assert found.left == (Left(label="a", reason="has no bridge"),)
    assert report(found).failed == []


def test_the_table_shows_figures_targets_and_what_was_left_out():
    shown = text(report(work_report(target(), target(of="nobody"), left=(Left(label="umoci", reason="it broke", failed=True),))))
    assert "podman (podman is not installed)" in shown
    assert "NOT QUIET" not in shown
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "lamina 200 ms 120 ms to 280 ms CPU 100 ms 3 rounds" in lines
    assert "work, to the faster 0.40 (docker) 0.28 to 0.48 0.60 0.40 aim met" in lines
    assert "work, to the faster not measured 0.60 0.40" in lines
    assert "failed in work: umoci: it broke" in lines


def test_rough_figures_say_so_everywhere():
    rough = report(work_report(target()), is_quiet=False)
    assert "NOT QUIET" in text(rough)
    assert "rough" in chart(rough)
    assert json.loads(document(rough))["load"]["is_quiet"] is False


@pytest.mark.parametrize(
    ("number", "shown"),
    [(12.345, "12.3 s"), (0.0123, "12.3 ms"), (-0.0123, "-12.3 ms"), (0.000431, "431 µs"), (0.9999, "1 s"), (2345.0, "2345 s")],
)
def test_times_have_three_digits(number: float, shown: str):
    assert seconds(number) == shown


def test_the_json_has_every_figure_and_no_number_that_json_lacks():
    found = json.loads(document(report(work_report(target(), target(of="nobody")))))
    work = found["works"][0]
    assert work["contenders"][0]["rounds"][1] == {"wall": 0.2, "cpu": 0.1, "memory": None}
    assert work["contenders"][0]["wall"]["median"] == 0.2
    assert [each["verdict"] for each in work["targets"]] == ["aim", "open"]
    assert found["machine"]["versions"] == {"lamina": "0.1.0"}


def test_the_json_is_read_again_as_it_was():
    first = report(work_report(target(), left=(Left(label="umoci", reason="it broke", failed=True),)))
    assert document(read(document(first))) == document(first)
    assert text(read(document(first))) == text(first)
    for wrong in ("", "[]", "{}", '{"format": 2}'):
        with pytest.raises(ValueError, match=r"."):
            read(wrong)


def test_runs_are_put_together_the_last_one_counts():
    old, new = report(work_report(target()), is_quiet=False), report(work_report(target(limit=0.1, aim=None)))
    both = together([old, new], ["other", "work"])
    assert [outcome.verdict for work in both.works for outcome in work.outcomes] == [Verdict.MISSES]
    assert not both.quiet.is_quiet


def test_the_plot_is_svg_with_a_mark_for_each_target():
    drawn = chart(report(work_report(target(), target(title="a < b", limit=0.3), target(limit=None, aim=None))))
    root = ElementTree.fromstring(drawn)
    assert len(root.findall("{http://www.w3.org/2000/svg}circle")) == 2
    assert "a < b" in {each.text for each in root.iter("{http://www.w3.org/2000/svg}text")}


def test_in_the_plot_a_rate_lies_left_of_the_line_when_it_is_met():
    outcome = judge(target(kind=Kind.RATE, to=("docker",), limit=2.0, aim=4.0), [column("lamina", 2), column("docker", 8)])
    assert share(outcome, 4.0) == 0.5
    assert share(judge(target(), [column("lamina", 3), column("docker", 10)]), 0.3) == pytest.approx(0.5)


def test_figures_come_between_the_marks_of_a_page():
    page = f"# Speed\n\n{BEGIN}\nold\n{END}\n\nMore.\n"
    found = into_page(page, report(work_report(target())))
    assert "old" not in found
    assert "| work, to the faster | 0.40 (docker) | 0.28 to 0.48 | 0.60 | 0.40 | aim met |" in found
    assert found.endswith(f"{END}\n\nMore.\n")
    assert into_page(found, report(work_report(target()))) == found
    with pytest.raises(ValueError, match="not found"):
        into_page("no marks", report())


def test_works_are_chosen_by_name_or_group():
    assert [work.name for work in chosen(["build", "ps"])] == ["ps", "build-cold", "build-change", "build-cached"]
    assert chosen([]) == list(WORKS)
    with pytest.raises(FailedError, match="no work is called 'nonsense'"):
        chosen(["nonsense"])


def test_every_work_is_described_in_the_documentation():
    page = (TOP / "docs/speed.md").read_text(encoding="utf-8")
    assert [work.name for work in WORKS if f"| `{work.name}` |" not in page] == []
    into_page(page, report())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--works", "nonsense"], "no work is called 'nonsense'"),
        (["--engines", "lxc"], "no engine is called 'lxc'"),
        (["--rounds", "0"], "'0' rounds are too few"),
    ],
)
def test_a_wrong_word_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_make_bench_passes_its_variables_on():
    words = ["make", "-n", "-C", str(TOP), "bench", "WORKS=run,build", "ROUNDS=20", "ANYWAY=1", "JSON=a.json"]
    told = " ".join(subprocess.run(words, capture_output=True, text=True, check=True).stdout.replace("\\\n", " ").split())
    assert 'python -m lamina_bench --anyway --works "run,build" --rounds "20" --json "a.json"' in told
