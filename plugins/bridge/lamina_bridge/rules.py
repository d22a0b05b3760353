"""The packet filter and address translation of one network, as chains and maps of its own; nothing is shared with another network.

What is published lies in four maps: for every address of the host or for one, for IPv4 and IPv6. The order in a packet's way:

    raw          what came over the bridge and claims to be to or from 127.0.0.0/8 is dropped, because `route_localnet` (which lets
                 127.0.0.1 of the host reach a published port) would otherwise let containers reach the host's own loopback
                 (CVE-2020-8558, found in another engine)
    prerouting   from elsewhere to a published port: the destination becomes the container. Never for 127.0.0.0/8: a neighbour on
                 the wire could else address a port that was published on 127.0.0.1 alone (moby#45610)
    output       the same for what the host itself sends
    forward      into the network goes what belongs to a connection, what is published, and what comes from the network itself;
                 nothing else, neither from other networks nor from neighbours that route to it (moby#22054)
    postrouting  what leaves the host has its address; what comes back into the network by a published port, from a container of the
                 network or from 127.0.0.1, has the gateway's, so that the answer comes back by the host
"""

from collections.abc import Iterator

from lamina.api.networks import EndpointSpec, Forwarding
from lamina.linux.nft_rules import Masquerade, Match, NatMap, Rule, Statement, Verdict
from lamina.linux.nft_types import (
    CT_STATE,
    CT_STATUS,
    FIB_DADDR_TYPE,
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
    NFPROTO,
    OIFNAME,
    TH_DPORT,
)
from lamina.linux.nftables import Chain, Element, Hook, Set
from lamina.model.network import PortMapping, Subnet

_LOOPBACK = "127.0.0.0/8"
_ACCEPT, _DROP, _RETURN = Verdict("accept"), Verdict("drop"), Verdict("return")
_WILDCARDS = {"": (False, True), "0.0.0.0": (False,), "::": (True,)}
"""Which families an address means that is every one of the host."""


def port_sets(bridge: str) -> tuple[Set, Set, Set, Set]:
    """The maps of published ports: for any address and for one of IPv4, and of IPv6."""
    ends = ((IPV4_ADDR, INET_SERVICE), (IPV6_ADDR, INET_SERVICE))
    return (
        Set(f"{bridge}-ports", (INET_PROTO, INET_SERVICE), ends[0]),
        Set(f"{bridge}-ports-at", (IPV4_ADDR, INET_PROTO, INET_SERVICE), ends[0]),
        Set(f"{bridge}-ports6", (INET_PROTO, INET_SERVICE), ends[1]),
        Set(f"{bridge}-ports6-at", (IPV6_ADDR, INET_PROTO, INET_SERVICE), ends[1]),
    )


def chains(bridge: str, *, internal: bool) -> tuple[Chain, ...]:
    """The network's chains."""
    forward = Chain(f"{bridge}-forward", Hook("filter", "forward", 0))
    if internal:
        return (forward,)
    return (
        Chain(f"{bridge}-published"),
        Chain(f"{bridge}-raw", Hook("filter", "prerouting", -300)),
        Chain(f"{bridge}-prerouting", Hook("nat", "prerouting", -100)),
        Chain(f"{bridge}-output", Hook("nat", "output", -100)),
        forward,
        Chain(f"{bridge}-postrouting", Hook("nat", "postrouting", 100)),
    )


def rules(bridge: str, subnets: tuple[Subnet, ...], *, internal: bool, masquerade: bool, icc: bool) -> tuple[Rule, ...]:
    """The network's rules."""
    own = (Match(IIFNAME, bridge), Match(OIFNAME, bridge), _ACCEPT if icc else _DROP)
    forward = f"{bridge}-forward"
    if internal:
        return (
            Rule(forward, own),
            Rule(forward, (Match(IIFNAME, bridge), _DROP)),
            Rule(forward, (Match(OIFNAME, bridge), _DROP)),
        )
    return (
        *(Rule(f"{bridge}-raw", each) for each in _raw(bridge)),
        *(Rule(f"{bridge}-published", each) for each in _published(bridge)),
        Rule(f"{bridge}-prerouting", (Match(IP_DADDR, _LOOPBACK), _RETURN)),
        Rule(f"{bridge}-prerouting", (Verdict("jump", f"{bridge}-published"),)),
        Rule(f"{bridge}-output", (Verdict("jump", f"{bridge}-published"),)),
        Rule(forward, (Match(OIFNAME, bridge), Match(CT_STATE, "established,related"), _ACCEPT)),
        Rule(forward, (Match(OIFNAME, bridge), Match(CT_STATUS, "dnat"), _ACCEPT)),
        Rule(forward, own),
        Rule(forward, (Match(OIFNAME, bridge), _DROP)),
        *(Rule(f"{bridge}-postrouting", each) for each in _sources(bridge, subnets, masquerade=masquerade)),
    )


def _raw(bridge: str) -> Iterator[tuple[Statement, ...]]:
    for key in (IP_DADDR, IP_SADDR):
        yield Match(IIFNAME, bridge), Match(key, _LOOPBACK), _DROP


def _published(bridge: str) -> Iterator[tuple[Statement, ...]]:
    any4, one4, any6, one6 = port_sets(bridge)
    local = Match(FIB_DADDR_TYPE, "local")
    yield (NatMap("dnat", "ip", (IP_DADDR, L4PROTO, TH_DPORT), one4.name, has_port=True),)
    yield Match(NFPROTO, "ipv4"), local, NatMap("dnat", "ip", (L4PROTO, TH_DPORT), any4.name, has_port=True)
    yield Match(IP6_DADDR, "::1", is_not=True), NatMap("dnat", "ip6", (IP6_DADDR, L4PROTO, TH_DPORT), one6.name, has_port=True)
    yield (
        Match(IP6_DADDR, "::1", is_not=True),  # the kernel routes nothing from ::1 to another link
        local,
        NatMap("dnat", "ip6", (L4PROTO, TH_DPORT), any6.name, has_port=True),
    )


def _sources(bridge: str, subnets: tuple[Subnet, ...], *, masquerade: bool) -> Iterator[tuple[Statement, ...]]:
    yield Match(OIFNAME, bridge), Match(IP_SADDR, _LOOPBACK), Masquerade()
    for each in subnets:
        ours = Match(IP6_SADDR if each.is_ipv6 else IP_SADDR, each.subnet)
        yield Match(OIFNAME, bridge), ours, Match(CT_STATUS, "dnat"), Masquerade()
        if masquerade:
            yield Match(OIFNAME, bridge, is_not=True), ours, Masquerade()


# A container's published ports


def elements(bridge: str, endpoint: EndpointSpec) -> tuple[tuple[Set, Element], ...]:
    """The elements of the maps that publish a container's ports."""
    found = []
    for port in endpoint.ports:
        for ipv6 in _WILDCARDS.get(port.host_ip, (":" in port.host_ip,)):
            target = _address(endpoint, ipv6=ipv6)
            if target and port.host_ip != "::1":
                found.append(_element(bridge, endpoint, port, target, ipv6=ipv6))
    return tuple(found)


def _element(bridge: str, endpoint: EndpointSpec, port: PortMapping, target: str, *, ipv6: bool) -> tuple[Set, Element]:
    any4, one4, any6, one6 = port_sets(bridge)
    is_any = port.host_ip in _WILDCARDS
    into = (any6 if is_any else one6) if ipv6 else (any4 if is_any else one4)
    key = (port.protocol, port.host_port) if is_any else (port.host_ip, port.protocol, port.host_port)
    return into, Element(key, (target, port.container_port), comment=endpoint.container_id)


def forwardings(endpoint: EndpointSpec) -> tuple[Forwarding, ...]:
    """What the kernel can't do: ports on ::1, and ports on addresses of IPv6 that lead to a container without one."""
    ipv4, ipv6 = _address(endpoint, ipv6=False), _address(endpoint, ipv6=True)
    found = []
    for port in endpoint.ports:
        host_ip = "::" if port.host_ip == "" else port.host_ip
        if ":" in host_ip and (host_ip in {"::", "::1"} or not ipv6):
            found.append(
                Forwarding(
                    protocol=port.protocol,
                    host_ip=host_ip,
                    host_port=port.host_port,
                    address=ipv6 or ipv4,
                    port=port.container_port,
                )
            )
    return tuple(found)


def _address(endpoint: EndpointSpec, *, ipv6: bool) -> str:
    return next((each.partition("/")[0] for each in endpoint.addresses if (":" in each) is ipv6), "")
