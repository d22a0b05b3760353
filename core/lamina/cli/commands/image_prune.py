"""`lamina image prune`: remove images without a name, or all that no container uses."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from lamina.cli.filters import Filters, labels_match, parse_filters
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.talk import confirmed
from lamina.cli.units import human_size, parse_time

if TYPE_CHECKING:
    from lamina.engine import Engine
    from lamina.store.images import Image, Removal


@click.command(cls=Command)
@click.option("--all", "-a", "all_images", is_flag=True, help="Remove all images that no container uses.")
@click.option(
    "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those that fit: until, label, label!, dangling."
)
@click.option("--force", "-f", is_flag=True, help="Don't ask back.")
@click.pass_obj
def command(settings: Settings, /, *, all_images: bool, filters: Sequence[str], force: bool) -> None:
    """Remove the images that have no name, and with --all every image that no container uses."""
    wanted = parse_filters(filters, known=("until", "label", "label!", "dangling"))
    all_images = all_images or "false" in wanted.get("dangling", ())
    what = "all images without at least one container associated to them" if all_images else "all dangling images"
    if not confirmed(f"This will remove {what}.", force=force):
        return
    with settings.engine() as engine:
        removals, freed = engine.images.prune(all_images=all_images, matches=image_filter(engine, wanted))
        print_removals(removals)
        click.echo(f"Total reclaimed space: {human_size(freed, digits=4)}")


def print_removals(removals: "Sequence[Removal]") -> None:
    """Say which images have gone, as Docker does."""
    if not removals:
        return
    click.echo("Deleted Images:")
    for removal in removals:
        for name in removal.untagged:
            click.echo(f"untagged: {name}")
        for digest in removal.deleted:
            click.echo(f"deleted: {digest}")
    click.echo("")


def image_filter(engine: "Engine", filters: Filters) -> "Callable[[Image], bool]":
    """Read `until` and `label` filters as a question about an image."""
    limits = [parse_time(text, now_ns=time.time_ns()) for text in filters.get("until", ())]
    has_labels = "label" in filters or "label!" in filters

    def fits(image: "Image") -> bool:
        if any(image.created_ns >= limit for limit in limits):
            return False
        return not has_labels or labels_match(engine.images.store.config(image).config.labels, filters)

    return fits
