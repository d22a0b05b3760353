"""What nftables compares: types of values, and the keys that load them from a packet.

A value is text or a number: `"10.0.0.2"`, `"tcp"`, 80. Not here: sets and rules (`nftables`, `nft_rules`).
Sources: nft(8), src/datatype.c of nftables.
"""

import socket
import struct
from collections.abc import Callable
from typing import Literal, NamedTuple

from lamina.linux.netlink import NLA_F_NESTED, attribute, be32, nested
from lamina.linux.route import packed_address, packed_prefix

Value = str | int

_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}
_NFPROTOS = {"ipv4": 2, "ipv6": 10}
_ADDRESS_TYPES = {"unicast": 1, "local": 2, "broadcast": 3, "multicast": 5}
_CT_STATES = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
_CT_STATUSES = {"expected": 1, "seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32, "dying": 512}


class Type(NamedTuple):
    """A type of values: its name and number in nft, its bytes, and how text becomes bytes and back."""

    name: str
    number: int
    size: int
    encode: Callable[[Value], bytes]
    decode: Callable[[bytes], Value]
    is_quoted: bool = False
    is_host_order: bool = False
    """Whether the bytes are in the machine's order, which nft wants to know of a set's key and data."""

    def __repr__(self) -> str:
        return self.name

    def said(self, value: Value) -> str:
        """The value as nft writes it."""
        return f'"{value}"' if self.is_quoted else f"{value:#010x}" if self.name == "mark" else str(value)


def _numbers(layout: str) -> tuple[Callable[[Value], bytes], Callable[[bytes], Value]]:
    def encode(value: Value) -> bytes:
        try:
            return struct.pack(layout, value)
        except struct.error:
            raise ValueError(f"{value!r} is no number of {struct.calcsize(layout) * 8} bits") from None

    def decode(raw: bytes) -> Value:
        (number,) = struct.unpack(layout, raw)
        return int(number)

    return encode, decode


def _words(words: dict[str, int], layout: str) -> tuple[Callable[[Value], bytes], Callable[[bytes], Value]]:
    encode_number, decode_number = _numbers(layout)
    names = {number: word for word, number in words.items()}

    def encode(value: Value) -> bytes:
        if isinstance(value, str) and value not in words:
            raise ValueError(f"{value!r} is none of {', '.join(words)}")
        return encode_number(words[value] if isinstance(value, str) else value)

    def decode(raw: bytes) -> Value:
        number = int(decode_number(raw))
        return names.get(number, number)

    return encode, decode


def _addresses(family: int) -> tuple[Callable[[Value], bytes], Callable[[bytes], Value]]:
    def encode(value: Value) -> bytes:
        found, raw = packed_address(str(value))
        if found != family:
            raise ValueError(f"{value!r} is no IPv{4 if family == socket.AF_INET else 6} address")
        return raw

    return encode, lambda raw: socket.inet_ntop(family, raw)


def _encode_ifname(value: Value) -> bytes:
    raw = str(value).encode()
    if not 0 < len(raw) < 16 or not str(value).isprintable() or set(str(value)) & set(' "/'):
        raise ValueError(f"{value!r} is no name of a link")
    return raw.ljust(16, b"\0")


IPV4_ADDR = Type("ipv4_addr", 7, 4, *_addresses(socket.AF_INET))
IPV6_ADDR = Type("ipv6_addr", 8, 16, *_addresses(socket.AF_INET6))
INET_PROTO = Type("inet_proto", 12, 1, *_words(_PROTOCOLS, ">B"))
INET_SERVICE = Type("inet_service", 13, 2, *_numbers(">H"))
MARK = Type("mark", 19, 4, *_numbers("=I"), is_host_order=True)
IFNAME = Type(
    "ifname",
    41,
    16,
    _encode_ifname,
    lambda raw: raw.rstrip(b"\0").decode("utf-8", "replace"),
    is_quoted=True,
    is_host_order=True,
)
TYPES = (IPV4_ADDR, IPV6_ADDR, INET_PROTO, INET_SERVICE, MARK, IFNAME)
"""The types that sets and maps can have."""
_NF_PROTO = Type("nf_proto", 2, 1, *_words(_NFPROTOS, ">B"))
_CT_STATE = Type("ct_state", 26, 4, *_words(_CT_STATES, "=I"))
_CT_STATUS = Type("ct_status", 28, 4, *_words(_CT_STATUSES, "=I"))
_FIB_ADDRTYPE = Type("fib_addrtype", 43, 4, *_words(_ADDRESS_TYPES, "=I"))


class Expression(NamedTuple):
    """One instruction of the kernel's machine: its name and its attributes, encoded."""

    name: str
    data: bytes

    def encoded(self) -> bytes:
        """The list element that it is in a rule."""
        return nested(1, attribute(1, self.name.encode() + b"\0"), attribute(2 | NLA_F_NESTED, self.data))


def register(offset: int) -> int:
    """The number of the register at this offset: there are four of 16 bytes, or the same as sixteen of 4 (enum nft_registers)."""
    return 1 + offset // 16 if offset % 16 == 0 else 8 + offset // 4


class Key(NamedTuple):
    """What is loaded from a packet: its name in nft, its type, the instruction but for the register, and what must hold first."""

    name: str
    type: Type
    instruction: str
    settings: tuple[tuple[int, int], ...]
    needs: Literal["", "ipv4", "ipv6", "tcp", "udp"] = ""
    """The protocol that makes it mean something; a rule that uses the key tests it before, as nft's do."""
    is_bits: bool = False
    """Whether a value is a set of bits, of which one must be there, and not a whole."""

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def load(self, offset: int = 0) -> Expression:
        """The instruction that loads it into the register at this offset."""
        numbers = ((1, register(offset)), *self.settings)  # attribute 1 is the register with all of them
        return Expression(self.instruction, b"".join(be32(kind, value) for kind, value in numbers))


def _meta(name: str, kind: Type, number: int) -> Key:
    return Key(name, kind, "meta", ((2, number),))


def _payload(name: str, kind: Type, base: int, offset: int, needs: Literal["", "ipv4", "ipv6", "tcp", "udp"] = "") -> Key:
    return Key(name, kind, "payload", ((2, base), (3, offset), (4, kind.size)), needs)


META_MARK = _meta("meta mark", MARK, 3)
IIFNAME = _meta("iifname", IFNAME, 6)
OIFNAME = _meta("oifname", IFNAME, 7)
NFPROTO = _meta("meta nfproto", _NF_PROTO, 15)
L4PROTO = _meta("meta l4proto", INET_PROTO, 16)
IP_SADDR = _payload("ip saddr", IPV4_ADDR, 1, 12, "ipv4")
IP_DADDR = _payload("ip daddr", IPV4_ADDR, 1, 16, "ipv4")
IP6_SADDR = _payload("ip6 saddr", IPV6_ADDR, 1, 8, "ipv6")
IP6_DADDR = _payload("ip6 daddr", IPV6_ADDR, 1, 24, "ipv6")
TH_SPORT = _payload("th sport", INET_SERVICE, 2, 0)
TH_DPORT = _payload("th dport", INET_SERVICE, 2, 2)
TCP_SPORT = _payload("tcp sport", INET_SERVICE, 2, 0, "tcp")
TCP_DPORT = _payload("tcp dport", INET_SERVICE, 2, 2, "tcp")
UDP_SPORT = _payload("udp sport", INET_SERVICE, 2, 0, "udp")
UDP_DPORT = _payload("udp dport", INET_SERVICE, 2, 2, "udp")
CT_STATE = Key("ct state", _CT_STATE, "ct", ((2, 0),), is_bits=True)
CT_STATUS = Key("ct status", _CT_STATUS, "ct", ((2, 2),), is_bits=True)
FIB_SADDR_TYPE = Key("fib saddr type", _FIB_ADDRTYPE, "fib", ((2, 3), (3, 1)))
FIB_DADDR_TYPE = Key("fib daddr type", _FIB_ADDRTYPE, "fib", ((2, 3), (3, 2)))


def prefix_mask(value: Value, kind: Type) -> tuple[bytes, bytes] | None:
    """Network and mask of `ADDRESS/LENGTH` where addresses are of that type, or None if it is no prefix; raises ValueError."""
    if not isinstance(value, str) or "/" not in value:
        return None
    _family, raw, length = packed_prefix(value)
    if kind not in (IPV4_ADDR, IPV6_ADDR) or len(raw) != kind.size:
        raise ValueError(f"{value!r} is no {kind.name}")
    mask = ((1 << length) - 1 << (kind.size * 8 - length)).to_bytes(kind.size, "big")
    if any(byte & ~masked & 0xFF for byte, masked in zip(raw, mask, strict=True)):
        raise ValueError(f"{value!r} has bits set beyond its prefix")
    return raw, mask
