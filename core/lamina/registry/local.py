"""`lamina:`, our own image store as a source. Into it, `pull` copies."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lamina.archive.compression import Readable
from lamina.errors import NotFoundError
from lamina.model.digest import Digest
from lamina.model.image import Descriptor
from lamina.model.reference import Reference
from lamina.registry.transport import Document

if TYPE_CHECKING:
    from lamina.registry.places import Place
    from lamina.store.images import Image, ImageStore


class StoreSource:
    """One image of the store, whose content nobody deletes until `close`."""

    def __init__(self, place: "Place", images: "ImageStore") -> None:
        self._images = images
        self._held = contextlib.ExitStack()
        self._held.enter_context(images.content.ingest())
        try:
            self._image: Image = images.resolve(place.id or (place.reference.familiar if place.reference is not None else ""))
        except BaseException:
            self.close()
            raise
        self.described = place.described
        known = images.names(self._image)
        self.names: Sequence[Reference] = [place.reference] if place.reference in known and place.reference is not None else known

    def document(self, digest: Digest | None = None) -> Document:
        """Give the image's manifest."""
        if digest is not None and digest != self._image.manifest:
            raise NotFoundError(f"{self.described} has no manifest {digest}")
        return Document(content=self._images.content.read(self._image.manifest), media_type=self._image.manifest_type)

    @contextlib.contextmanager
    def blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        """Open a blob."""
        with self._images.content.open(descriptor.digest) as file:
            file.seek(offset)
            yield file

    def close(self) -> None:
        """Let others delete again."""
        self._held.close()
