"""`lamina image inspect`: all that is known of images."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_images
from lamina.cli.documents import print_documents
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.talk import INSPECT_FORMAT_HELP


@click.command(cls=Command)
@click.option("--format", "-f", "template", default=None, metavar="FORMAT", help=INSPECT_FORMAT_HELP)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_images)
@click.pass_obj
def command(settings: Settings, /, *, template: str | None, images: Sequence[str]) -> int:
    """Show all that is known of images, as JSON or by a template."""
    with settings.engine() as engine:
        return print_documents(images, engine.images.inspect, template=template)
