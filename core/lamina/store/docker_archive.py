"""Docker's archives, what `docker save` writes: the form with `manifest.json`, as old as Docker 1.10 and as Podman writes it too.

Not here: the OCI layout that Docker from 25 on puts into the same tar (`oci_archive.py`), and the writing (`image_archive.py`).
"""

import posixpath

from lamina.errors import ArchiveError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import Fields, parse_document
from lamina.model.image_config import ImageConfig
from lamina.model.reference import Reference
from lamina.store.archive_spool import Spool
from lamina.store.layer_ingest import IncomingLayer
from lamina.store.oci_archive import ArchivedImage, check_diff_id, oci_manifest


def find_images(spool: Spool) -> list[ArchivedImage]:
    """Find the images that `manifest.json` names. Raise ArchiveError or IntegrityError unless all are whole."""
    content = spool.document("manifest.json")
    if content is None:
        if spool.document("repositories") is not None:
            raise ArchiveError(
                "the archive is in the form of Docker before 1.10, which has no configuration digests",
                hint="load it with an old Docker and save it again, or use `lamina import` on its layers",
            )
        raise ArchiveError(
            "the archive has no images: neither 'manifest.json' nor 'index.json' is in it",
            hint="`lamina import` takes the tar of a root file system",
        )
    entries = parse_document(content, "manifest.json")
    if not isinstance(entries, list) or not entries:
        raise ArchiveError("manifest.json is not a list of images")
    return [_image(spool, entry, f"manifest.json[{index}]") for index, entry in enumerate(entries)]


def _image(spool: Spool, entry: object, where: str) -> ArchivedImage:
    fields = Fields(entry, where)
    config_path = _normal(fields.required_text("Config"))
    layer_paths = [_normal(path) for path in fields.texts("Layers")]
    names = []
    for text in fields.texts("RepoTags"):
        try:
            names.append(Reference.parse(text))
        except UsageError as error:
            raise fields.wrong("RepoTags", f"has an {error.message}") from None
    config = spool.document(config_path)
    if config is None:
        raise ArchiveError(f"the archive has no '{config_path}', which manifest.json names as a configuration")
    stated = posixpath.basename(config_path).removesuffix(".json")
    if len(stated) == 64 and Digest.of(config).hex != stated:
        raise fields.wrong("Config", f"names '{config_path}', which has the digest {Digest.of(config)}")
    diff_ids = ImageConfig.from_bytes(config, config_path).diff_ids
    if len(diff_ids) != len(layer_paths):
        raise fields.wrong("Layers", f"has {len(layer_paths)} layers, the configuration {len(diff_ids)}")
    layers = []
    for path, diff_id in zip(layer_paths, diff_ids, strict=True):
        layer = _layer(spool, path)
        check_diff_id(layer, diff_id)
        layers.append(layer)
    return ArchivedImage(manifest=oci_manifest(config, [one.layer for one in layers]), config=config, layers=layers, names=names)


def _layer(spool: Spool, path: str) -> IncomingLayer:
    layer = spool.layer(path)
    if layer is None:
        raise ArchiveError(f"the archive has no '{path}', which manifest.json names as a layer")
    return layer


def _normal(path: str) -> str:
    return posixpath.normpath(path)
