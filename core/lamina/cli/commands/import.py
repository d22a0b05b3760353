"""`lamina import`: make an image of a root file system's tar archive."""

import re
import sys
from collections.abc import Sequence

import click

from lamina.cli.files import open_input
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.progress import progress, size_of
from lamina.errors import UsageError
from lamina.model.sizes import parse_size


@click.command(cls=Command)
@click.option("--change", "-c", "changes", multiple=True, metavar="INSTRUCTION", help="Apply a Dockerfile instruction.")
@click.option("--message", "-m", default="", metavar="TEXT", help="What the history says.")
@click.option("--platform", default="", metavar="OS/ARCH[/VARIANT]", help="What the programs run on.  [this machine's]")
@click.option("--max-size", default="", metavar="SIZE", help="Refuse what unpacks to more than this.  [128g]")
@click.argument("path", metavar="FILE|-", type=click.Path())
@click.argument("name", required=False, default="", metavar="[REPOSITORY[:TAG]]")
@click.pass_obj
def command(
    settings: Settings, /, *, changes: Sequence[str], message: str, platform: str, max_size: str, path: str, name: str
) -> None:
    """Make an image of one layer out of a tar archive, packed with gzip, bzip2, xz, zstd or not, and print its id."""
    if re.match(r"[a-z][a-z0-9+.-]*://", path):
        raise UsageError(f"can't import from the URL '{path}' yet", hint=f"fetch it first: curl -L '{path}' | lamina import -")
    if path == "-" and sys.stdin.isatty():
        raise UsageError("there is nothing to import: standard input is a terminal", hint="give a FILE, or redirect")
    max_bytes = parse_size(max_size) if max_size else None
    with open_input(path) as source, settings.engine() as engine:
        with progress("importing", size_of(source)) as advance:
            image = engine.images.import_rootfs(
                source, name, changes=changes, message=message, platform=platform, max_bytes=max_bytes, progress=advance
            )
    click.echo(str(image.id))
