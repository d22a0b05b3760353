"""`lamina rename`: give a container another name."""

import click

from lamina.cli.completion import complete_containers
from lamina.cli.main import Settings
from lamina.cli.options import Command


@click.command(cls=Command)
@click.argument("container", shell_complete=complete_containers)
@click.argument("name")
@click.pass_obj
def command(settings: Settings, *, container: str, name: str) -> None:
    """Rename CONTAINER to NAME."""
    with settings.engine() as engine:
        engine.containers.get(container).rename(name)
