"""`lamina load`: take in the images of an archive."""

import sys

import click

from lamina.cli.files import open_input
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.progress import progress, size_of
from lamina.errors import UsageError
from lamina.model.sizes import parse_size


@click.command(cls=Command)
@click.option("--input", "-i", "path", default="", metavar="FILE", help="Read this file instead of standard input.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@click.option("--max-size", default="", metavar="SIZE", help="Refuse what unpacks to more than this.  [128g]")
@click.pass_obj
def command(settings: Settings, /, *, path: str, quiet: bool, max_size: str) -> None:
    """Take in all images of an archive that Docker, Podman, skopeo or lamina has written, packed or not."""
    if not path and sys.stdin.isatty():
        raise UsageError("there is nothing to load: standard input is a terminal", hint="use --input FILE, or redirect")
    max_bytes = parse_size(max_size) if max_size else None
    with open_input(path or "-") as source, settings.engine() as engine:
        with progress("loading", size_of(source), hidden=quiet) as advance:
            loaded = engine.images.load(source, max_bytes=max_bytes, progress=advance)
    for one in loaded:
        for name in one.names:
            click.echo(f"Loaded image: {name.familiar}")
        if not one.names:
            click.echo(f"Loaded image ID: {one.image.id}")
