"""`lamina pause`: freeze containers."""

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
    """Freeze every process of containers, unseen by themselves."""
    with settings.engine() as engine:
        return try_each(containers, lambda name: engine.containers.get(name).pause())
