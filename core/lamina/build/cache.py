"""The build cache: what a step came to when it was made, by a digest of all that it depends on. `prune.py` empties it.

A key covers contents, never where they came from, and nothing is taken over from images that were pulled: so a foreign image can't
pass for a step of ours (CVE-2024-24557 in Docker's classic builder). The rows outlive drivers, because they name blobs of the image
store.
"""

import time

from lamina.dataclasses import dataclass
from lamina.model.digest import Digest
from lamina.store.database import Database
from lamina.store.images import ImageStore, LayerBlob

USE_GRAIN_NS = 60 * 10**9
"""How old the note of the last use may become before it is written anew: a build from the cache writes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A step's result."""

    layer: LayerBlob | None
    created_ns: int


class Cache:
    """The cache as one build sees it. With `no_cache` nothing is found, and what is made replaces what was there."""

    def __init__(self, database: Database, images: ImageStore, *, no_cache: bool) -> None:
        self._database = database
        self._images = images
        self._no_cache = no_cache
        self._now_ns = time.time_ns()
        self._used: list[str] = []
        self.keys: list[str] = []
        """Every step's that this build has found or made."""

    def find(self, key: str) -> Record | None:
        """Give what the step came to, or None. A layer whose blob has gone or has another size is none."""
        if self._no_cache:
            return None
        row = self._database.connection.execute(
            "SELECT layer, stored_bytes, created_ns, used_ns FROM build_cache WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        layer = None
        if row["layer"] is not None:
            layer = self._images.layer_blob(Digest(row["layer"]))
            if layer is None or layer.stored_bytes != row["stored_bytes"]:
                return None
        self._note_use(key, row["used_ns"])
        self.keys.append(key)
        return Record(layer=layer, created_ns=row["created_ns"])

    def content(self, key: str) -> str:
        """Give the digest that a tree's part was found to have, "" if nobody has looked."""
        row = self._database.connection.execute("SELECT content, used_ns FROM build_cache WHERE key = ?", (key,)).fetchone()
        if row is None:
            return ""
        self._note_use(key, row["used_ns"])
        return str(row["content"])

    def _note_use(self, key: str, used_ns: int) -> None:
        if self._now_ns - used_ns > USE_GRAIN_NS:
            self._used.append(key)

    def record(
        self,
        key: str,
        *,
        kind: str,
        layer: LayerBlob | None,
        chain: Digest | None,
        description: str,
        created_ns: int,
        content: str = "",
    ) -> None:
        """Note what a step came to. With a layer it belongs into the `ingest()` that has committed the blob."""
        self.keys.append(key)
        with self._database.transaction() as tx:
            if layer is not None:
                tx.execute(
                    "INSERT OR REPLACE INTO layer_blobs (digest, diff_id, size_bytes) VALUES (?, ?, ?)",
                    (layer.digest, layer.diff_id, layer.size_bytes),
                )
            tx.execute(
                "INSERT OR REPLACE INTO build_cache"
                " (key, kind, layer, stored_bytes, chain, content, description, created_ns, used_ns)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(key, kind, layer.digest if layer else None, layer.stored_bytes if layer else 0, chain or "", content),
                    *(description.encode("utf-8", "replace").decode()[:1000], created_ns, self._now_ns),
                ),
            )

    def remember(self, key: str, document: str, *, chain: Digest | None, description: str) -> None:
        """Note what a whole build came to, for `memo.py`."""
        self.record(key, kind="build", layer=None, chain=chain, description=description, created_ns=self._now_ns, content=document)

    def forget_layer(self, layer: Digest) -> int:
        """Drop every step that came to a layer which turned out to be damaged; gives how many there were."""
        return self._images.forget_build_steps(layer)

    def end(self) -> None:
        """Write down what was used."""
        if self._used:
            with self._database.transaction() as tx:
                tx.executemany("UPDATE build_cache SET used_ns = ? WHERE key = ?", [(self._now_ns, key) for key in self._used])
            self._used.clear()
