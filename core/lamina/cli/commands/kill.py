"""`lamina kill`: send a signal to containers' first processes."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_running
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.several import try_each


@click.command(cls=Command)
@click.option("--signal", "-s", "signal_name", default="KILL", metavar="SIGNAL", help="By name or number.  [KILL]")
@click.argument("containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_running)
@click.pass_obj
def command(settings: Settings, *, containers: Sequence[str], signal_name: str) -> int:
    """Send a signal to the first processes of containers."""
    with settings.engine() as engine:
        return try_each(containers, lambda name: engine.containers.get(name).kill(signal_name))
