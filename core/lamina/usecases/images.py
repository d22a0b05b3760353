"""Which images a person means by the words that a command was given. Not their bytes."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lamina.errors import UsageError
from lamina.model.reference import DEFAULT_TAG, Reference

if TYPE_CHECKING:
    from lamina.store.image_archive import SavedImage
    from lamina.store.images import Image, ImageStore


def selected_images(store: "ImageStore", names: Sequence[str]) -> "list[SavedImage]":
    """Find what `save NAMES` means, each image once with the names that it is saved under.

    A repository without a tag is all of its tags, as in Docker; what is named by id is saved without a name.
    Raises `NotFoundError`.
    """
    from lamina.store.image_archive import SavedImage

    found: dict[str, tuple[Image, list[Reference]]] = {}
    for text in names:
        for image, name in _meant(store, text):
            _, taken = found.setdefault(str(image.id), (image, []))
            if name is not None and name not in taken:
                taken.append(name)
    return [SavedImage(image=image, names=tuple(taken)) for image, taken in found.values()]


def _meant(store: "ImageStore", text: str) -> "Iterable[tuple[Image, Reference | None]]":
    try:
        asked = Reference.parse(text, default_tag=None)
    except UsageError:
        return [(store.resolve(text), None)]  # an id, or the same error, said by who looks it up
    if asked.tag is None and asked.digest is None:
        tags = [(store.get(image_id), name) for name, image_id in store.all_names() if name.name == asked.name and name.tag]
        if tags:
            return tags
    image = store.resolve(text)
    wanted = asked if asked.tag or asked.digest else Reference.parse(text, default_tag=DEFAULT_TAG)
    return [(image, wanted if wanted in store.names(image) else None)]
