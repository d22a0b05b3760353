"""`lamina save`: write images as one archive."""

import sys
from collections.abc import Sequence

import click

from lamina.cli.completion import complete_images
from lamina.cli.files import open_output
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.progress import progress
from lamina.errors import UsageError


@click.command(cls=Command)
@click.option("--output", "-o", "path", default="", metavar="FILE", help="Write this file instead of standard output.")
@click.option("--format", "form", type=click.Choice(["docker", "oci"]), default="docker", help="The archive's form.  [docker]")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_images)
@click.pass_obj
def command(settings: Settings, /, *, path: str, form: str, images: Sequence[str]) -> None:
    """Write images as one archive. A name without a tag means all tags of that repository."""
    if not path and sys.stdout.isatty():
        raise UsageError("an archive isn't written to a terminal", hint="use --output FILE, or redirect")
    with settings.engine() as engine:
        total_bytes = engine.images.saved_bytes(images, form=form)
        with open_output(path or "-") as out, progress("saving", total_bytes) as advance:
            engine.images.save(images, out, form=form, progress=advance)
