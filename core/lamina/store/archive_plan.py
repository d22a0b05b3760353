"""What an image archive holds, found out before its layers are read, so that `load` unpacks them onto a driver while they come.

That takes an archive that may be sought in and isn't packed. What is wrong with an archive isn't said here but by `archive_spool`,
which reads it from beginning to end whatever was found out before.
"""

import os
import stat
from collections.abc import Callable

from lamina.archive.compression import DETECT_BYTES, Compression, Readable, detect
from lamina.archive.filerange import FileRange
from lamina.archive.tarstream import TarReader
from lamina.dataclasses import dataclass
from lamina.errors import LaminaError
from lamina.store import docker_archive, oci_archive
from lamina.store.archive_spool import MAX_MEMBERS, ImageParts, Spool, is_document, is_file, link_target, member_paths


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePlan:
    """An archive's images, and where in the file their layers lie. The descriptor is its owner's."""

    fd: int
    size_bytes: int
    images: list[ImageParts]
    places: dict[str, tuple[int, int]]

    def open(self, path: str) -> FileRange:
        """Read one file of the archive."""
        return FileRange(self.fd, *self.places[path])


def plan_archive(stream: Readable, *, max_bytes: int) -> ArchivePlan | None:
    """Find out what an archive holds; None if that can't be known before it is read."""
    fileno: Callable[[], int] | None = getattr(stream, "fileno", None)
    tell: Callable[[], int] | None = getattr(stream, "tell", None)
    try:
        if fileno is None or tell is None or tell() != 0:
            return None
        found = os.fstat(fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > max_bytes:
            return None
        if detect(os.pread(fileno(), DETECT_BYTES, 0)) is not Compression.NONE:
            return None
        return _scan(fileno(), found.st_size)
    except (LaminaError, OSError):
        return None  # a pipe, or an archive of which something is wrong


def _scan(fd: int, size_bytes: int) -> ArchivePlan | None:
    spool = Spool()
    places: dict[str, tuple[int, int]] = {}
    seen: set[str] = set()
    reader = TarReader(FileRange(fd, 0, size_bytes), max_members=MAX_MEMBERS, require_end=False, seek_bytes=size_bytes)
    for path, member in member_paths(reader):
        if path in seen:
            return None  # which of the two is meant is decided by who reads them all
        seen.add(path)
        target = link_target(path, member)
        if target is not None:
            spool.links[path] = target
        elif is_file(member):
            place = (reader.position, member.size_bytes)
            with reader.open() as data:
                first = data.read(512)
                if is_document(first, member.size_bytes):
                    spool.add_document(path, first + data.read())
                elif member.extents is None:
                    places[path] = place
    find = oci_archive.find_parts if spool.is_layout else docker_archive.find_parts
    return ArchivePlan(fd=fd, size_bytes=size_bytes, images=find(spool), places=places)
