"""The plugin host: finds plugins by entry point, checks them, and calls the hooks of the one that was chosen.

An entry of the group `lamina` is named KIND.NAME. Scanning every installed distribution costs more than a container's start, so
the result is kept in a file of the store together with what it depends on: the modification times of the directories on
`sys.path`, which pip changes when it installs or removes. A plugin is imported when it is asked for by name; the ones of kind
`watch` always, because they wrap or watch every driver. A plugin that is broken is a warning and stops no command that can do
without it.
"""

import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lamina.api.types import API_VERSION
from lamina.dataclasses import dataclass, field
from lamina.errors import LaminaError, NotFoundError, PluginError

if TYPE_CHECKING:
    import pluggy

GROUP = "lamina"
CACHED_PATHS = 8
"""How many values of `sys.path` are remembered: the command's, its clean-up's and a Python program's are different ones."""
KINDS = ("storage", "network", "volume", "watch")

REQUIRED = {
    "storage": ("storage_probe", "storage_prepare", "storage_mounts", "storage_discard", "storage_keys"),
    "network": ("network_attach",),
    "volume": ("volume_create", "volume_mounts", "volume_remove"),
    "watch": (),
}


@dataclass(slots=True, kw_only=True)
class PluginHost:
    """All plugins of this Python environment.

    `cache_path` is the file that remembers the entry points, or None to scan each time. `warn` is told, in one line each, about
    plugins that are broken.
    """

    cache_path: str | None = None
    warn: Callable[[str], None] = lambda _text: None
    load_fallbacks: Callable[[], object] | None = None
    """Gives the plugin of core's own that answers last; called when the first hook is."""
    _entries: dict[str, str] | None = None
    _manager: "pluggy.PluginManager | None" = None
    _loaded: dict[str, Any] = field(default_factory=dict)

    def names(self, kind: str) -> list[str]:
        """List the names under which plugins of a kind are installed, usable or not."""
        prefix = kind + "."
        return sorted(name.removeprefix(prefix) for name in self.entries() if name.startswith(prefix))

    def get(self, kind: str, name: str) -> Any:
        """Import, check and register one plugin; the same object each time.

        Raises `NotFoundError` for a name that isn't installed and `PluginError` for one that is broken.
        """
        full = f"{kind}.{name}"
        if full in self._loaded:
            return self._loaded[full]
        if full not in self.entries():
            raise NotFoundError(
                f"{kind} driver '{name}' is not installed",
                hint=f"installed are: {', '.join(self.names(kind)) or 'none'}",
            )
        plugin = self._load(full, self.entries()[full])
        self._loaded[full] = plugin
        manager = self.manager
        if not manager.is_registered(plugin):
            try:
                manager.register(plugin, name=full)
                manager.check_pending()
            except Exception as error:
                if manager.is_registered(plugin):
                    manager.unregister(plugin)
                del self._loaded[full]
                why = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
                raise PluginError(f"plugin '{full}' implements a hook wrongly: {why}") from error
        return plugin

    @property
    def manager(self) -> "pluggy.PluginManager":
        """The pluggy manager, with the hook specifications, core's fallbacks and the `watch` plugins registered."""
        if self._manager is None:
            import pluggy  # 10 ms with inspect: a listing calls no plugin

            from lamina.api import hookspecs

            class PluginManager(pluggy.PluginManager):
                def parse_hookimpl_opts(self, plugin: object, name: str) -> "pluggy.HookimplOpts | None":
                    """See whether an attribute is a hook: those that each object has, half of all, are not."""
                    return None if name.startswith("__") else super().parse_hookimpl_opts(plugin, name)

            self._manager = PluginManager(GROUP)
            self._manager.add_hookspecs(hookspecs)
            if self.load_fallbacks is not None:
                self.register(self.load_fallbacks(), "fallback.core")
            for name in self.names("watch"):
                try:
                    self.get("watch", name)
                except LaminaError as error:
                    self.warn(error.message)
        return self._manager

    def register(self, plugin: object, name: str) -> None:
        """Register a plugin object that isn't installed: core's fallbacks, a test's driver. `name` is KIND.NAME."""
        self.manager.register(plugin, name=name)
        self._loaded[name] = plugin
        if self._entries is not None or not name.startswith("fallback"):
            self.entries().setdefault(name, "")

    def caller(self, plugin: object, hook: str) -> Callable[..., Any]:
        """The hook's caller that reaches this plugin, the wrappers and core's fallbacks, and no other driver.

        It is good until another plugin is loaded; `plugins_loaded` then has another value.
        """
        manager = self.manager
        others = [
            other for full, other in self._loaded.items() if other is not plugin and full.split(".")[0] not in {"watch", "fallback"}
        ]
        caller: Callable[..., Any] = manager.subset_hook_caller(hook, remove_plugins=others)
        return caller

    def watchers(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """List the `watch` plugins that implement a hook, each with a caller that reaches it, the hook's wrappers and no other."""
        impls = [impl for impl in getattr(self.manager.hook, hook).get_hookimpls() if not (impl.hookwrapper or impl.wrapper)]
        return [
            (each.plugin_name, self.manager.subset_hook_caller(hook, [other.plugin for other in impls if other is not each]))
            for each in impls
        ]

    @property
    def plugins_loaded(self) -> int:
        """How many plugins have been loaded so far."""
        return len(self._loaded)

    def broken(self, kind: str) -> Iterator[tuple[str, PluginError]]:
        """Try every plugin of a kind and yield those that can't be loaded."""
        for name in self.names(kind):
            try:
                self.get(kind, name)
            except PluginError as error:
                yield name, error

    def _load(self, full: str, target: str) -> Any:
        module_name, _, attribute = target.partition(":")
        try:
            plugin: Any = import_module(module_name)
            for part in attribute.split(".") if attribute else ():
                plugin = getattr(plugin, part)
        except (Exception, SystemExit) as error:  # a module that exits is as broken as one that raises
            raise PluginError(f"plugin '{full}' can't be loaded from '{target}': {type(error).__name__}: {error}") from error
        try:
            return self._checked(full, target, plugin)
        except LaminaError:
            raise
        except Exception as error:  # an attribute that raises when it is asked for
            raise PluginError(f"plugin '{full}' can't be examined: {type(error).__name__}: {error}") from error

    def _checked(self, full: str, target: str, plugin: Any) -> Any:
        version = getattr(plugin, "api_version", None)
        if version != API_VERSION:
            raise PluginError(
                f"plugin '{full}' is written for version {version} of the contract, this is version {API_VERSION}",
                hint="install a release of the plugin made for this release of lamina",
            )
        kind, _, name = full.partition(".")
        own = getattr(plugin, "name", None)
        if not isinstance(own, str) or not own:
            raise PluginError(f"plugin '{full}' has no name")
        if own != name and f"{kind}.{own}" in self.entries() and self.entries()[f"{kind}.{own}"] != target:
            raise PluginError(f"plugin '{full}' from '{target}' claims the name '{own}', which is another plugin's")
        missing = [hook for hook in REQUIRED.get(kind, ()) if not hasattr(getattr(plugin, hook, None), f"{GROUP}_impl")]
        if missing:
            raise PluginError(f"plugin '{full}' doesn't implement the hook '{missing[0]}'")
        return plugin

    def entries(self) -> dict[str, str]:
        """Map KIND.NAME to "module:attribute" for everything installed."""
        if self._entries is None:
            from lamina import json

            fingerprint = _fingerprint()
            cached = [each for each in self._read_cache(json) if isinstance(each, dict) and isinstance(each.get("entries"), dict)]
            found = next((each for each in cached if each.get("fingerprint") == fingerprint), None)
            if found is not None:
                self._entries = found["entries"]
            else:
                self._entries = _scan()
                scanned = {"fingerprint": fingerprint, "entries": self._entries}
                others = [each for each in cached if _places(each.get("fingerprint")) != _places(fingerprint)]
                self._write_cache(json, [scanned, *others][:CACHED_PATHS])
        return self._entries

    def _read_cache(self, json: Any) -> list[Any]:
        if self.cache_path is None:
            return []
        try:
            with open(self.cache_path, encoding="utf-8") as file:
                document = json.load(file)
        except (OSError, ValueError):
            return []  # never written, or half written: scan again
        return document if isinstance(document, list) else []

    def _write_cache(self, json: Any, document: object) -> None:
        if self.cache_path is None:
            return
        temporary = f"{self.cache_path}.{os.getpid()}"
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(document, file)
            os.rename(temporary, self.cache_path)
        except OSError:
            pass  # a store that can't be written is reported by the command that must write it


def _fingerprint() -> list[Any]:
    stamps: list[Any] = [sys.version, API_VERSION]
    for path in sys.path:
        try:
            stamps.append([path, os.stat(path).st_mtime_ns])
        except OSError:
            continue
    return stamps


def _places(fingerprint: object) -> list[Any]:
    """The directories of a fingerprint, without their times."""
    if not isinstance(fingerprint, list):
        return []
    return [each[0] if isinstance(each, list) and each else each for each in fingerprint]


def _scan() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {entry.name: entry.value for entry in entry_points(group=GROUP) if entry.name.partition(".")[0] in KINDS}
