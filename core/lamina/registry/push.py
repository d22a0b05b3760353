"""`push` and `copy`: an image from any source to any destination, blobs in parallel, nothing sent that is there already.

Manifests go as they are, byte for byte, so that digests stay. Every blob is verified while it is read. Our own store isn't needed.
"""

import hashlib
import threading
from collections.abc import Iterator, Set
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina.archive.compression import Readable
from lamina.errors import IntegrityError, TransferError
from lamina.model.digest import Digest
from lamina.model.image import INDEX_TYPES, LAYER_TYPES, Descriptor, Index, Manifest, Platform
from lamina.registry.client import FIRST_WAIT_S, LONGEST_WAIT_S
from lamina.registry.fetch import ATTEMPTS, PARALLEL, CancelledError
from lamina.registry.pull import MAX_INDEX_DEPTH, select
from lamina.registry.report import Report, State, Transferred, tell_nobody
from lamina.registry.transport import Document

if TYPE_CHECKING:
    from lamina.registry.transport import Destination, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy has put there."""

    digest: Digest
    size_bytes: int
    """Of the manifest or index."""
    media_type: str
    blobs: tuple[Digest, ...]


def copy_image(
    source: "Source",
    destination: "Destination",
    *,
    all_platforms: bool = False,
    platform: Platform | None = None,
    report: Report = tell_nobody,
) -> Copied:
    """Copy an image. Of an index either the image for `platform` (this machine's if None) or, with `all_platforms`, all of it.

    Raises `NotFoundError`, `TransferError`, `IntegrityError`, `ArchiveError` and what the destination refuses. The caller closes
    both.
    """
    root = source.document()
    if not all_platforms:
        root = select(source, root, platform)
    documents = list(_documents(source, root, 0))
    blobs: dict[Digest, Descriptor] = {}
    for document in documents:
        if document.media_type not in INDEX_TYPES:
            manifest = Manifest.from_bytes(document.content, f"a manifest of '{source.described}'")
            for descriptor in (*manifest.layers, manifest.config):
                blobs.setdefault(descriptor.digest, descriptor)
    _Blobs(source, destination, report, told={digest for digest, each in blobs.items() if each.media_type in LAYER_TYPES}).copy(
        list(blobs.values())
    )
    for document in documents[:-1]:
        destination.put_document(document, is_root=False)
    destination.put_document(root, is_root=True)
    return Copied(digest=root.digest, size_bytes=len(root.content), media_type=root.media_type, blobs=tuple(blobs))


def _documents(source: "Source", document: Document, depth: int) -> Iterator[Document]:
    """List the documents of an image, each after those that it names; each once."""
    if document.media_type in INDEX_TYPES:
        if depth >= MAX_INDEX_DEPTH:
            raise IntegrityError(f"'{source.described}' is an index of indexes of indexes")
        index = Index.from_bytes(document.content, f"the index of '{source.described}'")
        for descriptor in {each.digest: each for each in index.manifests}.values():
            inner = source.document(descriptor.digest)
            if inner.digest != descriptor.digest or len(inner.content) != descriptor.size_bytes:
                raise IntegrityError(f"'{source.described}': the manifest {descriptor.digest} is another one: {inner.digest}")
            yield from _documents(source, inner, depth + 1)
    yield document


class _Blobs:
    """Blobs on their way from one place to another."""

    def __init__(self, source: "Source", destination: "Destination", report: Report, *, told: Set[Digest]) -> None:
        self._source, self._destination, self._report, self._told = source, destination, report, told
        self._cancelled = threading.Event()

    def copy(self, descriptors: list[Descriptor]) -> None:
        """Copy them all; the first error stops the others."""
        pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="copy")
        try:
            futures = [pool.submit(self._copy_one, each) for each in descriptors]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failures = [error for future in done if (error := future.exception()) is not None]
            if failures:
                raise next((error for error in failures if not isinstance(error, CancelledError)), failures[0])
        finally:
            self._cancelled.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _copy_one(self, descriptor: Descriptor) -> None:
        wait_s = FIRST_WAIT_S
        attempts: int = getattr(self._destination, "attempts", getattr(self._source, "attempts", ATTEMPTS))
        for attempt in range(1, attempts + 1):
            self._check_wanted()
            try:
                if self._destination.has_blob(descriptor):
                    origin = getattr(self._destination, "mounted", {}).get(descriptor.digest, "")
                    self._tell(descriptor, State.MOUNTED if origin else State.KNOWN, detail=origin)
                    return
                with self._source.blob(descriptor) as raw:
                    self._destination.put_blob(descriptor, _Verified(raw, descriptor, self._source.described, self._advance))
                self._tell(descriptor, State.UPLOADED, descriptor.size_bytes)
                return
            except TransferError as error:
                if attempt == attempts:
                    raise
                self._tell(descriptor, State.AGAIN, detail=error.message)
                self._cancelled.wait(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    def _advance(self, descriptor: Descriptor, done_bytes: int) -> None:
        self._check_wanted()
        self._tell(descriptor, State.UPLOADING, done_bytes)

    def _check_wanted(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError("the transfer was given up")

    def _tell(self, descriptor: Descriptor, state: State, done_bytes: int = 0, *, detail: str = "") -> None:
        if descriptor.digest in self._told:  # people count layers
            self._report(
                Transferred(
                    digest=descriptor.digest, state=state, done_bytes=done_bytes, total_bytes=descriptor.size_bytes, detail=detail
                )
            )


class _Verified:
    """A blob's bytes, of which the last come only if all of them together are what the manifest names."""

    def __init__(self, raw: Readable, descriptor: Descriptor, described: str, advance: "Advance") -> None:
        self._raw, self._descriptor, self._described, self._advance = raw, descriptor, described, advance
        self._hash = hashlib.new(descriptor.digest.algorithm)
        self._done_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._raw.read(size)
        self._hash.update(data)
        self._done_bytes += len(data)
        left = self._descriptor.size_bytes - self._done_bytes
        if left < 0 or (not data and left):
            raise IntegrityError(
                f"'{self._described}': blob {self._descriptor.digest} hasn't the {self._descriptor.size_bytes} bytes that it should"
            )
        if left == 0 and self._hash.hexdigest() != self._descriptor.digest.hex:
            raise IntegrityError(f"'{self._described}': blob {self._descriptor.digest} is damaged: its bytes have another digest")
        if data:
            self._advance(self._descriptor, self._done_bytes)
        return data


if TYPE_CHECKING:
    from collections.abc import Callable

    Advance = Callable[[Descriptor, int], None]
