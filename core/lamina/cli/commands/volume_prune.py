"""`lamina volume prune`: remove the volumes that no container has."""

from collections.abc import Sequence

import click

from lamina.cli.commands.volume_ls import print_removed, volume_filter
from lamina.cli.filters import flag_filter, parse_filters
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.talk import confirmed
from lamina.cli.units import human_size


@click.command(cls=Command)
@click.option("--all", "-a", "all_volumes", is_flag=True, help="Named ones too, not only anonymous ones.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those that fit: label, label!, all.")
@click.option("--force", "-f", is_flag=True, help="Don't ask back.")
@click.pass_obj
def command(settings: Settings, /, *, all_volumes: bool, filters: Sequence[str], force: bool) -> None:
    """Remove the anonymous volumes that no container has, and with --all the named ones too."""
    wanted = parse_filters(filters, known=("label", "label!", "all"))
    all_volumes = all_volumes or bool(flag_filter(wanted, "all"))
    what = f"{'all' if all_volumes else 'anonymous'} local volumes not used by at least one container"
    if not confirmed(f"This will remove {what}.", force=force):
        return
    with settings.engine() as engine:
        removed, freed = engine.volumes.prune(all_volumes=all_volumes, matches=volume_filter(wanted))
    print_removed("Volumes", removed)
    click.echo(f"Total reclaimed space: {human_size(freed, digits=4)}")
