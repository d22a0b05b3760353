"""Links, the kernel's word for network interfaces: make, change, find, delete. Sources: rtnetlink(7), include/uapi/linux/if_link.h.

Every function takes a `netlink.Socket`, whose network namespace it works in. A link is meant by its ifindex, or by its name.
Not here: their addresses and routes (`route`), and what links a container gets.
"""

import socket
import struct
import sys
from typing import NamedTuple

from lamina.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Socket,
    as_number,
    as_text,
    attribute,
    attributes,
    nested,
    parsed,
    structure,
    text,
    u8,
    u32,
)

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_GETNSID, _RTM_NEWLINKPROP, _RTM_DELLINKPROP = 90, 108, 109

(
    _IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_IFALIAS,
    _IFLA_NET_NS_FD, _IFLA_EXT_MASK, _IFLA_LINK_NETNSID, _IFLA_PROP_LIST, _IFLA_ALT_IFNAME,
) = (1, 3, 4, 5, 10, 16, 18, 20, 28, 29, 37, 52, 53)  # fmt: skip
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_IFLA_BRPORT_MODE = 4
_RTEXT_FILTER_SKIP_STATS = 8
_IFLA_BR_STP_STATE, _IFLA_BR_VLAN_FILTERING, _IFLA_BR_MCAST_SNOOPING = 5, 7, 23
_IFLA_MACVLAN_MODE = 1
_VETH_INFO_PEER = 1
_NETNSA_NSID, _NETNSA_FD = 1, 3

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_RUNNING = 0x40
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}

_INFO = struct.Struct("=BxHiII")  # family, type, index, flags, which flags change: struct ifinfomsg


class Bridge(NamedTuple):
    """A bridge; what is None stays as the kernel has it: off, off, on.

    A kernel without CONFIG_BRIDGE_VLAN_FILTERING refuses to be told about it at all, even that it is to be off.
    """

    stp: bool | None = None
    vlan_filtering: bool | None = None
    multicast_snooping: bool | None = None


class Veth(NamedTuple):
    """A pair of links, joined like the ends of a cable; here is the other end, made by the same message.

    It is made down: veth_open (drivers/net/veth.c) fails with ENOTCONN while the first end isn't there yet.
    """

    peer_name: str
    peer_namespace_fd: int | None = None
    """Where the other end is made: a descriptor of a network namespace, or None for this one."""
    peer_mac: str | None = None
    peer_mtu: int | None = None


class Macvlan(NamedTuple):
    """A link of its own MAC on top of another, its parent."""

    parent: int
    """The parent's index."""
    mode: str = "bridge"
    """One of MACVLAN_MODES."""


class Dummy(NamedTuple):
    """A link that leads nowhere."""


Kind = Bridge | Veth | Macvlan | Dummy


class Link(NamedTuple):
    """A link as the kernel shows it."""

    ifindex: int
    name: str
    kind: str
    """`bridge`, `veth` …; empty for hardware and loopback."""
    flags: int
    mac: str
    mtu: int
    master: int
    """The index of the bridge that it is a port of, or 0."""
    lower: int
    """The index of a veth's other end or a macvlan's parent, or 0."""
    lower_namespace_id: int | None
    """Where `lower` is: None for here, else a number as `namespace_id` gives, or -1 for a namespace without one."""
    operstate: int
    """RFC 2863's state: 6 is up, 0 is unknown (loopback)."""
    alias: str
    altnames: tuple[str, ...]

    @property
    def is_up(self) -> bool:
        """Whether it was set up; whether packets can pass is another thing (`is_running`)."""
        return bool(self.flags & IFF_UP)

    @property
    def is_running(self) -> bool:
        """Whether packets pass. A link that was just set up, or a bridge that just got its first port, drops them for a moment.

        The kernel does the rest later (net/core/link_watch.c); a lost question for a neighbour is asked again only after a second.
        """
        return self.is_up and self.operstate in (0, 6)


def create(
    netlink: Socket,
    name: str,
    kind: Kind,
    *,
    mac: str | None = None,
    mtu: int | None = None,
    master: int | None = None,
    is_up: bool = False,
    namespace_fd: int | None = None,
) -> None:
    """Make a link, with one message; it comes to be as described or not at all.

    `master` is the index of a bridge, `namespace_fd` where it is made (a macvlan's parent is looked for in this socket's
    namespace). Raises FileExistsError if a link has that name, OSError EOPNOTSUPP if the kernel has no such kind.
    """
    message = creation(name, kind, mac=mac, mtu=mtu, master=master, is_up=is_up, namespace_fd=namespace_fd)
    what = f"create {type(kind).__name__.lower()} {name!r}"
    netlink.ask(message, what + (f" with its peer {kind.peer_name!r}" if isinstance(kind, Veth) else ""))


def creation(
    name: str,
    kind: Kind,
    *,
    mac: str | None = None,
    mtu: int | None = None,
    master: int | None = None,
    is_up: bool = False,
    namespace_fd: int | None = None,
) -> Message:
    """The message by which `create` does it."""
    body = _info(flags=IFF_UP if is_up else 0, change=IFF_UP if is_up else 0)
    body += text(_IFLA_IFNAME, name) + _settings(mac=mac, mtu=mtu, master=master, namespace_fd=namespace_fd)
    if isinstance(kind, Macvlan):
        body += u32(_IFLA_LINK, kind.parent)
    word = type(kind).__name__.lower()
    body += nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, word.encode()), nested(_IFLA_INFO_DATA, _kind_data(kind)))
    return Message(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def change(
    netlink: Socket,
    link: int | str,
    *,
    is_up: bool | None = None,
    name: str | None = None,
    mac: str | None = None,
    mtu: int | None = None,
    master: int | None = None,
    alias: str | None = None,
    namespace_fd: int | None = None,
) -> None:
    """Change what is given and leave the rest; `master` 0 takes it out of its bridge."""
    what = f"change link {link!r}"
    if name is not None and isinstance(link, str):
        link = get(netlink, link).ifindex  # where a new name is, it is the one that the kernel looks for (rtnl_dev_get)
    body = _meant(link, flags=IFF_UP if is_up else 0, change=0 if is_up is None else IFF_UP)
    if name is not None:
        body += text(_IFLA_IFNAME, name)
    if alias is not None:
        body += text(_IFLA_IFALIAS, alias)
    body += _settings(mac=mac, mtu=mtu, master=master, namespace_fd=namespace_fd)
    netlink.ask(Message(_RTM_SETLINK, 0, body), what)


def set_hairpin(netlink: Socket, link: int | str, *, is_on: bool) -> None:
    """Let a bridge send out by one of its ports what came in by it, or not, as it is at first."""
    data = nested(_IFLA_INFO_SLAVE_DATA, u8(_IFLA_BRPORT_MODE, int(is_on)))
    body = _meant(link) + nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_SLAVE_KIND, b"bridge"), data)
    netlink.ask(Message(_RTM_NEWLINK, 0, body), f"set hairpin mode of bridge port {link!r}")


def delete(netlink: Socket, link: int | str) -> None:
    """Delete a link; a veth's other end goes with it. Raises OSError ENODEV if there is none."""
    netlink.ask(Message(_RTM_DELLINK, 0, _meant(link)), f"delete link {link!r}")


def add_altname(netlink: Socket, link: int | str, altname: str) -> None:
    """Give a link one more name, which may be 127 bytes long; it is found and meant by it as by its own."""
    body = _meant(link) + nested(_IFLA_PROP_LIST, text(_IFLA_ALT_IFNAME, altname))
    netlink.ask(Message(_RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL, body), f"add altname {altname!r} to link {link!r}")


def delete_altname(netlink: Socket, link: int | str, altname: str) -> None:
    """Take such a name away."""
    body = _meant(link) + nested(_IFLA_PROP_LIST, text(_IFLA_ALT_IFNAME, altname))
    netlink.ask(Message(_RTM_DELLINKPROP, 0, body), f"delete altname {altname!r} of link {link!r}")


def get(netlink: Socket, link: int | str) -> Link:
    """Find a link by index or name; raises OSError ENODEV if there is none."""
    what = f"get link {link!r}"
    (found,) = netlink.ask(Message(_RTM_GETLINK, 0, _meant(link) + u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)), what)
    return decoded(found.body)


def links(netlink: Socket, *, kind: str | None = None, master: int | None = None) -> list[Link]:
    """List all links, or those of a kind, or the ports of a bridge."""
    body = _info() + u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    if kind is not None:
        body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind))
    if master is not None:
        body += u32(_IFLA_MASTER, master)
    found = [decoded(each.body) for each in netlink.dump(Message(_RTM_GETLINK, 0, body), "list links") if each.kind == _RTM_NEWLINK]
    # The kernel filters for speed only: a kind that it has no driver for, it doesn't filter by.
    return [each for each in found if kind in (None, each.kind) and master in (None, each.master)]


def namespace_id(netlink: Socket, namespace_fd: int) -> int:
    """The number that the socket's namespace has for another one, or -1 for none; `Link.lower_namespace_id` is one."""
    body = bytes(4) + u32(_NETNSA_FD, namespace_fd)
    (found,) = netlink.ask(Message(_RTM_GETNSID, 0, body), "get namespace id")
    return _signed(parsed(found.body[4:]).get(_NETNSA_NSID, b"\xff"))


def mac_bytes(mac: str) -> bytes:
    """Parse `02:42:ac:11:00:02`; raises ValueError."""
    parts = mac.split(":")
    if len(parts) != 6 or not all(len(part) == 2 and part.isalnum() for part in parts):
        raise ValueError(f"{mac!r} is no MAC address")
    try:
        return bytes.fromhex("".join(parts))
    except ValueError:
        raise ValueError(f"{mac!r} is no MAC address") from None


def _info(index: int = 0, *, flags: int = 0, change: int = 0) -> bytes:
    return _INFO.pack(socket.AF_UNSPEC, 0, index, flags, change)


def _meant(link: int | str, *, flags: int = 0, change: int = 0) -> bytes:
    if isinstance(link, int):
        if not 0 < link < 1 << 31:
            raise ValueError(f"{link} is no link's index")
        return _info(link, flags=flags, change=change)
    is_short = len(link.encode("utf-8", "surrogateescape")) < 16  # IFNAMSIZ; each attribute finds both kinds of name
    return _info(flags=flags, change=change) + text(_IFLA_IFNAME if is_short else _IFLA_ALT_IFNAME, link)


def _settings(*, mac: str | None, mtu: int | None, master: int | None = None, namespace_fd: int | None) -> bytes:
    body = b""
    if mac is not None:
        body += attribute(_IFLA_ADDRESS, mac_bytes(mac))
    if mtu is not None:
        body += u32(_IFLA_MTU, mtu)
    if master is not None:
        body += u32(_IFLA_MASTER, master)
    if namespace_fd is not None:
        body += u32(_IFLA_NET_NS_FD, namespace_fd)
    return body


def _kind_data(kind: Kind) -> bytes:
    if isinstance(kind, Bridge):
        body = b""
        if kind.stp is not None:
            body += u32(_IFLA_BR_STP_STATE, int(kind.stp))
        if kind.vlan_filtering is not None:
            body += u8(_IFLA_BR_VLAN_FILTERING, int(kind.vlan_filtering))
        if kind.multicast_snooping is not None:
            body += u8(_IFLA_BR_MCAST_SNOOPING, int(kind.multicast_snooping))
        return body
    if isinstance(kind, Veth):
        peer = _info() + text(_IFLA_IFNAME, kind.peer_name)
        peer += _settings(mac=kind.peer_mac, mtu=kind.peer_mtu, namespace_fd=kind.peer_namespace_fd)
        return nested(_VETH_INFO_PEER, peer)
    if isinstance(kind, Macvlan):
        if kind.mode not in MACVLAN_MODES:
            raise ValueError(f"{kind.mode!r} is no macvlan mode: {', '.join(MACVLAN_MODES)}")
        return u32(_IFLA_MACVLAN_MODE, MACVLAN_MODES[kind.mode])
    return b""


def decoded(body: bytes) -> Link:
    """Read a link from the kernel's message; raises ValueError."""
    _family, _type, index, flags, _change = structure(_INFO, body)
    found = parsed(body[_INFO.size :])
    info = parsed(found.get(_IFLA_LINKINFO, b""))
    return Link(
        ifindex=index,
        name=as_text(found.get(_IFLA_IFNAME, b"")),
        kind=as_text(info.get(_IFLA_INFO_KIND, b"")),
        flags=flags,
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=as_number(found.get(_IFLA_MTU, b"")),
        master=as_number(found.get(_IFLA_MASTER, b"")),
        lower=as_number(found.get(_IFLA_LINK, b"")),
        lower_namespace_id=_signed(found[_IFLA_LINK_NETNSID]) if _IFLA_LINK_NETNSID in found else None,
        operstate=as_number(found.get(_IFLA_OPERSTATE, b"")),
        alias=as_text(found.get(_IFLA_IFALIAS, b"")),
        altnames=tuple(as_text(value) for kind, value in attributes(found.get(_IFLA_PROP_LIST, b"")) if kind == _IFLA_ALT_IFNAME),
    )


def _signed(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder, signed=True)
