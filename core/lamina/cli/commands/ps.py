"""`lamina ps`: list containers. One pass over the records; sizes are looked at only when they are asked for."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from lamina.cli.container_filters import CONTAINER_FILTERS, select
from lamina.cli.container_rows import COLUMNS, container_rows
from lamina.cli.filters import parse_filters
from lamina.cli.main import Settings
from lamina.cli.options import Command, filter_option
from lamina.cli.output import Column, render_rows
from lamina.errors import NotFoundError
from lamina.model.container import Container

if TYPE_CHECKING:
    from lamina.engine import Engine


@click.command(cls=Command)
@click.option("--all", "-a", "shows_all", is_flag=True, help="Show those that don't run, too.")
@click.option("--quiet", "-q", is_flag=True, help="Show ids alone.")
@filter_option
@click.option("--format", "template", default=None, metavar="FORMAT", help="table, 'table TEMPLATE', json, or a Go template.")
@click.option("--no-trunc", is_flag=True, help="Cut nothing off.")
@click.option("--last", "-n", type=int, default=-1, metavar="NUMBER", help="Show the last NUMBER made, in whatever state.")
@click.option("--latest", "-l", is_flag=True, help="Show the last one made.")
@click.option("--size", "-s", "shows_size", is_flag=True, help="Show what their files take.")
@click.pass_obj
def command(
    settings: Settings, *, shows_all: bool, quiet: bool, filters: Sequence[str], template: str | None, no_trunc: bool, last: int,
    latest: bool, shows_size: bool,
) -> None:  # fmt: skip
    """List containers."""
    wanted = parse_filters(filters, known=CONTAINER_FILTERS)
    limit = 1 if latest else max(last, 0)
    with settings.engine() as engine:
        containers = select(engine, engine.context.records.all(), wanted)
        if limit:
            containers = containers[:limit]
        elif not shows_all and "status" not in wanted:
            containers = [container for container in containers if container.is_up]
        size_of = _sizes(engine) if (shows_size or ".Size" in (template or "")) and not quiet else None
        columns = [*COLUMNS, Column(field="Size", header="SIZE", in_table=shows_size)]
        rows = container_rows(engine, containers, cuts=not no_trunc, size_of=size_of)
        is_terminal = sys.stdout.isatty()
        for line in render_rows(
            rows, columns=columns, template=template, quiet_field="ID" if quiet else None, is_terminal=is_terminal
        ):
            click.echo(line)


def _sizes(engine: "Engine") -> Callable[[Container], tuple[int, int]]:
    images = {str(image.id): image.size_bytes for image in engine.images.all()}

    def size_of(container: Container) -> tuple[int, int]:
        layers = engine.context.layers
        try:
            own = layers.usage(layers.driver(container.driver), container.id, container.parents).size_bytes
        except NotFoundError:  # its driver isn't installed any more; the others' sizes are wanted all the same
            own = 0
        return own, own + images.get(container.image_id, 0)

    return size_of
