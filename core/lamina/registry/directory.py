"""`dir:`, containers/image's directory of one image, made for looking into.

    PATH/version               "Directory Transport Version: 1.1"
    PATH/manifest.json         the manifest or index, byte for byte
    PATH/HEX.manifest.json     a manifest that the index names
    PATH/HEX                   a blob

Signatures (`signature-N`) are neither read nor written.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Sequence

from lamina.archive.compression import Readable
from lamina.errors import ArchiveError, IntegrityError, NotFoundError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import Descriptor
from lamina.model.reference import Reference
from lamina.registry.archive_file import telling, what_directory
from lamina.registry.oci_form import sniffed
from lamina.registry.oci_layout import DirectoryFiles
from lamina.registry.places import Place
from lamina.registry.transport import Document
from lamina.registry.writing import NewDirectory, Pending, is_empty, lock_directory, naming, sync_directory, write_file

_VERSION = b"Directory Transport Version: 1.1\n"
_KNOWN_VERSIONS = (b"Directory Transport Version: 1.0", b"Directory Transport Version: 1.1", b"Directory Transport Version: 1.2")
_OWN_FILE = re.compile(r"(?:[a-f0-9]{64}|[a-f0-9]{128}|sha512-[a-f0-9]{128})(?:\.manifest\.json)?|(?:.*\.)?signature-[0-9]+")


def _name(digest: Digest) -> str:
    return digest.hex if digest.algorithm == "sha256" else f"{digest.algorithm}-{digest.hex}"


class DirectorySource:
    """The image of a directory. It has no name."""

    names: Sequence[Reference] = ()

    def __init__(self, place: Place) -> None:
        self.described = place.described
        self._files = DirectoryFiles(place.path)
        if not os.path.lexists(place.path):
            raise NotFoundError(f"the directory '{place.path}' doesn't exist")
        if not os.path.isdir(place.path):
            raise UsageError(f"'{place.path}' is not a directory", hint="an archive is oci-archive:PATH or docker-archive:PATH")
        with telling(self.described):
            version = self._files.read("version")
            content = self._files.read("manifest.json")
            if content is None:
                looks = what_directory(place.path)
                raise ArchiveError("there is no 'manifest.json'" + (f"; {looks}" if looks else ""))
            if version is not None and not version.strip().startswith(_KNOWN_VERSIONS):
                raise ArchiveError("its file 'version' names none of 1.0 to 1.2")
            self._root = sniffed(content, "manifest.json")

    def document(self, digest: Digest | None = None) -> Document:
        """Give `manifest.json`, or a manifest that it names."""
        if digest is None or digest == self._root.digest:
            return self._root
        with telling(self.described):
            content = self._files.read(f"{_name(digest)}.manifest.json")
            if content is None:
                raise NotFoundError(f"{self.described} has no manifest {digest}")
            return sniffed(content, f"manifest {digest.short}")

    @contextlib.contextmanager
    def blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        """Open a blob. Raise NotFoundError, or IntegrityError if it has another size than announced."""
        size_bytes = self._files.size_bytes(_name(descriptor.digest))
        if size_bytes is None:
            raise NotFoundError(f"{self.described} has no blob {descriptor.digest}")
        if size_bytes != descriptor.size_bytes:
            raise IntegrityError(
                f"{self.described}: blob {descriptor.digest} has {size_bytes} bytes where {descriptor.size_bytes} were announced"
            )
        with self._files.opened(_name(descriptor.digest), offset) as content:
            yield content

    def close(self) -> None:
        """Nothing is open between two calls."""


class DirectoryDestination:
    """Writes one image into a directory, made if it isn't there; an image that is there is replaced when the new one is whole."""

    def __init__(self, place: Place) -> None:
        self.described = place.described
        path = place.path
        if os.path.lexists(path) and not os.path.isdir(path):
            raise UsageError(f"'{path}' is not a directory")
        with lock_directory(path, fcntl.LOCK_SH) as fd:
            if fd is not None and not os.path.exists(os.path.join(path, "manifest.json")) and not is_empty(path):
                looks = what_directory(path)
                raise UsageError(f"'{path}' is not empty, and no image directory" + (f"; {looks}" if looks else ""))
        self._directory = NewDirectory(path, self.described)
        self._pending = Pending(path)
        self._manifests: dict[str, bytes] = {}
        self._blobs: set[str] = set()

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether it has come already. What an older image left there is never taken."""
        return descriptor.digest in self._pending

    def put_blob(self, descriptor: Descriptor, content: Readable) -> None:
        """Take a blob in, durable and without a name."""
        with naming(self.described):
            self._pending.add(descriptor, content)
        self._blobs.add(_name(descriptor.digest))

    def put_document(self, document: Document, *, is_root: bool) -> None:
        """Keep a manifest; with the root, give everything its name."""
        if not is_root:
            self._manifests[f"{_name(document.digest)}.manifest.json"] = document.content
            return
        path = self._directory.path
        with naming(self.described), self._directory.locked():
            self._pending.publish(lambda digest: os.path.join(path, _name(digest)))
            for name, content in (*self._manifests.items(), ("version", _VERSION)):
                write_file(path, name, content)
            write_file(path, "manifest.json", document.content)
            kept = self._blobs | set(self._manifests)
            for name in os.listdir(path):
                if name not in kept and _OWN_FILE.fullmatch(name):  # of the image that was there
                    os.unlink(os.path.join(path, name))
            sync_directory(path)

    def close(self) -> None:
        """Throw away what has no name."""
        self._pending.close()
        self._directory.remove_if_empty()
