"""`lamina network repair`: make again what networks in use must have on this host."""

import click

from lamina.cli.completion import complete_networks
from lamina.cli.main import Settings
from lamina.cli.options import Command


@click.command(cls=Command)
@click.argument("network", required=False, default="", metavar="[NETWORK]", shell_complete=complete_networks)
@click.pass_obj
def command(settings: Settings, /, *, network: str) -> None:
    """Make again what NETWORK, or each network that running containers are in, must have on this host; print which were in use.

    For after a firewall was loaded anew, or somebody deleted a bridge: rules, links, addresses, settings, published ports, names.
    """
    with settings.engine() as engine:
        for name in engine.networks.repair(network):
            click.echo(name)
