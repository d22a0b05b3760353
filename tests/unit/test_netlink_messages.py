"""Netlink's messages and attributes: what is written is read again, and bad bytes are a ValueError, never a loop."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.linux import link, netlink, nft_listing, nft_rules, route
from lamina.linux.netlink import Message

ATTRIBUTES = st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8)


@given(ATTRIBUTES)
def test_attributes_are_read_as_they_were_written(given_attributes: list[tuple[int, bytes]]):
    body = b"".join(netlink.attribute(kind, value) for kind, value in given_attributes)
    assert len(body) % 4 == 0
    assert list(netlink.attributes(body)) == given_attributes


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=5))
def test_messages_are_read_as_they_were_written(messages: list[tuple[int, int, bytes]]):
    written = [Message(kind, flags, body) for kind, flags, body in messages]
    datagram = b"".join(netlink.encoded(each, number) for number, each in enumerate(written))
    assert [(each.number, each.message) for each in netlink.answers(datagram)] == list(enumerate(written))


def _mangled(body: bytes, changes: list[tuple[int, int]]) -> bytes:
    """The bytes with some of them changed, so that lengths lie."""
    mangled = bytearray(body)
    for position, value in changes:
        if mangled:
            mangled[position % len(mangled)] = value
    return bytes(mangled)


CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)
LINK = link.creation("v1", link.Veth("eth0", peer_mac="02:42:00:00:00:02"), mtu=1400).body
ADDRESS = route.address_addition(2, "fd00::1/64").body
ROUTE = route.route_addition(route.Route("10.1.0.0/16", gateway="172.18.0.9", metric=7)).body
ERROR = struct.pack("=iIHHII", -17, 36, 16, 0, 7, 0) + netlink.text(1, "no such thing")


@given(CHANGES, st.integers(0, 400))
@pytest.mark.parametrize(
    ("read", "body"),
    [
        (lambda body: list(netlink.attributes(body)), LINK),
        (lambda body: list(netlink.answers(body)), netlink.encoded(Message(16, 0, LINK), 1)),
        (lambda body: netlink.failure(Message(2, 0x300, body)), ERROR),
        (lambda body: netlink.failure(Message(3, 0x200, body)), ERROR),
        (link.decoded, LINK),
        (route.decoded_address, ADDRESS),
        (route.decoded_route, ROUTE),
        (nft_rules.decoded_verdict, netlink.be32(1, -3) + netlink.text(2, "next")),
        (nft_listing.decoded_comment, b"\0\6hello\0"),
    ],
    ids=["attributes", "messages", "error", "done", "link", "address", "route", "verdict", "comment"],
)
def test_of_any_bytes_reading_ends_and_bad_ones_are_a_value_error(read, body: bytes, changes: list[tuple[int, int]], length: int):
    for mangled in (_mangled(body, changes), body[:length], _mangled(body, changes)[:length]):
        try:
            read(mangled)
        except (ValueError, OSError):
            pass


@given(st.binary(max_size=200))
def test_of_random_bytes_reading_ends_too(body: bytes):
    for read in (
        lambda raw: list(netlink.attributes(raw)),
        lambda raw: list(netlink.answers(raw)),
        link.decoded,
        route.decoded_route,
    ):
        try:
            read(body)
        except (ValueError, OSError):
            pass


def test_an_attribute_that_says_it_is_longer_than_the_message_is_refused():
    with pytest.raises(ValueError, match="netlink attribute 3 of 9 bytes where 8 are left"):
        list(netlink.attributes(struct.pack("=HHI", 9, 3, 0)))


def test_an_attribute_of_no_length_is_refused_and_not_read_for_ever():
    with pytest.raises(ValueError, match="of 0 bytes"):
        list(netlink.attributes(bytes(8)))


def test_the_kernels_words_are_found_behind_a_capped_request_and_behind_a_whole_one():
    capped = Message(2, 0x300, ERROR)
    whole = Message(2, 0x200, struct.pack("=iIHHII", -17, 19, 16, 0, 7, 0) + b"abc\0" + netlink.text(1, "no such thing"))
    assert netlink.failure(capped) == netlink.failure(whole) == (errno.EEXIST, "no such thing")


def test_a_missing_attribute_is_named_by_its_number():
    assert netlink.failure(Message(2, 0x300, ERROR[:20] + netlink.u32(5, 12))) == (errno.EEXIST, "attribute 12 is missing")


def test_an_error_says_what_was_asked_and_what_the_kernel_said():
    error = netlink.refused("create bridge 'br0'", errno.EEXIST, "Name is taken.")
    assert isinstance(error, FileExistsError)
    assert str(error) == "[Errno 17] create bridge 'br0': File exists: Name is taken"


@pytest.mark.parametrize(
    "mac", ["", "02:42", "02:42:00:00:00:zz", "0242.0000.0002", "02:42:00:00:00:02:", "2:42:0:0:0:2:0", "02:42:00:00:00:  "]
)
def test_what_is_no_mac_address_is_refused(mac: str):
    with pytest.raises(ValueError, match="is no MAC address"):
        link.mac_bytes(mac)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "1.2.3.4",
        "1.2.3/8",
        "1.2.3.4/33",
        "fd00::/129",
        "1.2.3.4/-1",
        "1.2.3.4/ 8",
        "1.2.3.4/8/8",
        "é/8",
        "1.2.3.4\0/8",
        "1.2.3.4/٣",
    ],
)
def test_what_is_no_address_with_its_prefix_is_refused(address: str):
    with pytest.raises(ValueError, match=r"is no IP address|has no prefix length"):
        route.packed_prefix(address)


def test_a_gateway_of_the_other_ip_version_is_refused():
    with pytest.raises(ValueError, match=r"route 10.0.0.0/8 via fd00::1: 'fd00::1' is of the other IP version"):
        route.route_addition(route.Route("10.0.0.0/8", gateway="fd00::1"))


@pytest.mark.parametrize("name", ["a\0b"])
def test_a_name_with_a_nul_is_refused_and_not_cut(name: str):
    with pytest.raises(ValueError, match="has no NUL"):
        link.creation(name, link.Bridge())
