"""A rule of nftables as data: statements with the meaning and the words of nft(8), and the kernel's instructions for them.

A statement is one thing that nft writes (`ip saddr 10.0.0.0/8`, `accept`) and becomes one or more instructions of the kernel's
machine (net/netfilter/nft_*.c), such as nft makes of it. Not here: chains, sets, and how rules get into the kernel (`nftables`).
"""

import sys
from collections.abc import Iterable
from typing import Literal, NamedTuple

from lamina.linux.netlink import as_number, attribute, be32, be64, nested, parsed, text
from lamina.linux.nft_types import (
    INET_SERVICE,
    IPV4_ADDR,
    IPV6_ADDR,
    L4PROTO,
    NFPROTO,
    Expression,
    Key,
    Value,
    prefix_mask,
    register,
)

_CMP_EQ, _CMP_NEQ = 0, 1
_NFTA_DATA_VALUE, _NFTA_DATA_VERDICT = 1, 2
_NFT_LOOKUP_F_INV = 1
_NF_NAT_RANGE_PROTO_RANDOM_FULLY = 0x10
VERDICTS = {"drop": 0, "accept": 1, "continue": -1, "jump": -3, "goto": -4, "return": -5}
COMMENT_BYTES = 127
"""The longest comment that nft reads (NFTNL_UDATA_COMMENT_MAXLEN, with its NUL)."""


class Match(NamedTuple):
    """Go on if the key is the value: `iifname "br0"`, `ip saddr 10.0.0.0/8`, `tcp dport 80`, `fib daddr type local`.

    A link's name may end with `*`. Of bits (`ct state`) the values are several with commas, `established,related`: one is enough.
    """

    key: Key
    value: Value
    is_not: bool = False


class Lookup(NamedTuple):
    """Go on if the keys, one after the other, are in the set: `ip daddr . tcp dport @name`."""

    keys: tuple[Key, ...]
    set: str
    is_not: bool = False


class Counter(NamedTuple):
    """Count the packets that come here, and their bytes."""


class Verdict(NamedTuple):
    """What becomes of the packet: one of VERDICTS, `jump` and `goto` with a chain."""

    word: str
    chain: str | None = None


class VerdictMap(NamedTuple):
    """Do what the map says for these keys, go on if it says nothing: `iifname vmap @name`."""

    keys: tuple[Key, ...]
    map: str


class Nat(NamedTuple):
    """Change the destination or the source of a connection: `dnat ip to 10.0.0.2:80`, `snat ip6 to fd00::1`."""

    way: Literal["dnat", "snat"]
    address: str
    port: int | None = None


class NatMap(NamedTuple):
    """The same with an address, and for `has_port` a port, from a map; go on if it says nothing.

    In nft: `dnat ip addr . port to meta l4proto . th dport map @name`.
    """

    way: Literal["dnat", "snat"]
    family: Literal["ip", "ip6"]
    keys: tuple[Key, ...]
    map: str
    has_port: bool = False


class Masquerade(NamedTuple):
    """Give a connection the address of the link it leaves by, and with `is_random` a port that nobody can guess."""

    is_random: bool = False


Statement = Match | Lookup | Counter | Verdict | VerdictMap | Nat | NatMap | Masquerade


class Rule(NamedTuple):
    """A rule: where it is, what it does, and a comment that it can be known by."""

    chain: str
    statements: tuple[Statement, ...]
    comment: str = ""

    def describe(self) -> str:
        """The rule in nft's words, without its chain."""
        words = [describe(each) for each in self.statements]
        return " ".join(words + ([f'comment "{checked_comment(self.comment)}"'] if self.comment else []))

    def expressions(self) -> list[Expression]:
        """The kernel's instructions for it; raises ValueError for a value that doesn't fit its key."""
        compiled: list[Expression] = []
        known: set[str] = set()
        for statement in self.statements:
            if isinstance(statement, Match | Lookup | VerdictMap | NatMap):
                keys = (statement.key,) if isinstance(statement, Match) else statement.keys
                compiled += _dependencies(keys, known)
            if isinstance(statement, Match) and statement.key in (NFPROTO, L4PROTO) and not statement.is_not:
                known.add(str(statement.value))
            compiled += _compiled(statement)
        return compiled


def _dependencies(keys: Iterable[Key], known: set[str]) -> list[Expression]:
    compiled: list[Expression] = []
    for key in keys:
        if key.needs and key.needs not in known:
            known.add(key.needs)
            compiled += _compiled(Match(NFPROTO if key.needs in ("ipv4", "ipv6") else L4PROTO, key.needs))
    return compiled


def _compiled(statement: Statement) -> list[Expression]:
    if isinstance(statement, Match):
        return _compared(statement)
    if isinstance(statement, Lookup):
        flags = be32(5, _NFT_LOOKUP_F_INV) if statement.is_not else b""
        return [*_loaded(statement.keys), Expression("lookup", text(1, statement.set) + be32(2, register(0)) + flags)]
    if isinstance(statement, Counter):
        return [Expression("counter", be64(1, 0) + be64(2, 0))]
    if isinstance(statement, Verdict):
        return [Expression("immediate", be32(1, 0) + nested(2, verdict_data(statement)))]
    if isinstance(statement, VerdictMap):
        return [*_loaded(statement.keys), Expression("lookup", text(1, statement.map) + be32(2, register(0)) + be32(3, 0))]
    if isinstance(statement, Masquerade):
        return [Expression("masq", be32(1, _NF_NAT_RANGE_PROTO_RANDOM_FULLY) if statement.is_random else b"")]
    if isinstance(statement, Nat):
        kind = IPV6_ADDR if ":" in statement.address else IPV4_ADDR
        address = _immediate(0, kind.encode(statement.address))
        if statement.port is None:
            return [address, _nat(statement.way, kind is IPV6_ADDR, None)]
        port = _immediate(16, INET_SERVICE.encode(statement.port))
        return [address, port, _nat(statement.way, kind is IPV6_ADDR, 16)]
    is_ipv6 = statement.family == "ip6"
    port_offset = None if not statement.has_port else 16 if is_ipv6 else 4
    lookup = Expression("lookup", text(1, statement.map) + be32(2, register(0)) + be32(3, register(0)))
    return [*_loaded(statement.keys), lookup, _nat(statement.way, is_ipv6, port_offset)]


def _compared(match: Match) -> list[Expression]:
    key, loaded = match.key, [match.key.load()]
    if key.is_bits:
        mask = 0
        for word in str(match.value).split(","):
            mask |= as_number(key.type.encode(word.strip()))
        zero = bytes(key.type.size)
        operator = _CMP_EQ if match.is_not else _CMP_NEQ
        return [
            *loaded,
            _masked(mask.to_bytes(key.type.size, sys.byteorder)),
            _compare(operator, zero),
        ]
    operator = _CMP_NEQ if match.is_not else _CMP_EQ
    network = prefix_mask(match.value, key.type)
    if network is not None:
        raw, network_mask = network
        return [*loaded, _masked(network_mask), _compare(operator, raw)]
    if key.type.is_quoted and str(match.value).endswith("*"):
        return [*loaded, _compare(operator, key.type.encode(str(match.value)[:-1]).rstrip(b"\0"))]
    return [*loaded, _compare(operator, key.type.encode(match.value))]


def _loaded(keys: tuple[Key, ...]) -> list[Expression]:
    if not keys or any(key.is_bits for key in keys):
        raise ValueError("a set is looked into by one key at least, and none that is a set of bits")
    compiled: list[Expression] = []
    offset = 0
    for key in keys:
        compiled.append(key.load(offset))
        offset += key.type.size + -key.type.size % 4
    return compiled


def _compare(operator: int, value: bytes) -> Expression:
    return Expression("cmp", be32(1, register(0)) + be32(2, operator) + nested(3, attribute(_NFTA_DATA_VALUE, value)))


def _masked(mask: bytes) -> Expression:
    body = be32(1, register(0)) + be32(2, register(0)) + be32(3, len(mask))
    flipped = nested(5, attribute(_NFTA_DATA_VALUE, bytes(len(mask))))  # no bit
    return Expression("bitwise", body + nested(4, attribute(_NFTA_DATA_VALUE, mask)) + flipped)


def _immediate(offset: int, value: bytes) -> Expression:
    return Expression("immediate", be32(1, register(offset)) + nested(2, attribute(_NFTA_DATA_VALUE, value)))


def _nat(way: str, is_ipv6: bool, port_offset: int | None) -> Expression:
    body = be32(1, {"snat": 0, "dnat": 1}[way]) + be32(2, 10 if is_ipv6 else 2) + be32(3, register(0))
    if port_offset is not None:
        body += be32(5, register(port_offset))
    return Expression("nat", body)  # the flags follow from what is there (nft_nat_init)


def verdict_data(verdict: Verdict) -> bytes:
    """Encode a verdict as the data of an instruction or of an element; raises ValueError."""
    if verdict.word not in VERDICTS:
        raise ValueError(f"{verdict.word!r} is no verdict: {', '.join(VERDICTS)}")
    if (verdict.word in ("jump", "goto")) is not bool(verdict.chain):
        raise ValueError(f"{describe(verdict)}: a chain belongs to jump and goto, and to them alone")
    chain = text(2, verdict.chain) if verdict.chain else b""
    return nested(_NFTA_DATA_VERDICT, be32(1, VERDICTS[verdict.word]) + chain)


def decoded_verdict(data: bytes) -> Verdict:
    """Decode the value of NFTA_DATA_VERDICT; raises ValueError for one that isn't in VERDICTS."""
    found = parsed(data)
    code = int.from_bytes(found.get(1, b""), "big", signed=True)
    for word, number in VERDICTS.items():
        if number == code:
            return Verdict(word, found[2].rstrip(b"\0").decode("utf-8", "replace") if 2 in found else None)
    raise ValueError(f"verdict {code}")


def checked_comment(comment: str) -> str:
    """Return the comment; raises ValueError for one that nft couldn't write or read."""
    if len(comment.encode()) > COMMENT_BYTES or not comment.isprintable() or '"' in comment:
        raise ValueError(f"comment {comment!r}: at most {COMMENT_BYTES} bytes, no quotation mark, nothing unprintable")
    return comment


def describe(statement: Statement) -> str:
    """Say a statement in nft's words."""
    if isinstance(statement, Match) and statement.key.is_bits:
        return f"{statement.key.name} {'! ' if statement.is_not else ''}{statement.value}"  # `!= dnat` is: another value than 0x20
    if isinstance(statement, Match):
        value = statement.key.type.said(statement.value)
        return f"{statement.key.name} {'!= ' if statement.is_not else ''}{value}"
    if isinstance(statement, Lookup):
        return f"{_concatenated(statement.keys)} {'!= ' if statement.is_not else ''}@{statement.set}"
    if isinstance(statement, Verdict):
        return f"{statement.word} {statement.chain}" if statement.chain else statement.word
    if isinstance(statement, VerdictMap):
        return f"{_concatenated(statement.keys)} vmap @{statement.map}"
    if isinstance(statement, Nat):
        is_ipv6 = ":" in statement.address
        address = f"[{statement.address}]" if is_ipv6 and statement.port is not None else statement.address
        port = "" if statement.port is None else f":{statement.port}"
        return f"{statement.way} {'ip6' if is_ipv6 else 'ip'} to {address}{port}"
    if isinstance(statement, NatMap):
        port = " addr . port" if statement.has_port else ""
        return f"{statement.way} {statement.family}{port} to {_concatenated(statement.keys)} map @{statement.map}"
    if isinstance(statement, Masquerade):
        return "masquerade fully-random" if statement.is_random else "masquerade"
    return "counter"


def _concatenated(keys: tuple[Key, ...]) -> str:
    return " . ".join(key.name for key in keys)
