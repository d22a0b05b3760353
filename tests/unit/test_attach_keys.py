"""The keys that detach from a terminal: what is typed before them gets through, they themselves don't."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from lamina.errors import UsageError
from lamina.runtime.attach import DEFAULT_DETACH_KEYS, Relay, parse_detach_keys


@pytest.fixture
def channel() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    yield ours
    ours.close()
    theirs.close()


def typed(channel: socket.socket, *pieces: bytes, keys: bytes = b"\x10\x11", tty: bool = True) -> tuple[bytes, bool]:
    relay = Relay(channel=channel, tty=tty, detach_keys=keys)
    passed = b""
    for piece in pieces:
        passed += relay._filter_keys(piece)
        if relay.detached:
            break
    return passed, relay.detached


def test_keys_are_letters_and_controls():
    assert parse_detach_keys(DEFAULT_DETACH_KEYS) == b"\x10\x11"
    assert parse_detach_keys("ctrl-P,q") == b"\x10q"
    assert parse_detach_keys("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_") == b"\x00\x1b\x1c\x1d\x1e\x1f"
    assert parse_detach_keys("") == b""


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-ab", "alt-p", "ctrl-p,", ",", "ctrl-1", "ab", "ctrl-é", "ctrl-ß"])
def test_what_is_no_key_is_refused(text: str):
    with pytest.raises(UsageError, match="invalid detach keys"):
        parse_detach_keys(text)


@settings(deadline=None)
@given(some.text())
def test_any_text_is_keys_or_a_usage_error(text: str):
    try:
        assert parse_detach_keys(text) or not text
    except UsageError:
        pass


def test_the_keys_detach_in_one_piece_or_in_several(channel: socket.socket):
    assert typed(channel, b"ls\n\x10\x11") == (b"ls\n", True)
    assert typed(channel, b"ls\n\x10", b"\x11") == (b"ls\n", True)


def test_the_first_key_alone_is_held_until_the_next_one_tells(channel: socket.socket):
    assert typed(channel, b"\x10") == (b"", False)
    assert typed(channel, b"\x10", b"x") == (b"\x10x", False)
    assert typed(channel, b"\x10\x10\x11") == (b"\x10", True)


def test_a_beginning_inside_a_longer_sequence_is_not_lost(channel: socket.socket):
    assert typed(channel, b"aab", keys=b"aab") == (b"", True)
    assert typed(channel, b"aaab", keys=b"aab") == (b"a", True)
    assert typed(channel, b"aac", keys=b"aab") == (b"aac", False)


def test_without_a_terminal_or_without_keys_everything_gets_through(channel: socket.socket):
    assert typed(channel, b"\x10\x11", tty=False) == (b"\x10\x11", False)
    assert typed(channel, b"\x10\x11", keys=b"") == (b"\x10\x11", False)


@settings(deadline=None)
@given(
    data=some.lists(some.sampled_from(b"ab")).map(bytes),
    keys=some.binary(min_size=1, max_size=3).map(lambda b: bytes(x & 1 | 0x60 for x in b)),
)
def test_what_is_passed_on_is_what_was_typed_up_to_the_keys(data: bytes, keys: bytes):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        passed, detached = typed(ours, *(bytes([byte]) for byte in data), keys=keys)
        whole, detached_whole = typed(ours, data, keys=keys)
    assert (passed, detached) == (whole, detached_whole)
    assert detached == (keys in data)
    assert data.startswith(passed)
    if detached:
        assert passed + keys == data[: len(passed) + len(keys)]
    else:
        assert keys.startswith(data[len(passed) :])
