"""Taking over what a Docker data directory has, without Docker and without changing it: images, containers, volumes.

An image's layers are put together again from the unpacked files, byte for byte, so its digests, and with them its id, are the
same. A container's own layer is laid down, through the driver's `storage_apply`, on top of the image's. What Docker's hidden layer
between the two has (`-init`: empty files and directories to mount on) isn't needed here: a start makes its own.

Each image and each container is taken over whole or not at all, whatever happens; what can't be is a line in `problems`, and the
others are. Done again, only what isn't here yet is taken over.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from lamina import json
from lamina.api.drivers import StorageDriver
from lamina.archive.changes import read_upper
from lamina.archive.picked import PickedEntries
from lamina.archive.treefacts import difference, read_tree
from lamina.archive.upper import UpperPicks, pick_upper
from lamina.archive.writer import write_entries
from lamina.errors import (
    ArchiveError,
    ConflictError,
    IntegrityError,
    LaminaError,
    NotFoundError,
    NotUsableError,
    PluginError,
    StateError,
)
from lamina.linux.fs import syncfs
from lamina.model.container import Container, Status
from lamina.model.digest import Digest
from lamina.model.image_config import ImageConfig, created_ns_of
from lamina.model.reference import Reference
from lamina.store.content import Ingest
from lamina.store.docker_config import DockerConfig, container_config
from lamina.store.docker_data import DockerContainer, DockerData, DockerImage, opened
from lamina.store.images import Image, LayerBlob
from lamina.store.layer_ingest import DEFAULT_MAX_BYTES, Budget, CountedReader, IncomingLayer, LayerWriter, check_layer, read_layer
from lamina.store.oci_archive import oci_manifest
from lamina.store.operations import Operation
from lamina.store.tar_split import TarSplit
from lamina.usecases.context import Context
from lamina.usecases.create import Creation
from lamina.usecases.migrate import check_names, lay_down
from lamina.usecases.volumes import Volumes

ADOPTED_LABEL = "lamina.adopted-from"
"""Marks a volume that was copied from a data directory, with its path: a second run finds it again."""
_LOST_EXIT_CODE = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is to be taken over, and how."""

    driver: str = ""
    """The storage driver of the containers; "" for that of the same form, or else the default."""
    volumes: bool = False
    intermediate: bool = False
    relayer: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedImage:
    """An image that is here now. `docker_id` differs from its own only if a layer had to be made anew."""

    image: Image
    docker_id: Digest
    names: tuple[Reference, ...]
    was_here: bool = False


@dataclass(slots=True, kw_only=True)
class Adopted:
    """What was taken over, and what wasn't."""

    images: list[AdoptedImage] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Adoption:
    """Takes over one data directory."""

    def __init__(self, context: Context, creation: Creation, volumes: Volumes) -> None:
        self.context = context
        self.creation = creation
        self.volumes = volumes
        self.wishes = Wishes()
        self.done = Adopted()

    def adopt(
        self,
        path: str,
        wishes: Wishes,
        *,
        step: Callable[[str], None] = lambda _text: None,
        progress: Callable[[int], None] = lambda _bytes: None,
    ) -> Adopted:
        """Take over what `wishes` say. Raises `LaminaError` for a directory that can't be read, or that a daemon is at work in."""
        self.wishes = wishes
        with opened(path) as data:
            lock = data.daemon_lock()
            if lock and not wishes.force:
                raise StateError(
                    f"a Docker daemon is running on '{path}': it has '{lock}' locked",
                    hint="stop it; with --force its images and stopped containers are taken over as they are at this moment",
                )
            containers = data.containers()
            wanted = {container.image_id for container in containers}
            for image in data.images():
                if image.is_intermediate and not wishes.intermediate and image.id not in wanted:
                    continue
                shown = ", ".join(name.familiar for name in image.names) or image.id.short
                step(f"image {shown}")
                self._try(f"image '{shown}'", partial(self._image, data, image, progress))
            for container in containers:
                step(f"container {container.name}")
                self._try(f"container '{container.name}'", partial(self._container, data, container, bool(lock)))
            self.done.problems += data.problems
        return self.done

    def _try(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except LaminaError as error:
            hint = f" ({error.hint})" if error.hint else ""
            self.done.problems.append(f"{what} can't be adopted: {error.message}{hint}")

    # Images.

    def _image(self, data: DockerData, image: DockerImage, progress: Callable[[int], None]) -> None:
        images = self.context.images
        config = data.config(image)
        names = self._free_names(image)
        known = images.recognise(image.id, names=names)
        if known is not None:
            self.done.images.append(AdoptedImage(image=known, docker_id=image.id, names=names, was_here=True))
            return
        try:
            with images.ingest() as ingest:
                layers = self._layers(data, image, ImageConfig.from_bytes(config), ingest, progress)
                diff_ids = [str(layer.diff_id) for layer in layers]
                if diff_ids != [str(each) for each in ImageConfig.from_bytes(config).diff_ids]:
                    config = _with_diff_ids(config, diff_ids)
                made = images.add(ingest, manifest=oci_manifest(config, layers), config=config, layers=layers, names=names)
        except BaseException:
            images.delete_unreferenced_blobs(wait=False)
            raise
        self.done.images.append(AdoptedImage(image=made, docker_id=image.id, names=names))

    def _free_names(self, image: DockerImage) -> tuple[Reference, ...]:
        """Give the names that no other image here has: what is here keeps its own."""
        taken = {name.canonical: image_id for name, image_id in self.context.images.all_names()}
        for name in image.names:
            if taken.get(name.canonical, image.id) != image.id:
                self.done.notes.append(f"the name '{name.familiar}' stays with the image that has it here")
        return tuple(name for name in image.names if taken.get(name.canonical, image.id) == image.id)

    def _layers(
        self, data: DockerData, image: DockerImage, config: ImageConfig, ingest: Ingest, progress: Callable[[int], None]
    ) -> list[LayerBlob]:
        budget = Budget.of(DEFAULT_MAX_BYTES)
        dirs: list[str] = []
        made: dict[Digest, LayerBlob] = {}
        for chain, diff_id in zip(config.chain_ids, config.diff_ids, strict=True):
            known = made.get(diff_id) or self.context.images.layer_blob_of(diff_id)
            try:
                dirs.insert(0, data.layer_dir(image.graph, data.cache_id(image.graph, chain, diff_id)))
            except LaminaError:
                if known is None:
                    raise
            if known is None:
                record = data.layer_record(image.graph, chain)
                known = self._layer(record, dirs, diff_id, image, ingest, budget, progress).commit()
            made[diff_id] = known
        return [made[diff_id] for diff_id in config.diff_ids]

    def _layer(  # noqa: PLR0917 - all that a layer is made from
        self,
        record: str,
        dirs: Sequence[str],
        diff_id: Digest,
        image: DockerImage,
        ingest: Ingest,
        budget: Budget,
        progress: Callable[[int], None],
    ) -> IncomingLayer:
        """Put a layer's tar together, and check that it is the one that Docker took in."""
        source = TarSplit(f"{record}/tar-split.json.gz", dirs)
        try:
            layer = read_layer(CountedReader(source, progress), ingest, budget=budget, check=check_layer)
            if layer.layer.diff_id == diff_id:
                return layer
            damaged = source.find_damage()
            why = f"its file '{damaged}' was changed" if damaged else f"what lies there has the digest {layer.layer.diff_id}"
        except FileNotFoundError:
            why = "Docker has kept no tar-split.json.gz of it"
        except ArchiveError as error:
            why = error.message
        if not self.wishes.relayer:
            raise IntegrityError(
                f"layer {diff_id.short} can't be put together again: {why}",
                hint="--relayer makes a new layer of its files, and so an image with another id",
            )
        new = self._relayered(dirs[0], image, ingest)
        self.done.notes.append(f"layer {diff_id.short} is made anew as {new.layer.diff_id.short}: {why}")
        return new

    def _relayered(self, layer_dir: str, image: DockerImage, ingest: Ingest) -> IncomingLayer:
        writer = LayerWriter(ingest)
        try:
            write_entries(writer, PickedEntries(layer_dir, pick_upper(layer_dir, image.graph.whiteouts).picked))
            return writer.finish()
        finally:
            writer.close()

    # Containers.

    def _container(self, data: DockerData, docker: DockerContainer, is_live: bool) -> None:
        if self.context.records.by_id(docker.id) is not None:
            self.done.notes.append(f"container '{docker.name}' is here already")
            return
        if docker.is_running and (is_live or not self.wishes.force):
            raise StateError(
                "it is running there",
                hint="stop it" if is_live else "stop it, or if its machine went down with it running, use --force",
            )
        images = self.context.images
        adopted = {str(each.docker_id): each.image for each in self.done.images}
        image = adopted.get(docker.image_id)
        if image is None:
            raise NotFoundError(f"its image '{docker.image_id[:19]}' wasn't adopted")
        image_config = images.config(image)
        config = container_config(docker.config, docker.host_config, networks=self.context.host.names("network"))
        for lost in config.lost:
            self.done.notes.append(f"container '{docker.name}': {lost}")
        storage = self._storage(docker)
        container = Container(
            id=docker.id,
            name=docker.name,
            image_id=str(image.id),
            driver=storage.name,
            created_ns=created_ns_of(str(docker.config.get("Created") or "")),
            status=Status.CREATING,
            config=config.config,
            parents=tuple(reversed([chain.hex for chain in image_config.chain_ids])),
            volumes=config.volumes,
        )
        self.context.records.check_name_is_free(container.name)
        upper_dir = data.layer_dir(docker.graph, docker.mount_id)
        picks = pick_upper(upper_dir, docker.graph.whiteouts)
        check_names(container.name, storage, [*(each.path for each in picks.picked), *(each.path for each in picks.sockets)])
        self._check_volumes(data, config)
        operation = Operation(name="adopt")
        self._make(data, docker, container, image, image_config, storage, picks, operation)

    def _make(  # noqa: PLR0917 - all that a container is made from
        self,
        data: DockerData,
        docker: DockerContainer,
        container: Container,
        image: Image,
        image_config: ImageConfig,
        storage: StorageDriver,
        picks: UpperPicks,
        operation: Operation,
    ) -> None:
        context, layers = self.context, self.context.layers
        try:
            self.creation.unpack_image(image, image_config, storage, operation)
            for name in dict.fromkeys(container.volumes.values()):
                self._volume(data, name)
            layers.discard_unrecorded(storage, container.id)  # which has the number that it has in Docker
            try:
                self.creation.record(container, image, image_config, storage, operation)
                storage.prepare(container.id, container.parents, {})
                layers.remember_touch_time(storage, container.id)
                upper_dir = data.layer_dir(docker.graph, docker.mount_id)
                lay_down(storage, container, PickedEntries(upper_dir, picks.picked), picks.sockets)
                self._prove(docker, container, storage, upper_dir, picks)
                os.mkdir(context.container_dir(container.id), 0o710)
                self._copy_files(data, container)
                syncfs(storage.home)
                self._finish(docker, container, operation)
            except BaseException as error:
                try:
                    self.creation.undo(container)
                except (OSError, LaminaError) as second:
                    error.add_note(f"while cleaning up: {second}")
                raise
        except BaseException:
            with context.database.transaction() as tx:
                operation.end_unless_owning(tx)
            raise
        self.done.containers.append(context.records.by_id(container.id) or container)
        context.happened("created", container)

    def _prove(
        self, docker: DockerContainer, container: Container, storage: StorageDriver, upper_dir: str, picks: UpperPicks
    ) -> None:
        """Hold what the layer changes here against what Docker's directory says, and every file of that against what is seen."""
        layers = self.context.layers
        if container.parents:
            with layers.seen(storage, container.parents[0], container.parents[1:]) as parent:
                wanted = read_upper(upper_dir, docker.graph.whiteouts, lambda: parent)
        else:
            wanted = read_upper(upper_dir, docker.graph.whiteouts, lambda: None)
        found = layers.changes(storage, container.id, container.parents)
        if found != wanted:
            one = next(iter(set(found) ^ set(wanted)), None)
            raise IntegrityError(f"its changes would differ on {storage.name}" + (f" at '/{one.path}'" if one else ""))
        brought = {each.path for each in picks.picked if each.mark is None} | {each.path for each in picks.sockets}
        there = read_tree(upper_dir)
        with layers.seen(storage, container.id, container.parents) as root:
            here = read_tree(root, contents=brought)
        differs = difference({path: there[path] for path in brought}, {path: here[path] for path in brought if path in here})
        if differs is not None:
            raise IntegrityError(f"'/{differs[0]}' would differ on {storage.name} in its {differs[1]}")

    def _copy_files(self, data: DockerData, container: Container) -> None:
        """Take over what lies beside the layer: names that were given to the container, and its log, which has the same form."""
        source, target = f"{data.root}/containers/{container.id}", self.context.container_dir(container.id)
        for name in ("hostname", "hosts", f"{container.id}-json.log"):
            try:
                shutil.copyfile(f"{source}/{name}", f"{target}/{name}", follow_symlinks=False)
            except FileNotFoundError:
                continue

    def _finish(self, docker: DockerContainer, container: Container, operation: Operation) -> None:
        state: Mapping[str, object] = docker.config.get("State") or {}
        started, finished = (created_ns_of(str(state.get(name) or "")) for name in ("StartedAt", "FinishedAt"))
        code = _LOST_EXIT_CODE if docker.is_running else state.get("ExitCode")
        with self.context.database.transaction(durable=True) as tx:
            self.context.records.set_state(
                tx,
                container.id,
                status=Status.EXITED if started else Status.CREATED,
                exit_code=code if isinstance(code, int) else 0,
                error="",
                started_ns=started,
                finished_ns=finished,
                stopped_by="user" if docker.config.get("HasBeenManuallyStopped") else "",
                operation=None,
            )
            tx.execute("UPDATE layers SET operation = NULL WHERE driver = ? AND key = ?", (container.driver, container.id))
            operation.end(tx)

    def _storage(self, docker: DockerContainer) -> StorageDriver:
        if self.wishes.driver:
            return self.context.layers.usable_driver(self.wishes.driver)
        try:
            return self.context.layers.usable_driver(docker.graph.name)
        except (NotFoundError, NotUsableError, PluginError) as error:
            storage = self.context.layers.usable_driver(self.context.default_driver)
            self.done.notes.append(f"container '{docker.name}' goes to {storage.name}: {error.message}")
            return storage

    # Volumes.

    def _check_volumes(self, data: DockerData, config: DockerConfig) -> None:
        there = set(data.volumes())
        for target, name in config.volumes.items():
            if not self.wishes.volumes:
                raise ConflictError(
                    f"it has the volume '{name[:64]}' at '{target}'", hint="--volumes copies its containers' volumes"
                )
            if name not in there:
                raise NotFoundError(f"its volume '{name}' isn't in '{data.path}'")
            here = next((each for each in self.volumes.all() if each.name == name), None)
            if here is not None and here.labels.get(ADOPTED_LABEL) != os.path.realpath(data.path):
                raise ConflictError(f"its volume '{name}' has the name of one that is here", hint="remove or rename one of them")

    def _volume(self, data: DockerData, name: str) -> None:
        """Copy a volume, once; a copy that was killed is begun again."""
        options = data.volume_options(name)
        volume = self.volumes.create(name, options=options, labels={ADOPTED_LABEL: os.path.realpath(data.path)}, fill=not options)
        if volume.is_filled:
            return
        if _is_anonymous(name):
            with self.context.database.transaction() as tx:
                tx.execute("UPDATE volumes SET anonymous = 1 WHERE name = ?", (name,))
        self.volumes.fill_from_image(volume, f"{data.root}/volumes/{name}", "_data")
        self.done.volumes.append(name)


def _is_anonymous(name: str) -> bool:
    return len(name) == 64 and all(char in "0123456789abcdef" for char in name)


def _with_diff_ids(config: bytes, diff_ids: Sequence[str]) -> bytes:
    """Give an image's configuration other layers, and leave the rest of it as it is."""
    document = json.loads(config)
    document["rootfs"]["diff_ids"] = list(diff_ids)
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
