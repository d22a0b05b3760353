"""`lamina network inspect`: all that is known of networks."""

from collections.abc import Sequence
from typing import Any

import click

from lamina.cli.completion import complete_networks
from lamina.cli.documents import print_documents
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.talk import INSPECT_FORMAT_HELP


@click.command(cls=Command)
@click.option("--format", "-f", "template", default=None, metavar="FORMAT", help=INSPECT_FORMAT_HELP)
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK...", shell_complete=complete_networks)
@click.pass_obj
def command(settings: Settings, /, *, template: str | None, networks: Sequence[str]) -> int:
    """Show all that is known of networks and of the containers that run in them, as JSON or by a template."""
    with settings.engine() as engine:
        from lamina.usecases.network_documents import network_document

        def find(name: str) -> dict[str, Any]:
            return network_document(engine.networks, engine.networks.get(name))

        return print_documents(networks, find, template=template)
