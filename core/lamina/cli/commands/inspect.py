"""`lamina inspect`: all that is known of containers, images, volumes and networks, by name; also `container inspect`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.completion import complete_containers, complete_images, complete_made_networks, complete_volumes
from lamina.cli.documents import print_documents
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from lamina.engine import Engine

TYPES = ("container", "image", "volume", "network")


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    completers = (complete_containers, complete_images, complete_volumes, complete_made_networks)
    return [name for complete in completers for name in complete(ctx, param, incomplete)]


@click.command(cls=Command)
@click.option("--format", "-f", "template", default=None, metavar="FORMAT", help="json, or a Go template for each.")
@click.option("--size", "-s", "shows_size", is_flag=True, help="Show what containers' files take.")
@click.option("--type", "kind", type=click.Choice(TYPES), default=None, help="Look for this alone.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=_complete)
@click.pass_context
def command(ctx: click.Context, *, names: Sequence[str], template: str | None, shows_size: bool, kind: str | None) -> int:
    """Show all that is known of containers, images, volumes or networks, as JSON."""
    settings: Settings = ctx.obj
    if kind is None and ctx.parent is not None and ctx.parent.info_name == "container":
        kind = "container"
    with settings.engine() as engine:
        return print_documents(names, _finder(engine, kind, shows_size=shows_size), template=template)


def _finder(engine: "Engine", kind: str | None, *, shows_size: bool) -> Callable[[str], dict[str, Any]]:
    finders: dict[str, Callable[[str], Callable[[], dict[str, Any]]]] = {
        "container": lambda name: _container(engine, name, shows_size=shows_size),
        "image": lambda name: _image(engine, name),
        "volume": lambda name: _volume(engine, name),
        "network": lambda name: _network(engine, name),
    }

    def find(name: str) -> dict[str, Any]:
        if kind is not None:
            return finders[kind](name)()
        for each in TYPES:
            try:
                document = finders[each](name)
            except (NotFoundError, UsageError):
                continue
            return document()  # beyond the search, so that a missing driver is told as what it is
        raise NotFoundError(f"no such object: '{name}'", hint="it is no container, no image, no volume and no network")

    return find


def _container(engine: "Engine", name: str, *, shows_size: bool) -> Callable[[], dict[str, Any]]:
    handle = engine.containers.get(name)

    def document() -> dict[str, Any]:
        found = handle.inspect()
        if shows_size:
            found["SizeRw"] = handle.size_bytes()
            found["SizeRootFs"] = found["SizeRw"] + engine.images.get(handle.record.image_id).size_bytes
        return found

    return document


def _image(engine: "Engine", name: str) -> Callable[[], dict[str, Any]]:
    engine.images.get(name)
    return lambda: engine.images.inspect(name)


def _volume(engine: "Engine", name: str) -> Callable[[], dict[str, Any]]:
    from lamina.usecases.inspect import volume_document

    volume = engine.volumes.find(name)
    return lambda: volume_document(engine.volumes, volume)


def _network(engine: "Engine", name: str) -> Callable[[], dict[str, Any]]:
    from lamina.usecases.network_documents import network_document

    network = engine.networks.get(name)
    return lambda: network_document(engine.networks, network)
