"""Images from and to archives: `load` and `save`. How the forms are read is in `docker_archive.py` and `oci_archive.py`,
how they are written in `docker_archive_out.py` and `tar_out.py`."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from lamina.archive.compression import Decompressed, Readable, Writable
from lamina.archive.filerange import FileRange
from lamina.errors import IntegrityError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import Descriptor, Index
from lamina.model.reference import Reference
from lamina.store import docker_archive, oci_archive
from lamina.store.archive_plan import plan_archive
from lamina.store.archive_spool import blob_path, read_archive
from lamina.store.content import LAYOUT_DOCUMENT, ContentStore
from lamina.store.docker_archive_out import PlainImage, PlainLayer, write_docker_archive
from lamina.store.early_unpacking import EarlyUnpacking
from lamina.store.images import Image, ImageStore, LayerBlob
from lamina.store.layer_ingest import DEFAULT_MAX_BYTES, Budget, Progress
from lamina.store.layers import Unpacking
from lamina.store.tar_out import TarOut


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedImage:
    """An image that an archive had, and the names that the archive gave it."""

    image: Image
    names: tuple[Reference, ...]


def load(
    images: ImageStore,
    stream: Readable,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    progress: Progress | None = None,
    unpacking: Unpacking | None = None,
) -> list[LoadedImage]:
    """Take in every image of an archive: Docker's or OCI's form, packed or not, from a file or a pipe.

    All is checked before the first image becomes visible. After an error nothing of the archive is left.
    """
    early = EarlyUnpacking(images, unpacking) if unpacking is not None else None
    try:
        with images.ingest() as ingest:
            plan = plan_archive(stream, max_bytes=max_bytes) if early is not None else None
            budget = Budget.of(max_bytes)
            if early is not None and plan is not None:
                taken = early.run(plan, ingest, budget, progress)
                source = FileRange(plan.fd, 0, plan.size_bytes)
                spool = read_archive(source, images, ingest, budget=budget, seek_bytes=plan.size_bytes, taken=taken)
            else:
                spool = read_archive(stream, images, ingest, budget=budget, progress=progress)
            found = oci_archive.find_images(spool) if spool.is_layout else docker_archive.find_images(spool)
            loaded = []
            for one in found:
                image = images.recognise(Digest.of(one.config), names=one.names)
                if image is None:
                    layers = [layer.commit() for layer in one.layers]
                    image = images.add(ingest, manifest=one.manifest, config=one.config, layers=layers, names=one.names)
                loaded.append(LoadedImage(image=image, names=tuple(one.names)))
        if early is not None:
            early.end()
        return loaded
    except BaseException:
        if early is not None:
            early.undo()
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
        tar = TarOut(out, progress)
        if form == "oci":
            _save_oci(images, selected, tar)
        else:
            _save_docker(images, selected, tar)
        tar.finish()


def _save_oci(images: ImageStore, selected: Sequence[SavedImage], tar: TarOut) -> None:
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


def _save_docker(images: ImageStore, selected: Sequence[SavedImage], tar: TarOut) -> None:
    plain = [
        PlainImage(
            config=images.content.read(one.image.id),
            layers=[
                PlainLayer(diff_id=layer.diff_id, size_bytes=layer.size_bytes, open=partial(_unpacked, images.content, layer))
                for layer in images.layers(one.image)
            ],
            names=one.names,
        )
        for one in selected
    ]
    write_docker_archive(tar, plain)


@contextlib.contextmanager
def _unpacked(content: ContentStore, layer: LayerBlob) -> Iterator[Readable]:
    with content.open(layer.digest) as blob, Decompressed(blob, limit_bytes=layer.size_bytes, threaded=True) as plain:
        yield plain
        if plain.diff_id != layer.diff_id:
            raise IntegrityError(f"layer {layer.digest} is damaged", hint="remove the image and load it again")
