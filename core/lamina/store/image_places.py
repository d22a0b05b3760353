"""What is remembered of registries: by which digests images are known there, and which repositories have which blobs.

The first is shown as Docker's RepoDigests and finds images by `NAME@DIGEST`; the second spares uploads (mounts between
repositories) and is only ever a hint: a registry is asked before anything is taken for granted.
"""

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lamina.model.digest import Digest

if TYPE_CHECKING:
    import sqlite3

SCHEMA = """
    CREATE TABLE image_digests (           -- by which digest a repository knows an image: of its manifest, or of an index with it
        name TEXT NOT NULL,                -- canonical, without tag
        digest TEXT NOT NULL,
        image_id TEXT NOT NULL,
        PRIMARY KEY (name, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX image_digests_by_image ON image_digests (image_id);
    CREATE TABLE blob_places (             -- where a blob came from or went to
        domain TEXT NOT NULL,
        digest TEXT NOT NULL,
        path TEXT NOT NULL,                -- the repository, without the domain
        seen_ns INTEGER NOT NULL,
        PRIMARY KEY (domain, digest, path)
    ) STRICT, WITHOUT ROWID;
    """
_PLACES = 20_000
"""How many blobs' places are remembered; the oldest are forgotten."""


def remember_digest(tx: "sqlite3.Connection", image_id: str, name: str, digest: Digest) -> None:
    """Note that a repository knows an image by a digest."""
    tx.execute(
        "INSERT INTO image_digests (name, digest, image_id) VALUES (?, ?, ?)"
        " ON CONFLICT (name, digest) DO UPDATE SET image_id = excluded.image_id",
        (name, digest, image_id),
    )


def forget_image(tx: "sqlite3.Connection", image_id: str) -> None:
    """Forget an image's digests, when it goes."""
    tx.execute("DELETE FROM image_digests WHERE image_id = ?", (image_id,))


def digests_of(connection: "sqlite3.Connection", image_id: str) -> list[tuple[str, Digest]]:
    """List the repositories that know an image, each with the digest."""
    rows = connection.execute("SELECT name, digest FROM image_digests WHERE image_id = ? ORDER BY name, digest", (image_id,))
    return [(row["name"], Digest(row["digest"])) for row in rows]


def remember_blobs(tx: "sqlite3.Connection", domain: str, path: str, digests: Iterable[Digest]) -> None:
    """Note that a repository has blobs."""
    now_ns = time.time_ns()
    tx.executemany(
        "INSERT INTO blob_places (domain, digest, path, seen_ns) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (domain, digest, path) DO UPDATE SET seen_ns = excluded.seen_ns",
        [(domain, digest, path, now_ns) for digest in digests],
    )
    (count,) = tx.execute("SELECT count(*) FROM blob_places").fetchone()
    if count > _PLACES:
        tx.execute(
            "DELETE FROM blob_places WHERE seen_ns <= (SELECT seen_ns FROM blob_places ORDER BY seen_ns DESC LIMIT 1 OFFSET ?)",
            (_PLACES,),
        )


def repositories_of(connection: "sqlite3.Connection", domain: str, digests: Iterable[Digest]) -> dict[Digest, Sequence[str]]:
    """Find for each blob the registry's repositories that had it, the latest first."""
    found: dict[Digest, Sequence[str]] = {}
    for digest in digests:
        rows = connection.execute(
            "SELECT path FROM blob_places WHERE domain = ? AND digest = ? ORDER BY seen_ns DESC, path", (domain, digest)
        )
        found[digest] = [row["path"] for row in rows]
    return found
