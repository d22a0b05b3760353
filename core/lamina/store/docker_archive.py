"""Docker's archives, what `docker save` writes: the form with `manifest.json`, as old as Docker 1.10 and as Podman writes it too.

Not here: the OCI layout that Docker from 25 on puts into the same tar (`oci_archive.py`); the writing (`docker_archive_out.py`).
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from lamina.errors import ArchiveError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import Fields, parse_document
from lamina.model.image_config import ImageConfig
from lamina.model.reference import Reference
from lamina.store.archive_spool import ImageParts, Spool, follow
from lamina.store.layer_ingest import IncomingLayer
from lamina.store.oci_archive import ArchivedImage, check_diff_id, oci_manifest


def find_images(spool: Spool) -> list[ArchivedImage]:
    """Find the images that `manifest.json` names. Raise ArchiveError or IntegrityError unless all are whole."""
    content = spool.document("manifest.json")
    if content is None:
        raise no_images(has_repositories=spool.document("repositories") is not None)
    return [_image(spool, entry) for entry in read_entries(content)]


def find_parts(spool: Spool) -> list[ImageParts]:
    """Find which files the images are made of, without reading the layers. Raise ArchiveError."""
    content = spool.document("manifest.json")
    return [
        ImageParts(
            config=entry.check(spool.document(entry.config_path))[0],
            layer_paths=[follow(spool.links, path) for path in entry.layer_paths],
        )
        for entry in (read_entries(content) if content is not None else [])
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveEntry:
    """One image as `manifest.json` states it: paths in the archive, and names."""

    config_path: str
    layer_paths: Sequence[str]
    names: Sequence[Reference]

    def check(self, config: bytes | None) -> tuple[bytes, tuple[Digest, ...]]:
        """Give the configuration that was found at `config_path`, and its diff_ids, if it is the one meant. Raise ArchiveError."""
        if config is None:
            raise ArchiveError(f"the archive has no '{self.config_path}', which manifest.json names as a configuration")
        stated = posixpath.basename(self.config_path).removesuffix(".json")
        if len(stated) == 64 and Digest.of(config).hex != stated:
            raise ArchiveError(
                f"manifest.json names the configuration '{self.config_path}', which has the digest {Digest.of(config)}"
            )
        diff_ids = ImageConfig.from_bytes(config, self.config_path).diff_ids
        if len(diff_ids) != len(self.layer_paths):
            raise ArchiveError(f"manifest.json: field 'Layers' has {len(self.layer_paths)}, the configuration {len(diff_ids)}")
        return config, diff_ids


def no_images(*, has_repositories: bool) -> ArchiveError:
    """Say what an archive without `manifest.json` is."""
    if has_repositories:
        return ArchiveError(
            "the archive is in the form of Docker before 1.10, which has no configuration digests",
            hint="load it with an old Docker and save it again, or use `lamina import` on its layers",
        )
    return ArchiveError(
        "the archive has no images: neither 'manifest.json' nor 'index.json' is in it",
        hint="`lamina import` takes the tar of a root file system",
    )


def read_entries(content: bytes) -> list[ArchiveEntry]:
    """Read `manifest.json`. Raise ArchiveError."""
    entries = parse_document(content, "manifest.json")
    if not isinstance(entries, list) or not entries:
        raise ArchiveError("manifest.json is not a list of images")
    return [_entry(entry, f"manifest.json[{index}]") for index, entry in enumerate(entries)]


def _entry(entry: object, where: str) -> ArchiveEntry:
    fields = Fields(entry, where)
    config_path = _normal(fields.required_text("Config"))
    layer_paths = [_normal(path) for path in fields.texts("Layers")]
    names = []
    for text in fields.texts("RepoTags"):
        try:
            names.append(Reference.parse(text))
        except UsageError as error:
            raise fields.wrong("RepoTags", f"has an {error.message}") from None
    return ArchiveEntry(config_path=config_path, layer_paths=layer_paths, names=names)


def _image(spool: Spool, entry: ArchiveEntry) -> ArchivedImage:
    config, diff_ids = entry.check(spool.document(entry.config_path))
    layers = []
    for path, diff_id in zip(entry.layer_paths, diff_ids, strict=True):
        layer = _layer(spool, path)
        check_diff_id(layer, diff_id)
        layers.append(layer)
    manifest = oci_manifest(config, [one.layer for one in layers])
    return ArchivedImage(manifest=manifest, config=config, layers=layers, names=list(entry.names))


def _layer(spool: Spool, path: str) -> IncomingLayer:
    layer = spool.layer(path)
    if layer is None:
        raise ArchiveError(f"the archive has no '{path}', which manifest.json names as a layer")
    return layer


def _normal(path: str) -> str:
    return posixpath.normpath(path)
