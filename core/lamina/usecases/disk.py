"""What takes space, and what of it would be freed: packed blobs, unpacked layers by driver, containers' own layers, volumes.

Bytes are those of du(1), blocks and not lengths. Not counted is what belongs to no one thing: directories of the store itself, the
database, logs. Images and their unpacked layers are apart, because one is the truth and the other a cache of it.
"""

import os
from collections import Counter
from collections.abc import Mapping

from lamina.api.types import Usage
from lamina.dataclasses import dataclass
from lamina.errors import ConflictError, LaminaError
from lamina.model.container import Container
from lamina.model.digest import Digest
from lamina.store.images import Image
from lamina.store.operations import locked
from lamina.usecases.context import Context
from lamina.usecases.volumes import Volume, Volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUsage:
    """An image's blobs: `shared_bytes` of them are other images' too."""

    image: Image
    packed_bytes: int
    shared_bytes: int
    containers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerUsage:
    """One unpacked image layer; `containers` stand on it."""

    driver: str
    key: str
    usage: Usage
    containers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerUsage:
    """A container's own layer, and how many named volumes it has."""

    container: Container
    usage: Usage
    volumes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeUsage:
    """A volume's files."""

    volume: Volume
    size_bytes: int
    containers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """All that takes space. The sums are properties."""

    images: tuple[ImageUsage, ...]
    layers: tuple[LayerUsage, ...]
    containers: tuple[ContainerUsage, ...]
    volumes: tuple[VolumeUsage, ...]
    blobs_bytes: int
    """Every blob once, also one that no image has any more, but not what the build cache alone has."""
    images_reclaimable_bytes: int
    """What would be free if every image without a container were removed."""
    build_records: int = 0
    """How many steps and cache mounts the build cache has."""
    build_records_active: int = 0
    """How many of the steps have a layer that an image or a running build has too."""
    build_bytes: int = 0
    """What the cache alone takes: blobs that no image has, and cache mounts."""
    build_reclaimable_bytes: int = 0
    """What of it no running build stands on."""

    @property
    def drivers(self) -> tuple[str, ...]:
        """The drivers that have unpacked layers."""
        return tuple(sorted({layer.driver for layer in self.layers}))

    def unpacked_bytes(self, driver: str, *, unused_only: bool = False) -> int:
        """What a driver's unpacked image layers take; of those that no container stands on alone, if asked."""
        return sum(
            layer.usage.size_bytes for layer in self.layers if layer.driver == driver and not (unused_only and layer.containers)
        )

    @property
    def containers_bytes(self) -> int:
        """What the containers' own layers take."""
        return sum(each.usage.size_bytes for each in self.containers)

    @property
    def containers_reclaimable_bytes(self) -> int:
        """What of it belongs to containers that don't run."""
        return sum(each.usage.size_bytes for each in self.containers if not each.container.is_up)

    @property
    def containers_running(self) -> int:
        """How many run, are paused, or soon run again."""
        return sum(each.container.is_up for each in self.containers)

    @property
    def volumes_bytes(self) -> int:
        """What the volumes take."""
        return sum(each.size_bytes for each in self.volumes)

    @property
    def volumes_reclaimable_bytes(self) -> int:
        """What the volumes take that no container has."""
        return sum(each.size_bytes for each in self.volumes if not each.containers)


def disk_usage(context: Context, volumes: Volumes) -> DiskUsage:
    """Count what everything takes. A driver that isn't installed any more is a warning, and its layers aren't counted."""
    containers = context.records.all()
    layers = _layer_usage(context)
    own = {(each.driver, each.key): each.usage for each in layers}
    ids = {container.id for container in containers}
    nothing = Usage(size_bytes=0, inodes=0)
    build = _build_usage(context)
    images, reclaimable = _image_usage(context, Counter(container.image_id for container in containers))
    return DiskUsage(
        images=images,
        layers=tuple(layer for layer in layers if layer.key not in ids),
        containers=tuple(
            ContainerUsage(container=each, usage=own.get((each.driver, each.id), nothing), volumes=len(set(each.volumes.values())))
            for each in containers
        ),
        volumes=tuple(
            VolumeUsage(volume=volume, size_bytes=volumes.size_bytes(volume), containers=len(volumes.users(volume.name)))
            for volume in volumes.all()
        ),
        blobs_bytes=sum(_blob_bytes(context, digest) for digest in context.images.content.walk()) - build.blobs_bytes,
        images_reclaimable_bytes=reclaimable,
        build_records=build.records,
        build_records_active=build.active,
        build_bytes=build.blobs_bytes + build.mounts_bytes,
        build_reclaimable_bytes=build.blobs_bytes + build.mounts_bytes - build.used_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _BuildUsage:
    records: int
    active: int
    blobs_bytes: int
    used_bytes: int
    mounts_bytes: int


def _build_usage(context: Context) -> _BuildUsage:
    """Count what builds have kept and nothing else has."""
    connection = context.database.connection
    images = {row[0] for row in connection.execute("SELECT digest FROM image_blobs")}
    used = {row[0] for row in connection.execute("SELECT digest FROM build_blobs")}
    layers = [row[0] for row in connection.execute("SELECT layer FROM build_cache WHERE layer IS NOT NULL")]
    own = {digest: _blob_bytes(context, Digest(digest)) for digest in {*layers, *used} - images}
    mounts = _build_mounts(context)
    return _BuildUsage(
        records=len(layers) + len(mounts),
        active=sum(digest in images or digest in used for digest in layers),
        blobs_bytes=sum(own.values()),
        used_bytes=sum(size for digest, size in own.items() if digest in used),
        mounts_bytes=sum(mounts),
    )


def _build_mounts(context: Context) -> list[int]:
    """What each cache mount takes."""
    from lamina.archive.fallback import tree_usage

    top = os.path.join(context.root_dir, "build", "cache")
    if not os.path.isdir(top):
        return []
    places = [os.path.join(top, name, entry) for name in os.listdir(top) for entry in os.listdir(os.path.join(top, name))]
    return [tree_usage(place).size_bytes for place in places if os.path.isdir(place)]


def _layer_usage(context: Context) -> list[LayerUsage]:
    """Count every whole layer, the containers' own included."""
    records = context.layers.records()
    parents = {(driver, key): parent for driver, key, parent, _state in records}
    standing: Counter[tuple[str, str]] = Counter()
    for driver, key, _parent, state in records:
        if state == "writable":
            standing.update((driver, below) for below in _chain(parents, driver, key))
    found, missing = [], set()
    for driver, key, _parent, state in sorted(records, key=lambda record: (record[0], record[1])):
        if state not in {"sealed", "writable"} or driver in missing:
            continue
        try:
            usage = context.layers.usage(context.layers.driver(driver), key, _chain(parents, driver, key))
        except FileNotFoundError:
            continue  # discarded meanwhile
        except LaminaError as error:
            context.warn(f"the layers of storage driver '{driver}' can't be counted: {error}")
            missing.add(driver)
            continue
        found.append(LayerUsage(driver=driver, key=key, usage=usage, containers=standing[driver, key]))
    return found


def _image_usage(context: Context, containers: Mapping[str, int]) -> tuple[tuple[ImageUsage, ...], int]:
    blobs: dict[str, set[str]] = {}
    for image_id, digest in context.database.connection.execute("SELECT image_id, digest FROM image_blobs"):
        blobs.setdefault(image_id, set()).add(digest)
    sizes = {digest: _blob_bytes(context, Digest(digest)) for digest in set().union(*blobs.values())}
    owners = Counter(digest for digests in blobs.values() for digest in digests)
    kept = set().union(*(digests for image_id, digests in blobs.items() if containers.get(image_id)))
    usages = tuple(
        ImageUsage(
            image=image,
            packed_bytes=sum(sizes[digest] for digest in blobs.get(image.id, ())),
            shared_bytes=sum(sizes[digest] for digest in blobs.get(image.id, ()) if owners[digest] > 1),
            containers=containers.get(image.id, 0),
        )
        for image in context.images.images()
    )
    return usages, sum(size for digest, size in sizes.items() if digest not in kept)


def _blob_bytes(context: Context, digest: Digest) -> int:
    try:
        return os.stat(context.images.content.blob_path(digest)).st_blocks * 512
    except FileNotFoundError:
        return 0


def _chain(parents: Mapping[tuple[str, str], str | None], driver: str, key: str) -> tuple[str, ...]:
    """The keys below a layer, nearest first."""
    chain: list[str] = []
    parent = parents.get((driver, key))
    while parent is not None:
        chain.append(parent)
        parent = parents.get((driver, parent))
    return tuple(chain)


def discard_unused_layers(context: Context) -> tuple[list[tuple[str, str]], int]:
    """Discard the unpacked image layers that no container stands on; gives driver and key of each, and the bytes freed.

    The images stay whole: the next container that wants the layers has them unpacked again.
    """
    records = context.layers.records()
    parents = {(driver, key): parent for driver, key, parent, _state in records}
    in_use = {(driver, key) for driver, key, _parent, state in records if state != "sealed"}
    for driver, key in list(in_use):
        in_use.update((driver, below) for below in _chain(parents, driver, key))
    unused = [(driver, key) for driver, key in parents if (driver, key) not in in_use]
    unused.sort(key=lambda layer: len(_chain(parents, *layer)), reverse=True)  # from the top down
    discarded, freed = [], 0
    for name, key in unused:
        try:
            storage = context.layers.driver(name)
            with locked(context.run_dir, f"{name}-{key}"):
                if not context.layers.is_sealed(storage, key):
                    continue
                size = context.layers.usage(storage, key, _chain(parents, name, key)).size_bytes
                context.layers.discard(storage, key)
        except ConflictError:
            continue  # a container was made on it meanwhile
        except LaminaError as error:
            context.warn(f"layer '{key[:12]}' of storage driver '{name}' can't be discarded: {error}")
            continue
        discarded.append((name, key))
        freed += size
    return discarded, freed
