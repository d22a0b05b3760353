"""The connections that the kernel tracks: list them, forget one. Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h.

Address translation is decided with a connection's first packet and remembered as long as packets come; who changes where a port
leads has to forget the connections that went elsewhere. For UDP, that is: a "connection" there is whoever sends. Not here: when.
"""

import socket
import struct
from typing import NamedTuple

from lamina.linux.netlink import NLA_F_NESTED, Message, Socket, as_number, attribute, parsed

_SUBSYSTEM = 1
_GET, _DELETE = 1, 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_ID = 1, 2, 12
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_IP_V4_DST, _CTA_IP_V6_SRC, _CTA_IP_V6_DST = 1, 2, 3, 4
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_NFGENMSG = struct.Struct(">BBH")


class End(NamedTuple):
    """One direction of a connection."""

    source: str
    source_port: int
    destination: str
    destination_port: int


class Connection(NamedTuple):
    """A tracked connection: what its first packet said, and what the answer to it says, after translation."""

    family: int
    protocol: int
    """IPPROTO_TCP, IPPROTO_UDP …"""
    origin: End
    reply: End
    raw_origin: bytes
    id: bytes


def connections(netlink: Socket, family: int) -> list[Connection]:
    """List the connections of a family, AF_INET or AF_INET6. For NETLINK_NETFILTER sockets."""
    request = Message(_SUBSYSTEM << 8 | _GET, 0, _NFGENMSG.pack(family, 0, 0))
    return [decoded(family, each.body) for each in netlink.dump(request, "list tracked connections")]


def delete(netlink: Socket, connection: Connection) -> None:
    """Forget a connection; raises FileNotFoundError if it has gone. Its next packet is a first one."""
    body = _NFGENMSG.pack(connection.family, 0, 0)
    body += attribute(_CTA_TUPLE_ORIG | NLA_F_NESTED, connection.raw_origin) + attribute(_CTA_ID, connection.id)
    netlink.ask(Message(_SUBSYSTEM << 8 | _DELETE, 0, body), "forget a tracked connection")


def decoded(family: int, body: bytes) -> Connection:
    """Read a connection from the kernel's message; raises ValueError or OSError."""
    found = parsed(body[_NFGENMSG.size :])
    raw = found.get(_CTA_TUPLE_ORIG, b"")
    protocol = parsed(parsed(raw).get(_CTA_TUPLE_PROTO, b"")).get(_CTA_PROTO_NUM, b"\0")
    return Connection(
        family, protocol[0], _end(family, raw), _end(family, found.get(_CTA_TUPLE_REPLY, b"")), raw, found.get(_CTA_ID, b"")
    )


def _end(family: int, raw: bytes) -> End:
    parts = parsed(raw)
    address, protocol = parsed(parts.get(_CTA_TUPLE_IP, b"")), parsed(parts.get(_CTA_TUPLE_PROTO, b""))
    kinds = (_CTA_IP_V6_SRC, _CTA_IP_V6_DST) if family == socket.AF_INET6 else (_CTA_IP_V4_SRC, _CTA_IP_V4_DST)
    source, destination = (socket.inet_ntop(family, address[kind]) if kind in address else "" for kind in kinds)
    ports = [as_number(protocol.get(kind, b""), "big") for kind in (_CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT)]
    return End(source, ports[0], destination, ports[1])
