"""`lamina network disconnect`: take a container out of a network."""

import click

from lamina.cli.completion import complete_containers, complete_networks
from lamina.cli.main import Settings
from lamina.cli.options import Command


@click.command(cls=Command)
@click.option("--force", "-f", is_flag=True, help="No failure if it isn't in it.")
@click.argument("network", shell_complete=complete_networks)
@click.argument("container", shell_complete=complete_containers)
@click.pass_obj
def command(settings: Settings, /, *, force: bool, network: str, container: str) -> None:
    """Take CONTAINER out of NETWORK: at once if it runs, and for its starts to come."""
    with settings.engine() as engine:
        engine.networks.disconnect(network, engine.containers.get(container).record, force=force)
