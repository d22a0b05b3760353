"""Explaining a container's files: its layers and mounts, and for one path where it comes from and what a write would do.

All of it follows from what a driver says as data: `View`, `Capabilities`, `Mount` values and its reasons (`storage_explain`).
What lies in the layers is read as it lies; nothing is mounted but what a driver of full trees needs to be read.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamina.api.drivers import StorageDriver
from lamina.api.types import Fidelity, Usage, View, WhiteoutFormat
from lamina.errors import UsageError
from lamina.linux import mountinfo
from lamina.model.container import Container, MountRequest
from lamina.model.mount import Mount
from lamina.runtime.confinement import MASKED_PATHS
from lamina.runtime.mount_steps import MountInRoot
from lamina.runtime.plan import kernel_mounts
from lamina.usecases.context import Context
from lamina.usecases.layerlookup import Found, Has, LayerPlace, Lookup, is_directory, look_up, other_names
from lamina.usecases.mountoptions import meaning, options_of

OWN_LAYER = "the container's own layer"
ENGINE_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedLayer:
    """One layer of the stack. `step` is the image's history entry that made it, `diff_id` "" for the container's own."""

    number: int
    key: str
    step: str
    diff_id: str
    directory: str
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedOption:
    """A mount option: what it means to the kernel, and why the driver uses it."""

    name: str
    value: str | None
    means: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedMount:
    """One of the mounts that make the union. `kernel_options` are the kernel's own words while it is mounted, else ""."""

    mount: Mount
    options: tuple[ExplainedOption, ...]
    kernel_options: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Covering:
    """What is mounted in the container and hides what its layers have there."""

    target: str
    type: str
    source: str
    read_only: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A container's files as a whole."""

    container: Container
    driver: str
    method: str
    root: str
    layers: tuple[ExplainedLayer, ...]
    mounts: tuple[ExplainedMount, ...]
    covered: tuple[Covering, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """What the first change of a path would do. `copied_bytes` is the file's length, `disk_bytes` what of it isn't holes."""

    copied_bytes: int
    disk_bytes: int
    made_directories: tuple[str, ...]
    broken_links: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPath:
    """One path: what each layer has there, what hides it, and what a write does."""

    asked: str
    lookup: Lookup
    layers: tuple[ExplainedLayer, ...]
    covered_by: Covering | None
    write: Write


class Explaining:
    """Explains containers."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def stack(self, container: Container) -> Stack:
        """Explain the whole: layers, mounts, what hides what."""
        storage = self.context.layers.driver(container.driver)
        view = storage.mounts(container.id, container.parents, readonly=False)
        with self._places(storage, container) as places:
            layers = self._layers(storage, container, [place.directory for place in places], measured=True)
        return Stack(
            container=container, driver=storage.name, method=storage.probe().method, root=view.root, layers=layers,
            mounts=tuple(_explained(mount, storage.explain()) for mount in view.mounts), covered=tuple(_covered(container)),
        )  # fmt: skip

    def path(self, container: Container, path: str) -> ExplainedPath:
        """Explain one path. Raises `UsageError` if it isn't absolute."""
        if not path.startswith("/") or "\0" in path:
            raise UsageError(f"'{path}' is not an absolute path", hint="write it as the container sees it, such as /etc/hosts")
        storage = self.context.layers.driver(container.driver)
        with self._places(storage, container) as places:
            lookup = look_up(places, path)
            layers = self._layers(storage, container, [place.directory for place in places], measured=False)
            write = _write(container, storage, places, lookup)
        coverings = [each for each in _covered(container) if f"{lookup.path}/".startswith(f"{each.target}/")]
        covering = max(coverings, key=lambda each: len(each.target), default=None)
        return ExplainedPath(asked=path, lookup=lookup, layers=layers, covered_by=covering, write=write)

    @contextlib.contextmanager
    def _places(self, storage: StorageDriver, container: Container) -> Iterator[list[LayerPlace]]:
        keys = (container.id, *container.parents)
        form = storage.probe().capabilities.whiteouts
        with contextlib.ExitStack() as stack:
            places = []
            for number, key in enumerate(keys):
                view = storage.mounts(key, keys[number + 1 :], readonly=False)
                if form is WhiteoutFormat.NONE or view.upper_dir is None:
                    directory = view.root
                    if view.mounts and not (number == 0 and container.is_active):
                        directory = stack.enter_context(self.context.layers.seen(storage, key, keys[number + 1 :]))
                    places.append(LayerPlace(key=key, directory=directory, form=WhiteoutFormat.NONE))
                else:
                    is_mounted = number == 0 and container.is_active
                    places.append(LayerPlace(key=key, directory=view.upper_dir, form=_form_now(view, form) if is_mounted else form))
            yield places

    def _layers(
        self, storage: StorageDriver, container: Container, directories: Sequence[str], *, measured: bool
    ) -> tuple[ExplainedLayer, ...]:
        config = self.context.images.config(self.context.images.get(container.image_id))
        made = [entry.created_by or entry.comment for entry in config.history if not entry.empty_layer]
        keys = (container.id, *container.parents)
        layers = []
        for number, key in enumerate(keys):
            at = len(config.diff_ids) - number
            step = OWN_LAYER if number == 0 else (made[at] if at < len(made) else "")
            layers.append(
                ExplainedLayer(
                    number=number,
                    key=key,
                    step=step,
                    diff_id="" if number == 0 else str(config.diff_ids[at]),
                    directory=directories[number],
                    usage=storage.usage(key, keys[number + 1 :]) if measured else Usage(size_bytes=0, inodes=0),
                )
            )
        return tuple(layers)


def _form_now(view: View, at_rest: WhiteoutFormat) -> WhiteoutFormat:
    """The form of a mounted layer: whoever has it for an `upperdir` writes overlayfs's marks into it, whatever it has at rest."""
    has = any(("upperdir", view.upper_dir) in mount.options for mount in view.mounts)
    return WhiteoutFormat.OVERLAY if has else at_rest


def _explained(mount: Mount, reasons: Mapping[str, str]) -> ExplainedMount:
    options = tuple(
        ExplainedOption(
            name=key, value=value, means=meaning(mount.type, key, value), why=reasons.get(f"{key}={value}", reasons.get(key, ""))
        )
        for key, value in options_of(mount)
    )
    return ExplainedMount(mount=mount, options=options, kernel_options=_kernel_options(mount.target))


def _kernel_options(target: str) -> str:
    on_top = [each for each in mountinfo.mounts() if each.target == target][-1:]
    return "".join(f"{each.options} {each.super_options}" for each in on_top)


def _covered(container: Container) -> Iterator[Covering]:
    asked = container.config.confinement
    for step in kernel_mounts(privileged=asked is not None and asked.privileged):
        if isinstance(step, MountInRoot):
            yield Covering(
                target=step.target, type=step.type, source=step.type, read_only=bool(step.flags & 1), why="every container has it"
            )
    for path in () if asked is not None and (asked.privileged or asked.system_paths_unconfined) else MASKED_PATHS:
        yield Covering(target=path, type="mask", source="", read_only=True, why="it tells too much of the host")
    taken = {request.target for request in container.config.mounts}
    for path in ENGINE_FILES:
        if path not in taken:
            yield Covering(
                target=path, type="bind", source="a file of the container's own, written by the engine",
                read_only=container.config.read_only, why="the container's name and its resolver",
            )  # fmt: skip
    for request in container.config.mounts:
        yield Covering(
            target=request.target, type=request.type, source=_source(container, request), read_only=request.read_only,
            why="the image declares it" if request.target in container.config.image_volumes and not request.source else "asked for",
        )  # fmt: skip


def _source(container: Container, request: MountRequest) -> str:
    return container.volumes.get(request.target, request.source) if request.type == "volume" else request.source


def _write(container: Container, storage: StorageDriver, places: Sequence[LayerPlace], lookup: Lookup) -> Write:
    """Say what the first change does, by the capabilities and the mount options alone."""
    able, seen = storage.probe().capabilities, lookup.seen
    if container.config.read_only:
        return _nothing("the root is read-only: it fails with EROFS")
    made = tuple(_missing_directories(places[0], lookup.path))
    if seen is None:
        return _nothing("nothing is there; what is made lands in the container's own layer", made)
    if able.whiteouts is WhiteoutFormat.NONE:
        return _nothing("a layer is a full tree, so the container's own has all of it already")
    if seen.key == container.id:
        return _nothing("it lies in the container's own layer already")
    if is_directory(seen):
        return _nothing("a name made in a directory copies none of its files", (*made, lookup.path))
    if seen.found is None or seen.has is not Has.FILE:
        return _nothing(f"a {seen.has} has no bytes; a change of its owner makes one in the container's own layer", made)
    broken: tuple[str, ...] = ()
    if seen.found.st_nlink > 1 and Fidelity.HARD_LINKS not in able.preserves:
        place = next(each for each in places if each.key == seen.key)
        broken = tuple(sorted(other_names(place.directory, seen.found, lookup.path)))
    view = storage.mounts(container.id, container.parents, readonly=False)
    metadata_only = any(("metacopy", "on") in mount.options for mount in view.mounts)
    why = "the whole file is copied to the container's own layer at the first write"
    return Write(
        copied_bytes=seen.found.st_size, disk_bytes=seen.found.st_blocks * 512, made_directories=made, broken_links=broken,
        why=why + ("; a change of mode or owner alone copies none of it" if metadata_only else ", or change of mode or owner"),
    )  # fmt: skip


def _nothing(why: str, made: tuple[str, ...] = ()) -> Write:
    return Write(copied_bytes=0, disk_bytes=0, made_directories=made, broken_links=(), why=why)


def _missing_directories(own: LayerPlace, path: str) -> Iterator[str]:
    """List the directories above a path that the container's own layer doesn't have yet."""
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts)):
        above = "/" + "/".join(parts[:depth])
        (found,) = look_up([own], above).layers
        if not is_directory(found):
            yield above


def stack_document(stack: Stack) -> dict[str, Any]:
    """What `explain CONTAINER` shows as JSON."""
    return {
        "Id": stack.container.id,
        "Name": stack.container.name,
        "Driver": stack.driver,
        "Method": stack.method,
        "Root": stack.root,
        "Layers": [
            _layer_document(layer) | {"Size": layer.usage.size_bytes, "Files": layer.usage.inodes} for layer in stack.layers
        ],
        "Mounts": [
            {
                "Type": each.mount.type,
                "Target": each.mount.target,
                "Command": each.mount.describe(),
                "Mounted": bool(each.kernel_options),
                "KernelOptions": each.kernel_options,
                "Options": [
                    {"Name": option.name, "Value": option.value, "Means": option.means, "Why": option.why}
                    for option in each.options
                ],
            }
            for each in stack.mounts
        ],
        "Hides": [_covering_document(each) for each in stack.covered],
    }


def path_document(explained: ExplainedPath) -> dict[str, Any]:
    """What `explain CONTAINER PATH` shows as JSON."""
    seen, write = explained.lookup.seen, explained.write
    return {
        "Path": explained.asked,
        "Resolved": explained.lookup.path,
        "Has": seen.has.value if seen is not None else Has.NOTHING.value,
        "From": seen.key if seen is not None else "",
        "Link": seen.link if seen is not None else "",
        "Layers": [
            _layer_document(layer) | _found_document(found)
            for layer, found in zip(explained.layers, explained.lookup.layers, strict=True)
        ],
        "HiddenBy": _covering_document(explained.covered_by) if explained.covered_by is not None else None,
        "Write": {
            "CopiesBytes": write.copied_bytes,
            "DiskBytes": write.disk_bytes,
            "MakesDirectories": list(write.made_directories),
            "BreaksHardLinks": list(write.broken_links),
            "Why": write.why,
        },
    }


def _layer_document(layer: ExplainedLayer) -> dict[str, Any]:
    return {
        "Number": layer.number, "Key": layer.key, "Step": layer.step, "DiffId": layer.diff_id, "Directory": layer.directory,
    }  # fmt: skip


def _found_document(found: Found) -> dict[str, Any]:
    size_bytes = found.found.st_size if found.found is not None and not is_directory(found) else 0
    return {
        "Has": found.has.value, "Role": found.role.value, "HidesBelow": found.hides_below, "HidesAt": found.by,
        "Size": size_bytes, "HostPath": found.host_path,
    }  # fmt: skip


def _covering_document(covering: Covering) -> dict[str, Any]:
    return {
        "Target": covering.target, "Type": covering.type, "Source": covering.source, "ReadOnly": covering.read_only,
        "Why": covering.why,
    }  # fmt: skip
