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
    with settings.engine() as engine:
        changes = engine.containers.get(container).diff()
        paths = ((change.kind.value, f"/{change.path.lstrip('/')}") for change in changes if change.path)  # Docker lists no root
        shown = printable if sys.stdout.isatty() else str
        lines = [f"{letter} {shown(path)}\n" for letter, path in paths]
        sys.stdout.buffer.write("".join(lines).encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()
