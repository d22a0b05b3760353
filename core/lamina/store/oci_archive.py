"""OCI image layouts as archives (image-layout.md): from a spool into the store, and from the store into a tar.

Which image of a multi-platform index is taken: this machine's. The others are left out, for nothing here could run them; an image
that stands alone is taken whatever its platform.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lamina.errors import ArchiveError, IntegrityError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import (
    CONFIG_TYPES,
    INDEX_TYPES,
    LAYER_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_document,
)
from lamina.model.image_config import ImageConfig
from lamina.model.machine import machine_architecture
from lamina.model.reference import Reference
from lamina.store.archive_spool import ImageParts, Spool, blob_path, follow
from lamina.store.image_index import CONTAINERD_NAME, REF_NAME
from lamina.store.images import LayerBlob
from lamina.store.layer_ingest import IncomingLayer

_MAX_INDEX_DEPTH = 4


@dataclass(slots=True, kw_only=True)
class ArchivedImage:
    """An image found whole in an archive, everything checked, nothing committed yet."""

    manifest: bytes
    config: bytes
    layers: list[IncomingLayer]
    names: list[Reference]


def find_images(spool: Spool) -> list[ArchivedImage]:
    """Find the images that the layout's `index.json` names. Raise ArchiveError or IntegrityError unless all are whole."""
    found: dict[Digest, ArchivedImage] = {}
    for descriptor, manifest in _manifests(spool):
        image = found.get(manifest.digest)
        if image is None:
            image = found[manifest.digest] = _image(spool, manifest)
        name = name_of(descriptor)
        if name is not None and name not in image.names:
            image.names.append(name)
    if not found:
        raise ArchiveError("the archive has no image")
    return list(found.values())


def find_parts(spool: Spool) -> list[ImageParts]:
    """Find which files the images are made of, without reading the layers. Raise ArchiveError or IntegrityError."""
    found = {}
    for _, descriptor in _manifests(spool):
        _, manifest, config = _documents(spool, descriptor)
        paths = [follow(spool.links, blob_path(one.digest)) for one in manifest.layers]
        found[descriptor.digest] = ImageParts(config=config, layer_paths=paths)
    return list(found.values())


def _manifests(spool: Spool) -> Iterator[tuple[Descriptor, Descriptor]]:
    """Give each descriptor of the index with that of the manifest that it leads to."""
    content = spool.document("index.json")
    layout = spool.document("oci-layout")
    if content is None or layout is None:
        raise ArchiveError("the archive has no OCI layout: 'index.json' or 'oci-layout' is missing")
    layout_version = parse_document(layout, "oci-layout")
    if not isinstance(layout_version, dict) or layout_version.get("imageLayoutVersion") != "1.0.0":
        raise ArchiveError("the archive's OCI layout has another version than 1.0.0")
    for descriptor in _of_this_machine(list(Index.from_bytes(content, "index.json").manifests)):
        manifest = _manifest(spool, descriptor, depth=0)
        if manifest is not None:
            yield descriptor, manifest


def _manifest(spool: Spool, descriptor: Descriptor, *, depth: int) -> Descriptor | None:
    """Follow indexes down to the manifest of this machine. None for what isn't an image at all, such as an attestation."""
    if descriptor.media_type in MANIFEST_TYPES:
        return descriptor
    if descriptor.media_type not in INDEX_TYPES:
        return None
    if depth == _MAX_INDEX_DEPTH:
        raise ArchiveError(f"the archive's indexes lie more than {_MAX_INDEX_DEPTH} deep in each other")
    content = spool.blob_document(descriptor.digest, "index")
    if content is None:
        raise ArchiveError(f"the archive has no blob {descriptor.digest}, which its index.json names")
    _check_size(descriptor, content, "index")
    index = Index.from_bytes(content, f"index {descriptor.digest.short}")
    for candidate in _of_this_machine(list(index.manifests)):
        found = _manifest(spool, candidate, depth=depth + 1)
        if found is not None and spool.document(blob_path(found.digest)) is not None:
            return found
    platforms = ", ".join(str(one.platform) for one in index.manifests if one.platform and one.platform.os != "unknown")
    raise ArchiveError(f"the archive has no image for linux/{machine_architecture()}, only for {platforms or 'nothing named'}")


def _of_this_machine(descriptors: list[Descriptor]) -> Iterator[Descriptor]:
    """Leave out other platforms' manifests where this machine's stands beside them under the same name."""
    for descriptor in descriptors:
        if _is_ours(descriptor) is not False:
            yield descriptor
        elif descriptor.platform is not None and descriptor.platform.os != "unknown":
            rivals = [one for one in descriptors if name_of(one) == name_of(descriptor) and one is not descriptor]
            if not rivals:
                yield descriptor


def _is_ours(descriptor: Descriptor) -> bool | None:
    platform = descriptor.platform
    if platform is None or not platform.architecture:
        return None
    return platform.os == "linux" and platform.architecture == machine_architecture()


def name_of(descriptor: Descriptor) -> Reference | None:
    """The name that an index gives an image: containerd's whole one, else the layout's own, which may be anything."""
    for key in (CONTAINERD_NAME, REF_NAME):
        text = descriptor.annotations.get(key, "")
        try:
            if text:
                return Reference.parse(text)
        except UsageError:
            continue
    return None


def _documents(spool: Spool, descriptor: Descriptor) -> tuple[bytes, Manifest, bytes]:
    """Give an image's manifest, as bytes and read, and its configuration."""
    content = spool.blob_document(descriptor.digest, "manifest")
    if content is None:
        raise ArchiveError(f"the archive has no manifest {descriptor.digest}, which its index names")
    _check_size(descriptor, content, "manifest")
    manifest = Manifest.from_bytes(content, f"manifest {descriptor.digest.short}")
    if manifest.config.media_type not in CONFIG_TYPES:
        raise ArchiveError(f"manifest {descriptor.digest.short} is of a '{manifest.config.media_type}', not of a container image")
    config = spool.blob_document(manifest.config.digest, "image configuration")
    if config is None:
        raise ArchiveError(f"the archive has no image configuration {manifest.config.digest}, which its manifest names")
    _check_size(manifest.config, config, "image configuration")
    diff_ids = ImageConfig.from_bytes(config).diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise IntegrityError(f"the manifest has {len(manifest.layers)} layers, the configuration {len(diff_ids)}")
    return content, manifest, config


def _image(spool: Spool, descriptor: Descriptor) -> ArchivedImage:
    content, manifest, config = _documents(spool, descriptor)
    diff_ids = ImageConfig.from_bytes(config).diff_ids
    layers = [_layer(spool, one, diff_id) for one, diff_id in zip(manifest.layers, diff_ids, strict=True)]
    if any(one.digest != layer.layer.digest for one, layer in zip(manifest.layers, layers, strict=True)):
        content = oci_manifest(config, [layer.layer for layer in layers])
    return ArchivedImage(manifest=content, config=config, layers=layers, names=[])


def _layer(spool: Spool, descriptor: Descriptor, diff_id: Digest) -> IncomingLayer:
    if descriptor.media_type not in LAYER_TYPES:
        raise ArchiveError(f"layer {descriptor.digest} is a '{descriptor.media_type}', which is no layer")
    if descriptor.digest.algorithm != "sha256":
        raise ArchiveError(f"layer {descriptor.digest.short} is named by {descriptor.digest.algorithm}; only sha256 is supported")
    layer = spool.layer(blob_path(descriptor.digest))
    if layer is None:
        raise ArchiveError(f"the archive has no layer {descriptor.digest}, which its manifest names")
    if layer.source_digest != descriptor.digest:
        raise IntegrityError(f"layer {descriptor.digest} is damaged: its bytes have the digest {layer.source_digest}")
    if layer.source_bytes != descriptor.size_bytes:
        raise IntegrityError(f"layer {descriptor.digest} has {layer.source_bytes} bytes, its manifest says {descriptor.size_bytes}")
    check_diff_id(layer, diff_id)
    return layer


def check_diff_id(layer: IncomingLayer, diff_id: Digest) -> None:
    """Raise IntegrityError unless the layer is the one that the configuration names."""
    if layer.layer.diff_id != diff_id:
        raise IntegrityError(f"a layer has the diff_id {layer.layer.diff_id} where the configuration names {diff_id}")


def _check_size(descriptor: Descriptor, content: bytes, what: str) -> None:
    if len(content) != descriptor.size_bytes:
        raise IntegrityError(f"{what} {descriptor.digest} has {len(content)} bytes where {descriptor.size_bytes} were announced")


def oci_manifest(config: bytes, layers: Sequence[LayerBlob]) -> bytes:
    """Make the manifest of an image whose layers lie in the store."""
    return Manifest(
        media_type=OCI_MANIFEST,
        config=Descriptor(media_type=OCI_CONFIG, digest=Digest.of(config), size_bytes=len(config)),
        layers=tuple(layer_descriptor(layer) for layer in layers),
    ).to_bytes()


def layer_descriptor(layer: LayerBlob) -> Descriptor:
    return Descriptor(media_type=oci_layer_type(layer.media_type), digest=layer.digest, size_bytes=layer.stored_bytes)


def oci_layer_type(media_type: str) -> str:
    """Give OCI's type for a layer of Docker's type; the bytes are the same."""
    if "docker" not in media_type:
        return media_type
    kind = "nondistributable." if ".foreign." in media_type else ""
    ending = media_type.rpartition(".tar")[2].replace(".", "+")
    return f"application/vnd.oci.image.layer.{kind}v1.tar{ending}"


def named(descriptor: Descriptor, name: Reference | None) -> Descriptor:
    """Give a manifest's descriptor a name that containerd, Docker, skopeo and Podman find."""
    if name is None:
        return descriptor
    return replace(descriptor, annotations={REF_NAME: name.familiar, CONTAINERD_NAME: name.canonical})
