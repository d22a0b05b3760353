"""A layer's tree and its parents', for the hooks that read or fill one."""

import contextlib

from lamina.api.drivers import StorageDriver
from lamina.api.types import WhiteoutFormat
from lamina.dataclasses import dataclass
from lamina.store import views


@dataclass(slots=True, kw_only=True)
class LayerTrees:
    """`Trees` of the contract: the layer and its parents, mounted when a path is asked for."""

    driver: StorageDriver
    key: str
    parents: tuple[str, ...]
    prepared_ns: int = 0
    writable: bool = False
    _stack: contextlib.ExitStack | None = None
    _layer: str | None = None
    _parent: str | None = None

    @property
    def stack(self) -> contextlib.ExitStack:
        """What ends with the hook's call."""
        if self._stack is None:
            self._stack = contextlib.ExitStack()
        return self._stack

    @property
    def layer(self) -> str:
        if self._layer is None:
            self._layer = self.stack.enter_context(
                views.seen(self.driver.mounts(self.key, self.parents, readonly=not self.writable))
            )
        return self._layer

    @property
    def parent(self) -> str | None:
        if self._parent is None and self.parents:
            self._parent = self.stack.enter_context(
                views.seen(self.driver.mounts(self.parents[0], self.parents[1:], readonly=True))
            )
        return self._parent

    @property
    def upper_dir(self) -> str | None:
        return self.driver.mounts(self.key, self.parents, readonly=False).upper_dir

    @property
    def whiteouts(self) -> WhiteoutFormat:
        return self.driver.probe().capabilities.whiteouts

    @property
    def unchanged_before_ns(self) -> int | None:
        return self.prepared_ns or None
