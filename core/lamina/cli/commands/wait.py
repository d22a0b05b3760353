"""`lamina wait`: wait for containers to end and print their exit codes."""

from collections.abc import Callable, Sequence

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
        waits: dict[str, Callable[[], int]] = {}

        def begin(name: str) -> None:
            waits[name] = engine.containers.get(name).begin_wait()

        # all are begun before the first is over, as one that goes with its end may be gone by then
        code = try_each(containers, begin, shows_names=False)
        known = [name for name in containers if name in waits]
        return try_each(known, lambda name: click.echo(waits[name]()), shows_names=False) or code
