"""What a check works with: one driver on a directory of the check's own, used through the calls that the engine uses.

Nothing here knows what any driver does on disk. A layer is filled either as a container fills it (`writing`, `made`) or as an image
does (`applied`), and read either as it is mounted or as its read-only view.
"""

import contextlib
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from lamina.api.drivers import StorageDriver
from lamina.api.entries import Change
from lamina.api.host import PluginHost
from lamina.api.types import Capabilities, Usage, View
from lamina.archive.layer import LayerTar
from lamina.archive.writer import write_layer, write_tree
from lamina.store import views
from lamina.store.layer_trees import LayerTrees
from lamina.testing import tree as trees
from lamina.testing.check import Skipped
from lamina.testing.tree import Facts, Tree

_KEYS = itertools.count(1)
Fill = Tree | Callable[[str], object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer by its key, with those below it, nearest first."""

    key: str
    parents: tuple[str, ...] = ()

    @property
    def chain(self) -> tuple[str, ...]:
        """The parents of a layer on top of this one."""
        return (self.key, *self.parents)


@dataclass(slots=True, kw_only=True)
class Bench:
    """A driver, a directory, and what the engine does with them. `notes` are shown beside the verdict."""

    host: PluginHost
    name: str
    dir: str
    filesystem: str = ""
    """The type of file system that the driver needs below it; "" if it takes what is there."""
    notes: list[str] = field(default_factory=list)
    _driver: StorageDriver | None = None

    @property
    def driver(self) -> StorageDriver:
        """The driver, its folder made."""
        if self._driver is None:
            self._driver = self.driver_at(f"{self.dir}/{self.name}")
        return self._driver

    @property
    def claims(self) -> Capabilities:
        """What the driver says that it can do here."""
        return self.driver.probe().capabilities

    def driver_at(self, home: str) -> StorageDriver:
        """Give the same driver with another folder, which is made; skip the check if it can't work there."""
        driver = StorageDriver(host=self.host, asked_name=self.name, home=home)
        probe = driver.probe()
        if not probe.usable:
            raise Skipped(f"the driver says that it can't work there: {probe.reason}")
        driver.make_home()
        return driver

    @contextlib.contextmanager
    def elsewhere(self, home: str) -> Iterator["Bench"]:
        """Give a bench whose driver has its folder at `home`."""
        yield Bench(host=self.host, name=self.name, dir=self.dir, filesystem=self.filesystem, notes=self.notes,
                    _driver=self.driver_at(home))  # fmt: skip

    def new_key(self) -> str:
        """Make a key as the engine's are: 64 hexadecimal digits."""
        return f"{next(_KEYS):04x}".rjust(8, "c") * 8

    def prepare(
        self,
        below: Layer | None = None,
        *,
        key: str = "",
        options: Mapping[str, str] | None = None,
        size_bytes: int | None = None,
    ) -> Layer:
        """Make an empty layer."""
        layer = Layer(key=key or self.new_key(), parents=below.chain if below else ())
        self.driver.prepare(layer.key, layer.parents, options or {}, size_bytes)
        return layer

    def view(self, layer: Layer, *, readonly: bool = False) -> View:
        """The layer's mounts."""
        return self.driver.mounts(layer.key, layer.parents, readonly=readonly)

    @contextlib.contextmanager
    def writing(self, layer: Layer) -> Iterator[str]:
        """Mount the layer as a running container has it; give its root."""
        self.driver.before_mount(layer.key, layer.parents)
        view = self.view(layer)
        views.attach(view)
        try:
            yield view.root
        finally:
            views.detach(view)
            self.driver.after_unmount(layer.key)

    @contextlib.contextmanager
    def reading(self, layer: Layer) -> Iterator[str]:
        """Give a path of the layer's read-only view."""
        with views.seen(self.view(layer, readonly=True)) as path:
            yield path

    def write(self, layer: Layer, fill: Fill) -> None:
        """Mount the layer, fill it, and bring it to rest."""
        with self.writing(layer) as root:
            if callable(fill):
                fill(root)
            elif fill is not None:
                trees.make(root, fill)

    def made(self, fill: Fill = None, below: Layer | None = None, *, key: str = "") -> Layer:
        """Make a layer as a container writes one, and seal it."""
        layer = self.prepare(below, key=key)
        if fill is not None:
            self.write(layer, fill)
        self.driver.seal(layer.key)
        return layer

    def apply(self, layer: Layer, archive: bytes) -> None:
        """Lay an archive's entries down in a prepared layer."""
        found = LayerTrees(driver=self.driver, key=layer.key, parents=layer.parents, writable=True)
        with found.stack:
            self.driver.apply(layer.key, layer.parents, LayerTar(io.BytesIO(archive)), found)

    def applied(self, archive: bytes, below: Layer | None = None, *, key: str = "") -> Layer:
        """Make a layer of an image."""
        layer = self.prepare(below, key=key)
        self.apply(layer, archive)
        self.driver.seal(layer.key)
        return layer

    def tree(self, layer: Layer, *, contents: bool = True) -> dict[str, Facts]:
        """Read all that is seen through the layer's read-only view."""
        with self.reading(layer) as root:
            return trees.read(root, contents=contents)

    def changes(self, layer: Layer, *, prepared_ns: int = 0) -> list[Change]:
        """What the layer changes, as the driver says it."""
        found = LayerTrees(driver=self.driver, key=layer.key, parents=layer.parents, prepared_ns=prepared_ns)
        with found.stack:
            return self.driver.changes(layer.key, layer.parents, found)

    def said(self, layer: Layer) -> list[str]:
        """What the layer changes, as `diff` prints it."""
        return [f"{change.kind.value} {change.path}" for change in self.changes(layer)]

    def commit(self, layer: Layer, *, mtime_limit_ns: int | None = None) -> bytes:
        """The archive of what the layer changes."""
        out = io.BytesIO()
        changes = self.changes(layer)
        with self.reading(layer) as root:
            write_layer(out, root, changes, mtime_limit_ns=mtime_limit_ns)
        return out.getvalue()

    def export(self, layer: Layer) -> bytes:
        """The archive of all that is seen."""
        out = io.BytesIO()
        with self.reading(layer) as root:
            write_tree(out, root)
        return out.getvalue()

    def discard(self, layer: Layer) -> None:
        """Take the layer away and empty the trash."""
        self.driver.discard(layer.key)
        self.driver.sweep()

    def usage(self, layer: Layer) -> Usage:
        """What the layer alone takes, as the driver says it."""
        return self.driver.usage(layer.key, layer.parents)

    def note(self, text: str) -> None:
        """Have something shown beside the verdict: what is recorded, not judged."""
        self.notes.append(text)
