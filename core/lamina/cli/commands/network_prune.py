"""`lamina network prune`: remove the networks that no container has."""

import time
from collections.abc import Sequence

import click

from lamina.cli.commands.volume_ls import print_removed
from lamina.cli.filters import labels_match, parse_filters
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.talk import confirmed
from lamina.cli.units import parse_time


@click.command(cls=Command)
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those that fit: until, label, label!.")
@click.option("--force", "-f", is_flag=True, help="Don't ask back.")
@click.pass_obj
def command(settings: Settings, /, *, filters: Sequence[str], force: bool) -> None:
    """Remove all networks that were created and that no container has, running or not."""
    wanted = parse_filters(filters, known=("until", "label", "label!"))
    until = min((parse_time(text, now_ns=time.time_ns()) for text in wanted.get("until", ())), default=None)
    if not confirmed("This will remove all custom networks not used by at least one container.", force=force):
        return
    with settings.engine() as engine:
        removed = engine.networks.prune(
            matches=lambda each: (until is None or each.created_ns < until) and labels_match(each.labels, wanted)
        )
    print_removed("Networks", removed)
