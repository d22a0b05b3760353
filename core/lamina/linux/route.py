"""Addresses and routes. Sources: rtnetlink(7), include/uapi/linux/if_addr.h, include/uapi/linux/rtnetlink.h.

Every function takes a `netlink.Socket`, whose network namespace it works in. Addresses are text, with their prefix where they have
one: `172.18.0.2/16`, `fd00::2/64`. Not here: links (`link`), and which addresses are free.
"""

import socket
import struct
from typing import NamedTuple

from lamina.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    Socket,
    as_number,
    attribute,
    parsed,
    structure,
    u32,
)

_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26

_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
IFA_F_NODAD, IFA_F_TENTATIVE, IFA_F_PERMANENT, IFA_F_NOPREFIXROUTE = 0x02, 0x40, 0x80, 0x200

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 6, 7, 15
_RTM_F_CLONED = 0x200
RT_TABLE_MAIN, RT_TABLE_LOCAL = 254, 255
RTPROT_KERNEL, RTPROT_BOOT, RTPROT_STATIC = 2, 3, 4
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RT_SCOPE_NOWHERE = 0, 253, 255
ROUTE_KINDS = {"unicast": 1, "local": 2, "broadcast": 3, "blackhole": 6, "unreachable": 7, "prohibit": 8}
_KIND_NAMES = {number: name for name, number in ROUTE_KINDS.items()}

_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, link: struct ifaddrmsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, lengths of dst and src, tos, table, protocol, scope, type, flags: struct rtmsg


class Address(NamedTuple):
    """An address of a link as the kernel shows it."""

    link: int
    """The link's index."""
    address: str
    """With its prefix: `172.18.0.2/16`."""
    flags: int
    """IFA_F_…"""
    scope: int
    """0 for everywhere, 253 for this link, 254 for this machine."""


class Route(NamedTuple):
    """A route: what to do with packets to `destination`. To add one, the defaults are right for most."""

    destination: str
    """`172.18.0.0/16`; `0.0.0.0/0` and `::/0` are the default routes."""
    gateway: str | None = None
    """None if the destination is on the link itself."""
    link: int | None = None
    """The link's index; None lets the kernel find it by the gateway."""
    metric: int | None = None
    source: str | None = None
    """The address that packets of this machine's own get."""
    kind: str = "unicast"
    """One of ROUTE_KINDS."""
    table: int = RT_TABLE_MAIN
    protocol: int = RTPROT_BOOT
    """Who made it: RTPROT_…"""


def add_address(netlink: Socket, link: int, address: str, *, has_dad: bool = True, has_route: bool = True) -> None:
    """Give a link an address; raises FileExistsError if it has it.

    `has_dad` False: an IPv6 address is used at once, without asking the neighbours first whether it is free (IFA_F_NODAD).
    `has_route` False: no route to the address's network (IFA_F_NOPREFIXROUTE).
    """
    message = address_addition(link, address, has_dad=has_dad, has_route=has_route)
    netlink.ask(message, f"add address {address!r} to link {link}")


def address_addition(link: int, address: str, *, has_dad: bool = True, has_route: bool = True) -> Message:
    """The message by which `add_address` does it."""
    flags = (0 if has_dad else IFA_F_NODAD) | (0 if has_route else IFA_F_NOPREFIXROUTE)
    return Message(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _address_body(link, address) + u32(_IFA_FLAGS, flags))


def delete_address(netlink: Socket, link: int, address: str) -> None:
    """Take an address away; raises OSError EADDRNOTAVAIL if the link doesn't have it.

    With the first IPv4 address of a network the link's others of that network go, too (ip-sysctl, promote_secondaries).
    """
    netlink.ask(Message(_RTM_DELADDR, 0, _address_body(link, address)), f"delete address {address!r} of link {link}")


def addresses(netlink: Socket, *, link: int | None = None, family: int = socket.AF_UNSPEC) -> list[Address]:
    """List the addresses of all links or of one, of both families or of one."""
    found = netlink.dump(Message(_RTM_GETADDR, 0, _ADDRESS.pack(family, 0, 0, 0, link or 0)), "list addresses")
    return [decoded_address(each.body) for each in found if each.kind == _RTM_NEWADDR]


def add_route(netlink: Socket, route: Route) -> None:
    """Add a route; raises FileExistsError if there is one to that destination with that metric."""
    netlink.ask(route_addition(route), f"add {describe(route)}")


def route_addition(route: Route) -> Message:
    """The message by which `add_route` does it."""
    return Message(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, _route_body(route))


def replace_route(netlink: Socket, route: Route) -> None:
    """Add a route in the place of one to that destination with that metric, if there is one."""
    netlink.ask(Message(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _route_body(route)), f"replace {describe(route)}")


def delete_route(netlink: Socket, route: Route) -> None:
    """Delete the route to that destination, and with that gateway, link and metric where given. Raises OSError ESRCH."""
    body = _route_body(route, is_deleted=True)
    netlink.ask(Message(_RTM_DELROUTE, 0, body), f"delete {describe(route)}")


def routes(netlink: Socket, *, family: int, table: int | None = RT_TABLE_MAIN) -> list[Route]:
    """List the routes of a family (AF_INET or AF_INET6) in a table, or with None in all tables; cached ones are left out."""
    body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + (b"" if table is None else u32(_RTA_TABLE, table))
    found: list[Route] = []
    for each in netlink.dump(Message(_RTM_GETROUTE, 0, body), "list routes"):
        if each.kind == _RTM_NEWROUTE and not structure(_ROUTE, each.body)[8] & _RTM_F_CLONED:
            found.append(decoded_route(each.body))
    return found


def describe(route: Route) -> str:
    """Say a route as ip(8) does."""
    words = ["route", *([] if route.kind == "unicast" else [route.kind]), route.destination]
    for word, value in (("via", route.gateway), ("dev", route.link), ("src", route.source), ("metric", route.metric)):
        if value is not None:
            words += [word, f"link {value}" if word == "dev" else str(value)]
    return " ".join(words)


def packed_address(address: str) -> tuple[int, bytes]:
    """Parse an address without prefix into its family and bytes; raises ValueError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return family, socket.inet_pton(family, address)
    except (OSError, ValueError):  # ValueError: a NUL, or a character beyond ASCII
        raise ValueError(f"{address!r} is no IP address") from None


def packed_prefix(address: str) -> tuple[int, bytes, int]:
    """Parse `ADDRESS/LENGTH` into family, bytes and length; raises ValueError."""
    host, slash, digits = address.partition("/")
    family, raw = packed_address(host)
    if not (slash and digits.isascii() and digits.isdigit() and len(digits) < 4 and int(digits) <= len(raw) * 8):
        raise ValueError(f"{address!r} has no prefix length from 0 to {len(raw) * 8}")
    return family, raw, int(digits)


def _address_body(link: int, address: str) -> bytes:
    family, raw, length = packed_prefix(address)
    return _ADDRESS.pack(family, length, 0, _RT_SCOPE_UNIVERSE, link) + attribute(_IFA_LOCAL, raw) + attribute(_IFA_ADDRESS, raw)


def decoded_address(body: bytes) -> Address:
    """Read an address from the kernel's message; raises ValueError or OSError."""
    family, length, flags, scope, link = structure(_ADDRESS, body)
    found = parsed(body[_ADDRESS.size :])
    raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")  # IFA_ADDRESS alone for IPv6; a point-to-point's is the other end's
    flags = as_number(found[_IFA_FLAGS]) if _IFA_FLAGS in found else flags
    return Address(link, f"{socket.inet_ntop(family, raw)}/{length}", flags, scope)


def _route_body(route: Route, *, is_deleted: bool = False) -> bytes:
    if route.kind not in ROUTE_KINDS:
        raise ValueError(f"{route.kind!r} is no kind of route: {', '.join(ROUTE_KINDS)}")
    family, destination, length = packed_prefix(route.destination)
    scope = _RT_SCOPE_UNIVERSE
    if is_deleted:
        scope = _RT_SCOPE_NOWHERE  # any
    elif family == socket.AF_INET and route.kind == "unicast" and route.gateway is None:
        scope = _RT_SCOPE_LINK
    protocol = 0 if is_deleted else route.protocol
    body = _ROUTE.pack(family, length, 0, 0, 0, protocol, scope, ROUTE_KINDS[route.kind], 0) + u32(_RTA_TABLE, route.table)
    if length:
        body += attribute(_RTA_DST, destination)
    for kind, address in ((_RTA_GATEWAY, route.gateway), (_RTA_PREFSRC, route.source)):
        if address is not None:
            other, raw = packed_address(address)
            if other != family:
                raise ValueError(f"{describe(route)}: {address!r} is of the other IP version")
            body += attribute(kind, raw)
    if route.link is not None:
        body += u32(_RTA_OIF, route.link)
    if route.metric is not None:
        body += u32(_RTA_PRIORITY, route.metric)
    return body


def decoded_route(body: bytes) -> Route:
    """Read a route from the kernel's message; raises ValueError or OSError."""
    family, length, _src, _tos, table, protocol, _scope, kind, _flags = structure(_ROUTE, body)
    found = parsed(body[_ROUTE.size :])
    size = 4 if family == socket.AF_INET else 16

    def said(attribute: int) -> str | None:
        return socket.inet_ntop(family, found[attribute]) if attribute in found else None

    return Route(
        destination=f"{socket.inet_ntop(family, found.get(_RTA_DST, bytes(size)))}/{length}",
        gateway=said(_RTA_GATEWAY),
        link=as_number(found[_RTA_OIF]) if _RTA_OIF in found else None,
        metric=as_number(found[_RTA_PRIORITY]) if _RTA_PRIORITY in found else None,
        source=said(_RTA_PREFSRC),
        kind=_KIND_NAMES.get(kind, str(kind)),
        table=as_number(found[_RTA_TABLE]) if _RTA_TABLE in found else table,
        protocol=protocol,
    )
