"""Tar archives as a stream of members: ustar, pax, GNU and old tar, as GNU tar, libarchive, Go and Python write them.

Not here: what a member means in a layer (`layer`), and writing (`writer`). Python's own tarfile is three times slower and takes
damaged headers for the end of the archive; here whatever isn't well formed raises `ArchiveError` with its place.
"""

import os
import struct
from collections.abc import Iterator
from io import RawIOBase
from typing import IO, cast

from lamina.archive import pax
from lamina.archive.compression import CHUNK_BYTES, READ_BYTES, Readable
from lamina.archive.paths import shown
from lamina.archive.tarheader import BLOCK_BYTES, ZERO_BLOCK, Member, number, parse, text
from lamina.errors import ArchiveError

MAX_PAX_BYTES = 1 << 20
"""The longest pax header or long name; Go's limit is the same."""

_HAS_DATA = frozenset([b"0", b"\0", b"7", b"S", b"D", b"V"])
_HEADER_ONLY = frozenset([b"1", b"2", b"3", b"4", b"5", b"6"])
_DESCRIBES_NEXT = frozenset([b"x", b"X", b"g", b"L", b"K"])


class TarReader:
    """Members of an uncompressed tar stream, in order. Iterate; between two members `copy_to` or `open` gives the data.

    `require_end` refuses a stream that ends without the two zero blocks; without it such a stream must at least end between two
    members (Go writes and reads such archives, and a digest says that they are whole). `seek_bytes` is the size of a stream that
    is a file at its beginning: data that nobody asks for is then skipped without reading.
    """

    def __init__(
        self, stream: Readable, *, max_members: int = 2_000_000, require_end: bool = True, seek_bytes: int | None = None
    ) -> None:
        self._stream = stream
        self._seek_bytes = seek_bytes
        self._chunk = b""
        self._at = 0
        self._before = 0  # bytes of the stream before the chunk
        self._left = 0  # stored bytes of the current member not read yet
        self._padding = 0
        self._member: Member | None = None
        self._max_members = max_members
        self._require_end = require_end
        self._globals: pax.Records = {}

    @property
    def position(self) -> int:
        """How many bytes of the stream have been used."""
        return self._before + self._at

    def __iter__(self) -> Iterator[Member]:
        count = 0
        records: pax.Records = {}
        sparse: list[tuple[bytes, bytes]] = []
        long_name = long_link = None
        pending = ""
        while True:
            self._skip_member()
            position = self.position
            block = self._block()
            if block is None or block == ZERO_BLOCK:
                self._check_end(block, pending)
                return
            member = parse(block, position)
            count += 1
            if count > self._max_members:
                raise ArchiveError(
                    f"the archive has more than {self._max_members} entries", hint="raise the limit if the archive is to be trusted"
                )
            kind = member.type
            if kind in _DESCRIBES_NEXT:
                where = f"at byte {position}"
                data = self._special(member, where)
                pending = where
                if kind == b"g":
                    found, more = pax.parse_records(data, where)
                    if more:
                        raise ArchiveError(f"the global pax header {where} has a sparse map")
                    self._globals.update(found)
                    pending = ""
                elif kind == b"L":
                    long_name = text(data.split(b"\0", 1)[0])
                elif kind == b"K":
                    long_link = text(data.split(b"\0", 1)[0])
                else:
                    records, sparse = pax.parse_records(data, where)
                continue
            if long_name is not None:
                member.name = long_name
            if long_link is not None:
                member.link = long_link
            self._complete(member, block, records, sparse)
            records, sparse, long_name, long_link, pending = {}, [], None, None, ""
            if kind != b"V":  # a volume's label
                yield member

    def copy_to(self, fd: int) -> None:
        """Write the current member's data to a descriptor at its beginning; holes are left out and the length is set."""
        member = self._current()
        if member.extents is None:
            while self._left:
                data = self._take_view(self._left)
                while data:
                    data = data[os.write(fd, data) :]
            return
        os.ftruncate(fd, member.size_bytes)
        for offset, length in member.extents:
            while length:
                data = self._take_view(length)
                length -= len(data)
                while data:
                    done = os.pwrite(fd, data, offset)
                    offset += done
                    data = data[done:]

    def open(self) -> IO[bytes]:
        """Read the current member's data, holes as zeros. Valid until the next member is taken."""
        from io import BufferedReader

        return BufferedReader(cast("RawIOBase", _MemberReader(self, self._current())), CHUNK_BYTES)

    def _current(self) -> Member:
        if self._member is None:
            raise ValueError("there is no current member")
        return self._member

    def _fill(self) -> bool:
        """Take the next chunk, once all of the last is used. False at the stream's end."""
        self._before += len(self._chunk)
        self._at = 0
        self._chunk = self._stream.read(READ_BYTES)
        return bool(self._chunk)

    def _block(self) -> bytes | None:
        """Read 512 bytes, or None at the stream's end."""
        at = self._at
        block = self._chunk[at : at + BLOCK_BYTES]
        if len(block) == BLOCK_BYTES:
            self._at = at + BLOCK_BYTES
            return block
        position = self.position
        block = self._read_up_to(BLOCK_BYTES)
        if not block:
            return None
        if len(block) < BLOCK_BYTES:
            raise ArchiveError(f"the archive is truncated: a header at byte {position} has only {len(block)} bytes")
        return block

    def _read_up_to(self, size: int) -> bytes:
        parts = []
        while size:
            if self._at >= len(self._chunk) and not self._fill():
                break
            part = self._chunk[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take_view(self, size: int) -> memoryview:
        """Give up to `size` bytes of the current member's stored data without copying them; never none."""
        if self._at >= len(self._chunk) and not self._fill():
            raise self._truncated()
        view = memoryview(self._chunk)[self._at : self._at + min(size, self._left)]
        self._at += len(view)
        self._left -= len(view)
        return view

    def _truncated(self) -> ArchiveError:
        name = shown(self._member.name) if self._member is not None else ""
        return ArchiveError(f"the archive is truncated at byte {self.position}, {self._left} bytes before the end of '{name}'")

    def _skip_member(self) -> None:
        rest = self._left + self._padding
        while rest:
            have = len(self._chunk) - self._at
            if have == 0:
                if self._seek_bytes is not None and rest > CHUNK_BYTES:
                    self._seek(rest - rest % CHUNK_BYTES)
                    rest %= CHUNK_BYTES
                elif not self._fill():
                    raise self._truncated()
                continue
            step = min(have, rest)
            self._at += step
            rest -= step
            self._left = max(0, self._left - step)
        self._left = self._padding = 0
        self._member = None

    def _seek(self, size: int) -> None:
        position = self.position + size
        if self._seek_bytes is None or position > self._seek_bytes:
            raise self._truncated()
        cast("IO[bytes]", self._stream).seek(position)
        self._chunk, self._at, self._before = b"", 0, position
        self._left = max(0, self._left - size)

    def _special(self, member: Member, where: str) -> bytes:
        """Read all of the data of a member that describes the next one."""
        size = member.stored_bytes
        if not 0 <= size <= MAX_PAX_BYTES:
            raise ArchiveError(f"the extended header {where} claims {size} bytes; {MAX_PAX_BYTES} is the limit")
        data = self._read_up_to(size)
        padding = -size % BLOCK_BYTES
        if len(data) < size or len(self._read_up_to(padding)) < padding:
            raise ArchiveError(f"the archive is truncated within the extended header {where}")
        return data

    def _complete(self, member: Member, block: bytes, records: pax.Records, sparse: list[tuple[bytes, bytes]]) -> None:
        """Apply what came before the header, and find out where its data ends."""
        kind = member.type
        if kind not in _HAS_DATA and kind not in _HEADER_ONLY:
            raise ArchiveError(f"'{shown(member.name)}' at byte {member.position} is of the unknown type {kind!r}")
        where = ""
        if records or sparse or self._globals or kind == b"S":
            where = f"of '{shown(member.name)}' at byte {member.position}"
            if self._globals:
                pax.apply_records(member, self._globals, [], where)
            if records or sparse:
                pax.apply_records(member, records, sparse, where)
        if kind in _HEADER_ONLY:
            member.size_bytes = member.stored_bytes = 0
            member.extents = None
        pax.check_ranges(member)
        self._left = member.stored_bytes
        self._padding = -member.stored_bytes % BLOCK_BYTES
        self._member = member
        if kind == b"S":
            self._old_sparse(member, block, where)
        elif member.extents is not None and records.get(b"GNU.sparse.major") == b"1":
            self._sparse_1_0(member, where)
        if member.extents is not None:
            pax.check_ranges(member)
            pax.check_extents(member, where)

    def _old_sparse(self, member: Member, block: bytes, where: str) -> None:
        """GNU's first sparse form: four extents in the header, more in blocks after it."""
        numbers: list[int] = []
        more, at, count = block[482], 386, 4
        member.size_bytes = number(block[483:495], "size", member.position)
        while True:
            for offset, length in struct.iter_unpack("12s12s", block[at : at + 24 * count]):
                if length.strip(b" \0") or offset.strip(b" \0"):
                    numbers += (number(offset, "offset", member.position), number(length, "length", member.position))
            if not more:
                break
            next_block = self._block()
            if next_block is None:
                raise ArchiveError(f"the archive is truncated within the sparse map {where}")
            if len(numbers) > 2 * pax.MAX_EXTENTS:
                raise ArchiveError(f"the sparse map {where} has too many extents")
            block, at, count, more = next_block, 0, 21, next_block[504]
        member.extents = pax.pairs(numbers, where)

    def _sparse_1_0(self, member: Member, where: str) -> None:
        """The map stands before the data: decimal numbers, one a line, filled up to whole blocks."""
        buffer, at = b"", 0
        numbers: list[int] = []
        wanted = 1
        while len(numbers) < wanted:
            end = buffer.find(b"\n", at, at + 20)
            if end < 0:
                if len(buffer) - at >= 20 or self._left < BLOCK_BYTES:
                    raise ArchiveError(f"the sparse map {where} is corrupt")
                data = self._block()
                if data is None:
                    raise self._truncated()
                self._left -= BLOCK_BYTES
                buffer, at = buffer[at:] + data, 0
                continue
            if not buffer[at:end].isdigit():
                raise ArchiveError(f"the sparse map {where} is corrupt")
            numbers.append(int(buffer[at:end]))
            at = end + 1
            if len(numbers) == 1:
                wanted = 1 + 2 * numbers[0]
                if numbers[0] > pax.MAX_EXTENTS:
                    raise ArchiveError(f"the sparse map {where} has too many extents")
        member.stored_bytes = self._left
        member.extents = pax.pairs(numbers[1:], where)

    def _check_end(self, block: bytes | None, pending: str) -> None:
        if pending:
            raise ArchiveError(f"the archive ends after the extended header {pending}, with nothing that it describes")
        if block is None:
            if self._require_end:
                raise ArchiveError(f"the archive is truncated: it ends at byte {self.position} without an end mark")
            return
        position = self.position
        second = self._block()
        if second is None and self._require_end:
            raise ArchiveError(f"the archive is truncated: its end mark at byte {position} is only half there")
        if second is not None and second != ZERO_BLOCK:
            raise ArchiveError(
                f"there is something after a zero block at byte {position}: the archive is damaged, or is two in one"
            )
        # The rest is filling up to a tape's record; whoever hashes reads on by itself.


class _MemberReader(RawIOBase):
    """A member's bytes as a file object, holes as zeros."""

    def __init__(self, reader: TarReader, member: Member) -> None:
        super().__init__()
        self._reader, self._member = reader, member
        self._extents = list(member.extents) if member.extents is not None else [(0, member.size_bytes)]
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        if self._reader._member is not self._member:
            raise ValueError("the archive has moved on to another member")
        view = memoryview(cast("bytearray", buffer)).cast("B")
        while self._extents and self._extents[0][1] == 0:
            self._extents.pop(0)
        end = self._extents[0][0] if self._extents else self._member.size_bytes
        if self._at < end:  # a hole
            size = min(len(view), end - self._at)
            view[:size] = bytes(size)
        elif self._extents:
            offset, length = self._extents[0]
            data = self._reader._take_view(min(length, len(view)))
            size = len(data)
            view[:size] = data
            self._extents[0] = (offset + size, length - size)
        else:
            return 0
        self._at += size
        return size
