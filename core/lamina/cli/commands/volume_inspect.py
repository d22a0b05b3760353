"""`lamina volume inspect`: all that is known of volumes."""

from collections.abc import Sequence
from typing import Any

import click

from lamina.cli.completion import complete_volumes
from lamina.cli.documents import print_documents
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.talk import INSPECT_FORMAT_HELP


@click.command(cls=Command)
@click.option("--format", "-f", "template", default=None, metavar="FORMAT", help=INSPECT_FORMAT_HELP)
@click.argument("volumes", nargs=-1, required=True, metavar="VOLUME...", shell_complete=complete_volumes)
@click.pass_obj
def command(settings: Settings, /, *, template: str | None, volumes: Sequence[str]) -> int:
    """Show all that is known of volumes, as JSON or by a template."""
    with settings.engine() as engine:
        from lamina.usecases.inspect import volume_document

        def find(name: str) -> dict[str, Any]:
            return volume_document(engine.volumes, engine.volumes.find(name))

        return print_documents(volumes, find, template=template)
