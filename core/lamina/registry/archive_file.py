"""An image archive whose files are read in any order, by several threads: in place where it may be sought in, else unpacked first.

Not here: what the files mean (`docker_archive.py`, `oci_layout.py`); for `load`, `lamina.store.archive_spool` reads one once.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from typing import IO

from lamina.archive.compression import CHUNK_BYTES, DETECT_BYTES, Compression, Decompressed, Readable, detect
from lamina.archive.filerange import FileRange
from lamina.archive.tarstream import TarReader
from lamina.errors import ArchiveError, IntegrityError, LaminaError, NotFoundError, UsageError
from lamina.model.image import MAX_DOCUMENT_BYTES
from lamina.registry.places import STANDARD_STREAM
from lamina.registry.writing import NewFile
from lamina.store.archive_spool import MAX_MEMBERS, follow, is_file, link_target, member_paths
from lamina.store.layer_ingest import DEFAULT_MAX_BYTES, CopyingReader


class ArchiveFile:
    """The files of a tar by their paths. `described` is what messages call it."""

    def __init__(self, fd: int, described: str) -> None:
        self._fd = fd
        self.described = described
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}

    @classmethod
    def open(cls, path: str, *, described: str, spool_dir: str) -> "ArchiveFile":
        """Open an archive, packed or not; `-` is standard input. Raise NotFoundError, ArchiveError."""
        with open_archive(path) as file:
            if (
                stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                and detect(os.pread(file.fileno(), DETECT_BYTES, 0)) is Compression.NONE
            ):
                archive = cls(os.dup(file.fileno()), described)
                os.lseek(archive._fd, 0, os.SEEK_SET)
                return archive._indexed(file, seek_bytes=os.fstat(archive._fd).st_size)
            return cls.spool(file, described=described, spool_dir=spool_dir)

    @classmethod
    def spool(cls, stream: Readable, *, described: str, spool_dir: str) -> "ArchiveFile":
        """Unpack a stream into a file without a name, and read the archive there."""
        with NewFile(spool_dir) as file:
            archive = cls(os.dup(file.fd), described)
            with Decompressed(stream, limit_bytes=DEFAULT_MAX_BYTES, hashed=False) as plain:
                copying = CopyingReader(plain, file)
                archive._indexed(copying)
                while copying.read(CHUNK_BYTES):  # a pipe's writer is to come to its end
                    pass
            return archive

    def _indexed(self, stream: Readable, *, seek_bytes: int | None = None) -> "ArchiveFile":
        reader = TarReader(stream, max_members=MAX_MEMBERS, require_end=False, seek_bytes=seek_bytes)
        try:
            with telling(self.described):
                for path, member in member_paths(reader):
                    target = link_target(path, member)
                    if target is not None:
                        self._links[path] = target
                    elif is_file(member):
                        if member.extents is not None:
                            raise ArchiveError(f"'{path}' is stored as a sparse file", hint="write the archive without --sparse")
                        self._links.pop(path, None)
                        self._places[path] = (reader.position, member.size_bytes)
                if not self._places:
                    raise ArchiveError("there is no file in it: it is empty, or no tar archive")
        except BaseException:
            self.close()
            raise
        return self

    def size_bytes(self, path: str) -> int | None:
        """How long a file is; None if it isn't there."""
        place = self._places.get(follow(self._links, path))
        return None if place is None else place[1]

    def read(self, path: str) -> bytes | None:
        """Give a small file's bytes; None if it isn't there."""
        size_bytes = self.size_bytes(path)
        if size_bytes is None:
            return None
        if size_bytes > MAX_DOCUMENT_BYTES:
            raise ArchiveError(f"{self.described}: '{path}' has {size_bytes} bytes, too many for a document")
        reader = self.open_file(path)
        return b"".join(iter(lambda: reader.read(CHUNK_BYTES), b""))

    def open_file(self, path: str, offset: int = 0) -> Readable:
        """Open a file from `offset` bytes on. Raise NotFoundError."""
        place = self._places.get(follow(self._links, path))
        if place is None:
            raise NotFoundError(f"{self.described} has no '{path}'")
        return FileRange(self._fd, place[0] + min(offset, place[1]), max(0, place[1] - offset))

    def opened(self, path: str, offset: int) -> contextlib.AbstractContextManager[Readable]:
        """Open a file in a `with` block."""
        return contextlib.nullcontext(self.open_file(path, offset))

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextlib.contextmanager
def open_archive(path: str) -> Iterator[IO[bytes]]:
    """Open an archive for reading, `-` for standard input. Raise errors that name it."""
    if path == STANDARD_STREAM:
        if sys.stdin.isatty():
            raise UsageError("there is nothing to read: standard input is a terminal", hint="redirect an archive to it")
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115  closed below; only the opening is to be explained
    except FileNotFoundError:
        raise NotFoundError(f"the file '{path}' doesn't exist", hint="a colon ends the path") from None
    except IsADirectoryError:
        kind = what_directory(path)
        raise UsageError(f"'{path}' is a directory" + (f": {kind}" if kind else ", not an archive")) from None
    except OSError as error:
        raise LaminaError(f"'{path}' can't be read: {(error.strerror or '').lower()}") from error
    with file:
        yield file


def what_directory(path: str) -> str:
    """Say what a directory looks like, and how it is written; "" for none that is known."""
    if os.path.exists(os.path.join(path, "oci-layout")):
        return f"it looks like an OCI layout, oci:{path}"
    if os.path.exists(os.path.join(path, "version")) and os.path.exists(os.path.join(path, "manifest.json")):
        return f"it looks like dir:{path}"
    return ""


def what_archive(archive: ArchiveFile) -> str:
    """Say what the files of an archive look like; "" for none that is known."""
    if archive.size_bytes("index.json") is not None and archive.size_bytes("oci-layout") is not None:
        return "it looks like an oci-archive"
    return "it looks like a docker-archive" if archive.size_bytes("manifest.json") is not None else ""


@contextlib.contextmanager
def telling(described: str) -> Iterator[None]:
    """Say of which place it is that something is wrong with it."""
    try:
        yield
    except (ArchiveError, IntegrityError) as error:
        if not error.message.startswith(described):
            error.message = f"{described}: {error.message}"
        raise
