"""The images of an engine: taking them in, giving them out, naming and removing them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from lamina.errors import ConflictError, NotFoundError
from lamina.model.digest import Digest
from lamina.model.reference import Reference
from lamina.store.images import Image, ImageUser, Removal
from lamina.store.operations import Operation

if TYPE_CHECKING:  # what reads and writes archives is imported by the method that does it
    import sqlite3

    from lamina.archive.compression import Readable, Writable
    from lamina.build.progress import Progress as ShowsBuild
    from lamina.build.prune import Pruned
    from lamina.engine import Engine
    from lamina.registry.places import Place
    from lamina.registry.pull import Pulled
    from lamina.registry.push import Copied
    from lamina.registry.report import Report
    from lamina.store.image_archive import LoadedImage
    from lamina.store.image_history import HistoryRow

Progress = Callable[[int], None]


class ImagesAPI:
    """The images of an engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self.store = engine.context.images

    def bootstrap(self, name: str = "busybox") -> Image:
        """Make a small base image out of the host's own busybox, or its shell and core tools."""
        from lamina.store.bootstrap import bootstrap

        return bootstrap(self.store, names=[Reference.parse(name)])

    def get(self, name: str) -> Image:
        """Find an image by name, id or an id's beginning; raises `NotFoundError`."""
        return self.store.resolve(name)

    def all(self) -> list[Image]:
        """List every image, the newest first."""
        return self.store.images()

    def tag(self, image: str, name: str) -> None:
        """Give an image one more name."""
        found = self.store.resolve(image)
        reference = Reference.parse(name)
        self.store.tag(found, reference)
        self._event("tag", str(found.id), reference.familiar)

    def remove(self, name: str, *, force: bool = False) -> Removal:
        """Take a name away, and with the last one the image and its unpacked layers."""
        image_id = str(self.store.resolve(name).id)
        operation = Operation(name="remove an image")
        removal = self.store.remove(name, users=self._users, on_delete=self._going(operation), force=force)
        self._removed(image_id, removal)
        self._discard_layers(operation)
        return removal

    def prune(
        self, *, all_images: bool = False, matches: Callable[[Image], bool] = lambda _image: True
    ) -> tuple[list[Removal], int]:
        """Remove images without a name, or with `all_images` all that no container was made from; gives the bytes freed too.

        Only those that `matches` accepts. The bytes are those of the blobs and of the unpacked layers.
        """
        removals: list[Removal] = []
        freed = 0
        for image in self.store.images():
            if (self.store.names(image) and not all_images) or self._users(str(image.id)) or not matches(image):
                continue
            operation = Operation(name="remove an image")
            try:
                removal = self.store.remove(
                    str(image.id), users=self._users, on_delete=self._going(operation), force=True, collect=False
                )
                self._removed(str(image.id), removal)
            except (ConflictError, NotFoundError):  # a container was made from it meanwhile, or somebody else has removed it
                continue
            freed += self._discard_layers(operation, measured=True)
            removals.append(removal)
        return removals, freed + self.store.delete_unreferenced_blobs()

    def history(self, name: str) -> "list[HistoryRow]":
        """Tell how an image came to be, the newest step first."""
        from lamina.store.image_history import history

        return history(self.store, self.store.resolve(name))

    def load(self, source: "Readable", *, max_bytes: int | None = None, progress: Progress | None = None) -> "list[LoadedImage]":
        """Take in every image of an archive, Docker's or OCI's, packed or not, from a file or a pipe.

        From a file that isn't packed as a whole, the layers are unpacked for the default driver on the way; else that waits for
        the first container.
        `max_bytes` limits what it may unpack to. Raises `ArchiveError`, `IntegrityError`; then nothing of the archive is left.
        """
        from lamina.store.image_archive import load
        from lamina.store.layer_ingest import DEFAULT_MAX_BYTES
        from lamina.usecases.transfers import unpacking

        loaded = load(
            self.store,
            source,
            max_bytes=DEFAULT_MAX_BYTES if max_bytes is None else max_bytes,
            progress=progress,
            unpacking=unpacking(self._engine.context),
        )
        for each in loaded:
            for name in each.names:
                self._event("load", str(each.image.id), name.familiar)
            if not each.names:
                self._event("load", str(each.image.id), str(each.image.id))
        return loaded

    def saved_bytes(self, names: Sequence[str], *, form: str = "docker") -> int:
        """About how long the archive of `save` becomes: its layers, packed or not."""
        from lamina.usecases.images import selected_images

        selected = selected_images(self.store, names)
        return sum(one.image.stored_bytes if form == "oci" else one.image.size_bytes for one in selected)

    def save(self, names: Sequence[str], out: "Writable", *, form: str = "docker", progress: Progress | None = None) -> None:
        """Write images as one archive: `docker`, or `oci`, with the blobs as they lie.

        A name without a tag means all tags of that repository; what is named by id is saved without a name.
        """
        from lamina.store.image_archive import save
        from lamina.usecases.images import selected_images

        save(self.store, selected_images(self.store, names), out, form=form, progress=progress)

    def pull(self, name: str, *, platform: str = "", report: "Report | None" = None) -> "Pulled":
        """Bring an image from its registry, verified before it is there; `platform` such as `linux/arm64` chooses from an index.

        `report` is told of each layer. Raises `NotFoundError`, `TransferError` (trying again may help), `IntegrityError`, and
        `LaminaError` for what the registry refuses; then nothing of the image is left.
        """
        from lamina.usecases.transfers import pull_image, wanted_platform

        return pull_image(self._engine.context, name, platform=wanted_platform(platform), report=report)

    def pull_from(
        self, place: "Place", *, platform: str = "", report: "Report | None" = None
    ) -> "tuple[Pulled, Sequence[Reference]]":
        """Take in the image at a place (`lamina.registry.places.parse_place`); gives the names that it has there, too."""
        from lamina.usecases.transfers import pull_place, wanted_platform

        return pull_place(self._engine.context, place, platform=wanted_platform(platform), report=report)

    def push(self, name: str, *, report: "Report | None" = None) -> "Copied":
        """Send an image to the registry that its name says, the manifest as it is; what is there already isn't sent."""
        from lamina.usecases.transfers import push_image

        pushed = push_image(self._engine.context, name, report=report)
        self._event("push", Reference.parse(name).familiar, Reference.parse(name).familiar_name)
        return pushed

    def push_to(self, name: str, place: "Place", *, report: "Report | None" = None) -> "Copied":
        """Copy an image to a place, such as an archive or another name at a registry."""
        from lamina.usecases.transfers import push_place

        return push_place(self._engine.context, name, place, report=report)

    def copy(
        self, source: str, target: str, *, all_platforms: bool = False, platform: str = "", report: "Report | None" = None
    ) -> Digest:
        """Copy an image between places as `lamina copy` does; gives the digest of the manifest or index that was copied.

        A place is written as in docs/moving-images.md; a name alone is an image here. After an error nothing is at `target`.
        """
        from lamina.registry.report import tell_nobody
        from lamina.usecases.imagecopy import copy_between, parse_places
        from lamina.usecases.transfers import wanted_platform

        return copy_between(
            self._engine.context, *parse_places(source, target, all_platforms=all_platforms), all_platforms=all_platforms,
            platform=wanted_platform(platform), report=report or tell_nobody,
        )  # fmt: skip

    def tags(self, name: str) -> list[Reference]:
        """List the tags that a repository has here."""
        from lamina.usecases.transfers import store_tags

        return store_tags(self._engine.context, name)

    def registry_tags(self, name: str) -> list[Reference]:
        """List the tags that a repository has at its registry."""
        from lamina.usecases.transfers import registry_tags

        return registry_tags(self._engine.context, name)

    def import_rootfs(
        self,
        source: "Readable",
        name: str = "",
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
        max_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Make an image of one layer out of a root file system's tar, packed or not. `changes` are Dockerfile instructions."""
        from lamina.store.image_build import import_rootfs
        from lamina.store.layer_ingest import DEFAULT_MAX_BYTES

        image = import_rootfs(
            self.store,
            source,
            changes=changes,
            message=message,
            platform=platform,
            progress=progress,
            names=[Reference.parse(name)] if name else [],
            max_bytes=DEFAULT_MAX_BYTES if max_bytes is None else max_bytes,
        )
        self._event("import", str(image.id), Reference.parse(name).familiar if name else str(image.id))
        return image

    def build(
        self,
        source: str,
        *,
        dockerfile: str = "",
        names: Sequence[str] = (),
        target: str = "",
        build_args: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        ssh: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        no_cache: bool = False,
        pull: bool = False,
        platform: str = "",
        network: str = "",
        add_hosts: Sequence[str] = (),
        stdin: "BinaryIO | None" = None,
        storage_driver: str = "",
        source_date_epoch: int | None = None,
        show: "ShowsBuild | None" = None,
    ) -> Image:
        """Build an image from a Dockerfile and the files in `source`, a directory or a tar; the words are those of `lamina build`.

        `show` is told of steps and their output. Raises `DockerfileError` (a `UsageError`) with the place of what failed; nothing
        of the step is left then.
        """
        from lamina.build.builder import build
        from lamina.build.progress import Silent
        from lamina.build.request import BuildRequest, parse_host, parse_secret, parse_ssh

        request = BuildRequest(
            source=source,
            dockerfile=dockerfile,
            stdin=stdin,
            names=tuple(Reference.parse(name) for name in names),
            target=target,
            build_args=build_args or {},
            secrets=tuple(parse_secret(text) for text in secrets),
            ssh=dict(parse_ssh(text) for text in ssh),
            labels=labels or {},
            no_cache=no_cache,
            pull=pull,
            platform=platform,
            network=network,
            add_hosts=tuple(parse_host(text) for text in add_hosts),
            storage_driver=storage_driver,
            source_date_epoch=source_date_epoch,
        )
        return build(self._engine.context, request, show if show is not None else Silent()).image

    def prune_build_cache(
        self, *, all_steps: bool = False, unused_since_ns: int | None = None, keep_bytes: int | None = None
    ) -> "Pruned":
        """Remove what builds have kept: steps whose layers no image has, with `all_steps` the others too, and cache mounts.

        Only what was last used before `unused_since_ns`, and of that only until no more than `keep_bytes` are left.
        """
        from lamina.build.prune import prune

        return prune(self._engine.context, all_steps=all_steps, unused_since_ns=unused_since_ns, keep_bytes=keep_bytes)

    def inspect(self, name: str) -> dict[str, Any]:
        """Give the document that `image inspect` shows: Docker's names."""
        from lamina.usecases.inspect import image_document

        return image_document(self._engine.context, self.store.resolve(name))

    def _event(self, action: str, image: str, name: str) -> None:
        self._engine.context.journal.append("image", action, image, {"name": name})

    def _removed(self, image_id: str, removal: Removal) -> None:
        for _name in removal.untagged:
            self._event("untag", image_id, image_id)  # so Docker says it: by the id, not by the name that is gone
        for digest in removal.deleted:
            self._event("delete", str(digest), str(digest))

    def _users(self, image_id: str) -> list[ImageUser]:
        return [ImageUser(container_id=each.id, is_running=each.is_up) for each in self._engine.context.records.of_image(image_id)]

    def _going(self, operation: Operation) -> "Callable[[sqlite3.Connection, Sequence[Digest]], None]":
        """Have an image's unpacked layers go with it: who is killed in between leaves an operation that says which."""
        layers = self._engine.context.layers
        return lambda tx, chain_ids: layers.intend_to_discard(tx, [chain.hex for chain in chain_ids], operation)

    def _discard_layers(self, operation: Operation, *, measured: bool = False) -> int:
        return self._engine.context.layers.discard_intended(operation, self.store.layer_keys, measured=measured)
