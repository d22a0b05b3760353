"""Documents in OCI's form: what Docker's manifests and indexes become in a layout, where OCI's media types are to be.

Configurations and layers stay what they are, byte for byte; so an image keeps its id, and only its manifest has another digest.
"""

from lamina.dataclasses import replace
from lamina.errors import ArchiveError
from lamina.model.digest import Digest
from lamina.model.image import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Fields,
    Index,
    Manifest,
    parse_document,
)
from lamina.registry.transport import Document
from lamina.store.oci_archive import oci_layer_type


class OciForm:
    """Rewrites the documents of one image; an index after the manifests that it names."""

    def __init__(self) -> None:
        self._became: dict[Digest, Document] = {}

    def rewrite(self, document: Document) -> Document:
        """Give a document in OCI's form: itself if it is in it."""
        if document.media_type == DOCKER_MANIFEST:
            found = Document(content=_manifest(Manifest.from_bytes(document.content)).to_bytes(), media_type=OCI_MANIFEST)
        elif document.media_type in INDEX_TYPES:
            found = self._index(document)
        else:
            return document
        if found.digest != document.digest:
            self._became[document.digest] = found
        return found

    def _index(self, document: Document) -> Document:
        index = Index.from_bytes(document.content)
        if document.media_type != DOCKER_INDEX and not any(one.digest in self._became for one in index.manifests):
            return document
        manifests = tuple(self._renamed(one) for one in index.manifests)
        return Document(content=replace(index, manifests=manifests, media_type=OCI_INDEX).to_bytes(), media_type=OCI_INDEX)

    def _renamed(self, descriptor: Descriptor) -> Descriptor:
        became = self._became.get(descriptor.digest)
        if became is None:
            return descriptor
        return replace(descriptor, media_type=became.media_type, digest=became.digest, size_bytes=len(became.content))


def _manifest(manifest: Manifest) -> Manifest:
    config = manifest.config
    return replace(
        manifest,
        media_type=OCI_MANIFEST,
        config=replace(config, media_type=OCI_CONFIG if config.media_type == DOCKER_CONFIG else config.media_type),
        layers=tuple(replace(layer, media_type=oci_layer_type(layer.media_type)) for layer in manifest.layers),
    )


def sniffed(content: bytes, what: str) -> Document:
    """Give a document whose place doesn't say its media type. Raise ArchiveError if it says it nowhere itself."""
    fields = Fields(parse_document(content, what), what)
    media_type = fields.text("mediaType")
    if not media_type and "manifests" in fields.rest:
        media_type = OCI_INDEX
    elif not media_type and "config" in fields.rest:
        media_type = OCI_MANIFEST
    elif fields.take("schemaVersion") == 1:
        raise ArchiveError(f"{what} is in Docker's schema 1, which is no longer in use", hint="pull and push it with an old Docker")
    if media_type not in INDEX_TYPES | MANIFEST_TYPES:
        raise ArchiveError(
            f"{what} is a '{media_type}', neither a manifest nor an index" if media_type else f"{what} is no manifest"
        )
    return Document(content=content, media_type=media_type)
