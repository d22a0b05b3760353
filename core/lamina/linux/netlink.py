"""Netlink: sockets to the kernel's networking, messages and attributes. What the messages say is in `link`, `route`, `nftables`.

A request is a header, a structure that depends on its kind, and attributes: length, type, value, padded to four bytes, some of
them nested. The kernel answers with an acknowledgement or an error, and to a dump with messages up to NLMSG_DONE. With extended
acknowledgements it says in words what it didn't like; the words are in the `OSError`. Sources: netlink(7),
Documentation/userspace-api/netlink/intro.rst, include/uapi/linux/netlink.h.

Not here: retries of requests that change something, caches, notifications.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple, Self, TypeVar

from lamina.linux.netns import within

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSG_NOOP, _NLMSG_ERROR, _NLMSG_DONE = 1, 2, 3
_NLMSGERR_ATTR_MSG, _NLMSGERR_ATTR_MISS_TYPE = 1, 5

_SOL_NETLINK = 270
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 10, 11, 12
_SO_SNDBUFFORCE = 32

NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_RECEIVED_BYTES = 1 << 17  # a dump's part is 32 KiB at most (netlink_dump), a single answer rarely more than a page
_DUMP_TRIES = 20

_Given = TypeVar("_Given")
_Found = TypeVar("_Found")


class Message(NamedTuple):
    """One message, either way; `body` is what follows the header."""

    kind: int
    flags: int
    body: bytes


class Answer(NamedTuple):
    """A message from the kernel and the number of the request that it answers."""

    number: int
    message: Message


# Attributes


def attribute(kind: int, value: bytes) -> bytes:
    """Encode an attribute; raises ValueError for a value that is too long for its 16 bits of length."""
    length = 4 + len(value)
    if length > 0xFFFF:
        raise ValueError(f"netlink attribute {kind & _NLA_TYPE_MASK} of {len(value)} bytes: 65531 are the most")
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Encode an attribute that consists of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """Encode a string, which ends with a NUL; raises ValueError if there is one inside."""
    if "\0" in value:
        raise ValueError(f"{value!r}: a name has no NUL")
    return attribute(kind, value.encode("utf-8", "surrogateescape") + b"\0")


def u8(kind: int, value: int) -> bytes:
    """Encode a byte."""
    return attribute(kind, _packed("=B", value))


def u16(kind: int, value: int) -> bytes:
    """Encode 16 bits in the machine's order."""
    return attribute(kind, _packed("=H", value))


def u32(kind: int, value: int) -> bytes:
    """Encode 32 bits in the machine's order, as rtnetlink has them."""
    return attribute(kind, _packed("=I", value))


def be32(kind: int, value: int) -> bytes:
    """Encode 32 bits in network order, as nftables has them; a negative number in two's complement."""
    return attribute(kind, _packed(">I", value & 0xFFFFFFFF))


def be64(kind: int, value: int) -> bytes:
    """Encode 64 bits in network order."""
    return attribute(kind, _packed(">Q", value))


def _packed(layout: str, value: int) -> bytes:
    try:
        return struct.pack(layout, value)
    except struct.error:
        raise ValueError(f"{value} doesn't fit into {struct.calcsize(layout)} bytes") from None


def structure(layout: struct.Struct, body: bytes) -> tuple[int, ...]:
    """Decode the structure that a body begins with; raises ValueError if it is cut short."""
    if len(body) < layout.size:
        raise ValueError(f"netlink message of {len(body)} bytes, where {layout.size} at least belong")
    return layout.unpack_from(body)


def attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the attributes in turn, types without their flags; raises ValueError if they aren't well-formed."""
    raw = memoryview(body)
    offset, end = 0, len(raw)
    while end - offset >= 4:
        length, kind = _ATTRIBUTE.unpack_from(raw, offset)
        if not 4 <= length <= end - offset:
            raise ValueError(f"netlink attribute {kind & _NLA_TYPE_MASK} of {length} bytes where {end - offset} are left")
        yield kind & _NLA_TYPE_MASK, bytes(raw[offset + 4 : offset + length])
        offset += length + -length % 4
    if end - offset > 0:
        raise ValueError(f"{end - offset} bytes after the last netlink attribute")


def parsed(body: bytes) -> dict[int, bytes]:
    """Give the attributes by type; of those that come twice, the last."""
    return dict(attributes(body))


def as_text(value: bytes) -> str:
    """Decode a string."""
    return value.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def as_number(value: bytes, order: Literal["little", "big"] = sys.byteorder) -> int:
    """Decode an unsigned number as long as its bytes: in the machine's order, or with "big" in the network's."""
    return int.from_bytes(value, order)


# Messages


def encoded(message: Message, number: int) -> bytes:
    """Encode a message with its sequence number."""
    body = message.body + bytes(-len(message.body) % 4)
    return _HEADER.pack(16 + len(message.body), message.kind, message.flags, number, 0) + body


def answers(datagram: bytes | memoryview) -> Iterator[Answer]:
    """Give the messages of a datagram; raises ValueError if they aren't well-formed."""
    raw = memoryview(datagram)
    offset, end = 0, len(raw)
    while end - offset >= 16:
        length, kind, flags, number, _port = _HEADER.unpack_from(raw, offset)
        if not 16 <= length <= end - offset:
            raise ValueError(f"netlink message of {length} bytes where {end - offset} are left")
        yield Answer(number, Message(kind, flags, bytes(raw[offset + 16 : offset + length])))
        offset += length + -length % 4
    if end - offset > 0:
        raise ValueError(f"{end - offset} bytes after the last netlink message")


def failure(message: Message) -> tuple[int, str]:
    """Read NLMSG_ERROR or NLMSG_DONE: errno, 0 if there is none, and the kernel's words; raises ValueError if it is cut short."""
    if len(message.body) < 4:
        if message.kind == _NLMSG_DONE:
            return 0, ""
        raise ValueError(f"netlink error of {len(message.body)} bytes")
    (code,) = _ERROR.unpack_from(message.body)
    if not message.flags & _NLM_F_ACK_TLVS:
        return -code, ""
    start = 4
    if message.kind == _NLMSG_ERROR:  # here the request comes first: its header, and unless capped its body
        if len(message.body) < 20:
            raise ValueError(f"netlink error of {len(message.body)} bytes")
        length = 16 if message.flags & _NLM_F_CAPPED else _HEADER.unpack_from(message.body, 4)[0]
        start += length + -length % 4
    found = parsed(message.body[start:])
    words = as_text(found.get(_NLMSGERR_ATTR_MSG, b""))
    if not words and _NLMSGERR_ATTR_MISS_TYPE in found:
        words = f"attribute {as_number(found[_NLMSGERR_ATTR_MISS_TYPE])} is missing"
    return -code, words


def refused(what: str, number: int, words: str = "") -> OSError:
    """Make the OSError of a request that the kernel refused: what was asked, errno's text, the kernel's own words."""
    return OSError(number, f"{what}: {os.strerror(number)}" + (f": {words.rstrip('.')}" if words else ""))


class Socket:
    """A conversation with the kernel, in this network namespace or in the one that a path such as `/proc/PID/ns/net` names.

    One request at a time; not for several threads at once. `what` says in a few words what a request is for, and is in the error.
    """

    def __init__(self, protocol: int = NETLINK_ROUTE, *, namespace: str | None = None) -> None:
        self._socket = _opened(protocol) if namespace is None else within(namespace, lambda: _opened(protocol))
        self._number = 0
        self._buffer = bytearray(_RECEIVED_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def ask(self, message: Message, what: str) -> list[Message]:
        """Send a request and return what the kernel answers before it acknowledges; raises OSError with its words."""
        number = self._next()
        self._send(encoded(message._replace(flags=message.flags | NLM_F_REQUEST | NLM_F_ACK), number), what)
        found: list[Message] = []
        while True:
            for answer in self._received(what):
                if answer.number != number:
                    continue  # of a conversation that an exception cut off
                if answer.message.kind == _NLMSG_ERROR:
                    code, words = _read(failure, answer.message, what)
                    if code:
                        raise refused(what, code, words)
                    return found
                found.append(answer.message)

    def dump(self, message: Message, what: str) -> list[Message]:
        """Ask for a list and return all of it; one that changed while it was read is read again, in the end raising EAGAIN."""
        for _ in range(_DUMP_TRIES):
            found = self._dumped(message, what)
            if found is not None:
                return found
        raise refused(what, errno.EAGAIN, "the list changed each time that it was read")

    def transact(self, messages: Iterable[Message], what: str) -> list[Answer]:
        """Send messages in one datagram, numbered from 0 in their order, and return all answers that this call caused.

        For nfnetlink batches: the kernel works through the datagram before send(2) returns, so nothing is waited for. Lost
        answers (ENOBUFS) are no error here: the first ones are kept, and the caller sees that the last is missing.
        """
        first = self._number + 1
        datagram = bytearray()
        for message in messages:
            datagram += encoded(message._replace(flags=message.flags | NLM_F_REQUEST), self._next())
        if len(datagram) > self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2:
            # Twice the size is kept for bookkeeping (socket(7)); a datagram larger than the buffer is EMSGSIZE.
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, len(datagram) + 4096)
        self._send(bytes(datagram), what)
        found: list[Answer] = []
        while True:
            try:
                received = self._received(what, flags=socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            found += [answer._replace(number=answer.number - first) for answer in received if answer.number >= first]

    def _dumped(self, message: Message, what: str) -> list[Message] | None:
        number = self._next()
        self._send(encoded(message._replace(flags=message.flags | NLM_F_REQUEST | NLM_F_DUMP), number), what)
        found: list[Message] = []
        is_whole = True
        while True:
            try:
                received = self._received(what)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                is_whole = False
                continue
            for answer in received:
                if answer.number != number:
                    continue
                if answer.message.flags & _NLM_F_DUMP_INTR:
                    is_whole = False
                if answer.message.kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    code, words = _read(failure, answer.message, what)
                    if code == errno.EINTR:
                        return None
                    if code:
                        raise refused(what, code, words)
                    return found if is_whole else None
                found.append(answer.message)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _send(self, datagram: bytes, what: str) -> None:
        try:
            self._socket.send(datagram)
        except OSError as error:
            raise refused(what, error.errno or errno.EIO) from None

    def _received(self, what: str, flags: int = 0) -> list[Answer]:
        try:
            size, sender = self._socket.recvfrom_into(self._buffer, 0, flags | socket.MSG_TRUNC)
        except OSError as error:
            raise refused(what, error.errno or errno.EIO) from None  # with EAGAIN a BlockingIOError
        if sender[0] != 0:
            return []  # from a process, not from the kernel (netlink(7))
        if size > len(self._buffer):
            raise refused(what, errno.EMSGSIZE)
        return _read(_listed, memoryview(self._buffer)[:size], what)


def _listed(datagram: memoryview) -> list[Answer]:
    return [answer for answer in answers(datagram) if answer.message.kind != _NLMSG_NOOP]


def _read(reader: Callable[[_Given], _Found], given: _Given, what: str) -> _Found:
    try:
        return reader(given)
    except ValueError as error:
        raise OSError(errno.EBADMSG, f"{what}: {error}") from None


def _opened(protocol: int) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        opened.bind((0, 0))
        opened.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)  # filters of dumps are heeded, or refused (Linux 4.20)
    except BaseException:
        opened.close()
        raise
    return opened
