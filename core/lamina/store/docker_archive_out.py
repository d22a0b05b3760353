"""Docker's archives being written, as Docker 25 and later does: an OCI layout and `manifest.json` in one tar.

Older ones, Podman and skopeo read `manifest.json` alone and take the paths that it names. Layers are unpacked.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from lamina.archive.compression import Readable
from lamina.model.digest import Digest
from lamina.model.image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Index, Manifest, dump_document
from lamina.model.reference import Reference
from lamina.store.archive_spool import blob_path
from lamina.store.content import LAYOUT_DOCUMENT
from lamina.store.image_index import CONTAINERD_NAME, REF_NAME
from lamina.store.tar_out import TarOut


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainLayer:
    """A layer whose uncompressed tar can be read; who opens it checks it."""

    diff_id: Digest
    size_bytes: int
    open: Callable[[], AbstractContextManager[Readable]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainImage:
    """An image with the names that the archive gives it. Those without a tag are left out."""

    config: bytes
    layers: Sequence[PlainLayer]
    names: Sequence[Reference] = ()


def write_docker_archive(tar: TarOut, images: Sequence[PlainImage]) -> None:
    """Write all of an archive but its end mark. The same images give the same bytes."""
    descriptors, entries = [], []
    repositories: dict[str, dict[str, str]] = {}
    for image in images:
        config = Descriptor(media_type=OCI_CONFIG, digest=Digest.of(image.config), size_bytes=len(image.config))
        plain = tuple(Descriptor(media_type=OCI_LAYER, digest=layer.diff_id, size_bytes=layer.size_bytes) for layer in image.layers)
        manifest = Manifest(config=config, layers=plain).to_bytes()
        for layer in image.layers:
            if tar.begin(blob_path(layer.diff_id), layer.size_bytes):
                with layer.open() as content:
                    tar.copy(content)
        tar.document(blob_path(config.digest), image.config)
        tar.document(blob_path(Digest.of(manifest)), manifest)
        for name in image.names or (None,):
            descriptors.append(
                Descriptor(
                    media_type=OCI_MANIFEST,
                    digest=Digest.of(manifest),
                    size_bytes=len(manifest),
                    annotations={} if name is None else {CONTAINERD_NAME: name.canonical, REF_NAME: name.tag or ""},
                )
            )
        tagged = [name for name in image.names if name.tag is not None]
        for name in tagged:
            repositories.setdefault(name.familiar_name, {})[name.tag or ""] = image.layers[-1].diff_id.hex if image.layers else ""
        entries.append(
            {
                "Config": blob_path(config.digest),
                "RepoTags": [name.familiar for name in tagged] or None,
                "Layers": [blob_path(layer.diff_id) for layer in image.layers],
                "LayerSources": {str(layer.digest): layer.to_json() for layer in plain},
            }
        )
    tar.document("index.json", Index(manifests=tuple(descriptors)).to_bytes())
    tar.document("manifest.json", dump_document(entries))
    tar.document("oci-layout", LAYOUT_DOCUMENT)
    if repositories:
        tar.document("repositories", dump_document(repositories))
