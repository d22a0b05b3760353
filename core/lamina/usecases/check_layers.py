"""Unpacked layers against the images that they are unpacked from, on every driver; and drivers' folders against the database.

What a layer should be is worked out from its blob in memory (`archive/layermodel.py`), the layers below it included, so that one
damaged layer says nothing of those above. A layer is held by its lock, shared, while it is read: nobody discards or makes it then.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lamina.api.drivers import StorageDriver
from lamina.api.entries import LayerReader
from lamina.archive.compression import Decompressed
from lamina.archive.layer import LayerTar
from lamina.archive.layermodel import LayerModel
from lamina.errors import ArchiveError, ConflictError, IntegrityError, NotFoundError, NotUsableError, PluginError
from lamina.linux import process
from lamina.model.digest import Digest
from lamina.store.operations import Operation, locked
from lamina.usecases.check import Check


@dataclass(slots=True, kw_only=True)
class _Layer:
    """A driver's row for an image's layer."""

    key: str
    parent: str | None
    state: str
    above: list["_Layer"] = field(default_factory=list)


def check_layers(run: Check) -> None:
    """Check each driver that has layers, its folder and what is in it."""
    names = {row[0] for row in run.context.layers.records()} | set(run.context.host.names("storage"))
    done = set()
    for name in sorted(names):
        try:
            driver = run.context.layers.driver(name)
        except (NotFoundError, PluginError) as error:
            if any(row[0] == name for row in run.context.layers.records()):
                run.found("layer", name, f"its layers can't be looked at: {error.message}", advice="install its driver again")
            continue
        if driver.name not in done:
            done.add(driver.name)
            _Driver(run, driver).check()


class _Driver:
    """One driver's part."""

    def __init__(self, run: Check, driver: StorageDriver) -> None:
        self.run = run
        self.driver = driver
        self.layers = run.context.layers
        self._truth: dict[str, Callable[[], contextlib.AbstractContextManager[LayerReader]]] = {}

    def check(self) -> None:
        records = [row for row in self.layers.records() if row[0] == self.driver.name]
        if not records and not os.path.isdir(self.driver.home):
            return
        self._truth = self._known_truth() if self.run.reads_bytes else {}
        on_disk = set(self.driver.keys()) if os.path.isdir(self.driver.home) else set()
        self._orphans(on_disk)
        lost = self._lost(records, on_disk)
        self._unused()
        if self.run.reads_bytes:
            try:
                self._compare(lost)
            except NotUsableError as error:
                self.run.found("layer", self.driver.name, f"its layers can't be read: {error.message}", advice=error.hint)

    def _row(self, key: str) -> tuple[str, int | None] | None:
        row = self.run.context.database.connection.execute(
            "SELECT state, operation FROM layers WHERE driver = ? AND key = ?", (self.driver.name, key)
        ).fetchone()
        return None if row is None else (row["state"], row["operation"])

    def _lock(self, key: str, *, shared: bool = False) -> contextlib.AbstractContextManager[None]:
        return locked(self.run.context.run_dir, f"{self.driver.name}-{key}", shared=shared)

    def _orphans(self, on_disk: set[str]) -> None:
        """Find folders that no row names: a row comes before its bytes and goes after them."""
        known = {row[1] for row in self.layers.records() if row[0] == self.driver.name}
        for key in sorted(on_disk - known):
            with self._lock(key):
                if key not in set(self.driver.keys()) or self._row(key) is not None:
                    continue

                def discard(key: str = key) -> str:
                    self.driver.discard(key)
                    self.driver.sweep()
                    return "removed"

                self.run.found("layer", self._named(key), "it is on disk, and the database doesn't know it", repair=discard)

    def _lost(self, records: list[tuple[str, str, str | None, str]], on_disk: set[str]) -> set[str]:
        """Find rows without a folder; gives the keys of images' layers among them."""
        lost = set()
        for _name, key, _parent, state in records:
            row = self._row(key)
            half_made = row is not None and row[0] == "preparing" and row[1] is None
            if row is None or not (half_made or (key not in on_disk and row[0] in {"sealed", "writable"} and row[1] is None)):
                continue
            with self._lock(key, shared=True):
                again = self._row(key)
                if again != row or (not half_made and key in set(self.driver.keys())):
                    continue
            if state == "writable":
                self._lost_container(key)
            else:
                lost.add(key)
                if key not in self._truth:
                    self._bad(key, "it is missing on disk", None)
        return lost

    def _lost_container(self, key: str) -> None:
        container = self.run.context.records.by_id(key)
        if container is not None:
            self.run.found(
                "container", container.name, f"its own layer is missing from {self.driver.name}'s folder: what it wrote is lost",
                advice=f"remove it with `lamina rm {container.name}`, or bring the folder back from a backup",
            )  # fmt: skip

    def _unused(self) -> None:
        """Find unpacked layers that no image, no build and no layer has any more."""
        images = self.run.context.images
        kept = images.layer_keys() | _cached_chains(self.run)
        query = (
            "SELECT key FROM layers AS one WHERE driver = ? AND state = 'sealed' AND NOT EXISTS"
            " (SELECT 1 FROM layers WHERE driver = one.driver AND parent = one.key)"
        )
        for (key,) in self.run.context.database.connection.execute(query, (self.driver.name,)).fetchall():
            if key in kept or self._is_intended(key):
                continue
            with self._lock(key):
                row = self._row(key)
                still = key not in images.layer_keys() | _cached_chains(self.run) and not self._is_intended(key)
                if row is None or row[0] != "sealed" or not still or _is_anybody_at_work(self.run):
                    continue

                def discard(key: str = key) -> str | None:
                    try:
                        self.layers.discard(self.driver, key)
                    except ConflictError:
                        return None
                    return "discarded"

                self.run.found("layer", self._named(key), "no image has it and nothing stands on it", repair=discard)

    def _is_intended(self, key: str) -> bool:
        query = "SELECT 1 FROM intended_layers WHERE driver = ? AND key = ?"
        return self.run.context.database.connection.execute(query, (self.driver.name, key)).fetchone() is not None

    # Bytes

    def _compare(self, lost: set[str]) -> None:
        """Walk from the base layers up, laying each layer's blob on the model and comparing."""
        layers = {
            key: _Layer(key=key, parent=parent, state=state)
            for name, key, parent, state in self.layers.records()
            if name == self.driver.name and (state == "sealed" or key in lost)
        }
        todo = []
        for layer in layers.values():
            if layer.parent is None:
                todo.append((layer, LayerModel(full_trees=False)))
            elif layer.parent in layers:
                layers[layer.parent].above.append(layer)
        while todo:
            layer, model = todo.pop()
            if layer.key not in self._truth:
                continue  # an image that was removed while others stood on its layers: nothing says what they were
            open_layer = self._truth[layer.key]
            model.full_trees = self._has_full_trees(layer.key)
            try:
                with open_layer() as reader:
                    model.lay(reader)
            except (NotFoundError, IntegrityError):
                continue  # told of as a blob, or its image was removed while we looked
            except ArchiveError as error:
                self.run.found("layer", self._named(layer.key), f"its blob can't be unpacked: {error.message}", advice="")
                continue
            problem = "it is missing on disk" if layer.key in lost else self._difference(layer.key, model)
            if problem:
                self._bad(layer.key, problem, open_layer)
            todo += [(above, model.copy()) for above in layer.above[1:]]
            todo += [(above, model) for above in layer.above[:1]]

    def _has_full_trees(self, key: str) -> bool:
        return self.driver.mounts(key, self.layers.parents(self.driver.name, key), readonly=True).upper_dir is None

    def _difference(self, key: str, model: LayerModel) -> str | None:
        with self._lock(key, shared=True):
            if not self.layers.is_sealed(self.driver, key):
                return None
            parents = self.layers.parents(self.driver.name, key)
            able = self.driver.probe().capabilities
            try:
                view = self.driver.mounts(key, parents, readonly=True)
                if view.upper_dir is None or not able.native_diff:
                    with self.layers.seen(self.driver, key, parents) as root:
                        return model.differs_from_tree(root)
                problem = model.differs_from_upper(view.upper_dir, able.whiteouts)
                if problem is None and parents:  # what else the driver keeps of a layer is seen by its union
                    with self.layers.seen(self.driver, key, parents) as root:
                        problem = model.differs_from_union(root)
                return problem
            except FileNotFoundError as error:
                return f"'{error.filename}' is missing"
            except OSError as error:
                return f"it can't be read: {(error.strerror or str(error)).lower()}" + (
                    f": '{error.filename}'" if error.filename else ""
                )

    def _bad(self, key: str, problem: str, open_layer: Callable[[], contextlib.AbstractContextManager[LayerReader]] | None) -> None:
        if open_layer is None:
            advice = "`lamina system check --repair` without --fast puts it right, once the blob is whole"
            self.run.found("layer", self._named(key), problem, advice=advice)
            return

        def remake() -> str | None:
            operation = Operation(name="system check")
            try:
                with self._nobody_on(key):
                    self.layers.remake(self.driver, key, open_layer, operation)
            finally:
                with self.run.context.database.transaction() as tx:
                    operation.end(tx)
            return "unpacked again from the image store"

        self.run.found("layer", self._named(key), problem, repair=remake)

    @contextlib.contextmanager
    def _nobody_on(self, key: str) -> Iterator[None]:
        """Hold off the start of every container that stands on a layer; raise `ConflictError` if one runs, or a build.

        Where layers are whole trees, what stands on one doesn't see it.
        """
        context = self.run.context
        with contextlib.ExitStack() as stack:
            query = "SELECT key FROM layers WHERE driver = ? AND state = 'writable' ORDER BY key"
            for (above,) in context.database.connection.execute(query, (self.driver.name,)).fetchall():
                if key not in self.layers.parents(self.driver.name, above) or self._has_full_trees(above):
                    continue
                stack.enter_context(locked(context.run_dir, f"container-{above}"))
                container = context.records.by_id(above)
                if container is None and self._row(above) is not None:
                    raise ConflictError("a build stands on it", hint="repair again when it has ended")
                if container is not None and container.is_active:
                    raise ConflictError(f"container '{container.name}' stands on it and runs; stop it and repair again")
            yield

    def _known_truth(self) -> dict[str, Callable[[], contextlib.AbstractContextManager[LayerReader]]]:
        """Say how to read the layer of each key that an image or the build cache has."""
        images = self.run.context.images
        found: dict[str, tuple[Digest, Digest]] = {}
        for image in images.images():
            with contextlib.suppress(NotFoundError, IntegrityError, ArchiveError):
                config, manifest = images.config(image), images.manifest(image)
                for chain, layer, diff_id in zip(config.chain_ids, manifest.layers, config.diff_ids, strict=False):
                    found.setdefault(chain.hex, (layer.digest, diff_id))
        rows = self.run.context.database.connection.execute(
            "SELECT DISTINCT chain, layer, diff_id FROM build_cache JOIN layer_blobs ON layer = digest WHERE chain != ''"
        )
        for row in rows:
            found.setdefault(Digest(row["chain"]).hex, (Digest(row["layer"]), Digest(row["diff_id"])))
        return {key: self._opener(blob, diff_id) for key, (blob, diff_id) in found.items() if blob not in self.run.bad_blobs}

    def _opener(self, blob: Digest, diff_id: Digest) -> Callable[[], contextlib.AbstractContextManager[LayerReader]]:
        @contextlib.contextmanager
        def open_layer() -> Iterator[LayerReader]:
            with self.run.context.images.content.open(blob) as file, Decompressed(file, threaded=True) as plain:
                yield LayerTar(plain, require_end=False)
                plain.finish()
                if plain.digest != blob or plain.diff_id != diff_id:
                    raise IntegrityError(f"layer {blob} is damaged in the image store")

        return open_layer

    def _named(self, key: str) -> str:
        return f"{self.driver.name}/{key[:12]}"


def _cached_chains(run: Check) -> set[str]:
    rows = run.context.database.connection.execute("SELECT DISTINCT chain FROM build_cache WHERE chain != ''")
    return {Digest(row[0]).hex for row in rows}


def _is_anybody_at_work(run: Check) -> bool:
    """Whether a build or a container's making may be about to use a layer that nothing has yet."""
    boot = process.boot_id()
    rows = run.context.database.connection.execute("SELECT pid, started, boot FROM operations").fetchall()
    return any(row["boot"] == boot and process.is_alive(row["pid"], row["started"]) for row in rows)
