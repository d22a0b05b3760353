"""The hooks. A plugin implements those that it needs, and takes of each hook's arguments only those that it needs.

    from lamina.api.hookspecs import hookimpl

    class Driver:
        name = "mine"
        api_version = 1

        @hookimpl
        def storage_prepare(self, home, key, parents): ...

    plugin = Driver()

and in its package's metadata, `[project.entry-points.lamina]`: `"storage.mine" = "my_package:plugin"`. The entry's name is
KIND.NAME with KIND one of storage, network, volume, or `watch` for a plugin that only wraps or watches and is always active.

Words. `home` is the driver's own folder, absolute, made by the engine (mode 0710) before the first call; a driver writes nowhere
else. `key` names a layer: 1 to 128 characters of [a-zA-Z0-9_.-], made by the engine, never used twice at the same time. `parents`
are the keys below it, nearest first, empty for a base layer.

What holds for every storage hook: the engine never calls two hooks that change the same `key` at the same time, and holds
whatever lock that takes; one that only tells (mounts, changes, usage, describe) may be called meanwhile. Different keys run in
parallel, from several processes. The engine may be killed at any line; it then calls
`storage_discard` for what was half made. A driver raises `OSError` or `lamina.errors.LaminaError`; it doesn't mount, log, print,
lock, or start a process.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from lamina.api.entries import Change, LayerReader, Trees
    from lamina.api.networks import EndpointSpec, NetworkSetup, NetworkSpec
    from lamina.api.types import Attachment, ContainerEvent, Probe, Usage, View, VolumeSpec
    from lamina.model.mount import Mount

hookspec = pluggy.HookspecMarker("lamina")
hookimpl = pluggy.HookimplMarker("lamina")


@hookspec(firstresult=True)
def storage_probe(home: str) -> "Probe":  # type: ignore[empty-body]
    """Answer whether the driver can work with its layers in `home`, how, and what it can do.

    Called by `driver ls`, `driver inspect`, and before a driver's first use. `home` need not exist yet: judge by the nearest
    directory above. Must leave nothing behind; may be called at any time, any number of times. Required.
    """


@hookspec(firstresult=True)
def storage_prepare(  # type: ignore[empty-body]
    home: str, key: str, parents: Sequence[str], options: Mapping[str, str], size_bytes: int | None
) -> bool:
    """Make an empty layer `key` on top of `parents`, so that its view equals theirs. Return True.

    The parents are there and don't change any more. `options` are the user's `--storage-opt`s; raise `UsageError` for one that you
    don't know. `size_bytes` is how much the layer may grow on disk: a write beyond it must fail with ENOSPC or EDQUOT and harm no
    other layer. It is None for a driver that doesn't claim `quota`: to its containers the engine refuses `--storage-opt size=`.
    `lamina.api.quota` does it by project quotas. A base layer's root is a directory 0755 of root's; other layers' roots have the
    mode, owner, times and xattrs of their parent's. Raise if `key` is there already. A failure leaves nothing behind. Required.
    """


@hookspec(firstresult=True)
def storage_mounts(home: str, key: str, parents: Sequence[str], readonly: bool) -> "View":  # type: ignore[empty-body]
    """Say where the union of the layer and its parents is seen, and which mounts make it so.

    Changes nothing on disk and gives the same answer each time: it may read what the driver itself wrote down in `home`.
    With `readonly` a write through the view must fail with EROFS, and several
    such views may exist at once, beside a writable one too. The engine makes the mounts; at most one writable view of a key exists
    at a time. Required.
    """


@hookspec(firstresult=True)
def storage_before_mount(home: str, key: str, parents: Sequence[str]) -> bool | None:
    """Make ready what the mounts of `storage_mounts(readonly=False)` need; called before they are made. Optional.

    For a driver whose layer at rest has another form than the one that its mount writes. Read-only views that are mounted stay
    right, and those that are mounted in the middle of it are right. Called again after a crash, perhaps on a layer that is ready
    already: must then do nothing.
    """


@hookspec(firstresult=True)
def storage_after_unmount(home: str, key: str) -> bool | None:
    """Bring the layer back to its form at rest; called after a writable view's mounts are gone. Optional.

    Read-only views that are mounted in the middle of it are right; those that are mounted before it stay right, unless they said
    `until_rest`: then nobody looks. Called for a crashed engine's views too, and perhaps twice. From here until the next mount the
    layer is read by `storage_changes`, `storage_usage` and tools that know the driver's format.
    """


@hookspec(firstresult=True)
def storage_changes(home: str, key: str, parents: Sequence[str], trees: "Trees") -> "Sequence[Change]":  # type: ignore[empty-body]
    """List what the layer adds, changes and deletes against its parents, sorted by path components, parents before children.

    A path is MODIFY if its content, mode, owner, mtime, device number, link text or any xattr but `trusted.overlay.*` differs;
    touching without a difference is no change. A directory is listed when itself differs. A deleted tree is one entry, its top.
    The root's own mtime is no change, and a socket counts as not there, since a layer can't hold one.
    A path whose type changed is MODIFY, and everything below a directory that replaced something else is ADD. May be called while
    the view is mounted. Default: read `upper_dir` if the driver claims `native_diff`, else compare the two trees.
    """


@hookspec(firstresult=True)
def storage_apply(home: str, key: str, parents: Sequence[str], entries: "LayerReader", trees: "Trees") -> bool:  # type: ignore[empty-body]
    """Lay a layer's entries down in a freshly prepared, unsealed layer. Return True.

    Whiteouts hide what `parents` have, wherever they stand among the entries, and never what this layer itself brings. Nothing
    outside the layer may be written, whatever the entries say. After an error the engine discards the layer.
    Default: write into `upper_dir` in the claimed whiteout format, or into the tree itself.
    """


@hookspec(firstresult=True)
def storage_seal(home: str, key: str) -> bool:  # type: ignore[empty-body]
    """Make the layer final and durable: when this returns, a power cut loses none of it. Return True.

    It is never written again. May be called twice. Default: syncfs(2) of the file system that `home` is on.
    """


@hookspec(firstresult=True)
def storage_discard(home: str, key: str) -> bool:  # type: ignore[empty-body]
    """Take the layer away at once, in time that doesn't grow with its size: rename it aside. Return True.

    Nobody has it mounted and no layer lies on it. No error if it isn't there, or only half. Required.
    """


@hookspec(firstresult=True)
def storage_sweep(home: str) -> bool | None:
    """Delete for good what `storage_discard` set aside. Default: everything in `home/trash`.

    Called without a lock, by several processes at a time: a name that has gone meanwhile is no error.
    """


@hookspec(firstresult=True)
def storage_usage(home: str, key: str, view: "View") -> "Usage":  # type: ignore[empty-body]
    """Say what this layer alone takes on disk. Default: count `upper_dir`, or `root` of a driver whose layers are full trees."""


@hookspec(firstresult=True)
def storage_keys(home: str) -> "Sequence[str]":  # type: ignore[empty-body]
    """List the keys that are on disk, whole or half made, in any order; what is set aside isn't among them. Required."""


@hookspec(firstresult=True)
def storage_describe(home: str, key: str, parents: Sequence[str], view: "View") -> Mapping[str, str]:  # type: ignore[empty-body]
    """Give the paths that `inspect` shows as `GraphDriver.Data`. Default: `MergedDir`, and `UpperDir` if there is one."""


@hookspec(firstresult=True)
def storage_explain(home: str) -> Mapping[str, str]:  # type: ignore[empty-body]
    """Say why the driver mounts with the options that it mounts with: option, as in `Mount.options`, to a reason in a few words.

    A key is an option's name, or `NAME=VALUE` for a reason that holds for that value. Shown by `explain` beside what the option
    means to the kernel, which core knows. Pure; may be called at any time. Default: no reasons.
    """


@hookspec(firstresult=True)
def network_check(network: "NetworkSpec", host_networks: Sequence[str]) -> "NetworkSpec | None":
    """Check the options of a network that is about to be made, and return it with your defaults filled in. Optional.

    A driver that has this hook makes networks: `network create --driver NAME`, any number of them, each kept by the engine with
    its id. Without it, or with None as the answer, the driver has exactly one network, of its own name (`host`, `none`).
    `host_networks` are the subnets that the host's links and routes have now. Raise `UsageError` for an option that you don't know,
    `ConflictError` for a subnet that can't be. Changes nothing; may be called at any time.
    """


@hookspec(firstresult=True)
def network_setup(network: "NetworkSpec") -> "NetworkSetup | None":
    """Say what the host must have while the network is used: a bridge, settings, rules. Default: nothing.

    The engine makes it before the first container is attached, makes what is missing before each other one and at
    `network repair`, and takes links, chains and sets away after the last. Pure: the same answer each time. Raise `NotUsableError`
    if it can't be here.
    """


@hookspec(firstresult=True)
def network_attach(  # type: ignore[empty-body]
    container_id: str, options: Mapping[str, str], network: "NetworkSpec | None", endpoint: "EndpointSpec | None"
) -> "Attachment":
    """Say which network namespace a container that is about to start gets, and what to do in it. Required for a network.

    For a network that was made, `network` and `endpoint` say what the engine has chosen, and the answer is a new namespace with
    links, and elements of the network's sets for published ports; called as well when a running container is connected. For a
    driver's own network both are None. `options` are the endpoint's (`driver-opt`).
    """


@hookspec(firstresult=True)
def network_detach(container_id: str, options: Mapping[str, str], network: "NetworkSpec | None") -> bool | None:
    """Give back what `network_attach` took. Called once the container has ended; perhaps twice, perhaps without an attach.

    Links, elements and addresses that were told to the engine it takes away by itself.
    """


@hookspec(firstresult=True)
def volume_create(home: str, spec: "VolumeSpec") -> bool:  # type: ignore[empty-body]
    """Make the volume's storage, empty. Return True. A failure leaves nothing behind, and it may be there already. Required."""


@hookspec(firstresult=True)
def volume_mounts(home: str, spec: "VolumeSpec") -> "Sequence[Mount]":  # type: ignore[empty-body]
    """Say how the volume is seen: mounts whose `target` is "", for the place in the container. Changes nothing. Required."""


@hookspec(firstresult=True)
def volume_remove(home: str, spec: "VolumeSpec") -> bool:  # type: ignore[empty-body]
    """Delete the volume's storage and all in it. No error if it has gone. Return True. Required."""


@hookspec(firstresult=True)
def volume_mountpoint(home: str, spec: "VolumeSpec") -> str:  # type: ignore[empty-body]
    """The host's path of the volume's files, shown by `volume inspect`; "" if the host can't see them."""


@hookspec
def container_event(event: "ContainerEvent") -> None:
    """Watch: called after each thing that happens to a container. An exception is a warning and stops nothing."""
