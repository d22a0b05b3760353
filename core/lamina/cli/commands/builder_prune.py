"""`lamina builder prune`: remove what builds have kept."""

import time
from collections.abc import Sequence

import click

from lamina.cli.commands.volume_ls import print_removed
from lamina.cli.filters import parse_filters
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.talk import confirmed
from lamina.cli.units import human_size, parse_time
from lamina.model.sizes import parse_size


@click.command(cls=Command)
@click.option("--all", "-a", "all_steps", is_flag=True, help="Remove the steps too whose layers images have.")
@click.option(
    "--filter", "filters", multiple=True, metavar="until=TIME", help="Only what was last used before then, such as 24h ago."
)
@click.option("--keep-storage", default="", metavar="SIZE", help="Keep that much of what was used last.")
@click.option("--force", "-f", is_flag=True, help="Don't ask back.")
@click.pass_obj
def command(settings: Settings, /, *, all_steps: bool, filters: Sequence[str], keep_storage: str, force: bool) -> None:
    """Remove the build cache: steps' layers that no image has, cache mounts, and the unpacked layers that only they hold."""
    wanted = parse_filters(filters, known=("until",))
    limits = [parse_time(text, now_ns=time.time_ns()) for text in wanted.get("until", ())]
    keep_bytes = parse_size(keep_storage) if keep_storage else None
    if not confirmed(f"This will remove all {'' if all_steps else 'dangling '}build cache.", force=force):
        return
    with settings.engine() as engine:
        pruned = engine.images.prune_build_cache(
            all_steps=all_steps, unused_since_ns=min(limits) if limits else None, keep_bytes=keep_bytes
        )
        print_removed("build cache objects", pruned.ids)
        click.echo(f"Total reclaimed space: {human_size(pruned.freed_bytes, digits=4)}")
