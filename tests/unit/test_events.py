"""The journal of events: written by many, bounded, read in order; and how events are chosen and shown."""

import json
import os
import re
import threading
import time
from pathlib import Path

import pytest

from lamina.cli.commands.events import FILTERS, clean, line, matcher, shower
from lamina.cli.filters import parse_filters
from lamina.store import events as journal_module
from lamina.store.events import EventJournal
from lamina.usecases.events import Event, read_events

DIE = Event(
    1_700_000_000_123_456_789, "container", "die", "f" * 64, {"image": "busybox:1", "name": "box", "k": "v", "exitCode": "3"}
)


@pytest.fixture
def journal(tmp_path: Path) -> EventJournal:
    (tmp_path / "locks").mkdir()
    return EventJournal(str(tmp_path), str(tmp_path))


def test_what_is_written_by_several_processes_is_whole_and_read_in_its_order(journal: EventJournal):
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            for count in range(200):
                journal.append("volume", "create", f"{number}-{count}", {"driver": "local"})
            os._exit(0)
    journal.append("volume", "create", "late", {}, time_ns=1)
    for _ in range(3):
        os.wait()
    found = list(read_events(journal.path, since_ns=0, until_ns=time.time_ns()))
    assert len(found) == 601
    assert found[0].id == "late"
    assert [each.time_ns for each in found] == sorted(each.time_ns for each in found)


def test_the_journal_is_bounded_and_its_followers_miss_nothing(journal: EventJournal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_module, "FILE_BYTES", 2000)
    monkeypatch.setattr("lamina.usecases.events.INTERVAL_MS", 1)
    other = EventJournal(os.path.dirname(journal.path), os.path.dirname(journal.path))
    found: list[str] = []
    until = time.time_ns() + 1_500_000_000
    follower = threading.Thread(target=lambda: found.extend(event.id for event in read_events(journal.path, until_ns=until)))
    follower.start()
    time.sleep(0.1)
    for number in range(100):
        (journal if number % 2 else other).append("volume", "create", str(number), {})
        time.sleep(0.005)
    follower.join()
    assert found == [str(number) for number in range(100)]
    names = sorted(path.name for path in Path(journal.path).parent.iterdir())
    assert names == ["events.log", "events.log.1", "locks"]
    assert sum(Path(journal.path).with_name(name).stat().st_size for name in names[:2]) < 4500


def test_a_full_disk_loses_the_event_and_fails_nothing(tmp_path: Path):
    journal = EventJournal(str(tmp_path / "none"), str(tmp_path))
    journal.append("volume", "create", "x", {})


def test_a_line_that_a_crash_cut_in_two_is_left_out(journal: EventJournal):
    journal.append("volume", "create", "x", {})
    with open(journal.path, "a", encoding="ascii") as file:
        file.write('{"time":1,"ty\n[]\n')
    journal.append("volume", "create", "y", {})
    assert [each.id for each in read_events(journal.path, since_ns=0, until_ns=time.time_ns())] == ["x", "y"]


def test_an_event_is_a_line_json_or_what_a_template_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        said = f"2023-11-15T00:13:20.123456789+02:00 container die {'f' * 64} (exitCode=3, image=busybox:1, k=v, name=box)"
        assert line(DIE) == said
    finally:
        monkeypatch.undo()
        time.tzset()
    shown = json.loads(shower("json")(DIE))
    assert (shown["status"], shown["from"], shown["timeNano"]) == ("die", "busybox:1", DIE.time_ns)
    assert shown["Actor"] == {"ID": DIE.id, "Attributes": DIE.attributes}
    assert shower("{{.Type}} {{.Action}} {{.Actor.Attributes.exitCode}} {{.Time}}")(DIE) == "container die 3 1700000000"
    evil = DIE._replace(attributes={"label": "\x1b[31m"})
    assert shower("{{.Actor.Attributes.label}}")(clean(evil)) == r"\x1b[31m"
    assert re.search(r"\\x1b", line(DIE._replace(action="exec_create: \x1b[31m")))


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ((), True),
        (("type=container",), True),
        (("type=image", "type=container"), True),
        (("type=image",), False),
        (("event=die",), True),
        (("event=start",), False),
        (("container=box",), True),
        (("container=ffff",), True),
        (("container=bo",), False),
        (("image=busybox",), True),
        (("image=busybox:1",), True),
        (("image=busybox:2",), False),
        (("label=k=v",), True),
        (("label=k=v", "label=no"), False),
        (("network=box",), False),
        (("volume=box",), False),
        (("scope=swarm",), False),
        (("container=box", "event=kill"), False),
    ],
)
def test_filters_are_dockers(filters: tuple[str, ...], fits: bool):
    assert matcher(parse_filters(filters, known=FILTERS))(DIE) is fits


def test_a_health_event_is_found_by_its_whole_action_and_by_its_first_word():
    event = DIE._replace(action="health_status: healthy")
    for text in ("event=health_status", "event=health_status: healthy"):
        assert matcher(parse_filters((text,), known=FILTERS))(event)
