"""An image archive read once from beginning to end, also from a pipe: documents into memory, layers into blobs without a name.

What the parts mean is found out afterwards (`docker_archive.py`, `oci_archive.py`), because the documents that say so may stand
last. Nothing of it is visible in the store before a loader has checked it all and commits.
"""

import contextlib
import posixpath
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from lamina.archive.compression import DETECT_BYTES, Compression, Decompressed, Readable, detect
from lamina.archive.tarheader import BLOCK_BYTES, Member
from lamina.archive.tarstream import TarReader
from lamina.dataclasses import dataclass, field
from lamina.errors import ArchiveError, IntegrityError
from lamina.model.digest import Digest
from lamina.model.image import MAX_DOCUMENT_BYTES
from lamina.store.content import Ingest
from lamina.store.images import ImageStore, LayerBlob
from lamina.store.layer_ingest import Budget, CountedReader, IncomingLayer, Progress, check_layer, read_layer

MAX_MEMBERS = 100_000
MAX_ALL_DOCUMENTS_BYTES = 64 << 20
_MAX_LINKS = 40  # the kernel's limit for symlinks in one path
_FILE, _HARD_LINK, _SYMLINK, _DIRECTORY = {b"0", b"\0", b"7", b"S"}, b"1", b"2", b"5"


@dataclass(slots=True, kw_only=True)
class Spool:
    """An archive's members by their path."""

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, IncomingLayer] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, ArchiveError] = field(default_factory=dict)
    """Files that are no layer. An archive may hold what isn't an image's; an error only if an image wants it."""
    documents_bytes: int = 0

    def add_document(self, path: str, content: bytes) -> None:
        """Keep a small file's bytes. Raise ArchiveError if all of them are too many."""
        self.documents_bytes += len(content)
        if self.documents_bytes > MAX_ALL_DOCUMENTS_BYTES:
            raise ArchiveError(f"the archive has more than {MAX_ALL_DOCUMENTS_BYTES} bytes of JSON")
        self.documents[path] = content

    @property
    def is_layout(self) -> bool:
        """Whether it is in OCI's form."""
        return self.document("index.json") is not None and self.document("oci-layout") is not None

    def document(self, path: str) -> bytes | None:
        """Give a small file's bytes, None if it isn't there."""
        return self.documents.get(follow(self.links, path))

    def blob_document(self, digest: Digest, what: str) -> bytes | None:
        """Give the document `blobs/…` of this digest, checked; None if it isn't there."""
        content = self.document(blob_path(digest))
        if content is not None and digest.algorithm == "sha256" and Digest.of(content) != digest:
            raise IntegrityError(f"{what} {digest} is damaged: its bytes have the digest {Digest.of(content)}")
        return content

    def layer(self, path: str) -> IncomingLayer | None:
        """Give a layer that was read, None if it isn't there."""
        path = follow(self.links, path)
        if path in self.damaged:
            raise self.damaged[path]
        return self.layers.get(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageParts:
    """An image as an archive's documents state it: its configuration, and the path of the file that each layer is."""

    config: bytes
    layer_paths: list[str]


def blob_path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def read_archive(
    stream: Readable,
    images: ImageStore,
    ingest: Ingest,
    *,
    budget: Budget,
    progress: Progress | None = None,
    seek_bytes: int | None = None,
    taken: Mapping[str, IncomingLayer] = MappingProxyType({}),
) -> Spool:
    """Read a whole image archive, packed or not. Raise ArchiveError for anything in it that no image archive has.

    `seek_bytes` is the size of one that may be sought in; `taken` has the layers that were read already, by their path.
    """
    spool = Spool()
    with contextlib.ExitStack() as stack:
        plain: Readable = stream
        if seek_bytes is None:
            plain = stack.enter_context(Decompressed(CountedReader(stream, progress), limit_bytes=budget.max_bytes, hashed=False))
        reader = TarReader(plain, max_members=MAX_MEMBERS, require_end=False, seek_bytes=seek_bytes)
        for path, member in member_paths(reader):
            target = link_target(path, member)
            if target is not None:
                spool.links[path] = target
            elif is_file(member):
                spool.links.pop(path, None)
                if path in taken:
                    spool.layers[path] = taken[path]
                    continue
                with reader.open() as data:
                    first = data.read(512)
                    if is_document(first, member.size_bytes):
                        spool.add_document(path, first + data.read())
                    else:
                        known = known_layer(images, path, first)
                        try:
                            spool.layers[path] = read_layer(
                                _Joined(first, data), ingest, budget=budget, known=known, check=check_layer
                            )
                        except ArchiveError as error:
                            if budget.left_bytes < 0:
                                raise
                            spool.damaged[path] = error
        if isinstance(plain, Decompressed):
            plain.finish()
    return spool


def member_paths(reader: TarReader) -> Iterator[tuple[str, Member]]:
    """Give each member with its normalised path. Raise ArchiveError for a path that leads out, and for devices and their like."""
    for member in reader:
        path = _inside(member.name, member.name, "")
        if path != ".":
            if not is_file(member) and member.type not in {_HARD_LINK, _SYMLINK, _DIRECTORY}:
                raise ArchiveError(f"'{member.name}' in the archive is neither file, directory nor link")
            yield path, member


def is_file(member: Member) -> bool:
    return member.type in _FILE


def link_target(path: str, member: Member) -> str | None:
    """Where a link leads, None for what is none. Raise ArchiveError if that is out of the archive."""
    if member.type == _SYMLINK:
        return _inside(posixpath.join(posixpath.dirname(path), member.link), path, member.link)
    return _inside(member.link, path, member.link) if member.type == _HARD_LINK else None


def follow(links: Mapping[str, str], path: str) -> str:
    """Go from link to link to the path of a file. Raise ArchiveError if that never ends."""
    for _ in range(_MAX_LINKS):
        if path not in links:
            return path
        path = links[path]
    raise ArchiveError(f"'{path}' in the archive is a symlink that leads in a circle")


def _inside(path: str, name: str, link: str) -> str:
    """Normalise a path of the archive. One that leads out of it is never an accident."""
    normal = posixpath.normpath(path)
    if path.startswith("/") or normal == ".." or normal.startswith("../") or (not link and ".." in path.split("/")):
        what = f"'{name}' in the archive links to '{link}'" if link else f"'{name}' in the archive"
        raise ArchiveError(f"{what}, which leads out of it", hint="don't trust where this archive came from")
    return normal


def is_document(first: bytes, size_bytes: int) -> bool:
    """Tell JSON from a layer by its first bytes: a tar has a magic in its header, unless it is as old as 1988."""
    if size_bytes < BLOCK_BYTES and detect(first[:DETECT_BYTES]) is Compression.NONE:
        return True
    return size_bytes <= MAX_DOCUMENT_BYTES and first[:1] in {b"{", b"["} and first[257:262] != b"ustar"


def known_layer(images: ImageStore, path: str, first: bytes) -> LayerBlob | None:
    """Find the layer in the store when it comes unpacked and its file is named by its diff_id, as Docker, Podman and we do."""
    name = posixpath.basename(path).removesuffix(".tar")
    if len(name) != 64 or detect(first[:DETECT_BYTES]) is not Compression.NONE or not set(name) <= set("0123456789abcdef"):
        return None
    return images.layer_blob_of(Digest(f"sha256:{name}"))


class _Joined:
    def __init__(self, first: bytes, rest: Readable) -> None:
        self._first, self._rest = first, rest

    def read(self, size: int = -1, /) -> bytes:
        if self._first:
            data, self._first = self._first, b""
            return data
        return self._rest.read(size)
