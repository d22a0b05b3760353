"""Images from and to archives: `load` and `save`. How the forms are read is in `docker_archive.py` and `oci_archive.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

from lamina.archive.compression import CHUNK_BYTES, Decompressed, Readable, Writable
from lamina.errors import IntegrityError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Index, Manifest, dump_document
from lamina.model.reference import Reference
from lamina.store import docker_archive, oci_archive
from lamina.store.archive_spool import blob_path, read_archive
from lamina.store.content import LAYOUT_DOCUMENT
from lamina.store.images import CONTAINERD_NAME, REF_NAME, Image, ImageStore, LayerBlob
from lamina.store.layer_ingest import DEFAULT_MAX_BYTES, Progress

_RECORD_BYTES = 10240  # tar(5): an archive is padded to whole records


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedImage:
    """An image that an archive had, and the names that the archive gave it."""

    image: Image
    names: tuple[Reference, ...]


def load(
    images: ImageStore, stream: Readable, *, max_bytes: int = DEFAULT_MAX_BYTES, progress: Progress | None = None
) -> list[LoadedImage]:
    """Take in every image of an archive: Docker's or OCI's form, packed or not, from a file or a pipe.

    All is checked before the first image becomes visible. After an error nothing of the archive is left.
    """
    try:
        with images.ingest() as ingest:
            spool = read_archive(stream, images, ingest, max_bytes=max_bytes, progress=progress)
            is_layout = spool.document("index.json") is not None and spool.document("oci-layout") is not None
            found = oci_archive.find_images(spool) if is_layout else docker_archive.find_images(spool)
            loaded = []
            for one in found:
                image = images.find_whole(Digest.of(one.config))
                if image is not None:  # the same image, perhaps packed in another way, takes no space again
                    for name in one.names:
                        images.tag(image, name)
                else:
                    layers = [layer.commit() for layer in one.layers]
                    image = images.add(ingest, manifest=one.manifest, config=one.config, layers=layers, names=one.names)
                loaded.append(LoadedImage(image=image, names=tuple(one.names)))
            return loaded
    except BaseException:
        images.delete_unreferenced_blobs(wait=False)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedImage:
    """An image to save, under which of its names."""

    image: Image
    names: tuple[Reference, ...] = ()


def save(
    images: ImageStore, selected: Sequence[SavedImage], out: Writable, *, form: str = "docker", progress: Progress | None = None
) -> None:
    """Write images as one archive: `docker`, as Docker 25 and later writes it, or `oci`, a layout with the blobs as they lie.

    The same images give the same bytes. What is written is checked on the way; an IntegrityError leaves `out` incomplete.
    """
    if form not in {"docker", "oci"}:
        raise UsageError(f"unknown archive format '{form}'", hint="use docker or oci")
    with images.content.ingest():  # nobody deletes a blob meanwhile
        tar = _TarOut(out, progress)
        if form == "oci":
            _save_oci(images, selected, tar)
        else:
            _save_docker(images, selected, tar)
        tar.finish()


def _save_oci(images: ImageStore, selected: Sequence[SavedImage], tar: "_TarOut") -> None:
    descriptors = []
    for one in selected:
        descriptor = Descriptor(media_type=one.image.manifest_type, digest=one.image.manifest, size_bytes=one.image.manifest_bytes)
        descriptors += [oci_archive.named(descriptor, name) for name in one.names or (None,)]
        manifest = images.manifest(one.image)
        for part in (*manifest.layers, manifest.config, descriptor):
            if tar.begin(blob_path(part.digest), images.content.size_bytes(part.digest)):
                with images.content.open(part.digest, verify=True) as blob:
                    tar.copy(blob)
    tar.document("index.json", Index(manifests=tuple(descriptors)).to_bytes())
    tar.document("oci-layout", LAYOUT_DOCUMENT)


def _save_docker(images: ImageStore, selected: Sequence[SavedImage], tar: "_TarOut") -> None:
    descriptors, entries = [], []
    repositories: dict[str, dict[str, str]] = {}
    for one in selected:
        config = images.content.read(one.image.id)
        layers = images.layers(one.image)
        plain = tuple(Descriptor(media_type=OCI_LAYER, digest=layer.diff_id, size_bytes=layer.size_bytes) for layer in layers)
        manifest = Manifest(
            config=Descriptor(media_type=OCI_CONFIG, digest=one.image.id, size_bytes=len(config)), layers=plain
        ).to_bytes()
        for layer in layers:
            if tar.begin(blob_path(layer.diff_id), layer.size_bytes):
                _copy_unpacked(images, layer, tar)
        tar.document(blob_path(one.image.id), config)
        tar.document(blob_path(Digest.of(manifest)), manifest)
        descriptor = Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(manifest), size_bytes=len(manifest))
        for name in one.names or (None,):
            annotations = {} if name is None else {CONTAINERD_NAME: name.canonical, REF_NAME: name.tag or ""}
            descriptors.append(
                Descriptor(
                    media_type=descriptor.media_type,
                    digest=descriptor.digest,
                    size_bytes=descriptor.size_bytes,
                    annotations=annotations,
                )
            )
        tagged = [name for name in one.names if name.tag is not None]
        for name in tagged:
            repositories.setdefault(name.familiar_name, {})[name.tag or ""] = layers[-1].diff_id.hex if layers else ""
        entries.append(
            {
                "Config": blob_path(one.image.id),
                "RepoTags": [name.familiar for name in tagged] or None,
                "Layers": [blob_path(layer.diff_id) for layer in layers],
                "LayerSources": {str(layer.digest): layer.to_json() for layer in plain},
            }
        )
    tar.document("index.json", Index(manifests=tuple(descriptors)).to_bytes())
    tar.document("manifest.json", dump_document(entries))
    tar.document("oci-layout", LAYOUT_DOCUMENT)
    if repositories:
        tar.document("repositories", dump_document(repositories))


def _copy_unpacked(images: ImageStore, layer: LayerBlob, tar: "_TarOut") -> None:
    with images.content.open(layer.digest) as blob, Decompressed(blob, limit_bytes=layer.size_bytes, threaded=True) as plain:
        tar.copy(plain)
        if plain.diff_id != layer.diff_id:
            raise IntegrityError(f"layer {layer.digest} is damaged", hint="remove the image and load it again")


class _TarOut:
    """A tar being written: files of known size, each path once, all of root's and of 1970, so that nothing but content counts."""

    def __init__(self, out: Writable, progress: Progress | None) -> None:
        self._out, self._progress = out, progress
        self._done_bytes = 0
        self._left_bytes = 0
        self._paths: set[str] = set()

    def begin(self, path: str, size_bytes: int) -> bool:
        """Begin a file; `copy` its bytes next. False if the path is there already."""
        if path in self._paths:
            return False
        from tarfile import GNU_FORMAT, TarInfo  # 14 ms

        folder = path.rpartition("/")[0]
        if folder and folder not in self._paths:
            self._begin_folder(folder)
        info = TarInfo(path)
        info.size, info.mode = size_bytes, 0o644
        self._write(info.tobuf(GNU_FORMAT))
        self._paths.add(path)
        self._left_bytes = size_bytes
        return True

    def _begin_folder(self, path: str) -> None:
        from tarfile import DIRTYPE, GNU_FORMAT, TarInfo

        above = path.rpartition("/")[0]
        if above and above not in self._paths:
            self._begin_folder(above)
        info = TarInfo(f"{path}/")
        info.type, info.mode = DIRTYPE, 0o755
        self._write(info.tobuf(GNU_FORMAT))
        self._paths.add(path)

    def copy(self, source: Readable) -> None:
        """Write the bytes of the file just begun."""
        size_bytes = self._left_bytes
        while data := source.read(CHUNK_BYTES):
            self._left_bytes -= len(data)
            self._write(data)
        if self._left_bytes != 0:
            raise IntegrityError(f"a blob has {size_bytes - self._left_bytes} bytes where {size_bytes} were recorded")
        self._write(bytes(-size_bytes % 512))

    def document(self, path: str, content: bytes) -> None:
        """Write a small file."""
        if self.begin(path, len(content)):
            self._write(content + bytes(-len(content) % 512))

    def finish(self) -> None:
        """Write the end mark."""
        self._write(bytes(1024))
        self._write(bytes(-self._done_bytes % _RECORD_BYTES))

    def _write(self, data: bytes) -> None:
        if data:
            self._out.write(data)
            self._done_bytes += len(data)
            if self._progress is not None:
                self._progress(self._done_bytes)
