"""New images made here: a root file system taken in (`import`), and one layer on top of an image (`commit`)."""

import time
from collections.abc import Callable, Sequence

from lamina.archive.compression import Readable, Writable
from lamina.dataclasses import replace
from lamina.errors import UsageError
from lamina.model.image_config import Defaults, HistoryEntry, ImageConfig, format_time
from lamina.model.machine import machine_architecture
from lamina.model.reference import Reference
from lamina.store.content import Ingest
from lamina.store.images import Image, ImageStore
from lamina.store.layer_ingest import (
    DEFAULT_MAX_BYTES,
    Budget,
    CountedReader,
    IncomingLayer,
    LayerWriter,
    Progress,
    check_root,
    read_layer,
)
from lamina.store.oci_archive import oci_manifest


def import_rootfs(
    images: ImageStore,
    stream: Readable,
    *,
    changes: Sequence[str] = (),
    message: str = "",
    names: Sequence[Reference] = (),
    platform: str = "",
    created_ns: int | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    progress: Progress | None = None,
) -> Image:
    """Make an image of one layer out of a root file system's tar, packed or not.

    `changes` are Dockerfile instructions, `platform` is `OS/ARCHITECTURE[/VARIANT]`, this machine's if empty. The tar is checked
    to its end before the image is visible; after an error nothing is left.
    """
    defaults = Defaults()
    if changes:
        from lamina.store.changes import apply_changes  # the Dockerfile language: 15 ms that only --change needs

        defaults = apply_changes(defaults, changes)
    os_name, architecture, variant = _platform(platform)
    base = ImageConfig(os=os_name, architecture=architecture, variant=variant)
    comment = message or "Imported from -"

    def read(ingest: Ingest) -> IncomingLayer:
        budget = Budget.of(max_bytes)
        return read_layer(CountedReader(stream, progress), ingest, budget=budget, check=check_root)

    entry = HistoryEntry(comment=comment)
    return _add(images, base=None, config=base, defaults=defaults, read=read, entry=entry, names=names, created_ns=created_ns)


def add_layer_image(
    images: ImageStore,
    *,
    base: Image | None,
    write_layer: Callable[[Writable], None],
    defaults: Defaults | None = None,
    created_by: str = "",
    comment: str = "",
    author: str = "",
    names: Sequence[Reference] = (),
    created_ns: int | None = None,
    progress: Progress | None = None,
) -> Image:
    """Make an image of `base` and one layer more, whose uncompressed tar `write_layer` writes into the file object it is given.

    `defaults` replace the base's; None keeps them. The layers of the base are shared. After an error nothing is left.
    """
    config = images.config(base) if base is not None else ImageConfig(os="linux", architecture=machine_architecture())

    def read(ingest: Ingest) -> IncomingLayer:
        writer = LayerWriter(ingest, progress=progress)
        try:
            write_layer(writer)
            return writer.finish()
        finally:
            writer.close()

    entry = HistoryEntry(created_by=created_by, comment=comment, author=author)
    defaults = defaults if defaults is not None else config.config
    return _add(
        images,
        base=base,
        config=replace(config, author=author or config.author),
        defaults=defaults,
        read=read,
        entry=entry,
        names=names,
        created_ns=created_ns,
    )


def _add(
    images: ImageStore,
    *,
    base: Image | None,
    config: ImageConfig,
    defaults: Defaults,
    read: Callable[[Ingest], IncomingLayer],
    entry: HistoryEntry,
    names: Sequence[Reference],
    created_ns: int | None,
) -> Image:
    created = format_time(time.time_ns() if created_ns is None else created_ns)
    try:
        with images.ingest() as ingest:
            below = images.layers(base) if base is not None else []
            layer = read(ingest)
            known = images.layer_blob_of(layer.layer.diff_id)
            top = known if known is not None else layer.commit()  # the same layer again takes no space again
            new = replace(
                config,
                created=created,
                config=defaults,
                diff_ids=(*config.diff_ids, top.diff_id),
                history=(*config.history, replace(entry, created=created)),
            ).to_bytes()
            return images.add(ingest, manifest=oci_manifest(new, [*below, top]), config=new, layers=[*below, top], names=names)
    except BaseException:
        images.delete_unreferenced_blobs(wait=False)
        raise


def _platform(text: str) -> tuple[str, str, str]:
    if not text:
        return "linux", machine_architecture(), ""
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise UsageError(f"invalid platform '{text}'", hint="write OS/ARCHITECTURE, such as linux/amd64")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""
