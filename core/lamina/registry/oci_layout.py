"""`oci:`, an OCI image layout (image-layout.md) as a place of one image among others; and reading `oci-archive:`, a tar of one.

    PATH/oci-layout, index.json        index.json names images by the annotation org.opencontainers.image.ref.name
    PATH/blobs/ALGORITHM/HEX

The destination adds to a layout that is there. Writers of one layout wait for each other only while they write its index. Not
here: writing an archive (`oci_archive.py`).
"""

import contextlib
import fcntl
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from lamina.archive.compression import Readable
from lamina.archive.filerange import FileRange
from lamina.dataclasses import replace
from lamina.errors import ArchiveError, IntegrityError, NotFoundError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import INDEX_TYPES, MAX_DOCUMENT_BYTES, OCI_INDEX, Descriptor, Index, parse_document
from lamina.model.reference import Reference
from lamina.registry.archive_file import ArchiveFile, telling, what_archive, what_directory
from lamina.registry.oci_form import OciForm, sniffed
from lamina.registry.places import Place
from lamina.registry.transport import Document
from lamina.registry.writing import NewDirectory, Pending, is_empty, lock_directory, naming, sync_directory, write_file
from lamina.store.archive_spool import blob_path
from lamina.store.content import LAYOUT_DOCUMENT
from lamina.store.image_index import CONTAINERD_NAME, REF_NAME

_MAX_LISTED = 20


class Files(Protocol):
    """The files of a layout: a directory's or an archive's."""

    def read(self, path: str) -> bytes | None:
        """Give a small file's bytes; None if it isn't there."""

    def size_bytes(self, path: str) -> int | None:
        """How long a file is; None if it isn't there."""

    def opened(self, path: str, offset: int) -> AbstractContextManager[Readable]:
        """Open a file from `offset` bytes on."""

    def close(self) -> None:
        """Let go of what is open."""


class DirectoryFiles:
    """The files of a directory. Only regular ones: no pipe is waited for."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self, path: str) -> bytes | None:
        """Give a small file's bytes; None if it isn't there."""
        try:
            with self._open(path) as fd:
                with open(fd, "rb", closefd=False) as file:
                    content = file.read(MAX_DOCUMENT_BYTES + 1)
        except NotFoundError:
            return None
        if len(content) > MAX_DOCUMENT_BYTES:
            raise ArchiveError(f"'{path}' has more than {MAX_DOCUMENT_BYTES} bytes, too many for a document")
        return content

    def size_bytes(self, path: str) -> int | None:
        """How long a file is; None if it isn't there."""
        try:
            return os.stat(os.path.join(self._path, path)).st_size
        except OSError:
            return None

    @contextlib.contextmanager
    def opened(self, path: str, offset: int) -> Iterator[Readable]:
        """Open a file from `offset` bytes on."""
        with self._open(path) as fd:
            yield FileRange(fd, offset, max(0, os.fstat(fd).st_size - offset))

    @contextlib.contextmanager
    def _open(self, path: str) -> Iterator[int]:
        whole = os.path.join(self._path, path)
        try:
            fd = os.open(whole, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"the file '{whole}' doesn't exist") from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ArchiveError(f"'{whole}' is not a regular file")
            yield fd
        finally:
            os.close(fd)

    def close(self) -> None:
        """Nothing is open between two calls."""


def open_oci_layout(place: Place) -> "LayoutSource":
    """Open the image of a layout that a place means. Raise NotFoundError, ArchiveError, UsageError."""
    if not os.path.lexists(place.path):
        raise NotFoundError(f"the directory '{place.path}' doesn't exist", hint="a colon ends the path")
    if not os.path.isdir(place.path):
        raise UsageError(f"'{place.path}' is not a directory", hint="an archive is oci-archive:PATH or docker-archive:PATH")
    if not os.path.exists(os.path.join(place.path, "oci-layout")):
        looks = what_directory(place.path)
        raise ArchiveError(f"'{place.path}' is no OCI layout: it has no file 'oci-layout'" + (f"; {looks}" if looks else ""))
    return LayoutSource(DirectoryFiles(place.path), place)


def open_oci_archive(place: Place, *, spool_dir: str) -> "LayoutSource":
    """Open the image of an archive that a place means. Raise NotFoundError, ArchiveError, UsageError."""
    archive = ArchiveFile.open(place.path, described=place.described, spool_dir=spool_dir)
    try:
        if archive.size_bytes("oci-layout") is None:
            looks = what_archive(archive)
            raise ArchiveError(
                f"{place.described}: it is no OCI layout" + (f"; {looks}" if looks else ": it has no file 'oci-layout'"),
                hint=f"write docker-archive:{place.path}" if looks else "`lamina import` takes the tar of a root file system",
            )
    except BaseException:
        archive.close()
        raise
    return LayoutSource(archive, place)


def check_layout(content: bytes | None) -> None:
    """Raise ArchiveError unless the file `oci-layout` says the version that there is."""
    document = parse_document(content, "oci-layout") if content is not None else None
    if not isinstance(document, dict) or document.get("imageLayoutVersion") != "1.0.0":
        raise ArchiveError("the OCI layout has another version than 1.0.0")


class LayoutSource:
    """One image of a layout, or the index of one for several platforms."""

    def __init__(self, files: Files, place: Place) -> None:
        self.described = place.described
        self._files = files
        self._known: dict[Digest, str] = {}
        try:
            with telling(self.described):
                check_layout(files.read("oci-layout"))
                content = files.read("index.json")
                if content is None:
                    raise ArchiveError("the OCI layout has no 'index.json'")
                chosen = _choose(Index.from_bytes(content, "index.json"), place)
                self.names: Sequence[Reference] = _names(chosen, place)
                self._root = self._read_root(chosen)
        except BaseException:
            files.close()
            raise

    def _read_root(self, chosen: Sequence[Descriptor]) -> Document:
        digests = {one.digest for one in chosen}
        if len(digests) == 1:
            return self._verified(chosen[0])
        # One image whose platforms stand side by side: the index that they would be in is made of them.
        self._known |= {one.digest: one.media_type for one in chosen}
        bare = tuple(replace(one, annotations={}) for one in chosen)
        return Document(content=Index(manifests=bare).to_bytes(), media_type=OCI_INDEX)

    def _verified(self, descriptor: Descriptor) -> Document:
        content = self._files.read(blob_path(descriptor.digest))
        if content is None:
            raise ArchiveError(f"there is no blob {descriptor.digest}, which index.json names")
        if len(content) != descriptor.size_bytes or (
            descriptor.digest.algorithm == "sha256" and Digest.of(content) != descriptor.digest
        ):
            raise IntegrityError(f"manifest {descriptor.digest} is damaged: its bytes have the digest {Digest.of(content)}")
        return self._document(content, descriptor.media_type, f"manifest {descriptor.digest.short}")

    def _document(self, content: bytes, media_type: str, what: str) -> Document:
        document = Document(content=content, media_type=media_type) if media_type else sniffed(content, what)
        if document.media_type in INDEX_TYPES:
            self._known |= {one.digest: one.media_type for one in Index.from_bytes(content, what).manifests}
        return document

    def document(self, digest: Digest | None = None) -> Document:
        """Give the image's manifest or index, or a manifest that it names."""
        if digest is None or digest == self._root.digest:
            return self._root
        with telling(self.described):
            content = self._files.read(blob_path(digest))
            if content is None:
                raise NotFoundError(f"{self.described} has no manifest {digest}")
            return self._document(content, self._known.get(digest, ""), f"manifest {digest.short}")

    @contextlib.contextmanager
    def blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        """Open a blob. Raise NotFoundError, or IntegrityError if it has another size than announced."""
        path = blob_path(descriptor.digest)
        size_bytes = self._files.size_bytes(path)
        if size_bytes is None:
            raise NotFoundError(f"{self.described} has no blob {descriptor.digest}")
        if size_bytes != descriptor.size_bytes:
            raise IntegrityError(
                f"{self.described}: blob {descriptor.digest} has {size_bytes} bytes where {descriptor.size_bytes} were announced"
            )
        with self._files.opened(path, offset) as content:
            yield content

    def close(self) -> None:
        """Let go of the files."""
        self._files.close()


def _choose(index: Index, place: Place) -> list[Descriptor]:
    """Give the entries of `index.json` that are the image meant: one, or the same image under several names or platforms."""
    entries = list(index.manifests)
    if not entries:
        raise ArchiveError("the OCI layout has no image")
    if place.number is not None:
        if place.number >= len(entries):
            raise NotFoundError(f"{place.described} is beyond the layout's last image, which is @{len(entries) - 1}")
        return [entries[place.number]]
    if place.tag:
        entries = [one for one in entries if place.tag in _texts(one) or _is_called(one, place.tag)]
        if not entries:
            raise NotFoundError(f"'{place.path}' has no image '{place.tag}'", hint=listed(index))
    together = len({tuple(_texts(one)) for one in entries}) == 1 and all(one.platform is not None for one in entries)
    images = len({one.digest for one in entries})
    if images > 1 and not together:
        raise UsageError(f"'{place.path}' has {images} images", hint=f"name one by a tag or @NUMBER: {listed(index)}")
    return entries


def listed(index: Index) -> str:
    """Say which images a layout has."""
    shown = [next(iter(_texts(one)), f"@{number}") for number, one in enumerate(index.manifests)]
    shown = list(dict.fromkeys(shown))
    return "it has " + ", ".join(shown[:_MAX_LISTED]) + (" and more" if len(shown) > _MAX_LISTED else "")


def _texts(descriptor: Descriptor) -> list[str]:
    return [text for key in (CONTAINERD_NAME, REF_NAME) if (text := descriptor.annotations.get(key, ""))]


def _is_called(descriptor: Descriptor, tag: str) -> bool:
    """Whether `busybox:1` is what containerd's `docker.io/library/busybox:1` names."""
    name = descriptor.annotations.get(CONTAINERD_NAME, "")
    try:
        return bool(name) and Reference.parse(name) == Reference.parse(tag)
    except UsageError:
        return False


def _names(chosen: Sequence[Descriptor], place: Place) -> list[Reference]:
    """What the image is called: by containerd's whole name, or the layout's if it is whole.

    A name that is a tag alone, as umoci's and most of skopeo's, is one of the layout: `oci:/srv/app` with `1.0` is `app:1.0`.
    """
    names: list[Reference] = []
    for descriptor in chosen:
        whole = descriptor.annotations.get(CONTAINERD_NAME, "")
        text = descriptor.annotations.get(REF_NAME, "")
        if not whole and text:
            whole = text if set(text) & set(":/") else f"{_stem(place.path)}:{text}"
        try:
            name = Reference.parse(whole) if whole else None
        except UsageError:
            continue
        if name is not None and name not in names and name.tag is not None:
            names.append(name)
    return names


def _stem(path: str) -> str:
    name = posixpath.basename(os.path.abspath(path)).lower()
    for ending in (".gz", ".zst", ".tgz", ".tar", ".oci"):
        name = name.removesuffix(ending)
    return name


class OciLayoutDestination:
    """Puts one image into a layout, made if it isn't there. Until the image is whole nothing of it has a name."""

    def __init__(self, place: Place) -> None:
        self.described = place.described
        self._tag = place.tag
        self._form = OciForm()
        self._refuse_other_things(place.path)
        self._directory = NewDirectory(place.path, self.described)
        self._files = DirectoryFiles(place.path)
        self._pending = Pending(place.path)

    def _refuse_other_things(self, path: str) -> None:
        if os.path.lexists(path) and not os.path.isdir(path):
            raise UsageError(f"'{path}' is not a directory", hint="an archive is oci-archive:PATH or docker-archive:PATH")
        with lock_directory(path, fcntl.LOCK_SH) as fd:  # another writer may be about to make a layout of it
            if fd is None or is_empty(path):
                return
            if not os.path.exists(os.path.join(path, "oci-layout")):
                looks = what_directory(path)
                raise UsageError(f"'{path}' is neither empty nor an OCI layout" + (f"; {looks}" if looks else ""))
            with telling(self.described):
                _read_index(DirectoryFiles(path))

    def _path(self, digest: Digest) -> str:
        return os.path.join(self._directory.path, blob_path(digest))

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the layout has the blob, in the size announced."""
        return descriptor.digest in self._pending or self._files.size_bytes(blob_path(descriptor.digest)) == descriptor.size_bytes

    def put_blob(self, descriptor: Descriptor, content: Readable) -> None:
        """Take a blob in, durable and without a name."""
        with naming(self.described):
            self._pending.add(descriptor, content)

    def put_document(self, document: Document, *, is_root: bool) -> None:
        """Take a manifest in; with the root, put everything into the layout and its index."""
        document = self._form.rewrite(document)
        with naming(self.described):
            self._pending.add_bytes(document.digest, document.content)
            if is_root:
                with self._directory.locked():
                    self._publish(document)

    def _publish(self, root: Document) -> None:
        path = self._directory.path
        index = _read_index(self._files) if self._files.size_bytes("oci-layout") is not None else Index(manifests=())
        for algorithm in ("sha256", "sha512"):
            if algorithm == "sha256" or self._pending.has_algorithm(algorithm):
                self._directory.make_below(f"blobs/{algorithm}")
        sync_directory(os.path.join(path, "blobs"))
        self._pending.publish(self._path)
        for algorithm in os.listdir(os.path.join(path, "blobs")):
            sync_directory(os.path.join(path, "blobs", algorithm))
        if self._files.size_bytes("oci-layout") is None:
            write_file(path, "oci-layout", LAYOUT_DOCUMENT)
        write_file(path, "index.json", added(index, root, self._tag).to_bytes())
        sync_directory(path)

    def close(self) -> None:
        """Throw away what isn't in the layout."""
        self._pending.close()
        self._directory.remove_if_empty()


def _read_index(files: DirectoryFiles) -> Index:
    check_layout(files.read("oci-layout"))
    content = files.read("index.json")
    return Index.from_bytes(content, "index.json") if content is not None else Index(manifests=())


def added(index: Index, root: Document, tag: str, *, name: Reference | None = None) -> Index:
    """Give an index with one more image, in place of what has its tag. Without a tag, an image that is there is there already."""
    annotations = {REF_NAME: tag} if tag else {}
    if name is not None:
        annotations[CONTAINERD_NAME] = name.canonical
    entry = Descriptor(media_type=root.media_type, digest=root.digest, size_bytes=len(root.content), annotations=annotations)
    if tag:
        kept = [one for one in index.manifests if one.annotations.get(REF_NAME) != tag]
    elif any(one.digest == root.digest for one in index.manifests):
        return index
    else:
        kept = list(index.manifests)
    return replace(index, manifests=(*kept, entry))
