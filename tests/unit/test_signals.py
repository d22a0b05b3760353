"""Signals by name or number, as `kill`, `stop --signal` and an image's StopSignal say them."""

import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from lamina.errors import UsageError
from lamina.usecases.control import parse_signal


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15), ("SIGTERM", 15), ("sigterm", 15), ("term", 15), ("15", 15), ("9", 9), ("KILL", 9), ("CLD", 17), ("IO", 29),
        ("RTMIN", int(signal.SIGRTMIN)), ("RTMAX", int(signal.SIGRTMAX)), ("RTMIN+3", int(signal.SIGRTMIN) + 3),
        ("SIGRTMIN+3", int(signal.SIGRTMIN) + 3), ("RTMAX-2", int(signal.SIGRTMAX) - 2), ("64", 64), ("40", 40),
    ],
)  # fmt: skip
def test_a_signal_is_a_name_or_a_number(text: str, number: int):
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "65", "-1", "99999", "NOPE", "SIG", "_DFL", "SIG_IGN", "RTMIN+99", "RTMAX-99", "BLOCK", "²", "१५"]
)
def test_what_is_no_signal_is_refused_with_its_text(text: str):
    with pytest.raises(UsageError, match="invalid signal"):
        parse_signal(text)


@settings(deadline=None)
@given(some.one_of(some.text(), some.from_regex(r"(SIG)?RTM(IN|AX)[+-][0-9]{1,5}", fullmatch=True), some.integers().map(str)))
def test_any_text_is_a_signal_or_a_usage_error(text: str):
    try:
        assert 1 <= parse_signal(text) < signal.NSIG
    except UsageError:
        pass
