"""What a comparison comes to, and how it looks as lines, as JSON and as a page."""

import html.parser
import json
import re

import pytest

from lamina.compare import charts
from lamina.compare.disk import disk_bytes
from lamina.compare.page import page
from lamina.compare.report import Answer, Comparison, DiskRow, ProbeRow, Recorded, Spread, Subject, TimingRow, document, summary
from lamina.compare.text import factor, lines, seconds, size

EVIL = '<script src="//evil">&'


def row(name: str, plain: str, answers: dict[str, Answer], recorded: dict[str, str] | None = None) -> ProbeRow:
    return ProbeRow(
        id=name,
        group="renames",
        title=f"title of {name}",
        why=f"Why of {name}.",
        plain=plain,
        answers=answers,
        recorded=recorded or {},
    )


def comparison() -> Comparison:
    record = Recorded(
        name="b on record", beside="b", title="b itself", answers={"one": "EXDEV", "two": "ok"}, operations={"one": "op"}
    )
    return Comparison(
        machine={"Kernel": "6.1", "Architecture": "x", "CPUs": "2", "FileSystem": "ext4", "Date": "today"},
        subjects=[
            Subject(name="a", method="by hand"),
            Subject(name="b", method="by foot"),
            Subject(name="c", reason=f"no module {EVIL}", hint="load it"),
        ],
        recorded=[record],
        probes=[
            row("one", "ok", {"a": Answer(text="ok"), "b": Answer(text="EXDEV")}, {"b on record": "EXDEV"}),
            row("two", "ok", {"a": Answer(text="ok"), "b": Answer(text="EPERM")}, {"b on record": "ok"}),
            row("three", "ok", {"a": Answer(text="ok"), "b": Answer(text="ok")}),
            row("four", "ok", {"a": Answer(text="ok"), "b": Answer(text=f"not answered: {EVIL}", is_failure=True)}),
        ],
        disk=[DiskRow(id="image", title="image", why="Why.", size_bytes={"a": 1 << 20, "b": 3 << 20})],
        timings=[
            TimingRow(id="work", title="work", why="Why.", seconds={"a": [1.0, 2.0, 1.0], "b": [2.0, 5.0, 2.0]}),
            TimingRow(id="rest", title="rest", why="Why.", seconds={"a": [1.0, 1.0], "b": [0.9, 1.2]}),
        ],
        took_s=12.3,
    )


def test_a_question_differs_when_two_drivers_answer_differently() -> None:
    assert [each.id for each in comparison().differences] == ["one", "two", "four"]


def test_a_question_that_could_not_be_asked_is_no_departure_from_a_plain_file_system() -> None:
    found = comparison()
    assert [each.id for each in found.unlike_plain("b")] == ["one", "two"]
    assert [each.id for each in found.unanswered("b")] == ["four"]


def test_a_driver_departs_from_the_record_only_where_the_record_says_something_else() -> None:
    found = comparison()
    assert [each.id for each in found.departures(found.recorded[0])] == ["two"]


def test_ratios_are_of_each_round_and_not_of_the_medians() -> None:
    work = comparison().timings[0]
    assert work.ratio("b", "a") == Spread(median=2.0, low=2.0, high=2.5)
    assert work.ratio("a", "a") == Spread(median=1.0, low=1.0, high=1.0)


def test_the_summary_says_it_in_sentences() -> None:
    told = summary(comparison())
    assert told[0] == f"c can't work here and isn't compared: no module {EVIL} (load it)."
    assert "Of 4 questions, 3 are answered differently by these drivers." in told
    assert "a does as a plain file system does in all 4 questions." in told
    assert "b does as a plain file system does in 1 of 3 questions. The others are about renaming (2)." in told
    assert "b couldn't be asked 1 question." in told
    assert "b itself is on record with 2 answers; the driver b, here by by foot, departs from 1 of them." in told
    assert "b takes the most disk, 3.0 times what a takes in the fullest state measured." in told
    assert "Against a, b is slower in 1 of 2 kinds of work, the most in: work (2.0 times)." in told


def test_a_difference_that_is_not_in_every_round_is_not_called_one() -> None:
    found = comparison()
    only = Comparison(machine={}, subjects=found.subjects, timings=[found.timings[1]])
    assert summary(only)[-1] == "Against a, b is neither slower nor faster in every round."


def test_the_document_is_json_and_whole() -> None:
    told = json.loads(json.dumps(document(comparison())))
    assert [each["Name"] for each in told["Drivers"] if each["Compared"]] == ["a", "b"]
    assert told["Probes"][0]["Answers"] == {"a": "ok", "b": "EXDEV"}
    assert told["Probes"][0]["Operations"] == {"b on record": "op"}
    assert told["Probes"][3]["Unanswered"] == ["b"]
    assert told["Disk"][0]["Bytes"] == {"a": 1 << 20, "b": 3 << 20}
    assert told["Timings"][0]["Ratio"]["b"] == {"Median": 2.0, "Min": 2.0, "Max": 2.5}


def test_lines_mark_what_differs_and_count_what_is_the_same_everywhere() -> None:
    told = list(lines(comparison()))
    assert any(re.match(r"\* title of one +ok +EXDEV ! +EXDEV$", line) for line in told)
    assert not any("title of three" in line for line in told)
    assert any(line.startswith("  1 more are answered by all") for line in told)
    assert any("title of three" in line for line in lines(comparison(), everything=True))


class Page(html.parser.HTMLParser):
    """What a browser would load, and which elements are open at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in {"src", "href", "data", "action", "srcset", "poster"}]
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    text = page(comparison())
    read = Page()
    read.feed(text)
    assert set(read.loaded) == {"data:,"}
    assert read.open == []
    assert not {"script", "iframe", "img", "object"} & set(read.tags)
    assert not re.search(r"https?://|@import|url\(", text.replace("not answered", ""))
    assert EVIL not in text


def test_the_page_has_every_question_with_its_sentence_and_a_chart_for_every_measurement() -> None:
    found = comparison()
    text = page(found)
    for each in found.probes:
        assert each.title in text
        assert each.why in text
    assert text.count("<svg") == len(found.disk) + len(found.timings) + 1
    assert text.index("In short") < text.index("Where they differ") < text.index("Every question")
    assert "not recorded" in text


def test_a_comparison_of_one_part_has_a_page_of_that_part() -> None:
    found = comparison()
    text = page(Comparison(machine={}, subjects=found.subjects, disk=found.disk))
    assert "<h2>Disk</h2>" in text
    assert "<h2>Time</h2>" not in text
    assert "Every question" not in text


@pytest.mark.parametrize(("low", "high"), [(0.5, 3), (0.001, 2000), (0.9, 1.1)])
def test_a_scale_has_one_in_it_and_not_too_many_ticks(low: float, high: float) -> None:
    ticks = charts.ticks(min(low, 0.8), max(high, 1.25))
    assert 1.0 in ticks
    assert len(ticks) <= 8


def test_lines_fit_a_terminal_whatever_the_answers_say() -> None:
    told = Comparison(
        machine={},
        subjects=comparison().subjects,
        probes=[row("word " * 30, "ok", {"a": Answer(text="x " * 60), "b": Answer(text="ok")})],
    )
    table = [line for line in lines(told) if "  " in line]
    assert max(len(line) for line in table) <= 100
    assert "".join(table).count("word") == 30
    assert "".join(table).count("x ") + "".join(table).count("x") >= 60


def test_numbers_are_written_short() -> None:
    assert [size(each) for each in (0, 1536, 8 << 20, 3 << 30)] == ["0 B", "1.5 KiB", "8.0 MiB", "3.0 GiB"]
    assert [seconds(each) for each in (2.0, 0.0314, 0.00005)] == ["2 s", "31.4 ms", "50 µs"]
    assert [factor(each) for each in (0.00001, 0.002, 0.5, 2.46, 33.3)] == ["~0x", "0.002x", "0.50x", "2.5x", "33x"]


def test_disk_is_counted_as_du_counts_it(tmp_path) -> None:
    import os
    import subprocess

    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "file").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "d" / "file", tmp_path / "d" / "e" / "again")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(10 << 20)
    os.symlink("nowhere", tmp_path / "link")
    done = subprocess.run(["du", "-sx", "--block-size=1", tmp_path], capture_output=True, text=True, check=True)
    assert disk_bytes(str(tmp_path)) == int(done.stdout.split()[0])
