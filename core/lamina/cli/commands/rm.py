"""`lamina rm`: remove containers."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_containers
from lamina.cli.main import Settings, print_error
from lamina.cli.options import Command
from lamina.cli.several import try_each
from lamina.errors import NotFoundError


@click.command(cls=Command)
@click.option("--force", "-f", is_flag=True, help="Kill running containers; no failure if one isn't there.")
@click.option("--volumes", "-v", is_flag=True, help="Remove their anonymous volumes too.")
@click.argument("containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_containers)
@click.pass_obj
def command(settings: Settings, *, containers: Sequence[str], force: bool, volumes: bool) -> int:
    """Remove containers: their layers, their logs, their records."""
    with settings.engine() as engine:

        def remove(name: str) -> None:
            try:
                handle = engine.containers.get(name)
            except NotFoundError as error:
                if not force:
                    raise
                print_error(error.message)  # said, but no failure: Docker's `rm -f`
                return
            handle.remove(force=force, volumes=volumes)
            click.echo(name)

        return try_each(containers, remove, shows_names=False)
