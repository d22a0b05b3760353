"""`oci-archive:` as a destination: an OCI image layout as one tar, with the blobs as they come.

Each blob's place in the file is kept free when it begins to come, so that several come at once and none is written twice. Reading
is `oci_layout.py`'s.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Sequence

from lamina.archive.compression import CHUNK_BYTES, Readable
from lamina.archive.filerange import FileRange
from lamina.errors import IntegrityError
from lamina.model.digest import Digest
from lamina.model.image import Descriptor, Index
from lamina.model.reference import Reference
from lamina.registry.oci_form import OciForm
from lamina.registry.oci_layout import added
from lamina.registry.places import Place
from lamina.registry.transport import Document
from lamina.registry.writing import (
    NewFile,
    blob_chunks,
    check_archive_path,
    is_stream,
    naming,
    new_archive,
    sync_directory,
)
from lamina.store.archive_spool import blob_path
from lamina.store.content import LAYOUT_DOCUMENT
from lamina.store.tar_out import end_mark, file_header, folder_header, padding


class OciArchiveDestination:
    """Writes one image as an archive, which is there when the image is whole."""

    def __init__(self, place: Place, *, spool_dir: str, names: Sequence[Reference]) -> None:
        self.described = place.described
        check_archive_path(place.path)
        self._path, self._tag = place.path, place.tag
        self._name: Reference | None = None
        if not place.tag and names:  # an archive made of an image with a name has it, as Docker's have
            self._name = names[0]
            self._tag = self._name.familiar
        self._form = OciForm()
        self._lock = threading.Lock()
        self._places: dict[str, int] = {}
        self._begun: set[Digest] = set()
        self._whole: set[Digest] = set()
        with naming(self.described):
            self._is_stream = is_stream(place.path)
            self._file = NewFile(spool_dir if self._is_stream else os.path.dirname(os.path.realpath(place.path)))
        self._end = 0
        for folder in ("blobs", "blobs/sha256"):
            self._folder(folder)

    def _folder(self, path: str) -> None:
        with self._lock:
            if path not in self._places:
                self._places[path] = self._end
                self._file.write_at(folder_header(path), self._end)
                self._end += 512

    def _begin(self, path: str, size_bytes: int) -> int:
        """Keep a place free; give where the file's bytes begin. The same path has the same place."""
        header = file_header(path, size_bytes)
        with self._lock:
            if path not in self._places:
                self._file.write_at(header, self._end)
                self._places[path] = self._end + len(header)
                self._end += len(header) + size_bytes + len(padding(size_bytes))
            return self._places[path]

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether it has come already."""
        return descriptor.digest in self._whole

    def put_blob(self, descriptor: Descriptor, content: Readable) -> None:
        """Write a blob at its place."""
        found = hashlib.new(descriptor.digest.algorithm)
        with naming(self.described):
            if descriptor.digest.algorithm != "sha256":
                self._folder(f"blobs/{descriptor.digest.algorithm}")
            self._begun.add(descriptor.digest)
            at = self._begin(blob_path(descriptor.digest), descriptor.size_bytes)
            for data in blob_chunks(descriptor, content):
                found.update(data)
                self._file.write_at(data, at)
                at += len(data)
        if found.hexdigest() != descriptor.digest.hex:
            raise IntegrityError(
                f"blob {descriptor.digest} is damaged: its bytes have the digest {descriptor.digest.algorithm}:{found.hexdigest()}"
            )
        self._whole.add(descriptor.digest)

    def put_document(self, document: Document, *, is_root: bool) -> None:
        """Write a manifest; with the root, complete the archive."""
        document = self._form.rewrite(document)
        if is_root and self._begun != self._whole:
            raise IntegrityError(f"blob {min(self._begun - self._whole)} didn't come whole to {self.described}")
        with naming(self.described):
            self._document(blob_path(document.digest), document.content)
            if is_root:
                self._document("index.json", added(Index(manifests=()), document, self._tag, name=self._name).to_bytes())
                self._document("oci-layout", LAYOUT_DOCUMENT)
                self._file.write_at(end_mark(self._end), self._end)
                self._publish(self._end + len(end_mark(self._end)))

    def _document(self, path: str, content: bytes) -> None:
        at = self._begin(path, len(content))
        self._file.write_at(content, at)

    def _publish(self, size_bytes: int) -> None:
        if self._is_stream:
            with new_archive(self._path) as out:
                whole = FileRange(self._file.fd, 0, size_bytes)
                while data := whole.read(CHUNK_BYTES):
                    out.write(data)
            return
        path = os.path.realpath(self._path)
        self._file.publish(path)
        sync_directory(os.path.dirname(path))

    def close(self) -> None:
        """Throw away what isn't complete."""
        with contextlib.suppress(OSError):
            self._file.close()
