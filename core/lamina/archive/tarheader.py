"""The 512 bytes that stand before each member of a tar archive, parsed and made.

One block only: what several blocks mean together (pax, long names, sparse maps) is in `tarstream`.
Sources: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

import struct
from dataclasses import dataclass, field
from functools import lru_cache

from lamina.errors import ArchiveError

BLOCK_BYTES = 512
ZERO_BLOCK = bytes(BLOCK_BYTES)
MAX_SECONDS = 1 << 55
"""A time further from 1970 than this doesn't fit into what the kernel takes."""

_LAYOUT = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")


@dataclass(slots=True, kw_only=True)
class Member:
    """One member as the archive states it. Names are str with surrogateescape, not yet normalised.

    `stored_bytes` follow the header; `size_bytes` is what the file has once its holes are put back. `extents` lists where a sparse
    file's stored bytes belong, as (offset, length); None for a file that isn't sparse.
    """

    name: str
    type: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size_bytes: int
    stored_bytes: int
    link: str
    major: int
    minor: int
    position: int
    xattrs: dict[str, bytes] = field(default_factory=dict)
    extents: list[tuple[int, int]] | None = None


def text(field_bytes: bytes) -> str:
    """Decode a name; bytes that aren't UTF-8 become surrogates, so that the file gets exactly them."""
    return field_bytes.decode("utf-8", "surrogateescape")


def number(field_bytes: bytes, what: str, position: int) -> int:
    """Read a number: octal digits between blanks and zeros, or GNU's base 256 with the first bit set."""
    try:
        return _value(field_bytes)
    except ValueError:
        raise ArchiveError(f"the tar header at byte {position} has the {what} {field_bytes!r}, which is no number") from None


@lru_cache(4096)  # owners, modes and times are the same in most headers of an archive
def _value(field_bytes: bytes) -> int:
    first = field_bytes[0]
    if first & 0x80:
        value = int.from_bytes(field_bytes, "big") & ((1 << (8 * len(field_bytes) - 1)) - 1)
        if first & 0x40:  # two's complement
            value -= 1 << (8 * len(field_bytes) - 1)
        return value
    digits = field_bytes.split(b"\0", 1)[0].strip()
    if not digits:
        return 0
    if not digits.isdigit():  # int() takes more, such as `_`
        raise ValueError(field_bytes)
    return int(digits, 8)


def parse(block: bytes, position: int) -> Member:
    """Parse a header block that isn't all zeros, and check its sum. `position` is for messages."""
    stated = number(block[148:156], "checksum", position)
    total = sum(block) - sum(block[148:156]) + 256
    if stated != total:
        # Some old programs added signed characters.
        signed = total - 256 * sum(1 for byte in block[:148] + block[156:] if byte > 127)
        if stated != signed:
            raise ArchiveError(f"there is no tar header at byte {position}: its checksum is wrong")
    name, mode, uid, gid, size, mtime, _, kind, link, magic, _, _, major, minor, prefix = _LAYOUT.unpack(block)
    name = name.split(b"\0", 1)[0]
    if magic[:6] == b"ustar\0":
        prefix = prefix.split(b"\0", 1)[0]
        if prefix:
            name = prefix + b"/" + name
    size_bytes = number(size, "size", position)
    device = kind in {b"3", b"4"}
    return Member(
        name=text(name),
        type=kind,
        mode=number(mode, "mode", position),
        uid=number(uid, "uid", position),
        gid=number(gid, "gid", position),
        mtime_ns=number(mtime, "time", position) * 1_000_000_000,
        size_bytes=size_bytes,
        stored_bytes=size_bytes,
        link=text(link.split(b"\0", 1)[0]),
        major=number(major, "device number", position) if device else 0,
        minor=number(minor, "device number", position) if device else 0,
        position=position,
    )


def octal(value: int, width: int) -> bytes:
    """Write a number as digits with a NUL after them; 0 if it doesn't fit, because a pax record then says it."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"%0*o\0" % (width - 1, 0)


def build(
    *,
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime_s: int,
    link: bytes = b"",
    major: int = 0,
    minor: int = 0,
) -> bytes:
    """Make a ustar header. A name longer than its field is cut: a pax record before it has the whole."""
    prefix = b""
    if len(name) > 100:
        cut = name.rfind(b"/", 0, 156)
        if cut > 0 and 0 < len(name) - cut - 1 <= 100:
            prefix, name = name[:cut], name[cut + 1 :]
    block = bytearray(
        _LAYOUT.pack(
            name[:100],
            octal(mode, 8),
            octal(uid, 8),
            octal(gid, 8),
            octal(size, 12),
            octal(mtime_s, 12),
            b" " * 8,
            kind,
            link[:100],
            b"ustar\x0000",
            b"",
            b"",
            octal(major, 8),
            octal(minor, 8),
            prefix,
        )
    )
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def fits(name: bytes) -> bool:
    """Tell whether a name fits a ustar header's name and prefix without loss."""
    if len(name) <= 100:
        return True
    cut = name.rfind(b"/", 0, 156)
    return cut > 0 and 0 < len(name) - cut - 1 <= 100
