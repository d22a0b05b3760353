"""`lamina rmi`: take names away from images, and delete what has none left."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_images
from lamina.cli.main import Settings, print_error
from lamina.cli.options import Command
from lamina.cli.several import try_each
from lamina.errors import NotFoundError


@click.command(cls=Command)
@click.option("--force", "-f", is_flag=True, help="Remove all names of an image; no failure if one isn't there.")
@click.option("--no-prune", is_flag=True, hidden=True, help="For Docker's sake: there are no untagged parents.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_images)
@click.pass_obj
def command(settings: Settings, /, *, force: bool, no_prune: bool, images: Sequence[str]) -> int:
    """Remove images, by name or id. The last name takes the image with it, and its unpacked layers on every driver."""
    del no_prune
    with settings.engine() as engine:

        def remove(name: str) -> None:
            try:
                removal = engine.images.remove(name, force=force)
            except NotFoundError as error:
                if not force:
                    raise
                print_error(error.message)  # said, but no failure: Docker's `rmi -f`
                return
            for gone in removal.untagged:
                click.echo(f"Untagged: {gone}")
            for digest in removal.deleted:
                click.echo(f"Deleted: {digest}")

        return try_each(images, remove, shows_names=False)
