"""The values that pass between the engine and a network driver that makes links. No I/O.

Apart from `types.py` because a container without such a network imports none of it. What else a driver answers with is the
kernel's: `Chain`, `Set`, `Rule` and `Element` of `lamina.linux.nftables` and `nft_rules`, `Route` of `lamina.linux.route`. All of
these are named tuples, which cost a start a third of what dataclasses do; write their fields by keyword.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from lamina.model.network import PortMapping, Subnet

if TYPE_CHECKING:
    from lamina.linux.nft_rules import Rule
    from lamina.linux.nftables import Chain, Set
    from lamina.linux.route import Route


class NetworkSpec(NamedTuple):
    """A network as its driver sees it."""

    id: str
    """64 hexadecimal digits, for good; names of links and chains are made of the first."""
    name: str
    subnets: tuple[Subnet, ...] = ()
    """At most one of IPv4 and one of IPv6 for most drivers; the engine has filled in those that the user left open."""
    options: Mapping[str, str] = MappingProxyType({})
    internal: bool = False
    """Nothing leads out of it, and nothing in."""
    ipv6: bool = False
    is_main: bool = False
    """The driver's own network in the usual root directory; it may have a name that people know, as `docker0` is one."""


class EndpointSpec(NamedTuple):
    """A container's place in a network, as the driver sees it. The engine has chosen all of it."""

    id: str
    container_id: str
    host_name: str
    """A name that is free for a link of the host, such as a veth's end; the engine deletes the link of that name at the end."""
    interface: str
    """The link's name in the container: `eth0`."""
    mac: str
    addresses: tuple[str, ...]
    """With their prefixes: `172.18.0.2/16`, `fd00::2/64`."""
    ports: tuple[PortMapping, ...] = ()
    """To be published: each with a port of the host that is free."""
    is_gateway: bool = False
    """Whether the container's default route goes by this network."""


class HostLink(NamedTuple):
    """A link that the host has while a network is used, found by its name; it is made, or given what it lacks of this."""

    name: str
    kind: str = "bridge"
    """`bridge` or `dummy`."""
    mac: str = ""
    """"" leaves it to the kernel."""
    mtu: int = 0
    """0 leaves it to the kernel."""
    addresses: tuple[str, ...] = ()


class NetworkSetup(NamedTuple):
    """What the host must have while a network is used. Names of chains and sets are the driver's, and differ between networks.

    All of them are in the engine's own table of the family inet. Settings are written only where they differ.
    """

    links: tuple[HostLink, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    """Below /proc/sys, after the links are there: `("net/ipv4/ip_forward", "1")`. They stay when the network is gone."""
    sets: "tuple[Set, ...]" = ()
    chains: "tuple[Chain, ...]" = ()
    """Those that others jump to come first."""
    rules: "tuple[Rule, ...]" = ()


class ContainerLink(NamedTuple):
    """A link of a container, with one end there."""

    name: str
    """Its name in the container."""
    kind: str = "veth"
    """`veth`, whose other end is `host_name` and a port of the bridge `parent`; or `macvlan` on top of the host's link `parent`."""
    parent: str = ""
    host_name: str = ""
    mode: str = ""
    """A macvlan's: private, vepa, bridge or passthru."""
    has_hairpin: bool = False
    """A veth's: the bridge sends back by its port what came from it, which a container needs that calls its own published port
    where bridged packets pass the packet filter (br_netfilter)."""
    mac: str = ""
    mtu: int = 0
    addresses: tuple[str, ...] = ()
    routes: "tuple[Route, ...]" = ()
    """Without a link: it is this one's."""


class Forwarding(NamedTuple):
    """A port of the host from which a small process carries bytes on, because the kernel can't: IPv6 to IPv4, and from ::1."""

    protocol: str
    host_ip: str
    host_port: int
    address: str
    port: int
