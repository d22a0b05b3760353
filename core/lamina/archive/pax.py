"""pax records and GNU's sparse maps: what the members of type x, g and S say about the member after them, parsed and made.

Sources: POSIX.1-2017 pax, "pax Extended Header"; GNU tar manual, "Storing Sparse Files"; star(1) and libarchive for xattrs.
"""

from lamina.archive.paths import shown
from lamina.archive.tarheader import MAX_SECONDS, Member, text
from lamina.errors import ArchiveError

MAX_EXTENTS = 1 << 17

Records = dict[bytes, bytes]


def parse_records(data: bytes, where: str) -> tuple[Records, list[tuple[bytes, bytes]]]:
    """Split `LENGTH KEY=VALUE\\n` records. The second result has the sparse map's keys, which may come many times, in order."""
    records: Records = {}
    sparse: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data):
        if data[at] == 0 and not data[at:].strip(b"\0"):
            break  # some writers pad with zeros
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        end = at + length
        if space < 0 or end <= space + 1 or end > len(data) or data[end - 1] != 10:
            raise ArchiveError(f"the pax header {where} is corrupt at its byte {at}")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise ArchiveError(f"the pax header {where} is corrupt at its byte {at}")
        if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}:
            sparse.append((key, value))
        else:
            records[key] = value
        at = end
    return records, sparse


def build_records(records: list[tuple[bytes, bytes]]) -> bytes:
    """Make the records' bytes; each one's length counts its own digits too."""
    out = []
    for key, value in records:
        length = len(key) + len(value) + 3
        digits = len(str(length))
        if len(str(length + digits)) > digits:
            digits += 1
        out.append(b"%d %s=%s\n" % (length + digits, key, value))
    return b"".join(out)


def seconds_to_ns(value: bytes, where: str) -> int:
    """Read a decimal time exactly; a float would lose nanoseconds."""
    whole, _, fraction = value.partition(b".")
    negative = whole.startswith(b"-")
    whole = whole.lstrip(b"-")
    if (whole or fraction).isdigit() and (not fraction or fraction.isdigit()) and len(whole) < 20:
        ns = int(whole or b"0") * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
        return -ns if negative else ns
    raise ArchiveError(f"the pax header {where} has the time {value!r}, which is none")


def ns_to_seconds(ns: int) -> bytes:
    """Write a time as a decimal number without needless digits."""
    sign = b"-" if ns < 0 else b""
    whole, fraction = divmod(abs(ns), 1_000_000_000)
    return sign + (b"%d.%s" % (whole, (b"%09d" % fraction).rstrip(b"0")) if fraction else b"%d" % whole)


def apply_records(member: Member, records: Records, sparse: list[tuple[bytes, bytes]], where: str) -> None:
    """Let records overrule what the header says."""
    for key, value in records.items():
        if key == b"path":
            member.name = text(value)
        elif key == b"linkpath":
            member.link = text(value)
        elif key == b"size":
            member.stored_bytes = member.size_bytes = _decimal(key, value, where)
        elif key == b"uid":
            member.uid = _decimal(key, value, where)
        elif key == b"gid":
            member.gid = _decimal(key, value, where)
        elif key == b"mtime":
            member.mtime_ns = seconds_to_ns(value, where)
        elif key == b"SCHILY.devmajor":
            member.major = _decimal(key, value, where)
        elif key == b"SCHILY.devminor":
            member.minor = _decimal(key, value, where)
        elif key.startswith(b"SCHILY.xattr."):
            member.xattrs[text(key[13:].replace(b"%3D", b"="))] = value  # GNU tar's way to have a `=` in a name
        elif key.startswith(b"LIBARCHIVE.xattr."):
            name, content = _libarchive_xattr(key[17:], value, where)
            member.xattrs.setdefault(name, content)
    if b"GNU.sparse.major" in records or b"GNU.sparse.map" in records or sparse or b"GNU.sparse.size" in records:
        _apply_sparse(member, records, sparse, where)


def _decimal(key: bytes, value: bytes, where: str) -> int:
    if value.isdigit() and len(value) < 20:
        return int(value)
    raise ArchiveError(f"the pax header {where} has the {key.decode('ascii', 'replace')} {value!r}, which is no number")


def _libarchive_xattr(name: bytes, value: bytes, where: str) -> tuple[str, bytes]:
    """libarchive writes the name as in a URL and the value in base64, without padding."""
    import base64
    from urllib.parse import unquote_to_bytes

    try:
        return text(unquote_to_bytes(name)), base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except ValueError as error:
        raise ArchiveError(f"the pax header {where} has an xattr whose value is not base64") from error


def _apply_sparse(member: Member, records: Records, sparse: list[tuple[bytes, bytes]], where: str) -> None:
    name = records.get(b"GNU.sparse.name")
    if name is not None:
        member.name = text(name)
    size = records.get(b"GNU.sparse.realsize", records.get(b"GNU.sparse.size"))
    if size is not None:
        member.size_bytes = _decimal(b"GNU.sparse.size", size, where)
    version = records.get(b"GNU.sparse.major", b"0"), records.get(b"GNU.sparse.minor", b"0")
    if version == (b"1", b"0"):
        member.extents = []  # the map stands at the beginning of the data: read by the stream
        return
    if version[0] != b"0":
        raise ArchiveError(f"the pax header {where} has a sparse map of an unknown version")
    if b"GNU.sparse.map" in records:
        numbers = [_decimal(b"GNU.sparse.map", each, where) for each in records[b"GNU.sparse.map"].split(b",") if each]
    else:
        numbers = []
        for index, (key, value) in enumerate(sparse):
            if key != (b"GNU.sparse.offset", b"GNU.sparse.numbytes")[index % 2]:
                raise ArchiveError(f"the pax header {where} has a sparse map out of order")
            numbers.append(_decimal(key, value, where))
    member.extents = pairs(numbers, where)


def pairs(numbers: list[int], where: str) -> list[tuple[int, int]]:
    """Make extents of a flat list of offsets and lengths."""
    if len(numbers) % 2 or len(numbers) > 2 * MAX_EXTENTS:
        raise ArchiveError(f"the sparse map {where} has {len(numbers)} numbers: an odd one, or too many")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def check_extents(member: Member, where: str) -> None:
    """Make sure that a sparse map goes upwards, stays within the file and covers exactly what is stored."""
    end = total = 0
    for offset, length in member.extents or ():
        if offset < end or length < 0:
            raise ArchiveError(f"the sparse map {where} is out of order at offset {offset}")
        end = offset + length
        total += length
    if end > member.size_bytes:
        raise ArchiveError(f"the sparse map {where} goes beyond the file's size of {member.size_bytes} bytes")
    if total != member.stored_bytes:
        raise ArchiveError(f"the sparse map {where} places {total} bytes, but {member.stored_bytes} are stored")


_MAX_BYTES = 1 << 63
_MAX_ID = 0xFFFFFFFF  # "leave it as it is" to chown(2)
_MAX_NS = MAX_SECONDS * 1_000_000_000


def check_ranges(member: Member) -> None:
    """Refuse numbers that no file can have: negative ones, owners beyond 32 bits, times beyond the kernel's."""
    if not (0 <= member.size_bytes < _MAX_BYTES and 0 <= member.stored_bytes < _MAX_BYTES):
        wrong = f"a size of {member.stored_bytes} bytes"
    elif not 0 <= member.uid < _MAX_ID:
        wrong = f"the uid {member.uid}"
    elif not 0 <= member.gid < _MAX_ID:
        wrong = f"the gid {member.gid}"
    elif not -_MAX_NS < member.mtime_ns < _MAX_NS:
        wrong = "a time that doesn't fit"
    elif not (0 <= member.major < 1 << 12 and 0 <= member.minor < 1 << 20):
        wrong = f"the device number {member.major}:{member.minor}"
    else:
        return
    raise ArchiveError(f"'{shown(member.name)}' at byte {member.position} has {wrong}")
