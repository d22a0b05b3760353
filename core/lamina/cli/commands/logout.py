"""`lamina logout`: forget an account at a registry."""

import click

from lamina.cli.commands.login import registry_meant
from lamina.cli.main import Settings, print_warning
from lamina.cli.options import Command


@click.command(cls=Command)
@click.argument("server", required=False, default="", metavar="[SERVER]")
@click.pass_obj
def command(settings: Settings, /, *, server: str) -> None:
    """Forget the account at a registry, Docker Hub's if none is named."""
    del settings
    from lamina.registry.credentials import Credentials

    registry = registry_meant(server)
    if Credentials(warn=print_warning).erase(registry):
        click.echo(f"Removing login credentials for {registry}")
    else:
        click.echo(f"Not logged in to {registry}")
