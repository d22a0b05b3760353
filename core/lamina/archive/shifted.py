"""Owners as another user namespace has them: a reader whose entries' users and groups are counted from elsewhere.

Not here: the ids in access control lists, which stay as they were read.
"""

from collections.abc import Iterator
from typing import IO

from lamina.api.entries import Entry, LayerReader
from lamina.linux.namespace import ID_COUNT

NOBODY = 65534
"""Who owns what no user of a namespace owns (user_namespaces(7), overflowuid)."""


class ShiftedOwners:
    """A `LayerReader` of another one's entries: whoever was `first` is `to` now, and so on; who wasn't among these is nobody."""

    def __init__(self, entries: LayerReader, *, first: int, to: int) -> None:
        self._entries = entries
        self._first = first
        self._to = to

    def __iter__(self) -> Iterator[Entry]:
        for entry in self._entries:
            entry.uid, entry.gid = self._shifted(entry.uid), self._shifted(entry.gid)
            yield entry

    def copy_to(self, fd: int) -> None:
        self._entries.copy_to(fd)

    def open(self) -> IO[bytes]:
        return self._entries.open()

    def _shifted(self, number: int) -> int:
        place = number - self._first
        return self._to + (place if 0 <= place < ID_COUNT else NOBODY)
