"""`copy`: an image from one place to another, where our own store is a place like any. `pull` and `push` have one end here."""

from typing import TYPE_CHECKING

from lamina.errors import UsageError
from lamina.registry.places import Place, Transport, open_destination, open_source, parse_place
from lamina.registry.report import Report, tell_nobody

if TYPE_CHECKING:
    from lamina.model.digest import Digest
    from lamina.model.image import Platform
    from lamina.usecases.context import Context


def parse_places(source: str, target: str, *, all_platforms: bool) -> tuple[Place, Place]:
    """Read what `copy` was given; a name alone is an image of the store. Raises `UsageError` for what can't be done."""
    from_place, to_place = parse_place(source, bare=Transport.STORE), parse_place(target, bare=Transport.STORE)
    if to_place.transport is Transport.STORE and (to_place.reference is None or to_place.reference.digest is not None):
        raise UsageError(f"'{target}' is not a name that an image can be given", hint="write lamina:NAME[:TAG]")
    if all_platforms and not to_place.transport.holds_indexes:
        raise UsageError(f"'{to_place.described}' can hold an image for one platform only", hint="leave out --all")
    return from_place, to_place


def copy_between(
    context: "Context",
    source: Place,
    target: Place,
    *,
    all_platforms: bool = False,
    platform: "Platform | None" = None,
    report: Report = tell_nobody,
) -> "Digest":
    """Copy an image; gives the digest of the manifest or index that was copied. After an error nothing of it is at `target`."""
    opened = open_source(source, context.images, plain_layers=target.transport.wants_plain_layers, warn=context.warn)
    try:
        if target.transport is Transport.STORE and target.reference is not None:
            from lamina.registry.pull import pull

            pulled = pull(
                opened, context.images, names=[target.reference], run_dir=context.run_dir, platform=platform, report=report
            )
            return pulled.digest
        from lamina.registry.push import copy_image

        destination = open_destination(target, context.images, names=opened.names, warn=context.warn)
        try:
            return copy_image(opened, destination, all_platforms=all_platforms, platform=platform, report=report).digest
        finally:
            destination.close()
    finally:
        opened.close()
