"""`lamina tag`: give an image one more name."""

import click

from lamina.cli.completion import complete_images
from lamina.cli.main import Settings
from lamina.cli.options import Command


@click.command(cls=Command)
@click.argument("source", metavar="SOURCE_IMAGE[:TAG]", shell_complete=complete_images)
@click.argument("target", metavar="TARGET_IMAGE[:TAG]")
@click.pass_obj
def command(settings: Settings, /, *, source: str, target: str) -> None:
    """Give an image one more name. An image that has that name loses it."""
    with settings.engine() as engine:
        engine.images.tag(source, target)
