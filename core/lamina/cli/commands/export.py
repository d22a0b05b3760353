"""`lamina export`: write a container's files as a tar archive."""

import sys

import click

from lamina.cli.completion import complete_containers
from lamina.cli.files import open_output
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.errors import UsageError


@click.command(cls=Command)
@click.option("--output", "-o", "path", default="", metavar="FILE", help="Write this file instead of standard output.")
@click.argument("container", shell_complete=complete_containers)
@click.pass_obj
def command(settings: Settings, /, *, path: str, container: str) -> None:
    """Write the whole of a container's files as a tar archive, its volumes left out."""
    if not path and sys.stdout.isatty():
        raise UsageError("an archive isn't written to a terminal", hint="use --output FILE, or redirect")
    with settings.engine() as engine:
        handle = engine.containers.get(container)
        with open_output(path or "-") as out:
            handle.export(out)
