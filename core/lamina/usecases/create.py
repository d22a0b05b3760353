"""Creating a container: its image's layers on the chosen driver, its own writable layer, its volumes, its record."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lamina.api.drivers import StorageDriver
from lamina.dataclasses import replace
from lamina.errors import ConflictError, IntegrityError, LaminaError, NotFoundError, UsageError
from lamina.linux.fs import remove_tree
from lamina.model.container import Container, ContainerConfig, MountRequest, Status, check_name, check_target, merge_env
from lamina.model.image_config import Defaults, ImageConfig
from lamina.runtime.cgroups import own_cgroup
from lamina.store import views
from lamina.store.images import Image
from lamina.store.layers import LayerGoneError, check_depth, read_size
from lamina.store.operations import Operation
from lamina.usecases.context import Context
from lamina.usecases.start import JOIN_PREFIX
from lamina.usecases.volumes import Volumes

if TYPE_CHECKING:
    from lamina.api.entries import LayerReader
    from lamina.model.supervision import Supervision


class Creation:
    """Makes containers."""

    def __init__(self, context: Context, volumes: Volumes) -> None:
        self.context = context
        self.volumes = volumes

    def create(self, config: ContainerConfig, *, name: str = "", driver: str = "", operation: Operation) -> Container:
        """Create a container from `config.image`; it is left as 'creating' under the operation, for `created` or a start to finish.

        Raises `NotFoundError`, `ConflictError`, `NotUsableError`, `UsageError`; nothing is left behind.
        """
        context = self.context
        if name:
            check_name(name)
        image = context.images.resolve(config.image)
        with self._image_there(config.image):
            image_config = context.images.config(image)
        config = self._with_supervision(self._with_network(merge_image_defaults(config, image_config)))
        if config.isolation is not None:
            from lamina.usecases.isolating import settled

            config = settled(context, config, config.isolation)
        if not config.arguments:
            raise UsageError("no command specified", hint="the image has none; give one after its name")
        self._check(config)
        if config.confinement is not None:
            from lamina.usecases.confinement import check_confinement

            check_confinement(config.confinement, context.filter_dir)
        if context.labels_containers or (config.confinement is not None and config.confinement.labels):
            from lamina.usecases.labelling import labelled

            config = labelled(context, config)
        storage = context.layers.usable_driver(driver or context.default_driver)
        keys = [chain.hex for chain in image_config.chain_ids]
        check_depth(storage, len(keys))
        size_bytes, storage_options = read_size(storage, config.storage_options)
        container_id = os.urandom(32).hex()
        container = Container(
            id=container_id,
            name=name or generate_name(container_id),
            image_id=str(image.id),
            driver=storage.name,
            created_ns=time.time_ns(),
            status=Status.CREATING,
            config=config,
            parents=tuple(reversed(keys)),
        )
        context.records.check_name_is_free(container.name)
        with self._image_there(config.image):
            self.unpack_image(image, image_config, storage, operation)
        try:
            for request in config.mounts:
                if request.type == "volume":
                    volumes = {**container.volumes, request.target: self.volumes.for_request(request, operation).name}
                    container = replace(container, volumes=volumes)
            self.record(container, image, image_config, storage, operation)
            if config.isolation is not None and config.isolation.has_own_users:
                views.is_mapped_by_layers(storage.mounts(container.id, container.parents, readonly=False))  # or it is refused
            storage.prepare(container.id, container.parents, storage_options, size_bytes)
            context.layers.remember_touch_time(storage, container.id)
            os.mkdir(context.container_dir(container.id), 0o710)
            self._fill_volumes(container, storage)
        except BaseException as error:
            try:
                self.undo(container)
            except (OSError, LaminaError) as second:
                error.add_note(f"while cleaning up: {second}")
            raise
        return container

    @contextlib.contextmanager
    def _image_there(self, name: str) -> Iterator[None]:
        """Let a blob that is missing because its image has just been removed be said as what it is: no such image."""
        try:
            yield
        except NotFoundError:
            self.context.images.resolve(name)
            raise

    def record(
        self, container: Container, image: Image, image_config: ImageConfig, storage: StorageDriver, operation: Operation
    ) -> None:
        """Record a container: from here on its image and its layers stay. Raises `NotFoundError` if the image has just gone."""
        context = self.context
        while True:
            try:
                with context.database.transaction() as tx:
                    context.images.get(container.image_id)
                    context.records.insert(tx, container, operation)
                    if container.config.isolation is not None and container.config.isolation.has_own_users:
                        from lamina.store.id_ranges import allocate

                        allocate(tx, container.id)
                    for request in container.config.mounts:
                        if request.type == "volume" and (name := container.volumes.get(request.target)):
                            self.volumes.complete(tx, name, operation, fill=request.copy_image_content)
                    context.layers.record(tx, storage, container.id, container.parents, operation, state="writable")
                return
            except LayerGoneError:  # another process has discarded the unpacked layers, which nothing stood on yet
                self.unpack_image(image, image_config, storage, operation)

    def created(self, container: Container, operation: Operation) -> None:
        """Record that a container is complete: from here on a power cut doesn't lose it."""
        self.sync(container)
        with self.context.database.transaction(durable=True) as tx:
            self.context.records.set_state(tx, container.id, status=Status.CREATED, operation=None)
            tx.execute("UPDATE layers SET operation = NULL WHERE driver = ? AND key = ?", (container.driver, container.id))
            operation.end(tx)
        self.context.happened("created", container)

    def sync(self, container: Container) -> None:
        """Make durable what a creation has made: the layer, the directory, the volumes that were filled."""
        context = self.context
        places = [self.volumes.mountpoint(self.volumes.find(name)) for name in container.volumes.values()]
        context.sync(
            context.container_dir(container.id),
            context.layers.driver(container.driver).home,
            *[place for place in places if os.path.isdir(place)],
        )

    def undo(self, container: Container) -> None:
        """Take away all that a creation has made so far; may be repeated."""
        context = self.context
        try:
            storage = context.layers.driver(container.driver)
        except NotFoundError:
            storage = None
        own_cgroup(container).remove()  # first: a start that was killed may have left a process in it
        if storage is not None:
            context.layers.unmount_if_mounted(storage, container.id, container.parents, is_going=True)
            context.layers.discard(storage, container.id)
        remove_tree(context.container_dir(container.id))
        remove_tree(context.container_run_dir(container.id))
        operation = Operation(name="undo")
        with context.database.transaction() as tx:
            doomed = self.volumes.begin_removal(tx, container, operation)
            context.records.delete(tx, container.id)
        for volume in doomed:
            self.volumes.finish_removal(volume)
        with context.database.transaction() as tx:
            operation.end(tx)

    def unpack_image(self, image: Image, image_config: ImageConfig, storage: StorageDriver, operation: Operation) -> None:
        """Make sure that an image's layers are on a driver's disk."""
        keys = [chain.hex for chain in image_config.chain_ids]
        if not keys or self.context.layers.is_sealed(storage, keys[-1]):
            return
        from lamina.archive.compression import Decompressed  # 10 ms with the next; most runs find their layers unpacked
        from lamina.archive.layer import LayerTar

        layers = self.context.images.layers(image)

        @contextlib.contextmanager
        def open_layer(index: int) -> "Iterator[LayerReader]":
            blob = layers[index]
            with self.context.images.content.open(blob.digest) as file, Decompressed(file, threaded=True) as plain:
                yield LayerTar(plain, require_end=False)  # as when it was taken in; its digest covers its end
                plain.finish()
                if plain.digest != blob.digest or plain.diff_id != image_config.diff_ids[index]:
                    raise IntegrityError(
                        f"layer {blob.digest} of image '{image.id.short}' is damaged in the image store",
                        hint="load the image again",
                    )

        def still_there() -> None:
            self.context.images.get(str(image.id))  # layers or blobs are missing because it was removed: that is what is said

        try:
            self.context.layers.unpack(storage, keys, open_layer, operation, before_again=still_there)
        except (NotFoundError, IntegrityError):
            still_there()
            raise

    def _check(self, config: ContainerConfig) -> None:
        seen: set[str] = set()
        for request in config.mounts:
            if request.target in seen:
                raise UsageError(f"two mounts have the target '{request.target}'")
            seen.add(request.target)
            if request.type == "bind" and not os.path.exists(request.source):
                raise NotFoundError(
                    f"the volume's source '{request.source}' doesn't exist", hint="create it first, or correct the path"
                )
        if config.auto_remove and config.supervision is not None and config.supervision.restart != "no":
            raise ConflictError("a container that is removed when it has ended can't be restarted", hint="leave one of both out")
        self._check_network(config)
        if config.limits is not None:
            from lamina.usecases.limiting import check

            check(config)

    def _with_network(self, config: ContainerConfig) -> ContainerConfig:
        """Fill in the default network, and of a joined container its whole id and its host name."""
        context = self.context
        if config.networks and not config.networks[0].network:
            first = config.networks[0]._replace(network=context.default_network)
            config = replace(config, networks=(first, *config.networks[1:]))
        name = config.networks[0].network if config.networks else config.network or context.default_network
        if name.startswith(JOIN_PREFIX):
            joined = context.records.find(name.removeprefix(JOIN_PREFIX))
            if config.hostname or config.domainname:
                raise UsageError(
                    "a container that joins another one's network has that one's host name", hint="leave --hostname out"
                )
            name = f"{JOIN_PREFIX}{joined.id}"
            config = replace(
                config, hostname=joined.config.hostname or joined.short_id, domainname=joined.config.domainname,
                networks=tuple(each._replace(network=name) if not place else each for place, each in enumerate(config.networks)),
            )  # fmt: skip
        return replace(config, network=name)

    def _with_supervision(self, config: ContainerConfig) -> ContainerConfig:
        """Fill in the settings' log driver and options where the container says nothing of them; its own options come on top."""
        context = self.context
        asked = config.supervision
        if asked is None and not context.log_driver and not context.log_options:
            return config
        from lamina.model.supervision import Supervision, log_limits

        asked = asked or Supervision()
        default = context.log_driver or "json-file"
        driver = asked.log_driver or default
        options = {**(context.log_options if driver == default else {}), **asked.log_options}
        log_limits(driver, options)
        return replace(config, supervision=asked._replace(log_driver=driver, log_options=options))

    def _check_network(self, config: ContainerConfig) -> None:
        """Refuse what a network can't do; anything of networks is imported only for one that the engine has a part in."""
        name = config.network
        is_joining = name.startswith(JOIN_PREFIX)
        if not is_joining and self.context.plain_network(name) is None:
            from lamina.usecases.networking import Networking

            Networking(self.context).check(config)
            return
        said = "container:NAME" if is_joining else name
        if len(config.networks) > 1:
            raise UsageError(f"network '{said}' can't be combined with others")
        if config.networks:
            asked = config.networks[0]
            if asked.aliases or asked.ipv4 or asked.ipv6 or asked.mac or asked.options:
                raise UsageError(f"network '{said}' gives a container no address, MAC address, alias or option of its own")
        if is_joining and (config.ports or config.publish_all):
            raise UsageError("a container that joins another one's network publishes no ports", hint="publish them on that one")
        if is_joining and (config.extra_hosts or config.dns or config.dns_search or config.dns_options):
            raise UsageError(
                "a container that joins another one's network has that one's names", hint="say --dns and --add-host there"
            )
        if config.ports or config.publish_all:
            self.context.warn(f"network '{said}' publishes no ports: those asked for are left out")

    def _fill_volumes(self, container: Container, storage: StorageDriver) -> None:
        wanted = {target: self.volumes.find(name) for target, name in container.volumes.items()}
        if all(volume.is_filled for volume in wanted.values()):
            return
        with self.context.layers.seen(storage, container.id, container.parents) as root:
            for target, volume in wanted.items():
                if not volume.is_filled:
                    self.volumes.fill_from_image(volume, root, target)


def merge_image_defaults(config: ContainerConfig, image: ImageConfig) -> ContainerConfig:
    """Let the image say what the user didn't: Docker's rules (a user's entrypoint drops the image's command)."""
    defaults = image.config
    entrypoint = config.entrypoint
    command = config.command
    if not entrypoint:
        entrypoint = tuple(defaults.entrypoint or ())
        if not command:
            command = tuple(defaults.cmd or ())
    elif entrypoint == ("",):
        entrypoint = ()
    targets = {request.target for request in config.mounts}
    declared = tuple(check_target(volume, volume) for volume in defaults.volumes)
    anonymous = tuple(MountRequest(type="volume", target=volume) for volume in declared if volume not in targets)
    labels: Mapping[str, str] = {**defaults.labels, **config.labels}
    return replace(
        config,
        entrypoint=entrypoint,
        command=command,
        env=merge_env(list(defaults.env), config.env),
        labels=labels,
        working_dir=config.working_dir or defaults.working_dir,
        user=config.user or defaults.user,
        stop_signal=config.stop_signal or defaults.stop_signal,
        stop_timeout_s=config.stop_timeout_s if config.stop_timeout_s is not None else defaults.stop_timeout_s,
        exposed_ports=tuple(dict.fromkeys((*defaults.exposed_ports, *config.exposed_ports))),
        image_volumes=declared,
        mounts=config.mounts + anonymous,
        supervision=_with_image_health(config.supervision, defaults),
    )


def _with_image_health(asked: "Supervision | None", image: Defaults) -> "Supervision | None":
    """Let the image say of the health check what the user didn't; None is left of one that checks nothing."""
    if image.healthcheck is None and (asked is None or asked.health is None):
        return asked
    from lamina.model.supervision import HealthCheck, Supervision

    theirs = HealthCheck()
    if image.healthcheck is not None:
        theirs = HealthCheck(**{name: getattr(image.healthcheck, name) for name in HealthCheck._fields if name != "shell"})
    asked = asked or Supervision()
    health = (asked.health or HealthCheck()).over(theirs)._replace(shell=image.shell or ())
    return asked._replace(health=health if health.command else None)


_ADJECTIVES = [
    "amber",
    "brisk",
    "calm",
    "clear",
    "crisp",
    "deft",
    "eager",
    "fair",
    "fleet",
    "gentle",
    "glad",
    "keen",
    "kind",
    "light",
    "lucid",
    "merry",
    "mild",
    "neat",
    "nimble",
    "noble",
    "plain",
    "proud",
    "quick",
    "quiet",
    "ready",
    "sharp",
    "silent",
    "smooth",
    "sober",
    "solid",
    "spry",
    "still",
    "sunny",
    "swift",
    "tidy",
    "warm",
    "wise",
    "witty",
]
_LAYERS = [
    "basalt",
    "bark",
    "calcite",
    "chert",
    "clay",
    "coral",
    "flint",
    "gneiss",
    "granite",
    "gypsum",
    "lamella",
    "loam",
    "marble",
    "marl",
    "mica",
    "nacre",
    "onyx",
    "opal",
    "peat",
    "ply",
    "quartz",
    "sand",
    "schist",
    "shale",
    "silt",
    "slate",
    "talc",
    "tuff",
    "varve",
    "veneer",
]


def generate_name(container_id: str) -> str:
    """Make a name that a person can say, from the id; with its last digits, so that two are hardly ever the same."""
    number = int(container_id[:16], 16)
    adjective, layer = _ADJECTIVES[number % len(_ADJECTIVES)], _LAYERS[number // 64 % len(_LAYERS)]
    return f"{adjective}_{layer}_{container_id[-5:]}"
