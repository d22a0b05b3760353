"""`lamina image bootstrap`: a small base image of the host's own programs."""

import click

from lamina.cli.main import Settings
from lamina.cli.options import Command


@click.command(cls=Command)
@click.argument("name", required=False, default="busybox", metavar="[NAME]")
@click.pass_obj
def command(settings: Settings, /, *, name: str) -> None:
    """Make a small base image of the host's busybox or, without one, of its shell and core tools; print its id.

    NAME is busybox unless given. The same host gives the same image.
    """
    with settings.engine() as engine:
        click.echo(str(engine.images.bootstrap(name).id))
