"""The address pool as values: which subnet, which address, which spelling; and properties that hold for any choice."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import ConflictError, LaminaError, UsageError
from lamina.model.network import Subnet, contains, overlap, subnet_bounds
from lamina.network.addresses import POOLS, check_clear, checked_subnet, free_subnet, new_mac, next_address

SUBNETS = st.builds(
    lambda number, length: ipaddress.IPv4Network((number, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(20, 30),
)


def test_the_first_free_pool_is_docker_s_first_and_each_next_one_the_next() -> None:
    used: list[str] = []
    for expected in ("172.17.0.0/16", "172.18.0.0/16"):
        assert free_subnet(used) == expected
        used.append(expected)
    assert free_subnet([*POOLS[:15]]) == "192.168.0.0/20"
    with pytest.raises(LaminaError, match="no subnet is free"):
        free_subnet(POOLS)
    assert free_subnet(["172.16.0.0/15"]) == "172.18.0.0/16"


def test_a_subnet_of_ipv6_is_unique_local() -> None:
    first, second = free_subnet([], ipv6=True), free_subnet([], ipv6=True)
    assert first != second
    for each in (first, second):
        assert ipaddress.IPv6Network(each).prefixlen == 64
        assert overlap(each, "fd00::/8")


@pytest.mark.parametrize(
    ("given", "gateway"),
    [
        (Subnet(subnet="172.30.0.0/24"), "172.30.0.1"),
        (Subnet(subnet="172.30.0.0/24", gateway="172.30.0.254"), "172.30.0.254"),
        (Subnet(subnet="172.30.0.0/30"), "172.30.0.1"),
        (Subnet(subnet="fd00:1::/64"), "fd00:1::1"),
        (Subnet(subnet="fd00:1::/64", gateway="fd00:1:0::0fe"), "fd00:1::fe"),
    ],
)
def test_a_gateway_is_the_first_address_unless_it_is_named(given: Subnet, gateway: str) -> None:
    assert checked_subnet(given).gateway == gateway


@pytest.mark.parametrize(
    "text", ["", "1.2.3.4", "1.2.3.4/", "1.2.3.4/a", "1.2.3.4/33", "1.2.3.4/24", "::/129", "a/24", "1.2.3/24", "1.2.3.0/+4"]
)
def test_what_is_no_subnet(text: str) -> None:
    with pytest.raises(UsageError):
        subnet_bounds(text)


def test_a_hint_says_which_subnet_was_meant() -> None:
    with pytest.raises(UsageError) as caught:
        subnet_bounds("172.30.5.7/16")
    assert caught.value.hint == "its subnet is 172.30.0.0/16"


def test_overlaps_are_named() -> None:
    with pytest.raises(ConflictError, match=r"'10\.0\.0\.0/8' overlaps with '10\.1\.0\.0/16', which network 'mine' has"):
        check_clear([Subnet(subnet="10.0.0.0/8")], [("10.1.0.0/16", "mine")])
    check_clear([Subnet(subnet="10.0.0.0/16"), Subnet(subnet="fd00::/64")], [("10.1.0.0/16", "mine")])


@given(SUBNETS, SUBNETS)
def test_overlap_is_what_ipaddress_says(one: ipaddress.IPv4Network, other: ipaddress.IPv4Network) -> None:
    assert overlap(str(one), str(other)) is one.overlaps(other)
    assert contains(str(one), str(other.network_address)) is (other.network_address in one)


@given(SUBNETS.filter(lambda each: each.prefixlen >= 26))
def test_every_host_address_is_given_once_and_then_none(network: ipaddress.IPv4Network) -> None:
    subnet = checked_subnet(Subnet(subnet=str(network)))
    taken: set[str] = set()
    last = ""
    while address := next_address(subnet, taken, last):
        assert address not in taken
        taken.add(address)
        last = address
    assert taken == {str(each) for each in network.hosts()} - {subnet.gateway}


def test_addresses_go_round_and_one_that_was_given_back_comes_last() -> None:
    subnet = checked_subnet(Subnet(subnet="172.30.0.0/29"))
    assert next_address(subnet, {"172.30.0.2"}, "172.30.0.3") == "172.30.0.4"
    assert next_address(subnet, {"172.30.0.2"}, "172.30.0.6") == "172.30.0.3"
    assert next_address(subnet, set(), "172.30.0.99") == "172.30.0.2"


def test_the_range_bounds_what_is_given_and_the_gateway_in_it_is_left_out() -> None:
    subnet = checked_subnet(Subnet(subnet="172.30.0.0/24", gateway="172.30.0.5", ip_range="172.30.0.4/30"))
    taken: set[str] = set()
    while address := next_address(subnet, taken, ""):
        taken.add(address)
    assert taken == {"172.30.0.4", "172.30.0.6", "172.30.0.7"}


def test_a_large_subnet_is_searched_no_further_than_needed() -> None:
    subnet = checked_subnet(Subnet(subnet="fd00::/64"))
    assert next_address(subnet, {"fd00::2", "fd00::3"}, "") == "fd00::4"
    assert next_address(subnet, set(), "fd00::ffff:ffff:ffff:ffff") == "fd00::2"


def test_a_mac_is_the_addresses_own() -> None:
    assert new_mac(["172.18.0.2/16"]) == "02:42:ac:12:00:02"
    assert new_mac(["172.18.0.2/16"]) == new_mac(["172.18.0.2/16", "fd00::2/64"])
    assert new_mac(["fd00::2/64"]).startswith("02:42:")
