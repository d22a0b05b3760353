"""`docker-archive:`, what `docker save` writes and `docker load` reads, as a place of one image.

Such an archive has no manifest of the kind that registries have, and its layers are unpacked. The source makes a manifest (Docker's
schema 2) and packs the layers, as our store would: their digests are then those of `lamina load`. If they are to lie unpacked where
they go, it offers them as they are, and a layer's digest is its diff_id. The destination unpacks what comes.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from lamina.archive.compression import CHUNK_BYTES, DETECT_BYTES, Compressed, Compression, Decompressed, Readable, Writable, detect
from lamina.archive.filerange import FileRange
from lamina.errors import ArchiveError, IntegrityError, NotFoundError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import (
    CONFIG_TYPES,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    LAYER_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Manifest,
)
from lamina.model.image_config import ImageConfig
from lamina.model.reference import Reference
from lamina.registry.archive_file import ArchiveFile, telling, what_archive
from lamina.registry.places import Place
from lamina.registry.transport import Document
from lamina.registry.writing import NewFile, blob_chunks, check_archive_path, naming, new_archive
from lamina.store.docker_archive import ArchiveEntry, no_images, read_entries
from lamina.store.docker_archive_out import PlainImage, PlainLayer, write_docker_archive
from lamina.store.layer_ingest import DEFAULT_MAX_BYTES
from lamina.store.tar_out import TarOut

_PACKERS = 4


def open_docker_archive(place: Place, *, spool_dir: str, plain_layers: bool) -> "DockerArchiveSource":
    """Open the image of an archive that a place means. Raise NotFoundError, ArchiveError, UsageError."""
    archive = ArchiveFile.open(place.path, described=place.described, spool_dir=spool_dir)
    try:
        with telling(place.described):
            entry = _choose(archive, place)
    except BaseException:
        archive.close()
        raise
    return DockerArchiveSource(archive, entry, described=place.described, spool_dir=spool_dir, plain_layers=plain_layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offered:
    """A layer as it is offered: a file of the archive as it lies, or packed in a file of its own."""

    descriptor: Descriptor
    open: Callable[[int], Readable]
    close: Callable[[], None] = lambda: None


class DockerArchiveSource:
    """One image of an archive. What is wrong with it is found out when its manifest is asked for."""

    def __init__(self, archive: ArchiveFile, entry: ArchiveEntry, *, described: str, spool_dir: str, plain_layers: bool) -> None:
        self.described = described
        self.names: Sequence[Reference] = entry.names
        self._archive, self._entry, self._spool_dir, self._plain_layers = archive, entry, spool_dir, plain_layers
        self._config = b""
        self._manifest: Document | None = None
        self._layers: dict[Digest, _Offered] = {}

    def document(self, digest: Digest | None = None) -> Document:
        """Make the image's manifest, which packs the layers the first time. Not for two threads at once until then."""
        if self._manifest is None:
            with telling(self.described):
                self._manifest = self._make_manifest()
        if digest is not None and digest != self._manifest.digest:
            raise NotFoundError(f"{self.described} has no manifest {digest}")
        return self._manifest

    def _make_manifest(self) -> Document:
        from concurrent.futures import ThreadPoolExecutor  # 20 ms

        self._config, diff_ids = self._entry.check(self._archive.read(self._entry.config_path))
        layers = dict(zip(self._entry.layer_paths, diff_ids, strict=True))  # a layer may be there twice
        with ThreadPoolExecutor(_PACKERS, thread_name_prefix="pack layer") as pool:
            waiting = {path: pool.submit(self._offer, path, diff_id) for path, diff_id in layers.items()}
            try:
                offered = {path: one.result() for path, one in waiting.items()}
            except BaseException:
                pool.shutdown(cancel_futures=True)
                for one in waiting.values():
                    if not one.cancelled() and one.exception() is None:
                        one.result().close()
                raise
        self._layers = {one.descriptor.digest: one for one in offered.values()}
        manifest = Manifest(
            media_type=DOCKER_MANIFEST,
            config=Descriptor(media_type=DOCKER_CONFIG, digest=Digest.of(self._config), size_bytes=len(self._config)),
            layers=tuple(offered[path].descriptor for path in self._entry.layer_paths),
        )
        return Document(content=manifest.to_bytes(), media_type=DOCKER_MANIFEST)

    def _offer(self, path: str, diff_id: Digest) -> _Offered:
        size_bytes = self._archive.size_bytes(path)
        if size_bytes is None:
            raise ArchiveError(f"the archive has no '{path}', which manifest.json names as a layer")
        compression = detect(_first(self._archive.open_file(path)))
        if compression is Compression.NONE and self._plain_layers:
            descriptor = Descriptor(media_type=DOCKER_LAYER, digest=diff_id, size_bytes=size_bytes)
            return _Offered(descriptor=descriptor, open=lambda offset: self._archive.open_file(path, offset))
        is_kept = compression is Compression.GZIP
        plain = Decompressed(
            self._archive.open_file(path), compression=compression, limit_bytes=DEFAULT_MAX_BYTES, hashed=True, threaded=is_kept
        )
        if is_kept:
            with plain:
                plain.finish()
            _check_diff_id(Digest(plain.diff_id), diff_id)
            descriptor = Descriptor(media_type=DOCKER_LAYER_GZIP, digest=Digest(plain.digest), size_bytes=plain.compressed_bytes)
            return _Offered(descriptor=descriptor, open=lambda offset: self._archive.open_file(path, offset))
        with contextlib.ExitStack() as undo:
            file = NewFile(self._spool_dir)
            undo.callback(file.close)
            packed = Compressed(file, compression=Compression.GZIP, level=1)
            while data := plain.read(CHUNK_BYTES):
                packed.write(data)
            packed.close()
            _check_diff_id(Digest(packed.diff_id), diff_id)
            undo.pop_all()
        size_bytes = packed.compressed_bytes
        return _Offered(
            descriptor=Descriptor(media_type=DOCKER_LAYER_GZIP, digest=Digest(packed.digest), size_bytes=size_bytes),
            open=lambda offset: FileRange(file.fd, offset, max(0, size_bytes - offset)),
            close=file.close,
        )

    @contextlib.contextmanager
    def blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        """Open the configuration or a layer."""
        self.document()
        if descriptor.digest in self._layers:
            yield self._layers[descriptor.digest].open(offset)
        elif descriptor.digest == Digest.of(self._config):
            import io

            yield io.BytesIO(self._config[offset:])
        else:
            raise NotFoundError(f"{self.described} has no blob {descriptor.digest}")

    def close(self) -> None:
        """Let go of the archive and of the layers that were packed."""
        for layer in self._layers.values():
            layer.close()
        self._archive.close()


def _choose(archive: ArchiveFile, place: Place) -> ArchiveEntry:
    content = archive.read("manifest.json")
    if content is None:
        looks = what_archive(archive)
        if looks:
            raise ArchiveError(f"it is no docker archive; {looks}", hint=f"write oci-archive:{place.path}")
        raise no_images(has_repositories=archive.size_bytes("repositories") is not None)
    entries = read_entries(content)
    if place.number is not None:
        if place.number >= len(entries):
            raise NotFoundError(f"{place.described} is beyond the archive's last image, which is @{len(entries) - 1}")
        return entries[place.number]
    if place.reference is not None:
        for entry in entries:
            if place.reference in entry.names:
                return replace(entry, names=[place.reference])
        raise NotFoundError(f"the archive '{place.path}' has no image '{place.reference.familiar}'", hint=_listed(entries))
    if len(entries) > 1:
        raise UsageError(f"the archive '{place.path}' has {len(entries)} images", hint=f"name one: {_listed(entries)}")
    return entries[0]


def _listed(entries: Sequence[ArchiveEntry]) -> str:
    shown = [", ".join(name.familiar for name in one.names) or f"@{index}" for index, one in enumerate(entries[:20])]
    return "it has " + ", ".join(shown) + (" and more" if len(entries) > 20 else "")


def _first(reader: Readable) -> bytes:
    return reader.read(DETECT_BYTES)


def _check_diff_id(found: Digest, expected: Digest) -> None:
    if found != expected:
        raise IntegrityError(f"a layer has the diff_id {found} where the configuration names {expected}")


def create_docker_archive(place: Place, *, spool_dir: str, names: Sequence[Reference]) -> "DockerArchiveDestination":
    """Make a destination that writes an archive when all of the image has come. Raise UsageError for what can't be written."""
    check_archive_path(place.path)
    given = [place.reference] if place.reference is not None else names
    return DockerArchiveDestination(lambda: new_archive(place.path), described=place.described, spool_dir=spool_dir, names=given)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spooled:
    """A blob that has come, as it came."""

    file: NewFile
    stored_bytes: int
    diff_id: Digest
    size_bytes: int


class DockerArchiveDestination:
    """Takes layers in, packed as they come, and writes the archive with the manifest."""

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[Writable]],
        *,
        described: str,
        spool_dir: str,
        names: Sequence[Reference],
    ) -> None:
        self.described = described
        self._opened, self._spool_dir = opened, spool_dir
        self._names = [name for name in names if name.tag is not None]
        self._layers: dict[Digest, _Spooled] = {}
        self._configs: dict[Digest, bytes] = {}

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether it has come already."""
        return descriptor.digest in self._layers or descriptor.digest in self._configs

    def put_blob(self, descriptor: Descriptor, content: Readable) -> None:
        """Put a configuration or a layer aside."""
        if descriptor.media_type in CONFIG_TYPES:
            if descriptor.size_bytes > MAX_DOCUMENT_BYTES:
                raise ArchiveError(f"the configuration {descriptor.digest} has {descriptor.size_bytes} bytes, too many")
            self._configs[descriptor.digest] = b"".join(blob_chunks(descriptor, content))
            return
        if descriptor.media_type not in LAYER_TYPES:
            raise ArchiveError(f"{self.described} can't hold a '{descriptor.media_type}', only container images")
        with contextlib.ExitStack() as undo:
            file = NewFile(self._spool_dir)
            undo.callback(file.close)
            tee = _Tee(blob_chunks(descriptor, content), file)
            with Decompressed(tee, limit_bytes=DEFAULT_MAX_BYTES, threaded=True) as plain:
                plain.finish()
            if Digest(plain.digest) != descriptor.digest:
                raise IntegrityError(f"blob {descriptor.digest} is damaged: its bytes have the digest {plain.digest}")
            undo.pop_all()
        self._layers[descriptor.digest] = _Spooled(
            file=file, stored_bytes=plain.compressed_bytes, diff_id=Digest(plain.diff_id), size_bytes=plain.size_bytes
        )

    def put_document(self, document: Document, *, is_root: bool) -> None:
        """Write the archive. Raise UsageError for an index, of which there is no form that every Docker reads."""
        if document.media_type not in MANIFEST_TYPES:
            raise UsageError(f"{self.described} can't hold images for several platforms", hint="copy one, without --all")
        if not is_root:
            return
        manifest = Manifest.from_bytes(document.content)
        config = self._configs.get(manifest.config.digest)
        if config is None:
            raise NotFoundError(f"the configuration {manifest.config.digest} wasn't copied to {self.described}")
        diff_ids = ImageConfig.from_bytes(config).diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise IntegrityError(f"the manifest has {len(manifest.layers)} layers, the configuration {len(diff_ids)}")
        layers = [self._plain(one.digest, diff_id) for one, diff_id in zip(manifest.layers, diff_ids, strict=True)]
        with naming(self.described), self._opened() as out:
            tar = TarOut(out)
            write_docker_archive(tar, [PlainImage(config=config, layers=layers, names=self._names)])
            tar.finish()

    def _plain(self, digest: Digest, diff_id: Digest) -> PlainLayer:
        layer = self._layers.get(digest)
        if layer is None:
            raise NotFoundError(f"layer {digest} wasn't copied to {self.described}")
        _check_diff_id(layer.diff_id, diff_id)
        return PlainLayer(diff_id=diff_id, size_bytes=layer.size_bytes, open=lambda: self._unpacked(layer))

    def _unpacked(self, layer: _Spooled) -> "Decompressed":
        raw = FileRange(layer.file.fd, 0, layer.stored_bytes)
        return Decompressed(raw, limit_bytes=layer.size_bytes, hashed=False, threaded=True)

    def close(self) -> None:
        """Throw away what was put aside."""
        for layer in self._layers.values():
            layer.file.close()


class _Tee:
    """A readable of chunks that keeps them in a file."""

    def __init__(self, chunks: Iterator[bytes], out: NewFile) -> None:
        self._chunks, self._out = chunks, out

    def read(self, size: int = -1, /) -> bytes:
        del size  # Decompressed and TarReader take what they are given
        data = next(self._chunks, b"")
        self._out.write(data)
        return data
