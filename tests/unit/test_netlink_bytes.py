"""What is sent is what `ip` (iproute2 6.1) and `nft` (1.0.6) send for the same: their bytes, caught by `strace -e write=3`."""

import struct
import sys
from typing import Any

import pytest

from lamina.linux import link, netlink, nft_types, route
from lamina.linux.netlink import NLA_F_NESTED, Message
from lamina.linux.nft_rules import Counter, Lookup, Masquerade, Match, Nat, NatMap, Rule, Verdict, VerdictMap, describe
from lamina.linux.nftables import Batch, Chain, Element, Hook, Set

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are of a little-endian machine")

PORTS = Set("dn", (nft_types.INET_PROTO, nft_types.INET_SERVICE), (nft_types.IPV4_ADDR, nft_types.INET_SERVICE))


def tree(body: bytes, *, nested: tuple[int, ...] = ()) -> list[tuple[int, Any]]:
    """Attributes with those in them, by type; what comes several times stays in its order."""
    found, offset = [], 0
    while offset < len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        value = body[offset + 4 : offset + length]
        number = kind & ~NLA_F_NESTED
        found.append((number, tree(value) if kind & NLA_F_NESTED else value))
        offset += length + -length % 4
    return sorted(found, key=lambda each: each[0])


def unflagged(body: bytes) -> dict[int, bytes]:
    """rtnetlink's attributes: ip leaves NLA_F_NESTED out, so each level is opened by its own call."""
    return netlink.parsed(body)


def test_a_bridge_is_asked_for_as_ip_does():
    # ip link add br0 type bridge stp_state 0 mcast_snooping 0
    theirs = bytes.fromhex(
        "00000000000000000000000000000000"  # struct ifinfomsg: nothing said
        "0800030062723000"  # IFLA_IFNAME br0
        "240012000a0001006272696467650000"  # IFLA_LINKINFO: IFLA_INFO_KIND bridge
        "14000200080005000000000005001700"  # IFLA_INFO_DATA: IFLA_BR_STP_STATE 0, IFLA_BR_MCAST_SNOOPING 0
        "00000000"
    )
    ours = link.creation("br0", link.Bridge(stp=False, multicast_snooping=False))
    assert (ours.kind, ours.flags) == (0x10, 0x600)  # RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL
    assert ours.body[:16] == theirs[:16]
    levels = [unflagged(body[16:]) for body in (ours.body, theirs)]
    assert levels[0][3] == levels[1][3]
    infos = [unflagged(level[18]) for level in levels]
    assert infos[0][1] == infos[1][1]
    assert unflagged(infos[0][2]) == unflagged(infos[1][2])


def test_a_veth_pair_is_asked_for_as_ip_does_with_the_peer_and_its_address_in_the_same_message():
    # ip link add v1 mtu 1400 type veth peer name eth0 address 02:42:00:00:00:02 netns 1047
    theirs = bytes.fromhex(
        "0800040078050000"  # IFLA_MTU 1400
        "0700030076310000"  # IFLA_IFNAME v1
        "440012000800010076657468"  # IFLA_LINKINFO: IFLA_INFO_KIND veth
        "3800020034000100"  # IFLA_INFO_DATA: VETH_INFO_PEER
        "00000000000000000000000000000000"  # struct ifinfomsg of the peer
        "0a000100024200000002000008001300170400000900030065746830"  # IFLA_ADDRESS, IFLA_NET_NS_PID 1047, IFLA_IFNAME eth0
        "00000000"
    )
    ours = link.creation("v1", link.Veth("eth0", peer_mac="02:42:00:00:00:02"), mtu=1400)
    levels = [unflagged(body) for body in (ours.body[16:], theirs)]
    assert {kind: levels[0][kind] for kind in (3, 4)} == {kind: levels[1][kind] for kind in (3, 4)}
    infos = [unflagged(level[18]) for level in levels]
    assert infos[0][1] == infos[1][1]
    peers = [unflagged(info[2])[1] for info in infos]
    assert peers[0][:16] == peers[1][:16]
    assert {**unflagged(peers[0][16:]), 19: struct.pack("=I", 1047)} == unflagged(peers[1][16:])  # here it would be a descriptor


def test_the_peers_namespace_is_told_to_the_peer_alone():
    ours = link.creation("v1", link.Veth("eth0", peer_namespace_fd=7))
    peer = unflagged(unflagged(unflagged(ours.body[16:])[18])[2])[1]
    assert unflagged(peer[16:])[28] == struct.pack("=I", 7)  # IFLA_NET_NS_FD
    assert 28 not in unflagged(ours.body[16:])


def test_a_macvlan_is_asked_for_as_ip_does():
    # ip link add m1 link br0 type macvlan mode bridge
    theirs = bytes.fromhex(
        "0800050002000000"  # IFLA_LINK 2
        "070003006d310000"  # IFLA_IFNAME m1
        "1c0012000b0001006d6163766c616e00"  # IFLA_LINKINFO: IFLA_INFO_KIND macvlan
        "0c0002000800010004000000"  # IFLA_INFO_DATA: IFLA_MACVLAN_MODE 4
    )
    ours = link.creation("m1", link.Macvlan(2, "bridge"))
    levels = [unflagged(body) for body in (ours.body[16:], theirs)]
    assert {kind: levels[0][kind] for kind in (3, 5)} == {kind: levels[1][kind] for kind in (3, 5)}
    infos = [unflagged(level[18]) for level in levels]
    assert infos[0][1] == infos[1][1]
    assert unflagged(infos[0][2]) == unflagged(infos[1][2])


def test_a_macvlan_of_no_known_mode_is_refused():
    with pytest.raises(ValueError, match="'hub' is no macvlan mode: private, vepa, bridge, passthru"):
        link.creation("m1", link.Macvlan(2, "hub"))


def test_an_ipv4_address_is_added_as_ip_does():
    # ip addr add 172.18.0.1/16 dev br0
    theirs = bytes.fromhex(
        "0210000002000000"  # struct ifaddrmsg: AF_INET, /16, link 2
        "08000200ac120001"  # IFA_LOCAL
        "08000100ac120001"  # IFA_ADDRESS
    )
    ours = route.address_addition(2, "172.18.0.1/16")
    assert (ours.kind, ours.flags) == (0x14, 0x600)  # RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL
    assert ours.body == theirs + bytes.fromhex("0800080000000000")  # IFA_FLAGS 0


def test_an_ipv6_address_is_added_without_duplicate_address_detection_as_ip_does():
    # ip addr add fd00::1/64 dev br0 nodad; flags 2 are in the structure there, and here in IFA_FLAGS, which comes before it
    theirs = bytes.fromhex(
        "0a40020002000000"  # struct ifaddrmsg: AF_INET6, /64, IFA_F_NODAD, link 2
        "14000200fd000000000000000000000000000001"  # IFA_LOCAL
        "14000100fd000000000000000000000000000001"  # IFA_ADDRESS
    )
    ours = route.address_addition(2, "fd00::1/64", has_dad=False)
    assert ours.body[:2] == theirs[:2]
    assert ours.body[8:] == theirs[8:] + bytes.fromhex("0800080002000000")


def test_a_route_is_added_as_ip_does():
    # ip route add 10.1.0.0/16 via 172.18.0.9 metric 7
    theirs = bytes.fromhex(
        "02100000fe03000100000000"  # struct rtmsg: AF_INET, /16, table main, RTPROT_BOOT, scope universe, unicast
        "080001000a010000"  # RTA_DST
        "08000500ac120009"  # RTA_GATEWAY
        "0800060007000000"  # RTA_PRIORITY
    )
    ours = route.route_addition(route.Route("10.1.0.0/16", gateway="172.18.0.9", metric=7))
    assert (ours.kind, ours.flags) == (0x18, 0x600)  # RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL
    assert ours.body[:4] + ours.body[5:12] == theirs[:4] + theirs[5:12]  # the table is in RTA_TABLE, which may be over 255
    assert dict(unflagged(ours.body[12:])) == {**unflagged(theirs[12:]), 15: struct.pack("=I", 254)}


NFT = {
    "add table inet t": "0100000006000100740000000800020000000000",
    "add map inet t dn { type inet_proto . inet_service : ipv4_addr . inet_service; }": (
        "01000000060001007400000007000200646e00000800030000000008080004000000030d080005000000000808000600000001cd0800070000000008"
        "08000a0000000001"
        "2a000d00000400000000010400000000030800040d0000000100040800040d00000001000604000000000000"  # user data: byte orders, typeof
    ),
    "add chain inet t pre { type nat hook prerouting priority -100; policy accept; }": (
        "0100000006000100740000000800030070726500080007006e617400080005000000000114000480080001000000000008000200ffffff9c"
    ),
    'add element inet t dn { tcp . 80 comment "hello" : 10.0.0.2 . 8080 }': (
        "01000000060001007400000007000200646e000008000400000000013400038030000180100001800c0001000600000000500000"
        "100002800c0001000a0000021f9000000c000600000668656c6c6f00"
    ),
    'add rule inet t pre fib daddr type local dnat ip addr . port to meta l4proto . th dport map @dn comment "web"': (
        "0100000006000100740000000800020070726500140104802800018008000100666962001c0002800800030000000002080002000000000308000100"
        "000000012c00018008000100636d700020000280080001000000000108000200000000000c000380080001000200000024000180090001006d657461"
        "0000000014000280080002000000001008000100000000013400"
        "01800c0001007061796c6f616400240002800800010000000009080002000000000208000300000000020800040000000002340001800b0001006c6f"
        "6f6b75700000240002800800020000000001080003000000000107000100646e0000080004000000000130000180080001006e617400240002800800"
        "0100000000010800020000000002080003000000000108000500000000090a0007000004776562000000"
    ),
    'add rule inet t post ip saddr 172.16.0.0/12 oifname != "br0" counter masquerade': (
        "01000000060001007400000009000200706f7374000000007c01048024000180090001006d6574610000000014000280080002000000000f08000100"
        "000000012c00018008000100636d700020000280080001000000000108000200000000000c0003800500010002000000340001800c0001007061796c"
        "6f6164002400028008000100000000010800020000000001080003000000000c0800040000000004440001800c000100626974776973650034000280"
        "0800010000000001080002000000000108000300000000040c00048008000100fff000000c00058008000100000000002c00018008000100636d7000"
        "20000280080001000000000108000200000000000c00038008000100ac10000024000180090001006d65746100000000140002800800020000000007"
        "08000100000000013800018008000100636d70002c00028008000100000000010800020000000001180003801400010062723000000000000000000000"
        "000000140001800c000100636f756e746572000400028014000180090001006d6173710000000004000280"
    ),
}
"""Bodies of nft's messages, by the line that it was given."""

LEFT_OUT: dict[str, set[int]] = {"add map": {10, 13}, "add element": {4}}
"""Attributes that differ without meaning: the set's number within the transaction, and nft's notes to itself."""


def _batch() -> Batch:
    batch = Batch("t")
    batch.add_table()
    batch.add_set(PORTS)
    batch.add_chain(Chain("pre", Hook("nat", "prerouting", -100)))
    batch.add_elements(PORTS, Element(("tcp", 80), ("10.0.0.2", 8080), "hello"))
    to_ports = NatMap("dnat", "ip", (nft_types.L4PROTO, nft_types.TH_DPORT), "dn", has_port=True)
    batch.add_rule(Rule("pre", (Match(nft_types.FIB_DADDR_TYPE, "local"), to_ports), "web"))
    from_inside = (Match(nft_types.IP_SADDR, "172.16.0.0/12"), Match(nft_types.OIFNAME, "br0", is_not=True))
    batch.add_rule(Rule("post", (*from_inside, Counter(), Masquerade())))
    return batch


def _without_counts(found: Any) -> Any:
    """Instructions without what nft leaves out: what a counter starts with, and the number of a set made in the same batch."""
    if not isinstance(found, list):
        return found
    if (1, b"counter\0") in found:
        return [(1, b"counter\0")]
    if (1, b"lookup\0") in found:
        return [(1, b"lookup\0"), (2, [each for each in dict(found)[2] if each[0] != 4])]
    return [(kind, _without_counts(value)) for kind, value in found]


@pytest.mark.parametrize(("line", "theirs"), NFT.items(), ids=[" ".join(line.split()[:5]) for line in NFT])
def test_nftables_is_told_as_nft_does(line: str, theirs: str):
    batch = _batch()
    ours = dict(zip(batch.describe().splitlines(), batch.messages, strict=True))[line]
    raw = bytes.fromhex(theirs)
    left_out = next((kinds for words, kinds in LEFT_OUT.items() if line.startswith(words)), set())
    assert ours.body[:4] == raw[:4]  # struct nfgenmsg: NFPROTO_INET
    seen, expected = (_without_counts([each for each in tree(body[4:]) if each[0] not in left_out]) for body in (ours.body, raw))
    if line.startswith("add table"):
        expected = [(1, b"t\0")]  # nft says that there are no flags, too
    assert seen == expected


def test_a_batch_is_described_line_by_line_in_nfts_words():
    assert _batch().describe().splitlines() == list(NFT)
    assert all(isinstance(each, Message) for each in _batch().messages)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (Match(nft_types.CT_STATE, "established,related"), "ct state established,related"),
        (Match(nft_types.CT_STATUS, "dnat", is_not=True), "ct status ! dnat"),
        (Match(nft_types.IIFNAME, "veth*", is_not=True), 'iifname != "veth*"'),
        (Match(nft_types.META_MARK, 16), "meta mark 0x00000010"),
        (Lookup((nft_types.IP_SADDR, nft_types.IP_DADDR), "pairs", is_not=True), "ip saddr . ip daddr != @pairs"),
        (VerdictMap((nft_types.OIFNAME,), "by-link"), "oifname vmap @by-link"),
        (Nat("dnat", "fd00::2", 80), "dnat ip6 to [fd00::2]:80"),
        (Nat("snat", "fd00::2"), "snat ip6 to fd00::2"),
        (NatMap("snat", "ip", (nft_types.IP_SADDR,), "m"), "snat ip to ip saddr map @m"),
        (Masquerade(is_random=True), "masquerade fully-random"),
        (Verdict("goto", "next"), "goto next"),
    ],
)
def test_a_statement_is_said_in_nfts_words(statement, words: str):
    assert describe(statement) == words


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda batch: batch.add_rule(Rule("c", (Match(nft_types.TCP_DPORT, 65536),))), "65536 is no number of 16 bits"),
        (lambda batch: batch.add_rule(Rule("c", (Match(nft_types.TCP_DPORT, "http"),))), "'http' is no number of 16 bits"),
        (lambda batch: batch.add_rule(Rule("c", (Match(nft_types.L4PROTO, "tpc"),))), "'tpc' is none of icmp, tcp, udp"),
        (lambda batch: batch.add_rule(Rule("c", (Match(nft_types.IP_SADDR, "fd00::1"),))), "'fd00::1' is no IPv4 address"),
        (lambda batch: batch.add_rule(Rule("c", (Match(nft_types.IP_SADDR, "fd00::/8"),))), "'fd00::/8' is no ipv4_addr"),
        (lambda batch: batch.add_rule(Rule("c", (Match(nft_types.IP_SADDR, "10.0.0.1/8"),))), "has bits set beyond its prefix"),
        (lambda batch: batch.add_rule(Rule("c", (Match(nft_types.IIFNAME, 'a"b'),))), "is no name of a link"),
        (lambda batch: batch.add_rule(Rule("c", (Match(nft_types.IIFNAME, "x" * 16),))), "is no name of a link"),
        (lambda batch: batch.add_rule(Rule("c", (Match(nft_types.CT_STATE, "old"),))), "'old' is none of invalid"),
        (lambda batch: batch.add_rule(Rule("c", (Verdict("jump"),))), "a chain belongs to jump and goto"),
        (lambda batch: batch.add_rule(Rule("c", (Verdict("reject"),))), "'reject' is no verdict"),
        (lambda batch: batch.add_rule(Rule("c", (Counter(),), 'a"; drop')), "no quotation mark"),
        (lambda batch: batch.add_rule(Rule("c", (Counter(),), "x" * 128)), "at most 127 bytes"),
        (lambda batch: batch.add_rule(Rule("c d", (Counter(),))), "'c d' is no name in nftables"),
        (lambda batch: batch.add_chain(Chain("x" * 256)), "is no name in nftables"),
        (
            lambda batch: batch.add_elements(PORTS, Element(("tcp",), ("10.0.0.2", 80))),
            "isn't of the types inet_proto . inet_service",
        ),
        (lambda batch: batch.add_elements(PORTS, Element(("tcp", 80))), "has not the data of 'dn'"),
        (lambda batch: batch.add_elements(PORTS, Element(("tcp", 80), Verdict("accept"))), "has not the data of 'dn'"),
        (lambda batch: batch.add_set(Set("s", ())), "has no key"),
    ],
)
def test_what_nftables_cant_say_is_refused_before_the_kernel_is_asked(make, message: str):
    batch = Batch("t")
    with pytest.raises(ValueError) as caught:
        make(batch)
    assert message in str(caught.value)
    assert not batch.messages


def test_many_elements_are_one_line_and_as_many_messages_as_they_need():
    batch = Batch("t")
    batch.add_elements(PORTS, *(Element(("tcp", port), ("10.0.0.2", port)) for port in range(1, 3001)))
    assert len(batch.describe().splitlines()) == len(batch) == 1
    assert len(batch.messages) > 3
    assert all(len(each.body) < 0xFFFF for each in batch.messages)
