"""`lamina network rm`: remove networks."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_made_networks
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.several import try_each
from lamina.errors import NotFoundError


@click.command(cls=Command)
@click.option("--force", "-f", is_flag=True, help="No failure if one isn't there.")
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK...", shell_complete=complete_made_networks)
@click.pass_obj
def command(settings: Settings, /, *, force: bool, networks: Sequence[str]) -> int:
    """Remove networks. One that running containers are in is not removed."""
    with settings.engine() as engine:

        def remove(name: str) -> None:
            try:
                engine.networks.remove(name)
            except NotFoundError:
                if not force:
                    raise

        return try_each(networks, remove)
