"""`lamina network prune`: remove the networks that no container has."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from lamina.cli.commands.volume_ls import print_removed
from lamina.cli.filters import Filters, labels_match, parse_filters
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.talk import confirmed
from lamina.cli.units import parse_time

if TYPE_CHECKING:
    from lamina.model.network import Network


@click.command(cls=Command)
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those that fit: until, label, label!.")
@click.option("--force", "-f", is_flag=True, help="Don't ask back.")
@click.pass_obj
def command(settings: Settings, /, *, filters: Sequence[str], force: bool) -> None:
    """Remove all networks that were created and that no container has, running or not."""
    wanted = parse_filters(filters, known=("until", "label", "label!"))
    if not confirmed("This will remove all custom networks not used by at least one container.", force=force):
        return
    with settings.engine() as engine:
        print_removed("Networks", engine.networks.prune(matches=network_filter(wanted)))


def network_filter(filters: Filters) -> "Callable[[Network], bool]":
    """Read `until` and `label` filters as a question about a network."""
    limits = [parse_time(text, now_ns=time.time_ns()) for text in filters.get("until", ())]
    return lambda network: all(network.created_ns < limit for limit in limits) and labels_match(network.labels, filters)
