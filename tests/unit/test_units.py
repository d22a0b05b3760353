"""Sizes, durations and times: Docker's words and Docker's limits."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.cli.units import (
    HOUR_NS,
    MINUTE_NS,
    NEVER_NS,
    SECOND_NS,
    format_list_time,
    format_time_ns,
    human_ago,
    human_binary_size,
    human_duration,
    human_size,
    parse_duration,
    parse_time,
)
from lamina.errors import UsageError
from lamina.model.sizes import parse_size

DAY_NS = 24 * HOUR_NS


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (3, "3B"), (999, "999B"), (1000, "1kB"), (1234, "1.23kB"), (1_234_567, "1.23MB"), (72_800_000, "72.8MB")],
)
def test_a_size_is_decimal_with_three_digits(size: int, text: str):
    assert human_size(size) == text


def test_a_size_may_have_four_digits():
    assert human_size(1_048_576, digits=4) == "1.049MB"


@pytest.mark.parametrize(("size", "text"), [(999_950, "1MB"), (999_499, "999kB"), (999_999_999_999, "1TB")])
def test_a_size_that_rounds_up_to_a_thousand_takes_the_next_unit(size: int, text: str):
    assert human_size(size) == text


def test_a_memory_size_is_binary():
    assert [human_binary_size(n) for n in (512, 1024, 64 << 20, 3_672_164_352)] == ["512B", "1KiB", "64MiB", "3.42GiB"]
    assert human_binary_size(1023 * 1024) == "1023KiB"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("32", 32), ("32b", 32), ("64m", 64 << 20), ("1g", 1 << 30), ("1G", 1 << 30), ("2kb", 2048), ("2KiB", 2048),
        ("1.5g", 3 << 29), ("0.5 m", 1 << 19), ("1t", 1 << 40), ("1p", 1 << 50), (".5k", 512), ("32.9", 32),
    ],
)  # fmt: skip
def test_a_size_is_read_in_powers_of_1024(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1m", "1x", "1m b", " 1", "1 ", "1mm", "1ib", "1e3", "0x10", "٣", "99999p", "1" * 60])
def test_what_is_no_size_is_refused_by_name(text: str):
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert f"'{text}'" in caught.value.message


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (-5, "Less than a second"),
        (SECOND_NS - 1, "Less than a second"),
        (SECOND_NS, "1 second"),
        (59 * SECOND_NS, "59 seconds"),
        (MINUTE_NS, "About a minute"),
        (2 * MINUTE_NS - 1, "About a minute"),
        (5 * MINUTE_NS, "5 minutes"),
        (HOUR_NS - 1, "59 minutes"),
        (HOUR_NS, "About an hour"),
        (HOUR_NS + 29 * MINUTE_NS, "About an hour"),
        (HOUR_NS + 30 * MINUTE_NS, "2 hours"),
        (47 * HOUR_NS, "47 hours"),
        (2 * DAY_NS, "2 days"),
        (13 * DAY_NS, "13 days"),
        (14 * DAY_NS, "2 weeks"),
        (59 * DAY_NS, "8 weeks"),
        (60 * DAY_NS, "2 months"),
        (729 * DAY_NS, "24 months"),
        (730 * DAY_NS, "2 years"),
    ],
)
def test_a_duration_is_said_in_dockers_words(duration: int, text: str):
    assert human_duration(duration) == text


def test_ago_is_said_of_what_was():
    assert human_ago(0, now_ns=14 * DAY_NS) == "2 weeks ago"
    assert human_ago(NEVER_NS, now_ns=0) == "N/A"


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0", 0), ("10s", 10 * SECOND_NS), ("1m30s", 90 * SECOND_NS), ("500ms", SECOND_NS // 2),
        ("1.5h", 90 * MINUTE_NS),
        ("-10s", -10 * SECOND_NS), ("+1s", SECOND_NS), ("1us", 1000), ("1µs", 1000), ("1μs", 1000), ("7ns", 7),
        (".5s", SECOND_NS // 2),
        ("1.s", SECOND_NS), ("1h1h", 2 * HOUR_NS), ("2.000000001s", 2 * SECOND_NS + 1),
    ],
)  # fmt: skip
def test_a_go_duration_is_read_to_the_nanosecond(text: str, duration: int):
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "10", "s", "1d", "1 s", "1s ", "-", "1m-1s", ".s", "00", "9" * 30 + "h", "1s" * 200])
def test_what_is_no_duration_is_refused_by_name(text: str):
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert f"'{text}'" in caught.value.message


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1795493191123456789, "2026-11-24T04:06:31.123456789Z"),
        (1795493191100000000, "2026-11-24T04:06:31.1Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (NEVER_NS, "0001-01-01T00:00:00Z"),
    ],
)
def test_a_time_is_written_to_the_nanosecond_and_read_back(moment: int, text: str):
    assert format_time_ns(moment) == text
    assert parse_time(text, now_ns=0) == moment


@given(st.integers(min_value=NEVER_NS, max_value=253_402_300_799 * SECOND_NS))
def test_every_time_survives_being_written_and_read(moment: int):
    assert parse_time(format_time_ns(moment), now_ns=0) == moment


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-24T04:06:31Z", 1795493191),
        ("2026-11-24t04:06:31z", 1795493191),
        ("2026-11-24T05:06:31+01:00", 1795493191),
        ("2026-11-23T22:36:31-05:30", 1795493191),
        ("2026-11-24T13:06:31", 1795493191),
        ("2026-11-24T13:06", 1795493160),
        ("2026-11-24T13", 1795492800),
        ("2026-11-24", 1795446000),
        ("2026-11-24Z", 1795478400),
        ("1795493191", 1795493191),
        ("-1", -1),
        ("10m", 1795493191 - 600),
        ("1h30m", 1795493191 - 5400),
        ("-10s", 1795493191 + 10),
    ],
)
@pytest.mark.usefixtures("in_tokyo")
def test_a_time_is_read_in_every_form_that_docker_takes(text: str, moment: int):
    assert parse_time(text, now_ns=1795493191 * SECOND_NS) == moment * SECOND_NS


@pytest.mark.parametrize(("text", "part"), [("1.5", 500_000_000), ("1.000000001", 1), ("1.0000000019", 1)])
def test_unix_seconds_may_have_a_fraction(text: str, part: int):
    assert parse_time(text, now_ns=0) == SECOND_NS + part


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-13-01", "2026-02-30", "2026-11-24T25Z", "2026-11-24T04:06:31+99:99", "0000-01-01", "1" * 30],
)
def test_what_is_no_time_is_refused_by_name(text: str):
    with pytest.raises(UsageError) as caught:
        parse_time(text, now_ns=0)
    assert f"'{text}'" in caught.value.message


@given(st.text(alphabet="0123456789.-+:TZhmsnuµkgb e") | st.text())
def test_any_text_is_read_or_refused_with_a_usage_error(text: str):
    for read in (parse_size, parse_duration, lambda text: parse_time(text, now_ns=0)):
        try:
            assert isinstance(read(text), int)
        except UsageError:
            pass


@pytest.mark.usefixtures("in_tokyo")
def test_a_list_shows_local_time_with_its_zone():
    assert format_list_time(1795493594 * SECOND_NS) == "2026-11-24 13:13:14 +0900 JST"
