"""`lamina inspect`: all that is known of containers, images and volumes, by name; also `container inspect`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.documents import print_documents
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from lamina.engine import Engine

TYPES = ("container", "image", "volume")


@click.command(cls=Command)
@click.option("--format", "-f", "template", default=None, metavar="FORMAT", help="json, or a Go template for each.")
@click.option("--size", "-s", "shows_size", is_flag=True, help="Show what containers' files take.")
@click.option("--type", "kind", type=click.Choice(TYPES), default=None, help="Look for this alone.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_context
def command(ctx: click.Context, *, names: Sequence[str], template: str | None, shows_size: bool, kind: str | None) -> int:
    """Show all that is known of containers, images or volumes, as JSON."""
    settings: Settings = ctx.obj
    if kind is None and ctx.parent is not None and ctx.parent.info_name == "container":
        kind = "container"
    with settings.engine() as engine:
        return print_documents(names, _finder(engine, kind, shows_size=shows_size), template=template)


def _finder(engine: "Engine", kind: str | None, *, shows_size: bool) -> Callable[[str], dict[str, Any]]:
    finders: dict[str, Callable[[str], dict[str, Any]]] = {
        "container": lambda name: _container(engine, name, shows_size=shows_size),
        "image": engine.images.inspect,
        "volume": lambda name: _volume(engine, name),
    }

    def find(name: str) -> dict[str, Any]:
        if kind is not None:
            return finders[kind](name)
        for each in TYPES:
            try:
                return finders[each](name)
            except (NotFoundError, UsageError):
                continue
        raise NotFoundError(f"no such object: '{name}'", hint="it is no container, no image and no volume")

    return find


def _container(engine: "Engine", name: str, *, shows_size: bool) -> dict[str, Any]:
    handle = engine.containers.get(name)
    document = handle.inspect()
    if shows_size:
        record = handle.record
        document["SizeRw"] = handle.size_bytes()
        document["SizeRootFs"] = document["SizeRw"] + engine.images.get(record.image_id).size_bytes
    return document


def _volume(engine: "Engine", name: str) -> dict[str, Any]:
    from lamina.usecases.inspect import volume_document

    return volume_document(engine.volumes, engine.volumes.find(name))
