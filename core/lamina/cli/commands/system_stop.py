"""`lamina system stop`: stop all containers, as before the machine's end."""

import click

from lamina.cli.main import Settings
from lamina.cli.options import Command


@click.command(cls=Command)
@click.option(
    "--timeout", "--time", "-t", "timeout_s", type=int, default=None, metavar="SECONDS",
    help="How long to wait before killing; -1 for ever.  [each container's, or 10]",
)  # fmt: skip
@click.pass_obj
def command(settings: Settings, *, timeout_s: int | None) -> None:
    """Stop all containers side by side, and print their names; `system start` starts again those that have a restart policy."""
    with settings.engine() as engine:
        for container in engine.restarts.stop_all(timeout_s=timeout_s):
            click.echo(container.name)
