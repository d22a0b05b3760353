"""`lamina volume rm`: remove volumes."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_volumes
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.several import try_each


@click.command(cls=Command)
@click.option("--force", "-f", is_flag=True, help="No failure if one isn't there.")
@click.argument("volumes", nargs=-1, required=True, metavar="VOLUME...", shell_complete=complete_volumes)
@click.pass_obj
def command(settings: Settings, /, *, force: bool, volumes: Sequence[str]) -> int:
    """Remove volumes and all that is in them. One that a container has is not removed."""
    with settings.engine() as engine:
        return try_each(volumes, lambda name: engine.volumes.remove(name, force=force))
