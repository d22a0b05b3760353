"""Read nftables back: what a table holds, so that it can be compared with what it ought to hold.

Reads tables that are like ours; what nft or another program made of other types, sets and statements is kept as bytes or passed
over, and is no error. Source: net/netfilter/nf_tables_api.c. Not here: changes (`nftables`).
"""

import errno
from typing import NamedTuple

from lamina.linux.netlink import Message, Socket, as_number, as_text, attributes, parsed, text
from lamina.linux.nft_rules import Rule, Verdict, decoded_verdict
from lamina.linux.nft_types import TYPES, Expression, Type, Value
from lamina.linux.nftables import HOOKS, Chain, Element, Hook, Set, generation, table_message

_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM = 1, 4, 7, 10, 13
_NFGENMSG_BYTES = 4
_TRIES = 10
_HOOK_NAMES = {number: name for name, number in HOOKS.items()}
_BY_NUMBER = {each.number: each for each in TYPES}


class FoundRule(NamedTuple):
    """A rule in the kernel."""

    chain: str
    handle: int
    comment: str
    expressions: tuple[Expression, ...]

    def is_from(self, rule: Rule) -> bool:
        """Whether this is that rule: the same chain, comment and instructions, whatever its counters have counted."""
        ours = rule.expressions()
        if (self.chain, self.comment, len(self.expressions)) != (rule.chain, rule.comment, len(ours)):
            return False
        return all(map(_is_same, self.expressions, ours))

    @property
    def counted(self) -> tuple[int, int] | None:
        """Packets and bytes of its first counter, or None if it has none."""
        for each in self.expressions:
            if each.name == "counter":
                found = parsed(each.data)
                return as_number(found.get(2, b""), "big"), as_number(found.get(1, b""), "big")
        return None


class FoundSet(NamedTuple):
    """A set or map in the kernel, of types that are known here, with its elements."""

    set: Set
    elements: tuple[Element, ...]


class Contents(NamedTuple):
    """What a table held at one moment."""

    chains: tuple[Chain, ...]
    rules: tuple[FoundRule, ...]
    """In the order in which a chain's rules are gone through."""
    sets: tuple[FoundSet, ...]


def tables(netlink: Socket) -> list[str]:
    """The names of all tables of the family inet."""
    found = netlink.dump(table_message(_GETTABLE, 0, b""), "list nftables tables")
    return [as_text(parsed(each.body[_NFGENMSG_BYTES:]).get(1, b"")) for each in found]


def contents(netlink: Socket, table: str) -> Contents | None:
    """Read all that a table holds, or None if there is no such table. Raises OSError EAGAIN if it changes all the time."""
    what = f"list nftables table {table!r}"
    for _ in range(_TRIES):
        before = generation(netlink)
        try:
            if table not in tables(netlink):
                return None
            found = _read(netlink, table, what)
        except FileNotFoundError:  # deleted in the meantime
            continue
        except ValueError as error:
            raise OSError(errno.EBADMSG, f"{what}: {error}") from None
        if generation(netlink) == before:
            return found
    raise OSError(errno.EAGAIN, f"{what}: it changed each time that it was read")


def _read(netlink: Socket, table: str, what: str) -> Contents:
    named = text(1, table)
    chains = [_chain(each) for each in _bodies(netlink.dump(table_message(_GETCHAIN, 0, named), what), table)]
    rules = [_rule(each) for each in _bodies(netlink.dump(table_message(_GETRULE, 0, named), what), table)]
    sets: list[FoundSet] = []
    for each in _bodies(netlink.dump(table_message(_GETSET, 0, named), what), table):
        known = _set(each)
        if known is not None:
            listed = netlink.dump(table_message(_GETSETELEM, 0, named + text(2, known.name)), f"list nftables set {known.name!r}")
            sets.append(FoundSet(known, tuple(element for message in listed for element in _elements(known, message))))
    return Contents(tuple(chains), tuple(rules), tuple(sets))


def _bodies(messages: list[Message], table: str) -> list[dict[int, bytes]]:
    found = [parsed(each.body[_NFGENMSG_BYTES:]) for each in messages]
    return [each for each in found if as_text(each.get(1, b"")) == table]


def _chain(found: dict[int, bytes]) -> Chain:
    name = as_text(found.get(3, b""))
    if 4 not in found:
        return Chain(name)
    hook = parsed(found[4])
    number = as_number(hook.get(1, b""), "big")
    kind = as_text(found.get(7, b""))
    return Chain(
        name,
        Hook(
            type="nat" if kind == "nat" else "route" if kind == "route" else "filter",
            hook=_HOOK_NAMES.get(number, str(number)),
            priority=int.from_bytes(hook.get(2, b""), "big", signed=True),
            policy="accept" if as_number(found.get(5, b""), "big") else "drop",
        ),
    )


def _rule(found: dict[int, bytes]) -> FoundRule:
    expressions = []
    for _kind, each in attributes(found.get(4, b"")):
        fields = parsed(each)
        expressions.append(Expression(as_text(fields.get(1, b"")), fields.get(2, b"")))
    return FoundRule(
        as_text(found.get(2, b"")), as_number(found.get(3, b""), "big"), decoded_comment(found.get(7, b"")), tuple(expressions)
    )


def _set(found: dict[int, bytes]) -> Set | None:
    flags, name = as_number(found.get(3, b""), "big"), as_text(found.get(2, b""))
    if flags & ~0x8:  # constant, anonymous, interval, timeout …: none of ours
        return None
    key = _types(as_number(found.get(4, b""), "big"))
    number = as_number(found.get(6, b""), "big")
    if not flags & 0x8:
        return Set(name, key) if key else None
    if number == 0xFFFFFF00:
        return Set(name, key, has_verdicts=True) if key else None
    data = _types(number)
    return Set(name, key, data) if key and data else None


def _types(number: int) -> tuple[Type, ...]:
    types: list[Type] = []
    while number:
        kind = _BY_NUMBER.get(number & 0x3F)
        if kind is None:
            return ()
        types.insert(0, kind)
        number >>= 6
    return tuple(types)


def _elements(of: Set, message: Message) -> list[Element]:
    elements = []
    for _kind, each in attributes(parsed(message.body[_NFGENMSG_BYTES:]).get(3, b"")):
        found = parsed(each)
        key = _values(of.key, parsed(found.get(1, b"")).get(1, b""))
        data: tuple[Value, ...] | Verdict | None = None
        if of.has_verdicts:
            data = decoded_verdict(parsed(found.get(2, b"")).get(2, b""))
        elif of.data:
            data = _values(of.data, parsed(found.get(2, b"")).get(1, b""))
        elements.append(Element(key, data, decoded_comment(found.get(6, b""))))
    return elements


def _values(types: tuple[Type, ...], raw: bytes) -> tuple[Value, ...]:
    values, offset = [], 0
    for each in types:
        part = raw[offset : offset + each.size]
        if len(part) != each.size:
            raise ValueError(f"{len(raw)} bytes for {' . '.join(kind.name for kind in types)}")
        values.append(each.decode(part))
        offset += each.size + -each.size % 4
    return tuple(values)


def decoded_comment(data: bytes) -> str:
    """Find the comment in user data, which may have other things as well; empty if there is none."""
    offset = 0
    while offset + 2 <= len(data):
        kind, length = data[offset], data[offset + 1]
        if kind == 0:
            return as_text(data[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""


def _is_same(found: Expression, ours: Expression) -> bool:
    if found.name != ours.name:
        return False
    if ours.name == "counter":
        return True
    shown = parsed(found.data)  # the kernel shows more than was said: defaults, and a range's end
    return all(
        _plain(ours.name, kind, shown.get(kind, b"")) == _plain(ours.name, kind, value) for kind, value in attributes(ours.data)
    )


def _plain(name: str, kind: int, value: bytes) -> object:
    """The value without NLA_F_NESTED, which the kernel leaves out: only a verdict is nested twice."""
    return tuple(attributes(value)) if name == "immediate" and kind == 2 else value
