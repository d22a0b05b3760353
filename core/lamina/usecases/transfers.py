"""Images to and from registries and other places, for this store: which driver unpacks, who is asked, what is remembered.

Not here: how that is done (`lamina.registry`), which is imported by the functions that need it: urllib3 costs 100 ms.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from lamina.errors import LaminaError, NotFoundError, NotUsableError, UsageError
from lamina.model.reference import Reference
from lamina.store.images import Image
from lamina.store.layers import Unpacking
from lamina.usecases.context import Context

if TYPE_CHECKING:
    from lamina.model.image import Platform
    from lamina.registry.client import Access
    from lamina.registry.places import Place
    from lamina.registry.pull import Pulled
    from lamina.registry.push import Copied
    from lamina.registry.report import Report
    from lamina.registry.transport import Source

Pulling = Callable[[Reference, bool], contextlib.AbstractContextManager["Report"]]
"""What shows a pull: is told of what, and whether because it is missing, and gives who is to be told of the layers."""


def wanted_platform(text: str) -> "Platform | None":
    """Read a `--platform`; None for none."""
    if not text:
        return None
    from lamina.model.platforms import parse_platform

    return parse_platform(text)


def pull_image(
    context: Context,
    name: str,
    *,
    platform: "Platform | None" = None,
    report: "Report | None" = None,
    access: "Access | None" = None,
) -> "Pulled":
    """Pull an image from its registry. Raises `UsageError`, `NotFoundError`, `TransferError`, `IntegrityError` and more."""
    return pull_reference(context, Reference.parse(name), platform=platform, report=report, access=access)


def pull_reference(
    context: Context,
    reference: Reference,
    *,
    platform: "Platform | None" = None,
    report: "Report | None" = None,
    access: "Access | None" = None,
) -> "Pulled":
    """Pull what a reference names; with a digest it is that and gets no tag, as with Docker."""
    from lamina.registry.opening import open_access, open_registry_source

    named = Reference(domain=reference.domain, path=reference.path, digest=reference.digest) if reference.digest else reference
    source = open_registry_source(reference, access=access or open_access(warn=context.warn))
    with contextlib.closing(source):
        return _pull(context, source, [named], platform, report)


def pull_place(
    context: Context, place: "Place", *, platform: "Platform | None" = None, report: "Report | None" = None
) -> "tuple[Pulled, Sequence[Reference]]":
    """Take in the image at any place, under the names that it has there."""
    from lamina.registry.places import Transport, open_source

    if place.transport is Transport.REGISTRY and place.reference is not None:
        return pull_reference(context, place.reference, platform=platform, report=report), [place.reference]
    if place.transport is Transport.STORE:
        raise UsageError(f"'{place.described}' is in this store already")
    source = open_source(place, context.images)
    with contextlib.closing(source):
        names = [name for name in source.names if name.digest is None]
        return _pull(context, source, names, platform, report), names


def _pull(
    context: Context, source: "Source", names: Sequence[Reference], platform: "Platform | None", report: "Report | None"
) -> "Pulled":
    from lamina.registry.pull import pull
    from lamina.registry.report import tell_nobody

    pulled = pull(
        source, context.images, names=names, run_dir=context.run_dir, platform=platform, unpacking=unpacking(context),
        report=report or tell_nobody,
    )  # fmt: skip
    if pulled.warning:
        context.warn(pulled.warning)
    for name in names:
        context.journal.append("image", "pull", name.familiar, {"name": name.familiar_name})
    return pulled


def unpacking(context: Context) -> Unpacking | None:
    """Say where what comes is unpacked; None without a driver that works here."""
    try:
        return Unpacking(layers=context.layers, driver=context.layers.usable_driver(context.default_driver))
    except (NotUsableError, NotFoundError):
        return None  # an image is worth having without a driver; who runs it is told


def registry_tags(context: Context, name: str, *, access: "Access | None" = None) -> list[Reference]:
    """List the tags of a repository."""
    from lamina.registry.opening import open_access, open_registry_source

    reference = Reference.parse(name)
    source = open_registry_source(reference, access=access or open_access(warn=context.warn), described=reference.familiar_name)
    with contextlib.closing(source):
        return [reference.with_tag(tag) for tag in source.tags()]


def store_tags(context: Context, name: str) -> list[Reference]:
    """List the tags that a repository has in the store. Raises `NotFoundError` if there is none."""
    reference = Reference.parse(name)
    found = [each for each, _ in context.images.all_names() if each.name == reference.name and each.tag]
    if not found:
        raise NotFoundError(
            f"no image here is called '{reference.familiar_name}'", hint="`lamina images` lists those that are here"
        )
    return found


def push_image(context: Context, name: str, *, report: "Report | None" = None, access: "Access | None" = None) -> "Copied":
    """Push an image of the store to the registry that its name says. Raises what `copy_image` does."""
    from lamina.registry.local import StoreSource
    from lamina.registry.opening import open_access, open_registry_destination
    from lamina.registry.places import Place, Transport
    from lamina.registry.push import copy_image
    from lamina.registry.report import tell_nobody
    from lamina.store.image_places import remember_blobs, repositories_of

    reference = Reference.parse(name)
    image = context.images.resolve(name)
    connection = context.images.database.connection
    blobs = [image.id, *(layer.digest for layer in context.images.layers(image))]
    origins = repositories_of(connection, reference.domain, blobs)
    destination = open_registry_destination(reference, access=access or open_access(warn=context.warn), origins=origins)
    with (
        contextlib.closing(destination),
        contextlib.closing(StoreSource(Place(transport=Transport.STORE, id=str(image.id)), context.images)) as source,
    ):
        copied = copy_image(source, destination, report=report or tell_nobody)
    with context.database.transaction() as tx:
        remember_blobs(tx, reference.domain, reference.path, copied.blobs)
    context.images.recognise(image.id, known_as=[(reference.name, copied.digest)])
    return copied


def push_place(context: Context, name: str, place: "Place", *, report: "Report | None" = None) -> "Copied":
    """Copy an image of the store to any place."""
    from lamina.registry.local import StoreSource
    from lamina.registry.places import Place, Transport, open_destination
    from lamina.registry.push import copy_image
    from lamina.registry.report import tell_nobody

    image = context.images.resolve(name)
    source = StoreSource(Place(transport=Transport.STORE, id=str(image.id)), context.images)
    with contextlib.closing(source):
        if place.transport is Transport.REGISTRY and place.reference is not None:
            from lamina.registry.opening import open_access, open_registry_destination

            destination = open_registry_destination(place.reference, access=open_access(warn=context.warn))
            with contextlib.closing(destination):
                return copy_image(source, destination, report=report or tell_nobody)
        with _named(name) as names, contextlib.closing(open_destination(place, context.images, names=names)) as other:
            return copy_image(source, other, report=report or tell_nobody)


@contextlib.contextmanager
def _named(name: str) -> Iterator[list[Reference]]:
    try:
        names = [Reference.parse(name)]
    except UsageError:
        names = []  # an id
    yield names


def ensure_image(
    context: Context, name: str, policy: str, *, pulling: "Pulling | None" = None, platform: "Platform | None" = None
) -> Image:
    """Give the image that `run` means, pulled if the policy (`missing`, `always`, `never`) says so."""
    missing: LaminaError | None = None
    if policy != "always":
        try:
            return context.images.resolve(name)
        except NotFoundError as error:
            if policy == "never":
                raise
            missing = error
    try:
        reference = Reference.parse(name)
    except UsageError:
        if missing is not None:
            raise missing from None
        return context.images.resolve(name)  # an id is of no registry
    with pulling(reference, missing is not None) if pulling is not None else contextlib.nullcontext() as report:
        return pull_reference(context, reference, platform=platform, report=report).image
