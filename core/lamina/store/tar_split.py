"""A layer's tar put together again from what Docker keeps of it: `tar-split.json.gz` and the files as they lie unpacked.

Docker throws a layer's tar away and keeps all of it that is no file's content: headers, padding, the end. One JSON object a line:
type 2 is such a piece, `payload` its bytes in base64; type 1 is a file's content, `name` (or `name_raw`, base64 for bytes that
aren't UTF-8), `size`, and `payload`, the CRC-64 (ISO) of the content. Source: the package vbatts/tar-split, tar/storage/entry.go.

Whether the result is the tar that it was, its digest says; the CRCs are looked at only to find out which file is to blame.
"""

import base64
import binascii
import errno
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from lamina import json
from lamina.archive import paths
from lamina.errors import ArchiveError
from lamina.linux.fs import open_in_root

_FILE, _SEGMENT = 1, 2
_MAX_LINE_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
_MAX_SYMLINKS = 40  # as the kernel's (path_resolution(7))
_ISO_POLYNOMIAL = 0xD800000000000000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A line of the file: bytes as they are, or a file's content."""

    payload: bytes
    name: str = ""
    size_bytes: int = 0


class TarSplit:
    """A readable that gives the tar. `layer_dirs` are the layer's own directory and then those below, nearest first.

    Raises `ArchiveError` with the path for a file that isn't there or has another size.
    """

    def __init__(self, tar_split_path: str, layer_dirs: Sequence[str]) -> None:
        self._path = tar_split_path
        self._dirs = layer_dirs
        self._chunks = self._all_chunks()
        self._held = b""

    def read(self, size: int = -1, /) -> bytes:
        """Read some bytes, all of them without a size; b"" at the end."""
        if size < 0:
            held, self._held = self._held, b""
            return held + b"".join(self._chunks)
        while not self._held:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._held = chunk
        data, self._held = self._held[:size], self._held[size:]
        return data

    def find_damage(self) -> str:
        """Name the first file whose content isn't what it was; "" if it is none of them. Slow: one CRC of all."""
        table = _crc_table()
        for piece in self._pieces():
            if piece.name:
                crc = 0xFFFFFFFFFFFFFFFF
                for chunk in self._content(piece):
                    for byte in chunk:
                        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
                if (crc ^ 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big") != piece.payload:
                    return piece.name
        return ""

    def _all_chunks(self) -> Iterator[bytes]:
        for piece in self._pieces():
            if piece.name:
                yield from self._content(piece)
            elif piece.payload:
                yield piece.payload

    def _pieces(self) -> Iterator[_Piece]:
        """Read the lines; files without content have nothing to give and are left out."""
        import gzip

        with open(self._path, "rb") as packed, gzip.open(packed) as lines:
            number = 0
            while True:
                number += 1
                try:
                    line = lines.readline(_MAX_LINE_BYTES)
                except (OSError, EOFError, zlib.error) as error:
                    raise ArchiveError(f"its tar-split.json.gz is damaged: {error}") from error
                if not line:
                    return
                piece = _piece(line, number)
                if piece.size_bytes if piece.name else piece.payload:
                    yield piece

    def _content(self, piece: _Piece) -> Iterator[bytes]:
        with self._open(piece.name) as file:
            left = piece.size_bytes
            if os.fstat(file.fileno()).st_size != left:
                raise ArchiveError(f"its file '{paths.shown(piece.name)}' has another size than the {left} bytes that it had")
            while left:
                data = file.read(min(left, _CHUNK_BYTES))
                if not data:
                    raise ArchiveError(f"its file '{paths.shown(piece.name)}' became shorter")
                left -= len(data)
                yield data

    def _open(self, name: str) -> IO[bytes]:
        """Open a file of the layer; its name may lead through a symlink that a layer below has."""
        try:
            return self._open_in(self._dirs[0], name)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise
        try:
            return self._open_in(self._dirs[0], self._resolved(name))
        except OSError as error:
            raise ArchiveError(f"its file '{paths.shown(name)}' isn't there: {(error.strerror or '').lower()}") from error

    @staticmethod
    def _open_in(directory: str, name: str) -> IO[bytes]:
        root_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = open_in_root(root_fd, name.lstrip("/"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        finally:
            os.close(root_fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ArchiveError(f"its file '{paths.shown(name)}' is no regular file")
        return os.fdopen(fd, "rb")

    def _resolved(self, name: str) -> str:
        """Follow the symlinks among the directories above a file, as the layers united show them."""
        todo = name.split("/")[::-1]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                del done[-1:]
                continue
            text = self._link_at("/".join([*done, part])) if todo else None
            if text is None:
                done.append(part)
                continue
            links += 1
            if links > _MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
            if text.startswith("/"):
                done.clear()
            todo.extend(text.split("/")[::-1])
        return "/".join(done)

    def _link_at(self, path: str) -> str | None:
        for directory in self._dirs:
            root_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fd = open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
            except OSError:
                continue
            finally:
                os.close(root_fd)
            try:
                return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
            finally:
                os.close(fd)
        return None


def _piece(line: bytes, number: int) -> _Piece:
    where = f"line {number} of its tar-split.json.gz"
    try:
        document: Any = json.loads(line)
        kind, payload = document["type"], base64.b64decode(document.get("payload") or "", validate=True)
        if kind == _SEGMENT:
            return _Piece(payload=payload)
        if kind != _FILE:
            raise ArchiveError(f"{where} has the unknown type {kind!r}")
        raw = document.get("name_raw")
        name = os.fsdecode(base64.b64decode(raw, validate=True)) if raw else document.get("name") or ""
        size_bytes = document.get("size") or 0
        if not isinstance(name, str) or not isinstance(size_bytes, int) or size_bytes < 0 or "\0" in name or not name:
            raise ArchiveError(f"{where} is not an entry")
        return _Piece(payload=payload, name=name, size_bytes=size_bytes)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ArchiveError(f"{where} is not an entry: {error}") from error


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = (crc >> 1) ^ (_ISO_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table
