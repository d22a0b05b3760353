"""A build's layers: blobs in the image store, trees on the driver, and the writable layer that a RUN works in.

A build is one operation (`store/operations.py`), begun when the first step isn't in the cache. What it stands on meanwhile is noted
in `build_blobs`, so that no garbage collection takes it; what it has half made carries the operation's number.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Set
from functools import cached_property
from typing import TYPE_CHECKING

from lamina.build.state import State
from lamina.errors import IntegrityError, LaminaError
from lamina.linux.fs import remove_tree
from lamina.model.digest import Digest
from lamina.store.images import LayerBlob
from lamina.store.layers import LayerGoneError
from lamina.store.operations import Operation, locked
from lamina.usecases.context import Context

if TYPE_CHECKING:
    from lamina.api.drivers import StorageDriver
    from lamina.api.types import View
    from lamina.archive.compression import Writable
    from lamina.model.confinement import Confinement


class DamagedLayerError(IntegrityError):
    """A layer's blob turned out not to be what its digest says."""

    def __init__(self, layer: LayerBlob) -> None:
        super().__init__(f"layer {layer.digest} is damaged in the image store", hint="remove the image that has it and build again")
        self.layer = layer


class Layers:
    """The layers of one build."""

    def __init__(self, context: Context, *, driver: str, mtime_limit_ns: int | None, distrusted: Set[Digest] = frozenset()) -> None:
        self.context = context
        self.distrusted = distrusted
        """Blobs that are damaged; what is made anew takes their place."""
        self.mtime_limit_ns = mtime_limit_ns
        self._driver_name = driver
        self._storage: StorageDriver | None = None
        self._operation = Operation(name="build")
        self._protected: set[Digest] = set()

    @property
    def storage(self) -> "StorageDriver":
        """The driver that steps run on; found out when the first needs it."""
        if self._storage is None:
            self._storage = self.context.layers.usable_driver(self._driver_name or self.context.default_driver)
        return self._storage

    @cached_property
    def confinement(self) -> "Confinement | None":
        """What holds each RUN beside the defaults: the label that the settings ask for, one for the whole build, if any."""
        if not self.context.labels_containers:
            return None
        from lamina.usecases.labelling import label_of_a_build

        return label_of_a_build(self.context)

    @property
    def file_label(self) -> str:
        """What the files that a RUN sees are labelled with; "" for none."""
        return self.confinement.file_label if self.confinement is not None else ""

    @property
    def dir(self) -> str:
        """A directory for this build's own files, gone at its end."""
        if self._operation.id is None:
            with self.context.database.transaction() as tx:
                self._operation.begin(tx)
        assert self._operation.id is not None
        path = self.context.build_dir(self._operation.id)
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path

    def close(self) -> None:
        """End the operation; whatever couldn't be undone stays for recovery."""
        operation_id = self._operation.id
        if operation_id is None:
            return
        remove_tree(self.context.build_dir(operation_id))
        with self.context.database.transaction() as tx:
            tx.execute("DELETE FROM build_blobs WHERE operation = ?", (operation_id,))
            if self._protected:  # what it stood on may have been removed meanwhile
                self.context.images.content.note_garbage()
            self._operation.end_unless_owning(tx)

    def protect(self, state: State) -> None:
        """Keep a state's blobs while this build runs."""
        new = {layer.digest for layer in state.layers} - self._protected
        if not new:
            return
        with self.context.database.transaction() as tx:
            operation_id = self._operation.begin(tx)
            tx.executemany(
                "INSERT OR IGNORE INTO build_blobs (operation, digest) VALUES (?, ?)", [(operation_id, digest) for digest in new]
            )
        self._protected |= new

    def unpack(self, state: State) -> tuple[str, ...]:
        """Make sure that a state's layers are on the driver's disk; gives their keys, the top first. Raises `DamagedLayerError`."""
        keys = [chain.hex for chain in state.chain_ids]
        layers = self.context.layers
        if keys and not layers.is_sealed(self.storage, keys[-1]):
            from lamina.archive.compression import Decompressed
            from lamina.archive.layer import LayerTar

            @contextlib.contextmanager
            def open_layer(index: int) -> "Iterator[LayerTar]":
                blob = state.layers[index]
                with self.context.images.content.open(blob.digest) as file, Decompressed(file, threaded=True) as plain:
                    try:
                        yield LayerTar(plain, require_end=False)
                        plain.finish()
                    except LaminaError as error:
                        raise DamagedLayerError(blob) from error
                    if plain.digest != blob.digest or plain.diff_id != blob.diff_id:
                        raise DamagedLayerError(blob)

            self.protect(state)
            layers.unpack(self.storage, keys, open_layer, self._operation)
        return tuple(reversed(keys))

    @contextlib.contextmanager
    def seen(self, state: State) -> Iterator[str | None]:
        """Give a path where a state's tree can be read while the block runs; None for an empty one."""
        if state.chain is None:
            yield None
            return
        while True:
            key, *parents = self.unpack(state)
            with locked(self.context.run_dir, f"{self.storage.name}-{key}", shared=True):
                if not self.context.layers.is_sealed(self.storage, key):
                    continue  # it was discarded before we had the lock
                with self.context.layers.seen(self.storage, key, parents) as path:
                    yield path
                return

    @contextlib.contextmanager
    def writable(self, state: State) -> Iterator["Writing"]:
        """Mount a new writable layer on a state; it is unmounted and discarded when the block ends, whatever happens."""
        layers, storage = self.context.layers, self.storage
        key = os.urandom(32).hex()
        while True:
            parents = self.unpack(state)
            try:
                with self.context.database.transaction() as tx:
                    layers.record(tx, storage, key, parents, self._operation, state="writable")
                break
            except LayerGoneError:
                continue
        with contextlib.ExitStack() as undo:
            undo.callback(layers.discard, storage, key)
            storage.prepare(key, parents, {})
            layers.remember_touch_time(storage, key)
            undo.callback(layers.unmount, storage, key, parents)
            view = layers.mount(storage, key, parents, is_passing=True, label=self.file_label)
            yield Writing(self, key=key, parents=parents, view=view)

    @property
    def operation_id(self) -> int | None:
        """The operation's number, None while nothing was begun."""
        return self._operation.id

    def make(self, write: "Callable[[Writable], None]", note: Callable[[LayerBlob], None]) -> LayerBlob:
        """Make a layer's blob out of the tar that `write` writes. `note` records it before anybody could take it for garbage."""
        from lamina.store.layer_ingest import LayerWriter

        images = self.context.images
        with images.ingest() as ingest:
            writer = LayerWriter(ingest)
            try:
                write(writer)
                incoming = writer.finish()
            finally:
                writer.close()
            known = images.layer_blob_of(incoming.layer.diff_id)
            layer = known if known is not None and known.digest not in self.distrusted else incoming.commit()
            ingest.flush()
            note(layer)
        return layer


class Writing:
    """A mounted writable layer."""

    def __init__(self, layers: Layers, *, key: str, parents: tuple[str, ...], view: "View") -> None:
        self._layers = layers
        self.key = key
        self._parents = parents
        self.root = view.root

    def write_changes(self, out: "Writable", *, made: set[str]) -> None:
        """Write what was changed as a layer's tar, without what the engine `made` to mount on, unless the command has used it."""
        from lamina.archive.writer import write_layer
        from lamina.usecases.content import without_mountpoints

        layers = self._layers
        changes = layers.context.layers.changes(layers.storage, self.key, self._parents)
        with layers.context.layers.seen(layers.storage, self.key, self._parents) as root:
            write_layer(out, root, without_mountpoints(changes, made), mtime_limit_ns=layers.mtime_limit_ns)
