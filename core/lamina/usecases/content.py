"""A container's files as layers: what it has changed, committing that as an image, exporting the whole tree."""

import contextlib
import time
from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING

from lamina.api.entries import Change, ChangeKind
from lamina.dataclasses import replace
from lamina.model.container import Container, ContainerConfig, Status
from lamina.model.reference import Reference
from lamina.store.images import Image
from lamina.usecases.context import Context

if TYPE_CHECKING:
    from lamina.archive.compression import Writable
    from lamina.model.image_config import Defaults, Healthcheck
    from lamina.usecases.control import Control

Progress = Callable[[int], None]


class Content:
    """Reads containers' layers. `control` gives what pauses a container, for a commit of one that runs."""

    def __init__(self, context: Context, control: "Callable[[], Control]") -> None:
        self.context = context
        self.control = control

    def changes(self, container: Container) -> list[Change]:
        """List what the container has added, changed and deleted; a commit holds exactly this.

        What the engine itself made to mount on (an empty /proc in an image that had none) isn't the container's doing and is left
        out for as long as it is empty; the empty directory that a volume was mounted on stays.
        """
        storage = self.context.layers.driver(container.driver)
        changes = self.context.layers.changes(storage, container.id, container.parents)
        return without_mountpoints(changes, set(container.made_mountpoints))

    def commit(
        self,
        container: Container,
        reference: Reference | None,
        *,
        author: str = "",
        message: str = "",
        edits: Sequence[str] = (),
        pause: bool = True,
        progress: Progress = lambda _bytes: None,
    ) -> Image:
        """Make an image of a container: its image's layers and one more. A running one is paused meanwhile if `pause` is set."""
        from lamina.archive.writer import write_layer  # hashing and compression: only a commit needs these
        from lamina.store.changes import apply_changes
        from lamina.store.image_build import add_layer_image

        base = self.context.images.get(container.image_id)
        defaults = apply_changes(_defaults(container.config, self.context.images.config(base).config), edits)
        paused = pause and container.status is Status.RUNNING
        with self.control().paused(container) if paused else contextlib.nullcontext():
            storage = self.context.layers.driver(container.driver)
            changes = self.changes(container)
            with self.context.layers.seen(storage, container.id, container.parents) as root:
                image = add_layer_image(
                    self.context.images,
                    base=base,
                    write_layer=lambda out: write_layer(out, root, changes),
                    defaults=defaults,
                    created_by=" ".join(container.config.arguments),
                    comment=message,
                    author=author,
                    names=[reference] if reference is not None else [],
                    created_ns=time.time_ns(),
                    progress=progress,
                )
            name = reference.familiar if reference is not None else ""
            self.context.container_event("commit", container, comment=message, imageID=str(image.id), imageRef=name)
            return image

    def export(self, container: Container, out: "Writable") -> None:
        """Write the container's whole tree as a tar archive, volumes left out."""
        from lamina.archive.writer import write_tree

        storage = self.context.layers.driver(container.driver)
        with self.context.layers.seen(storage, container.id, container.parents) as root:
            write_tree(out, root)


def without_mountpoints(changes: Sequence[Change], made: Set[str]) -> list[Change]:
    """Leave out what was made to be mounted on, unless something was put into it since."""
    if not made:
        return list(changes)
    used = {change.path.rpartition("/")[0] for change in changes if change.path not in made}
    return [change for change in changes if change.path not in made or change.kind is not ChangeKind.ADD or change.path in used]


def _defaults(config: ContainerConfig, image: "Defaults") -> "Defaults":
    """What a committed image tells its containers: what this container was told."""
    return replace(
        image,
        user=config.user,
        env=config.env,
        entrypoint=config.entrypoint or None,
        cmd=config.command or None,
        working_dir=config.working_dir,
        labels=config.labels,
        exposed_ports=config.exposed_ports,
        volumes=config.image_volumes,
        stop_signal=config.stop_signal,
        stop_timeout_s=config.stop_timeout_s,
        healthcheck=_healthcheck(config, image),
    )


def _healthcheck(config: ContainerConfig, image: "Defaults") -> "Healthcheck | None":
    from lamina.model.image_config import Healthcheck

    asked = config.supervision.health if config.supervision is not None else None
    if asked is None:
        return None
    extra = image.healthcheck.extra if image.healthcheck is not None else {}
    return Healthcheck(**{name: value for name, value in asked._asdict().items() if name != "shell"}, extra=extra)
