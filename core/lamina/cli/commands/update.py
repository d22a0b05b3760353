"""`lamina update`: change the limits and the restart policy of containers."""

from collections.abc import Sequence
from typing import Any

import click

from lamina.cli.completion import complete_containers
from lamina.cli.limits_options import UPDATE_OPTIONS, read_changes
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.several import try_each
from lamina.errors import UsageError


def _update_options(function: Any) -> Any:
    for option in reversed(UPDATE_OPTIONS):
        function = option(function)
    return function


@click.command(cls=Command)
@_update_options
@click.option("--restart", default="", metavar="POLICY", help="Run again: no, always, unless-stopped, on-failure[:N].")
@click.argument("containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_containers)
@click.pass_obj
def command(settings: Settings, /, *, containers: Sequence[str], restart: str, **options: Any) -> int:
    """Change the limits and the restart policy of containers, whether they run or not; what isn't said stays."""
    changes = read_changes(options)
    if not changes and not restart:
        raise UsageError("nothing is to be changed", hint="say a limit, as --memory 512m, or --restart")
    with settings.engine() as engine:

        def update(name: str) -> None:
            handle = engine.containers.get(name)
            if changes:
                handle.update(**changes)
            if restart:
                handle.set_restart(restart)
            engine.context.container_event("update", handle.record)

        return try_each(containers, update)
