"""`lamina commit`: make an image of a container."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_containers
from lamina.cli.main import Settings
from lamina.cli.options import Command, trace_options, traced
from lamina.cli.progress import progress


@click.command(cls=Command)
@click.option("--author", "-a", default="", metavar="NAME", help="Who made the image.")
@click.option("--message", "-m", default="", metavar="TEXT", help="A note for the image's history.")
@click.option("--change", "-c", "changes", multiple=True, metavar="INSTRUCTION", help="Apply a Dockerfile instruction.")
@click.option("--pause/--no-pause", "-p", default=True, help="Freeze it meanwhile.  [yes]")
@trace_options
@click.argument("container", shell_complete=complete_containers)
@click.argument("name", default="", metavar="[NAME[:TAG]]")
@click.pass_obj
def command(
    settings: Settings, *, container: str, name: str, author: str, message: str, changes: Sequence[str], pause: bool,
    trace: str | None, trace_file: str,
) -> None:  # fmt: skip
    """Make an image of a container: its image's layers, and one more with what it has changed."""
    with traced(trace, trace_file) as follow, settings.engine() as engine:
        follow(engine)
        handle = engine.containers.get(container)
        with progress("committing") as advance:
            image = handle.commit(name, author=author, message=message, changes=changes, pause=pause, progress=advance)
        click.echo(image.id)
