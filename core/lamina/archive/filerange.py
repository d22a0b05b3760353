"""A part of an open file as a stream, which leaves the file's own position alone."""

import os

from lamina.errors import ArchiveError


class FileRange:
    """A readable part of an open file. Several may be read at once; the descriptor is its owner's."""

    def __init__(self, fd: int, start: int, size_bytes: int) -> None:
        self._fd, self._start, self._at, self._end = fd, start, start, start + size_bytes

    def read(self, size: int = -1, /) -> bytes:
        """Give the next bytes; `ArchiveError` if the file has become shorter."""
        left = self._end - self._at
        want = left if size < 0 else min(size, left)
        data = os.pread(self._fd, want, self._at) if want else b""
        if want and not data:
            raise ArchiveError(f"the file ends {left} bytes too early: it was changed while it was read")
        self._at += len(data)
        return data

    def seek(self, position: int) -> None:
        """Go on from so many bytes after the part's beginning."""
        self._at = min(self._start + position, self._end)
