"""`lamina wait`: wait for containers to end and print their exit codes."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_running
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.several import try_each


@click.command(cls=Command)
@click.argument("containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_running)
@click.pass_obj
def command(settings: Settings, *, containers: Sequence[str]) -> int:
    """Wait until containers have ended, and print their exit codes."""
    with settings.engine() as engine:
        return try_each(containers, lambda name: click.echo(engine.containers.get(name).wait()), shows_names=False)
