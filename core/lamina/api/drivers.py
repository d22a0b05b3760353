"""The chosen driver's hooks as typed calls: what the engine holds instead of `pm.hook`.

Each method is one hook of `hookspecs.py` and has its contract. An exception that isn't an `OSError` or a `LaminaError`, and an
answer of the wrong type, become a `PluginError` that names the plugin and the hook.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lamina.api.host import PluginHost
from lamina.api.types import Attachment, Capabilities, NetworkNamespace, Probe, Usage, View, VolumeSpec
from lamina.dataclasses import dataclass, field
from lamina.errors import LaminaError, PluginError
from lamina.model.mount import Mount, MountFlag

if TYPE_CHECKING:
    from lamina.api.entries import Change, LayerReader, Trees
    from lamina.api.networks import EndpointSpec, NetworkSetup, NetworkSpec


@dataclass(slots=True, kw_only=True)
class _Driver:
    host: PluginHost
    kind: str
    asked_name: str
    plugin: Any = None
    _callers: dict[str, Any] = field(default_factory=dict)
    _plugins_known: int = 0

    def __post_init__(self) -> None:
        self.plugin = self.host.get(self.kind, self.asked_name)

    @property
    def name(self) -> str:
        """The driver's own name, which may differ from an alias that it was asked for by."""
        return str(self.plugin.name)

    def _call(self, hook: str, expected: type | tuple[type, ...], /, **arguments: Any) -> Any:
        if self._plugins_known != self.host.plugins_loaded:
            # a caller leaves out the plugins that were there when it was made: one that came later it would call too
            self._callers.clear()
            self._plugins_known = self.host.plugins_loaded
        caller = self._callers.get(hook)
        if caller is None:
            caller = self._callers[hook] = self.host.caller(self.plugin, hook)
        try:
            answer = caller(**arguments)
        except (OSError, LaminaError):
            raise
        except Exception as error:
            raise PluginError(f"plugin '{self.kind}.{self.name}' failed in '{hook}': {type(error).__name__}: {error}") from error
        if not isinstance(answer, expected):
            raise PluginError(f"plugin '{self.kind}.{self.name}' answered '{hook}' with {type(answer).__name__}: {_short(answer)}")
        return answer

    def _check(self, hook: str, answer: object, makes_sense: bool, /) -> None:
        if not makes_sense:
            raise PluginError(f"plugin '{self.kind}.{self.name}' answered '{hook}' with nonsense: {_short(answer)}")


def _short(answer: object) -> str:
    try:
        text = repr(answer)
    except Exception as error:  # noqa: BLE001 - a plugin's own class may not even have that
        return f"something without a repr ({type(error).__name__})"
    return text if len(text) <= 300 else text[:300] + "…"


def _is_view(view: View) -> bool:
    places = (view.root, *([view.upper_dir] if view.upper_dir is not None else []))
    return (
        all(isinstance(path, str) and os.path.isabs(path) for path in places)
        and isinstance(view.mounts, tuple | list)
        and all(_is_mount(mount) and os.path.isabs(mount.target) for mount in view.mounts)
    )


def _is_mount(mount: object) -> bool:
    return (
        isinstance(mount, Mount)
        and all(isinstance(text, str) for text in (mount.type, mount.target, mount.source))
        and isinstance(mount.flags, MountFlag)
        and isinstance(mount.options, tuple | list)
        and all(
            isinstance(option, tuple) and len(option) == 2 and isinstance(option[0], str) and isinstance(option[1], str | None)
            for option in mount.options
        )
    )


@dataclass(slots=True, kw_only=True)
class StorageDriver(_Driver):
    """A storage driver and its folder."""

    home: str
    kind: str = "storage"
    _probe: Probe | None = None

    def make_home(self) -> None:
        """Make the driver's folder, as the contract promises it."""
        os.makedirs(self.home, mode=0o710, exist_ok=True)

    def probe(self) -> Probe:
        """`storage_probe`; asked once."""
        if self._probe is None:
            probe: Probe = self._call("storage_probe", Probe, home=self.home)
            self._check("storage_probe", probe, isinstance(probe.capabilities, Capabilities))
            self._probe = probe
        return self._probe

    def prepare(self, key: str, parents: Sequence[str], options: Mapping[str, str], size_bytes: int | None = None) -> None:
        """`storage_prepare`."""
        self._call("storage_prepare", bool, home=self.home, key=key, parents=parents, options=options, size_bytes=size_bytes)

    def mounts(self, key: str, parents: Sequence[str], *, readonly: bool) -> View:
        """`storage_mounts`."""
        view: View = self._call("storage_mounts", View, home=self.home, key=key, parents=parents, readonly=readonly)
        self._check("storage_mounts", view, _is_view(view))
        return view

    def before_mount(self, key: str, parents: Sequence[str]) -> None:
        """`storage_before_mount`."""
        self._call("storage_before_mount", (bool, type(None)), home=self.home, key=key, parents=parents)

    def after_unmount(self, key: str) -> None:
        """`storage_after_unmount`."""
        self._call("storage_after_unmount", (bool, type(None)), home=self.home, key=key)

    def changes(self, key: str, parents: Sequence[str], trees: "Trees") -> "list[Change]":
        """`storage_changes`."""
        from lamina.api.entries import Change  # no start needs it

        changes = list(self._call("storage_changes", (list, tuple), home=self.home, key=key, parents=parents, trees=trees))
        self._check("storage_changes", changes, all(isinstance(change, Change) for change in changes))
        return changes

    def apply(self, key: str, parents: Sequence[str], entries: "LayerReader", trees: "Trees") -> None:
        """`storage_apply`."""
        self._call("storage_apply", bool, home=self.home, key=key, parents=parents, entries=entries, trees=trees)

    def seal(self, key: str) -> None:
        """`storage_seal`."""
        self._call("storage_seal", bool, home=self.home, key=key)

    def discard(self, key: str) -> None:
        """`storage_discard`."""
        self._call("storage_discard", bool, home=self.home, key=key)

    def sweep(self) -> None:
        """`storage_sweep`."""
        self._call("storage_sweep", (bool, type(None)), home=self.home)

    def usage(self, key: str, parents: Sequence[str]) -> Usage:
        """`storage_usage`; the fallback needs the view to know where to count."""
        view = self.mounts(key, parents, readonly=False)
        usage: Usage = self._call("storage_usage", Usage, home=self.home, key=key, view=view)
        return usage

    def keys(self) -> list[str]:
        """`storage_keys`."""
        if not os.path.isdir(self.home):
            return []
        keys = list(self._call("storage_keys", (list, tuple, set, frozenset), home=self.home))
        self._check("storage_keys", keys, all(isinstance(key, str) for key in keys))
        return keys

    def explain(self) -> dict[str, str]:
        """`storage_explain`."""
        reasons = dict(self._call("storage_explain", Mapping, home=self.home))
        self._check("storage_explain", reasons, all(isinstance(text, str) for pair in reasons.items() for text in pair))
        return reasons

    def describe(self, key: str, parents: Sequence[str]) -> dict[str, str]:
        """`storage_describe`, completed with `MergedDir`, which every driver's containers have."""
        view = self.mounts(key, parents, readonly=False)
        return {"MergedDir": view.root, **self._call("storage_describe", dict, home=self.home, key=key, parents=parents, view=view)}


@dataclass(slots=True, kw_only=True)
class NetworkDriver(_Driver):
    """A network driver."""

    kind: str = "network"

    @property
    def makes_networks(self) -> bool:
        """Whether it has `network_check`, and so may have networks that users make."""
        return hasattr(self.plugin, "network_check")

    def check(self, network: "NetworkSpec", host_networks: Sequence[str]) -> "NetworkSpec | None":
        """`network_check`."""
        if not self.makes_networks:
            return None
        from lamina.api.networks import NetworkSpec

        checked: NetworkSpec | None = self._call(
            "network_check", (NetworkSpec, type(None)), network=network, host_networks=tuple(host_networks)
        )
        if checked is not None:
            self._check("network_check", checked, checked.id == network.id and checked.name == network.name)
        return checked

    def setup(self, network: "NetworkSpec") -> "NetworkSetup":
        """`network_setup`."""
        from lamina.api.networks import NetworkSetup

        return self._call("network_setup", (NetworkSetup, type(None)), network=network) or NetworkSetup()

    def attach(
        self,
        container_id: str,
        options: Mapping[str, str],
        network: "NetworkSpec | None" = None,
        endpoint: "EndpointSpec | None" = None,
    ) -> Attachment:
        """`network_attach`."""
        attachment: Attachment = self._call(
            "network_attach", Attachment, container_id=container_id, options=options, network=network, endpoint=endpoint
        )
        self._check(
            "network_attach",
            attachment,
            isinstance(attachment.namespace, NetworkNamespace)
            and (not attachment.links or (endpoint is not None and attachment.namespace is NetworkNamespace.NEW)),
        )
        return attachment

    def detach(self, container_id: str, options: Mapping[str, str], network: "NetworkSpec | None" = None) -> None:
        """`network_detach`."""
        self._call("network_detach", (bool, type(None)), container_id=container_id, options=options, network=network)


@dataclass(slots=True, kw_only=True)
class VolumeDriver(_Driver):
    """A volume driver and its folder."""

    home: str
    kind: str = "volume"

    def create(self, spec: VolumeSpec) -> None:
        """`volume_create`."""
        os.makedirs(self.home, mode=0o711, exist_ok=True)
        self._call("volume_create", bool, home=self.home, spec=spec)

    def mounts(self, spec: VolumeSpec) -> list[Mount]:
        """`volume_mounts`."""
        mounts = list(self._call("volume_mounts", (list, tuple), home=self.home, spec=spec))
        self._check("volume_mounts", mounts, all(_is_mount(mount) for mount in mounts))
        return mounts

    def remove(self, spec: VolumeSpec) -> None:
        """`volume_remove`."""
        self._call("volume_remove", bool, home=self.home, spec=spec)

    def mountpoint(self, spec: VolumeSpec) -> str:
        """`volume_mountpoint`."""
        return str(self._call("volume_mountpoint", (str, type(None)), home=self.home, spec=spec) or "")
