"""The layers of an archive's images unpacked onto a driver as they are read into the store: decompressed, hashed, laid down, once.

It is done for speed alone. What can't be unpacked now, whatever the reason, is read as if nobody had tried, and unpacked when a
container wants it.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator

from lamina.api.entries import LayerReader
from lamina.archive.compression import Decompressed
from lamina.archive.layer import LayerTar
from lamina.dataclasses import dataclass, field
from lamina.errors import ArchiveError, IntegrityError, LaminaError
from lamina.model.digest import Digest
from lamina.model.image_config import ImageConfig
from lamina.store.archive_plan import ArchivePlan
from lamina.store.archive_spool import ImageParts, known_layer
from lamina.store.content import Ingest
from lamina.store.images import ImageStore
from lamina.store.layer_ingest import Budget, CountedReader, IncomingLayer, Progress, layer_stream
from lamina.store.layers import Unpacking, check_depth
from lamina.store.operations import Operation


class EarlyUnpacking:
    """One load's. `end` it when the images are in the store; `undo` takes away what was unpacked for one that isn't."""

    def __init__(self, images: ImageStore, unpacking: Unpacking) -> None:
        self._images = images
        self._layers, self._driver = unpacking.layers, unpacking.driver
        self._operation = Operation(name="load")

    def run(self, plan: ArchivePlan, ingest: Ingest, budget: Budget, progress: Progress | None) -> dict[str, IncomingLayer]:
        """Read and unpack what the driver doesn't have; gives the layers that were read, by their path in the archive."""
        one = _Run(plan=plan, images=self._images, ingest=ingest, budget=budget, progress=progress)
        for image in plan.images:
            with contextlib.suppress(LaminaError):
                config = ImageConfig.from_bytes(image.config)
                if len(config.diff_ids) != len(image.layer_paths) or self._images.find_whole(Digest.of(image.config)) is not None:
                    continue
                keys = [chain.hex for chain in config.chain_ids]
                check_depth(self._driver, len(keys))
                self._layers.intend(self._driver, keys, self._operation)
                self._layers.unpack(self._driver, keys, one.opener(image, config), self._operation)
        return one.taken

    def end(self) -> None:
        """The images are there, and what was unpacked is theirs."""
        if self._operation.id is not None:
            with self._layers.database.transaction() as tx:
                self._layers.forget_intended(tx, self._operation.id)
                self._operation.end_unless_owning(tx)

    def undo(self) -> None:
        """Take away what was unpacked for images that don't come. What fails in it is left to recovery (a full disk, for one)."""
        if self._operation.id is not None:
            with contextlib.suppress(LaminaError, OSError, sqlite3.Error):
                self._layers.undo_intended(self._operation.id, self._images.layer_keys)
                self.end()


@dataclass(slots=True, kw_only=True)
class _Run:
    """One archive's layers, and those that have been read."""

    plan: ArchivePlan
    images: ImageStore
    ingest: Ingest
    budget: Budget
    progress: Progress | None
    taken: dict[str, IncomingLayer] = field(default_factory=dict)

    def opener(self, image: ImageParts, config: ImageConfig) -> Callable[[int], contextlib.AbstractContextManager[LayerReader]]:
        """Give what opens an image's layer by its number."""
        return lambda number: self._open(image.layer_paths[number], config.diff_ids[number])

    def _told_from_here(self) -> Progress | None:
        progress, done_bytes = self.progress, sum(one.source_bytes for one in self.taken.values())
        return (lambda more_bytes: progress(done_bytes + more_bytes)) if progress is not None else None

    @contextlib.contextmanager
    def _open(self, path: str, diff_id: Digest) -> Iterator[LayerReader]:
        """Give a layer's entries. At its end it has been read into the store, and is the one that the configuration names."""
        if path not in self.plan.places:
            raise ArchiveError(f"the archive has no '{path}'")
        if path in self.taken:  # another image has it on top of something else
            with Decompressed(self.plan.open(path), hash_packed=False, threaded=True) as plain:
                yield LayerTar(plain, require_end=False)
                plain.finish()
                found = Digest(plain.diff_id)
        else:
            left_bytes = self.budget.left_bytes
            try:
                known = known_layer(self.images, path, self.plan.open(path).read(512))
                raw = CountedReader(self.plan.open(path), self._told_from_here())
                with layer_stream(raw, self.ingest, budget=self.budget, known=known) as stream:
                    yield LayerTar(stream, require_end=False)
                    incoming = stream.finish()
            except BaseException:
                self.budget.left_bytes = left_bytes  # it will be read again
                raise
            self.taken[path] = incoming
            found = incoming.layer.diff_id
        if found != diff_id:
            raise IntegrityError(f"a layer has the diff_id {found} where the configuration names {diff_id}")
