"""How an image came to be, by its configuration's history (OCI image spec, config.md)."""

from lamina.dataclasses import dataclass
from lamina.model.digest import Digest
from lamina.model.image_config import created_ns_of
from lamina.store.images import Image, ImageStore


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """A line of `history`, the newest first. `image_id` is None but for the top."""

    image_id: Digest | None
    created_ns: int
    created_by: str
    size_bytes: int
    comment: str
    names: tuple[str, ...] = ()


def history(images: ImageStore, image: Image) -> list[HistoryRow]:
    """Tell the steps, the newest first."""
    sizes = iter([layer.size_bytes for layer in images.layers(image)])
    entries = images.config(image).history
    rows = [
        HistoryRow(
            image_id=image.id if index == len(entries) - 1 else None,
            created_ns=created_ns_of(entry.created),
            created_by=entry.created_by,
            size_bytes=0 if entry.empty_layer else next(sizes, 0),
            comment=entry.comment,
            names=tuple(name.familiar for name in images.names(image)) if index == len(entries) - 1 else (),
        )
        for index, entry in enumerate(entries)
    ]
    return rows[::-1]
