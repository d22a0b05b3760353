"""What `index.json` of an image layout says, from the tables: every image, by each of its names (OCI image-layout.md)."""

import sqlite3

from lamina.model.digest import Digest
from lamina.model.image import Descriptor
from lamina.model.reference import Reference

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


def image_index(connection: sqlite3.Connection) -> list[Descriptor]:
    """List the descriptors; an image without a name has one without annotations."""
    rows = connection.execute(
        "SELECT manifest, manifest_type, manifest_bytes, reference FROM images LEFT JOIN image_names ON image_id = id"
        " ORDER BY reference IS NULL, reference, id"
    )
    descriptors: list[Descriptor] = []
    for row in rows:
        annotations = {}
        if row["reference"] is not None:
            annotations = {REF_NAME: Reference.parse(row["reference"]).familiar, CONTAINERD_NAME: row["reference"]}
        descriptors.append(
            Descriptor(
                media_type=row["manifest_type"],
                digest=Digest(row["manifest"]),
                size_bytes=row["manifest_bytes"],
                annotations=annotations,
            )
        )
    return descriptors
