"""Write to nftables: one table's chains, sets, maps, elements and rules, as one transaction. Sources: nft(8),
include/uapi/linux/netfilter/nf_tables.h, net/netfilter/nf_tables_api.c.

A `Batch` belongs to one table of the family `inet` and cannot say anything about another. It is data, described in the words of
nft(8), until it is applied; then all of it happens at once, or nothing does. Not here: reading back (`nft_listing`), what a rule
consists of (`nft_rules`), and what rules a network needs.
"""

import errno
import socket
import struct
from typing import Literal, NamedTuple

from lamina.linux.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    Message,
    Socket,
    attribute,
    be32,
    be64,
    failure,
    nested,
    refused,
    text,
)
from lamina.linux.nft_rules import Masquerade, Rule, Verdict, checked_comment, describe, verdict_data
from lamina.linux.nft_types import IFNAME, Type, Value

_NEWTABLE, _DELTABLE, _NEWCHAIN, _DELCHAIN, _NEWRULE, _DELRULE = 0, 2, 3, 5, 6, 8
_NEWSET, _DELSET, _NEWSETELEM, _DELSETELEM, _GETGEN = 9, 11, 12, 14, 16
_BATCH_BEGIN, _BATCH_END = 16, 17
_SUBSYSTEM = 10
_NFPROTO_INET = 1
_NLMSG_ERROR = 2
_ENTRIES_BYTES = 0x8000  # of elements in one message, whose attribute of them may have 64 KiB

HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_SET_MAP = 0x8
_DATA_VERDICT = 0xFFFFFF00
NAME_BYTES = 255


class Hook(NamedTuple):
    """Where in a packet's way a base chain is called (nft(8), "CHAINS")."""

    type: Literal["filter", "nat", "route"]
    hook: str
    """One of HOOKS."""
    priority: int
    """Lower is earlier: destinations are changed at -100, packets filtered at 0, sources changed at 100."""
    policy: Literal["accept", "drop"] = "accept"


class Chain(NamedTuple):
    """A chain of rules: a base chain if it has a hook, else one to jump to."""

    name: str
    hook: Hook | None = None


class Set(NamedTuple):
    """A set of keys, or with `data` or `has_verdicts` a map to values or to verdicts; several types make a concatenation."""

    name: str
    key: tuple[Type, ...]
    data: tuple[Type, ...] = ()
    has_verdicts: bool = False


class Element(NamedTuple):
    """An element of a set or map; its values have the set's types in their order."""

    key: tuple[Value, ...]
    data: tuple[Value, ...] | Verdict | None = None
    comment: str = ""


class _Operation(NamedTuple):
    text: str
    message: Message
    is_told: bool = True


class Batch:
    """Changes to one table, in order. What a method's name calls add may be there already, except where it says otherwise."""

    def __init__(self, table: str) -> None:
        self.table = table
        self._operations: list[_Operation] = []

    def describe(self) -> str:
        """The batch as lines that `nft -f` takes and does the same with."""
        return "\n".join(each.text for each in self._operations if each.is_told)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The batch as the kernel gets it, without its beginning and end."""
        return tuple(each.message for each in self._operations)

    def __len__(self) -> int:
        return sum(each.is_told for each in self._operations)

    def add_table(self) -> None:
        """Make the table."""
        self._add(f"add table inet {self.table}", _NEWTABLE, NLM_F_CREATE, _name(1, self.table))

    def delete_table(self) -> None:
        """Delete the table and all that is in it; ENOENT if there is none (after `add_table` there is one)."""
        self._add(f"delete table inet {self.table}", _DELTABLE, 0, _name(1, self.table))

    def add_chain(self, chain: Chain) -> None:
        """Make a chain. One that is there keeps its rules and gets the policy; with another hook it is EEXIST or EOPNOTSUPP."""
        body = _name(1, self.table) + _name(3, chain.name)
        words = f"add chain inet {self.table} {chain.name}"
        if chain.hook is not None:
            hook = chain.hook
            if hook.hook not in HOOKS or hook.policy not in ("accept", "drop"):
                raise ValueError(f"{hook.hook!r} is no hook with policy {hook.policy!r}: {', '.join(HOOKS)}; accept, drop")
            body += nested(4, be32(1, HOOKS[hook.hook]), be32(2, hook.priority))
            body += be32(5, hook.policy == "accept") + text(7, hook.type)
            words += f" {{ type {hook.type} hook {hook.hook} priority {hook.priority}; policy {hook.policy}; }}"
        self._add(words, _NEWCHAIN, NLM_F_CREATE, body)

    def flush_chain(self, chain: str) -> None:
        """Delete all rules of a chain, so that adding them makes them what they are to be."""
        self._add(f"flush chain inet {self.table} {chain}", _DELRULE, 0, _name(1, self.table) + _name(2, chain))

    def delete_chain(self, chain: str) -> None:
        """Delete a chain and its rules; EBUSY while something jumps to it, ENOENT if there is none."""
        self._add(f"delete chain inet {self.table} {chain}", _DELCHAIN, 0, _name(1, self.table) + _name(3, chain))

    def add_rule(self, rule: Rule) -> None:
        """Add a rule at the end of its chain; done twice, it is there twice."""
        words = f"add rule inet {self.table} {rule.chain} {rule.describe()}"
        self._add(words, _NEWRULE, NLM_F_CREATE | NLM_F_APPEND, self._rule(rule))

    def insert_rule(self, rule: Rule) -> None:
        """Add a rule at the start of its chain; done twice, it is there twice."""
        words = f"insert rule inet {self.table} {rule.chain} {rule.describe()}"
        self._add(words, _NEWRULE, NLM_F_CREATE, self._rule(rule))

    def delete_rule(self, chain: str, handle: int) -> None:
        """Delete a rule by the handle that `nft_listing` gave; ENOENT if there is none."""
        body = _name(1, self.table) + _name(2, chain) + be64(3, handle)
        self._add(f"delete rule inet {self.table} {chain} handle {handle}", _DELRULE, 0, body)

    def add_set(self, made: Set) -> None:
        """Make a set or map. One that is there keeps its elements; of other types it is EEXIST."""
        if not made.key or (made.data and made.has_verdicts):
            raise ValueError(f"set {made.name!r} has no key, or both data and verdicts")
        flags = _SET_MAP if made.data or made.has_verdicts else 0
        body = _name(1, self.table) + _name(2, made.name) + be32(3, flags)
        body += be32(4, type_number(made.key)) + be32(5, _size(made.key))
        kind, words = "set", _type_names(made.key)
        if made.data:
            body += be32(6, type_number(made.data)) + be32(7, _size(made.data))
            kind, words = "map", f"{words} : {_type_names(made.data)}"
        elif made.has_verdicts:
            body += be32(6, _DATA_VERDICT)
            kind, words = "map", f"{words} : verdict"
        body += be32(10, len(self._operations) + 1)  # its number in this transaction, which the kernel wants and nobody uses here
        orders = b"".join(bytes((kind, 4)) + _byte_order(types) for kind, types in ((0, made.key), (1, made.data)) if types)
        body += attribute(13, orders)
        self._add(f"add {kind} inet {self.table} {made.name} {{ type {words}; }}", _NEWSET, NLM_F_CREATE, body)

    def flush_set(self, name: str) -> None:
        """Delete all elements of a set or map."""
        self._add(f"flush set inet {self.table} {name}", _DELSETELEM, 0, _name(1, self.table) + _name(2, name))

    def delete_set(self, name: str, *, is_map: bool = False) -> None:
        """Delete a set or map; EBUSY while a rule uses it, ENOENT if there is none."""
        kind = "map" if is_map else "set"
        self._add(f"delete {kind} inet {self.table} {name}", _DELSET, 0, _name(1, self.table) + _name(2, name))

    def add_elements(self, to: Set, *elements: Element) -> None:
        """Add elements. One that is there may be added again; for a map with other data it is EBUSY or EEXIST."""
        for each in elements:
            if (each.data is not None) != bool(to.data or to.has_verdicts) or isinstance(each.data, Verdict) != to.has_verdicts:
                raise ValueError(f"element {describe_element(to, each)} has not the data of {to.name!r}")
        self._elements("add", _NEWSETELEM, NLM_F_CREATE, to, elements)

    def delete_elements(self, of: Set, *elements: Element) -> None:
        """Delete elements by their keys; ENOENT if one isn't there. Data of a map's element is looked at, too, if it is given."""
        self._elements("delete", _DELSETELEM, 0, of, elements)

    def apply(self, netlink: Socket) -> None:
        """Do all of it; or raise an OSError that names the first thing refused, and do nothing. For NETLINK_NETFILTER sockets."""
        self._transact(netlink, is_real=True)

    def check(self, netlink: Socket) -> None:
        """Let the kernel check all of it and do nothing; raises what `apply` would."""
        self._transact(netlink, is_real=False)

    def _transact(self, netlink: Socket, *, is_real: bool) -> None:
        if not self._operations:
            return
        frame = struct.pack(">BBH", socket.AF_UNSPEC, 0, _SUBSYSTEM)  # struct nfgenmsg; its number is the subsystem here
        messages = [Message(_BATCH_BEGIN, 0, frame), *self.messages]
        last = len(self._operations)
        messages[last] = messages[last]._replace(flags=messages[last].flags | NLM_F_ACK)
        if is_real:  # a batch without its end is worked through and taken back (nfnetlink_rcv_batch)
            messages.append(Message(_BATCH_END, 0, frame))
        what = f"change nftables table {self.table!r}"
        is_acknowledged = False
        for answer in netlink.transact(messages, what):
            if answer.message.kind != _NLMSG_ERROR:
                continue
            try:
                code, words = failure(answer.message)
            except ValueError as error:
                raise OSError(errno.EBADMSG, f"{what}: {error}") from None
            if code:
                refused_text = self._operations[answer.number - 1].text if 0 < answer.number <= last else what
                raise refused(refused_text if len(refused_text) < 200 else f"{refused_text[:200]} …", code, words)
            is_acknowledged = is_acknowledged or answer.number == last
        if not is_acknowledged:
            raise refused(what, errno.ENOBUFS)

    def _rule(self, rule: Rule) -> bytes:
        body = _name(1, self.table) + _name(2, rule.chain)
        body += nested(4, *(each.encoded() for each in rule.expressions()))
        return body + (attribute(7, comment_data(rule.comment)) if rule.comment else b"")

    def _elements(self, verb: str, kind: int, flags: int, to: Set, elements: tuple[Element, ...]) -> None:
        """Add a message for each 32 KiB of elements; the words are one line for all."""
        if not elements:
            return
        listed = ", ".join(describe_element(to, each) for each in elements)
        words = f"{verb} element inet {self.table} {to.name} {{ {listed} }}"
        head, entries = _name(1, self.table) + _name(2, to.name), b""
        is_told = True
        for position, each in enumerate(elements, 1):
            entries += nested(position & 0x3FFF or 1, _encoded_element(to, each))
            if len(entries) > _ENTRIES_BYTES or position == len(elements):
                self._add(words, kind, flags, head + nested(3, entries), is_told=is_told)
                entries, is_told = b"", False

    def _add(self, words: str, kind: int, flags: int, body: bytes, *, is_told: bool = True) -> None:
        self._operations.append(_Operation(words, table_message(kind, flags, body), is_told))


def table_message(kind: int, flags: int, body: bytes) -> Message:
    """A message about a table of the family inet."""
    return Message(_SUBSYSTEM << 8 | kind, flags, struct.pack(">BBH", _NFPROTO_INET, 0, 0) + body)


def generation(netlink: Socket) -> int:
    """The number of the rule set, which is another one after each change of anything in it."""
    (found,) = netlink.ask(table_message(_GETGEN, 0, b""), "get the nftables generation")
    return int.from_bytes(found.body[8:12], "big")


def is_supported(*, namespace: str | None = None) -> bool:
    """Whether this kernel has nftables with all that is used here: family inet, NAT, maps. Asks by a batch that changes nothing.

    Raises OSError for other reasons, such as EPERM. Takes some 10 ms, as hooks come and go: a question for after a failure.
    """
    wanted = Batch("lamina-check")
    wanted.add_table()
    wanted.add_chain(Chain("nat", Hook("nat", "postrouting", 100)))
    wanted.add_set(Set("names", (IFNAME,)))
    wanted.add_rule(Rule("nat", (Masquerade(),)))
    try:
        with Socket(NETLINK_NETFILTER, namespace=namespace) as netlink:
            wanted.check(netlink)
    except OSError as error:
        # In turn: no family or chain type, no such expression or chain type, no nfnetlink subsystem, no nfnetlink, no netlink.
        if error.errno in (errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            return False
        raise
    return True


def type_number(types: tuple[Type, ...]) -> int:
    """The number of a concatenation: six bits for each type."""
    number = 0
    for each in types:
        number = number << 6 | each.number
    return number


def _size(types: tuple[Type, ...]) -> int:
    if len(types) == 1:
        return types[0].size
    return sum(each.size + -each.size % 4 for each in types)


def _type_names(types: tuple[Type, ...]) -> str:
    return " . ".join(each.name for each in types)


def _byte_order(types: tuple[Type, ...]) -> bytes:
    """NFTNL_UDATA_SET_KEYBYTEORDER and its like, which nft reads: 1 for the machine's order, 2 for the network's, 0 for neither."""
    return struct.pack("=I", 0 if len(types) > 1 else 1 if types[0].is_host_order else 2)


def packed_values(types: tuple[Type, ...], values: tuple[Value, ...]) -> bytes:
    """Encode values, each padded to four bytes if they are several; raises ValueError."""
    if len(types) != len(values):
        raise ValueError(f"{' . '.join(map(str, values))!r} isn't of the types {_type_names(types)}")
    encoded = [kind.encode(value) for kind, value in zip(types, values, strict=True)]
    return encoded[0] if len(encoded) == 1 else b"".join(each + bytes(-len(each) % 4) for each in encoded)


def comment_data(comment: str) -> bytes:
    """A comment as nft keeps it in user data: type 0, length, text with its NUL."""
    raw = checked_comment(comment).encode() + b"\0"
    return bytes((0, len(raw))) + raw


def describe_element(of: Set, element: Element) -> str:
    """Say an element in nft's words."""
    words = _said(of.key, element.key)
    if element.comment:
        words += f' comment "{checked_comment(element.comment)}"'
    if isinstance(element.data, Verdict):
        return f"{words} : {describe(element.data)}"
    return words if element.data is None else f"{words} : {_said(of.data, element.data)}"


def _said(types: tuple[Type, ...], values: tuple[Value, ...]) -> str:
    packed_values(types, values)  # raises ValueError for values that nft wouldn't take
    return " . ".join(kind.said(value) for kind, value in zip(types, values, strict=True))


def _encoded_element(of: Set, element: Element) -> bytes:
    body = nested(1, attribute(1, packed_values(of.key, element.key)))
    if isinstance(element.data, Verdict):
        body += nested(2, verdict_data(element.data))
    elif element.data is not None:
        body += nested(2, attribute(1, packed_values(of.data, element.data)))
    return body + (attribute(6, comment_data(element.comment)) if element.comment else b"")


def _name(kind: int, name: str) -> bytes:
    """Encode a name of a table, chain or set; raises ValueError for what nft(8) can't write. (Nor can it write its keywords.)"""
    is_word = name.isascii() and name[:1].isalpha() and all(char.isalnum() or char in "/\\_.-" for char in name)
    if not is_word or len(name) > NAME_BYTES:
        raise ValueError(f"{name!r} is no name in nftables: a letter, then letters, digits, `_`, `-`, `.`, at most {NAME_BYTES}")
    return text(kind, name)
