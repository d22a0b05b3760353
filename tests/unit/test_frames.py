"""Frames: however a stream of them is cut on its way, the same frames come out."""

import os
import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from lamina.runtime.frames import HEADER, MAX_PAYLOAD_BYTES, Parser, pack, write_all


@settings(deadline=None)
@given(
    frames=some.lists(some.tuples(some.integers(0, 255), some.binary(max_size=40)), max_size=8),
    cuts=some.lists(some.integers(0, 400), max_size=20),
)
def test_frames_come_out_whole_however_they_are_cut(frames: list[tuple[int, bytes]], cuts: list[int]):
    stream = b"".join(pack(kind, payload) for kind, payload in frames)
    edges = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
    parser, found = Parser(), []
    for start, end in pairwise(edges):
        found += parser.feed(stream[start:end])
    assert found == frames


def test_a_frame_is_given_as_soon_as_its_last_byte_is_there():
    stream = pack(1, b"abc")
    parser = Parser()
    assert [parser.feed(bytes([byte])) for byte in stream] == [[]] * (len(stream) - 1) + [[(1, b"abc")]]


def test_an_empty_payload_is_a_frame():
    assert Parser().feed(pack(0)) == [(0, b"")]


def test_a_length_that_cannot_be_is_refused_before_anything_is_kept_for_it():
    with pytest.raises(ValueError, match="a frame of"):
        Parser().feed(HEADER.pack(1, MAX_PAYLOAD_BYTES + 1))
    assert Parser().feed(pack(1, b"x" * MAX_PAYLOAD_BYTES)) == [(1, b"x" * MAX_PAYLOAD_BYTES)]


@settings(deadline=None)
@given(some.binary(max_size=200))
def test_noise_gives_frames_or_a_value_error(noise: bytes):
    try:
        Parser().feed(noise)
    except ValueError as error:
        assert "a frame of" in str(error)


def test_every_byte_is_written_though_the_pipe_takes_them_in_parts():
    read_fd, write_fd = os.pipe()
    data = os.urandom(1 << 20)
    received = bytearray()

    def drain() -> None:
        while chunk := os.read(read_fd, 1 << 12):
            received.extend(chunk)

    reader = threading.Thread(target=drain)
    reader.start()
    write_all(write_fd, data)
    os.close(write_fd)
    reader.join()
    os.close(read_fd)
    assert received == data
