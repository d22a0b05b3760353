"""`lamina diff`: list what a container has added, changed and deleted."""

import sys

import click

from lamina.cli.completion import complete_containers
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.output import printable


@click.command(cls=Command)
@click.argument("container", shell_complete=complete_containers)
@click.pass_obj
def command(settings: Settings, *, container: str) -> None:
    """List the files that a container has added (A), changed (C) and deleted (D); a commit holds exactly these."""
    is_terminal = sys.stdout.isatty()
    with settings.engine() as engine:
        for change in engine.containers.get(container).diff():
            if not change.path:
                continue  # the root's own times; Docker doesn't list it either
            path = f"/{change.path.lstrip('/')}"
            line = f"{change.kind.value} {printable(path) if is_terminal else path}\n"
            sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()
