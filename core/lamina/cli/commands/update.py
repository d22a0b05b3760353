"""`lamina update`: change the limits of containers."""

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
@click.argument("containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_containers)
@click.pass_obj
def command(settings: Settings, /, *, containers: Sequence[str], **options: Any) -> int:
    """Change the limits of containers, whether they run or not; what isn't said stays."""
    changes = read_changes(options)
    if not changes:
        raise UsageError("nothing is to be changed", hint="say a limit, as --memory 512m")
    with settings.engine() as engine:
        return try_each(containers, lambda name: engine.containers.get(name).update(**changes))
