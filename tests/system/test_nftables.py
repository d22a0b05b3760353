"""nftables over netlink: what we make `nft` shows, what `nft` makes we read, and packets go the way that the rules say."""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from netspaces import Netspace, netspace, plug, run

from lamina.linux import link, netns, nft_listing, nftables, route
from lamina.linux.netlink import NETLINK_NETFILTER, Socket
from lamina.linux.nft_rules import Counter, Lookup, Masquerade, Match, Nat, NatMap, Rule, Verdict, VerdictMap
from lamina.linux.nft_types import (
    CT_STATE,
    CT_STATUS,
    FIB_DADDR_TYPE,
    FIB_SADDR_TYPE,
    IFNAME,
    IIFNAME,
    INET_PROTO,
    INET_SERVICE,
    IP6_DADDR,
    IP6_SADDR,
    IP_DADDR,
    IP_SADDR,
    IPV4_ADDR,
    IPV6_ADDR,
    L4PROTO,
    MARK,
    META_MARK,
    NFPROTO,
    OIFNAME,
    TCP_DPORT,
    TH_DPORT,
    TH_SPORT,
    UDP_DPORT,
)
from lamina.linux.nftables import Batch, Chain, Element, Hook, Set

pytestmark = pytest.mark.usefixtures("own_network")

PORTS = Set("ports", (INET_PROTO, INET_SERVICE), (IPV4_ADDR, INET_SERVICE))
PORTS6 = Set("ports6", (INET_PROTO, INET_SERVICE), (IPV6_ADDR, INET_SERVICE))
PORTS6_AT = Set("ports6-at", (IPV6_ADDR, INET_PROTO, INET_SERVICE), (IPV6_ADDR, INET_SERVICE))
BRIDGES = Set("bridges", (IFNAME,))
BY_BRIDGE = Set("by-bridge", (IFNAME,), has_verdicts=True)
PAIRS = Set("pairs", (IPV4_ADDR, IPV4_ADDR))
MARKS = Set("marks", (MARK,))
HOSTS = Set("hosts", (INET_SERVICE,), (IPV4_ADDR,))

CHAINS = (
    Chain("of-br0"),
    Chain("to-ports", Hook("nat", "prerouting", -100)),
    Chain("masks", Hook("nat", "postrouting", 100)),
    Chain("from-here", Hook("nat", "output", -100)),
    Chain("forwarded", Hook("filter", "forward", 0, "drop")),
    Chain("sent", Hook("route", "output", -150)),
)
CONTENTS = {
    PORTS: (Element(("tcp", 80), ("10.0.0.2", 8080), "ctr 1"), Element(("udp", 53), ("10.0.0.3", 53))),
    PORTS6: (),
    PORTS6_AT: (Element(("fd00::1", "tcp", 80), ("fd00::2", 8080)),),
    BRIDGES: (Element(("br0",)), Element(("br-1",), comment="an other")),
    BY_BRIDGE: (Element(("br0",), Verdict("jump", "of-br0")), Element(("br-1",), Verdict("accept"), "an other")),
    PAIRS: (Element(("10.0.0.1", "10.0.0.2")),),
    MARKS: (Element((16,)),),
    HOSTS: (Element((80,), ("10.0.0.2",)),),
}
RULES = (
    Rule("to-ports", (Match(FIB_DADDR_TYPE, "local"), NatMap("dnat", "ip", (L4PROTO, TH_DPORT), "ports", has_port=True)), "ctr 1"),
    Rule("to-ports", (NatMap("dnat", "ip6", (L4PROTO, TH_DPORT), "ports6", has_port=True),)),
    Rule("to-ports", (NatMap("dnat", "ip6", (IP6_DADDR, L4PROTO, TH_DPORT), "ports6-at", has_port=True),)),
    Rule("to-ports", (Match(TCP_DPORT, 80), Nat("dnat", "10.0.0.2", 80))),
    Rule("to-ports", (Match(TCP_DPORT, 81), NatMap("dnat", "ip", (TCP_DPORT,), "hosts"))),
    Rule("to-ports", (Match(IP6_SADDR, "fd00::/12"), Match(UDP_DPORT, 80), Nat("dnat", "fd00::2", 80))),
    Rule("masks", (Match(IP_SADDR, "172.16.0.0/12"), Match(OIFNAME, "br0", is_not=True), Masquerade()), "all"),
    Rule("masks", (Match(IP_SADDR, "172.18.0.1"), Match(IP_DADDR, "172.18.0.0/17", is_not=True), Nat("snat", "1.2.3.4"))),
    Rule("masks", (Lookup((IP_SADDR, IP_DADDR), "pairs"), Masquerade(is_random=True))),
    Rule("forwarded", (VerdictMap((IIFNAME,), "by-bridge"),)),
    Rule("forwarded", (Match(IIFNAME, "veth*"), Counter(), Verdict("accept"))),
    Rule("forwarded", (Lookup((OIFNAME,), "bridges", is_not=True), Verdict("jump", "of-br0"))),
    Rule("forwarded", (Match(CT_STATE, "established,related"), Verdict("accept"))),
    Rule(
        "forwarded",
        (Match(CT_STATE, "invalid"), Match(CT_STATUS, "snat,dnat", is_not=True), Match(META_MARK, 16), Verdict("return")),
    ),
    Rule("forwarded", (Match(L4PROTO, "udp"), Match(TH_SPORT, 53), Lookup((META_MARK,), "marks"), Verdict("goto", "of-br0"))),
    Rule("of-br0", (Match(NFPROTO, "ipv6"), Match(IP6_DADDR, "fd00::1"), Match(FIB_SADDR_TYPE, "local"), Verdict("drop"))),
)


def everything() -> Batch:
    """A table with everything that can be said."""
    batch = Batch("lamina")
    batch.add_table()
    for chain in CHAINS:
        batch.add_chain(chain)
        batch.flush_chain(chain.name)
    for each, elements in CONTENTS.items():
        batch.add_set(each)
        batch.add_elements(each, *elements)
    for rule in RULES:
        batch.add_rule(rule)
    return batch


@pytest.fixture
def kernel(own_network: None) -> Iterator[Socket]:
    """A conversation with netfilter about the test's own network namespace."""
    with Socket(NETLINK_NETFILTER) as opened:
        yield opened


def ruleset(*words: str) -> list[Any]:
    """What `nft -j list` shows, without handles and counts, elements sorted: in a hash they have no order."""
    listed = json.loads(run("nft", "-j", "list", *(words or ("ruleset",))))["nftables"][1:]
    return [_comparable(each) for each in listed]


def _comparable(found: Any) -> Any:
    if isinstance(found, list):
        return [_comparable(each) for each in found]
    if not isinstance(found, dict):
        return found
    kept = {key: _comparable(value) for key, value in found.items() if key not in ("handle", "packets", "bytes")}
    if "elem" in kept and isinstance(kept["elem"], list):
        kept["elem"] = sorted(kept["elem"], key=str)
    return kept


def change(kernel: Socket, *steps: Callable[[Batch], None]) -> None:
    """Apply one batch to the table."""
    batch = Batch("lamina")
    for step in steps:
        step(batch)
    batch.apply(kernel)


# nft as the oracle


def test_what_a_batch_makes_is_what_nft_makes_of_its_description(kernel: Socket):
    batch = everything()
    batch.apply(kernel)
    ours = ruleset()
    run("nft", "delete", "table", "inet", "lamina")
    run("nft", "-f", "-", input=batch.describe())
    assert ours == ruleset()
    assert len([each for each in ours if "rule" in each]) == len(RULES)


def test_nft_shows_the_words_that_the_description_says(kernel: Socket):
    everything().apply(kernel)
    shown = [line.strip() for line in run("nft", "-s", "list", "table", "inet", "lamina").splitlines()]
    for rule in RULES:
        words = rule.describe().replace("ip addr . port", "ip").replace("ip6 addr . port", "ip6").replace("meta nfproto ipv6 ", "")
        assert words.replace("meta l4proto udp th sport", "udp sport") in shown


def test_what_a_batch_made_is_read_back(kernel: Socket):
    everything().apply(kernel)
    found = nft_listing.contents(kernel, "lamina")
    assert found is not None
    assert set(found.chains) == set(CHAINS)
    assert {each.set: set(each.elements) for each in found.sets} == {each: set(elements) for each, elements in CONTENTS.items()}
    for chain in CHAINS:
        ours = [rule for rule in RULES if rule.chain == chain.name]
        theirs = [rule for rule in found.rules if rule.chain == chain.name]
        assert [rule.comment for rule in theirs] == [rule.comment for rule in ours]
        assert all(rule.is_from(our) for rule, our in zip(theirs, ours, strict=True))
    for number, rule in enumerate(RULES):
        assert [other for other in RULES if any(each.is_from(other) for each in found.rules if each.is_from(rule))] == [rule], (
            number
        )


def test_a_rule_that_someone_changed_is_told_from_ours(kernel: Socket):
    change(kernel, Batch.add_table, lambda batch: batch.add_chain(Chain("c")))
    ours = Rule("c", (Match(IIFNAME, "br0"), Counter(), Verdict("accept")), "ctr 1")
    for words in (
        'iifname "br0" counter accept comment "ctr 1"',
        'iifname "br1" counter accept comment "ctr 1"',
        'iifname != "br0" counter accept comment "ctr 1"',
        'iifname "br0" counter drop comment "ctr 1"',
        'iifname "br0" accept comment "ctr 1"',
        'iifname "br0" counter accept comment "ctr 2"',
        'oifname "br0" counter accept comment "ctr 1"',
    ):
        run("nft", "add", "rule", "inet", "lamina", "c", words)
    found = nft_listing.contents(kernel, "lamina")
    assert found is not None
    assert [rule.is_from(ours) for rule in found.rules] == [True, *[False] * 6]


def test_what_nft_made_of_kinds_unknown_here_is_passed_over(kernel: Socket):
    foreign = """
    table inet lamina {
        set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }
        set macs { type ether_addr; elements = { 02:00:00:00:00:01 } }
        set known { type inet_service; elements = { 22 } }
        counter total { }
        chain c {
            tcp dport { 22, 80-90 } limit rate 5/second log prefix "x" reject comment "of nft"
        }
    }
    add table ip lamina
    add chain ip lamina other
    add table netdev lamina
    """
    run("nft", "-f", "-", input=foreign)
    found = nft_listing.contents(kernel, "lamina")
    assert found is not None
    assert found.chains == (Chain("c"),)
    assert found.sets == (nft_listing.FoundSet(Set("known", (INET_SERVICE,)), (Element((22,)),)),)
    assert [(rule.chain, rule.comment) for rule in found.rules] == [("c", "of nft")]
    assert nft_listing.tables(kernel) == ["lamina"]


def test_a_table_that_isnt_there_is_none(kernel: Socket):
    assert nft_listing.contents(kernel, "lamina") is None
    assert nft_listing.tables(kernel) == []


# Transactions


def test_applying_it_again_changes_nothing(kernel: Socket):
    everything().apply(kernel)
    before = ruleset()
    everything().apply(kernel)
    assert ruleset() == before


def test_a_batch_of_which_the_last_part_is_refused_does_nothing(kernel: Socket):
    batch = everything()
    batch.add_rule(Rule("of-br0", (Verdict("jump", "nowhere"),)))
    with pytest.raises(FileNotFoundError, match="add rule inet lamina of-br0 jump nowhere: No such file or directory"):
        batch.apply(kernel)
    assert ruleset() == []


def test_a_batch_that_would_make_a_loop_does_nothing(kernel: Socket):
    everything().apply(kernel)
    before = ruleset()
    with pytest.raises(OSError) as caught:
        change(
            kernel,
            lambda batch: batch.add_chain(Chain("again")),
            lambda batch: batch.add_rule(Rule("of-br0", (Verdict("jump", "again"),))),
            lambda batch: batch.add_rule(Rule("again", (Verdict("jump", "of-br0"),))),
        )
    assert caught.value.errno in (errno.ELOOP, errno.EMLINK)
    assert ruleset() == before


def test_a_check_finds_what_applying_would_and_changes_nothing(kernel: Socket):
    everything().check(kernel)
    assert ruleset() == []
    batch = everything()
    batch.delete_chain("nowhere")
    with pytest.raises(FileNotFoundError, match="delete chain inet lamina nowhere"):
        batch.check(kernel)


def test_an_empty_batch_is_nothing(kernel: Socket):
    before = nftables.generation(kernel)
    Batch("lamina").apply(kernel)
    assert nftables.generation(kernel) == before


def test_other_tables_are_never_touched(kernel: Socket):
    others = """
    add table ip lamina
    add chain ip lamina c { type filter hook input priority 0; }
    add rule ip lamina c tcp dport 22 accept
    add table ip6 lamina
    add chain ip6 lamina c
    add rule ip6 lamina c tcp dport 22 accept
    add table inet other
    add map inet other ports { type inet_service : verdict; elements = { 22 : accept } ; }
    add chain inet other of-br0
    add rule inet other of-br0 counter accept
    add table inet filter
    add chain inet filter INPUT { type filter hook input priority 0; }
    add rule inet filter INPUT ct state established accept
    """
    run("nft", "-f", "-", input=others)
    tables = (("ip", "lamina"), ("ip6", "lamina"), ("inet", "other"), ("inet", "filter"))
    before = [run("nft", "-a", "list", "table", *each) for each in tables]
    everything().apply(kernel)
    change(kernel, lambda batch: batch.flush_chain("of-br0"), lambda batch: batch.flush_set("ports"))
    assert [run("nft", "-a", "list", "table", *each) for each in tables] == before
    change(kernel, Batch.delete_table)
    assert [run("nft", "-a", "list", "table", *each) for each in tables] == before
    assert nft_listing.tables(kernel) == ["other", "filter"]


def test_elements_are_added_and_deleted_one_by_one(kernel: Socket):
    change(kernel, Batch.add_table, lambda batch: batch.add_set(PORTS))
    first, second = Element(("tcp", 80), ("10.0.0.2", 80), "ctr 1"), Element(("udp", 80), ("10.0.0.3", 80))
    for _ in range(2):  # as it is there already, it is no error
        change(kernel, lambda batch: batch.add_elements(PORTS, first, second))
    with pytest.raises(OSError) as taken:
        change(kernel, lambda batch: batch.add_elements(PORTS, Element(("tcp", 80), ("10.0.0.9", 80))))
    assert taken.value.errno in (errno.EEXIST, errno.EBUSY)
    assert "add element inet lamina ports { tcp . 80 : 10.0.0.9 . 80 }" in str(taken.value)
    change(kernel, lambda batch: batch.delete_elements(PORTS, Element(("tcp", 80))))
    found = nft_listing.contents(kernel, "lamina")
    assert found is not None
    assert found.sets[0].elements == (second,)
    with pytest.raises(FileNotFoundError, match=r"delete element inet lamina ports \{ tcp . 80 \}"):
        change(kernel, lambda batch: batch.delete_elements(PORTS, Element(("tcp", 80))))


def test_rules_are_inserted_first_and_deleted_by_their_handle(kernel: Socket):
    change(kernel, Batch.add_table, lambda batch: batch.add_chain(Chain("c")))
    change(kernel, *(lambda batch, name=name: batch.insert_rule(Rule("c", (Counter(),), name)) for name in "abc"))
    found = nft_listing.contents(kernel, "lamina")
    assert found is not None
    assert [rule.comment for rule in found.rules] == ["c", "b", "a"]
    change(kernel, lambda batch: batch.delete_rule("c", found.rules[1].handle))
    assert [each["rule"]["comment"] for each in ruleset() if "rule" in each] == ["c", "a"]


def test_twenty_thousand_elements_are_one_transaction(kernel: Socket):
    many = tuple(Element(("tcp", port), ("10.0.0.2", port)) for port in range(1, 20001))
    deadline = time.monotonic() + 20
    change(kernel, Batch.add_table, lambda batch: batch.add_set(PORTS), lambda batch: batch.add_elements(PORTS, *many))
    found = nft_listing.contents(kernel, "lamina")
    assert found is not None
    while set(found.sets[0].elements) != set(many) and time.monotonic() < deadline:
        found = nft_listing.contents(kernel, "lamina")  # while the kernel makes a hash larger, a dump may leave elements out
        assert found is not None
    assert set(found.sets[0].elements) == set(many)
    with pytest.raises(OSError) as caught:
        change(kernel, lambda batch: batch.add_elements(PORTS, *(each._replace(data=("10.0.0.3", 1)) for each in many)))
    assert len(str(caught.value)) < 300


def test_more_errors_than_the_sockets_buffer_holds_are_still_the_first_ones_error(kernel: Socket):
    change(kernel, Batch.add_table, lambda batch: batch.add_chain(Chain("c")))
    with pytest.raises(FileNotFoundError, match="delete rule inet lamina c handle 1000000: "):
        change(kernel, *(lambda batch, n=n: batch.delete_rule("c", 1000000 + n) for n in range(5000)))
    assert nft_listing.contents(kernel, "lamina") is not None  # the conversation goes on


@pytest.mark.parametrize(
    ("step", "number", "text"),
    [
        (lambda batch: batch.delete_chain("nowhere"), errno.ENOENT, "delete chain inet lamina nowhere: No such file or directory"),
        (lambda batch: batch.delete_chain("of-br0"), errno.EBUSY, "delete chain inet lamina of-br0: Device or resource busy"),
        (
            lambda batch: batch.delete_set("ports", is_map=True),
            errno.EBUSY,
            "delete map inet lamina ports: Device or ",
        ),
        (lambda batch: batch.delete_rule("of-br0", 999), errno.ENOENT, "delete rule inet lamina of-br0 handle 999: "),
        (
            lambda batch: batch.add_set(Set("ports", (IFNAME,))),
            errno.EEXIST,
            "add set inet lamina ports { type ifname; }: ",
        ),
        (lambda batch: batch.add_chain(Chain("x", Hook("nat", "forward", 0))), errno.EOPNOTSUPP, "hook forward priority 0; policy"),
        (lambda batch: batch.add_rule(Rule("nowhere", (Counter(),))), errno.ENOENT, "add rule inet lamina nowhere counter: "),
        (lambda batch: batch.add_rule(Rule("forwarded", (Masquerade(),))), errno.EOPNOTSUPP, "lamina forwarded masquerade: "),
        (lambda batch: batch.add_rule(Rule("of-br0", (Lookup((L4PROTO,), "none"),))), errno.ENOENT, "meta l4proto @none: "),
    ],
)
def test_an_error_names_the_part_that_was_refused(kernel: Socket, step: Callable[[Batch], None], number: int, text: str):
    everything().apply(kernel)
    before = ruleset()
    with pytest.raises(OSError) as caught:
        change(kernel, lambda batch: batch.add_chain(Chain("before")), step, lambda batch: batch.add_chain(Chain("after")))
    assert caught.value.errno == number
    assert text in str(caught.value)
    assert ruleset() == before


def test_a_chain_of_a_table_that_isnt_there_is_refused(kernel: Socket):
    with pytest.raises(FileNotFoundError, match="add chain inet lamina c: No such file or directory"):
        change(kernel, lambda batch: batch.add_chain(Chain("c")))


def test_that_nftables_is_there_is_found_without_leaving_a_trace(kernel: Socket):
    before = nftables.generation(kernel)
    assert nftables.is_supported()
    assert (nftables.generation(kernel), ruleset()) == (before, [])
    with netspace() as other:
        assert nftables.is_supported(namespace=other.path)


def test_without_the_privilege_it_isnt_said_that_nftables_is_missing(kernel: Socket):
    del kernel
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            nftables.is_supported()
        except PermissionError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Packets


class House:
    """A host (the test's own namespace) with a bridge and a container's namespace on it, and another machine's beside it."""

    def __init__(self, container: Netspace, outside: Netspace, kernel: Socket) -> None:
        self.container, self.outside = container, outside
        for path in (None, container.path, outside.path):
            # Without its link-local address, which takes a second of duplicate address detection, a host asks for no neighbour.
            netns.set_sysctls([("net/ipv6/conf/default/accept_dad", "0")], namespace=path)
        with Socket() as host:
            bridge = link.Bridge(multicast_snooping=False)
            link.create(host, "br0", bridge, is_up=True)
            index = link.get(host, "br0").ifindex
            route.add_address(host, index, "172.18.0.1/16")
            route.add_address(host, index, "fd00:18::1/64", has_dad=False)
            plug(container, "lam0", "eth0", ["172.18.0.2/16", "fd00:18::2/64"], ["172.18.0.1", "fd00:18::1"], master=index)
            plug(outside, "wan", "eth0", ["192.0.2.2/24", "2001:db8::2/64"], [])
            wan = link.get(host, "wan").ifindex
            route.add_address(host, wan, "192.0.2.1/24")
            route.add_address(host, wan, "2001:db8::1/64", has_dad=False)
        with Socket(namespace=outside.path) as there:
            route.add_route(there, route.Route("172.18.0.0/16", gateway="192.0.2.1"))
            route.add_route(there, route.Route("fd00:18::/64", gateway="2001:db8::1"))
        netns.set_sysctls([("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])
        batch = Batch("lamina")
        batch.add_table()
        for chain in (
            Chain("ports", Hook("nat", "prerouting", -100)),
            Chain("ports-here", Hook("nat", "output", -100)),
            Chain("masks", Hook("nat", "postrouting", 100)),
            Chain("forwarded", Hook("filter", "forward", 0)),
        ):
            batch.add_chain(chain)
        for each in (PORTS, PORTS6):
            batch.add_set(each)
        for protocol in ("tcp", "udp"):
            batch.add_elements(PORTS, Element((protocol, 8080), ("172.18.0.2", 80), "ctr 1"))
            batch.add_elements(PORTS6, Element((protocol, 8080), ("fd00:18::2", 80), "ctr 1"))
        for chain_name in ("ports", "ports-here"):
            for name, family in (("ports", "ip"), ("ports6", "ip6")):
                to_port = NatMap("dnat", "ip" if family == "ip" else "ip6", (L4PROTO, TH_DPORT), name, has_port=True)
                batch.add_rule(Rule(chain_name, (Match(FIB_DADDR_TYPE, "local"), to_port)))
        for key, network in ((IP_SADDR, "172.18.0.0/16"), (IP6_SADDR, "fd00:18::/64")):
            batch.add_rule(Rule("masks", (Match(key, network), Match(OIFNAME, "br0", is_not=True), Masquerade())))
        batch.add_rule(Rule("forwarded", (Match(CT_STATE, "established,related"), Verdict("accept"))))
        batch.add_rule(Rule("forwarded", (Match(OIFNAME, "br0"), Match(CT_STATUS, "dnat"), Verdict("accept"))))
        batch.add_rule(Rule("forwarded", (Match(OIFNAME, "br0"), Counter(), Verdict("drop")), "dropped"))
        batch.apply(kernel)


@pytest.fixture
def house(kernel: Socket) -> Iterator[House]:
    """A host, a container and another machine."""
    with netspace() as container, netspace() as outside:
        yield House(container, outside, kernel)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _opened(where: Netspace | None, kind: socket.SocketKind, address: str, port: int = 0) -> socket.socket:
    def opened() -> socket.socket:
        made = socket.socket(_family(address), kind)
        made.settimeout(20)
        made.bind((address, port))
        if kind == socket.SOCK_STREAM and port:
            made.listen()
        return made

    return opened() if where is None else netns.within(where.path, opened)


def talk(
    kind: socket.SocketKind, server: tuple[Netspace, str, int], client: tuple[Netspace | None, str], to: tuple[str, int]
) -> tuple[str, bytes]:
    """Ask from the client, answer from the server: whom the server sees, and what comes back."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_opened(server[0], kind, server[1], server[2]))
        asking = stack.enter_context(_opened(client[0], kind, client[1]))
        asking.connect(to)
        asking.send(b"question")
        if kind == socket.SOCK_STREAM:
            answering, seen = listening.accept()
            stack.enter_context(answering)
            assert answering.recv(100) == b"question"
            answering.send(b"answer")
        else:
            question, seen = listening.recvfrom(100)
            assert question == b"question"
            listening.sendto(b"answer", seen)
        return seen[0], asking.recv(100)


KINDS = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])


@KINDS
@pytest.mark.parametrize(
    ("inside", "at", "source"),
    [("172.18.0.2", "192.0.2.1", "192.0.2.2"), ("fd00:18::2", "2001:db8::1", "2001:db8::2")],
    ids=["v4", "v6"],
)
def test_another_machine_reaches_a_published_port_and_is_seen_with_its_own_address(
    house: House, kind: socket.SocketKind, inside: str, at: str, source: str
):
    assert talk(kind, (house.container, inside, 80), (house.outside, source), (at, 8080)) == (source, b"answer")


@KINDS
@pytest.mark.parametrize(("inside", "at"), [("172.18.0.2", "192.0.2.1"), ("fd00:18::2", "2001:db8::1")], ids=["v4", "v6"])
def test_the_host_reaches_a_published_port_at_its_own_address(house: House, kind: socket.SocketKind, inside: str, at: str):
    anywhere = "::" if ":" in at else "0.0.0.0"
    assert talk(kind, (house.container, inside, 80), (None, anywhere), (at, 8080)) == (at, b"answer")


@KINDS
@pytest.mark.parametrize(
    ("inside", "server", "seen"),
    [("172.18.0.2", "192.0.2.2", "192.0.2.1"), ("fd00:18::2", "2001:db8::2", "2001:db8::1")],
    ids=["v4", "v6"],
)
def test_a_container_reaches_another_machine_which_sees_the_hosts_address(
    house: House, kind: socket.SocketKind, inside: str, server: str, seen: str
):
    assert talk(kind, (house.outside, server, 80), (house.container, inside), (server, 80)) == (seen, b"answer")


@pytest.mark.parametrize(("inside", "source"), [("172.18.0.2", "192.0.2.2"), ("fd00:18::2", "2001:db8::2")], ids=["v4", "v6"])
def test_what_isnt_published_is_dropped_and_counted(house: House, kernel: Socket, inside: str, source: str):
    published = "2001:db8::1" if ":" in inside else "192.0.2.1"
    with (
        _opened(house.container, socket.SOCK_DGRAM, inside, 80) as listening,
        _opened(house.outside, socket.SOCK_DGRAM, source) as asking,
    ):
        asking.sendto(b"first, dropped", (inside, 80))
        asking.sendto(b"second, let through", (published, 8080))  # by the same links, so that the first would be here before
        assert listening.recv(100) == b"second, let through"
    found = nft_listing.contents(kernel, "lamina")
    assert found is not None
    (dropped,) = [rule for rule in found.rules if rule.comment == "dropped"]
    assert dropped.counted == (1, (40 if ":" in inside else 20) + 8 + len(b"first, dropped"))


def test_a_port_that_is_taken_back_is_at_once_the_hosts_own_again(house: House, kernel: Socket):
    change(kernel, lambda batch: batch.delete_elements(PORTS, Element(("tcp", 8080))))
    with _opened(house.outside, socket.SOCK_STREAM, "192.0.2.2") as asking, pytest.raises(ConnectionRefusedError):
        asking.connect(("192.0.2.1", 8080))
    inside = (house.container, "fd00:18::2", 80)
    assert talk(socket.SOCK_STREAM, inside, (house.outside, "2001:db8::2"), ("2001:db8::1", 8080))[1] == b"answer"


def test_with_the_table_gone_the_way_is_as_if_it_had_never_been(house: House, kernel: Socket):
    change(kernel, Batch.delete_table)
    server = (house.container, "172.18.0.2", 80)
    assert talk(socket.SOCK_STREAM, server, (house.outside, "192.0.2.2"), ("172.18.0.2", 80)) == ("192.0.2.2", b"answer")
    assert ruleset() == []
