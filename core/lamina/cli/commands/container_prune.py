"""`lamina container prune`: remove containers that don't run."""

import time
from collections.abc import Sequence

import click

from lamina.cli.filters import labels_match, parse_filters
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.talk import confirmed
from lamina.cli.units import human_size, parse_time
from lamina.model.container import Container


@click.command(cls=Command)
@click.option("--force", "-f", is_flag=True, help="Don't ask.")
@click.option("--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Remove only what fits: until=, label=, label!=.")
@click.pass_obj
def command(settings: Settings, *, force: bool, filters: Sequence[str]) -> None:
    """Remove all containers that don't run, and tell what that has freed."""
    wanted = parse_filters(filters, known=("label", "label!", "until"))
    until = min((parse_time(text, now_ns=time.time_ns()) for text in wanted.get("until", ())), default=None)

    def fits(container: Container) -> bool:
        return (until is None or container.created_ns < until) and labels_match(container.config.labels, wanted)

    if not confirmed("This will remove all stopped containers.", force=force):
        return
    with settings.engine() as engine:
        removed, freed_bytes = engine.containers.prune(matches=fits)
    if removed:
        click.echo("Deleted Containers:")
        for container_id in removed:
            click.echo(container_id)
        click.echo()
    click.echo(f"Total reclaimed space: {human_size(freed_bytes, digits=4)}")
