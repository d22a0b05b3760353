"""`lamina system prune`: remove what nothing uses."""

import time
from collections.abc import Callable, Sequence

import click

from lamina.cli.commands.image_prune import image_filter, print_removals
from lamina.cli.commands.network_prune import network_filter
from lamina.cli.commands.volume_ls import print_removed, volume_filter
from lamina.cli.filters import Filters, labels_match, parse_filters
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.talk import confirmed
from lamina.cli.units import human_size, parse_time
from lamina.errors import UsageError
from lamina.model.container import Container


@click.command(cls=Command)
@click.option("--all", "-a", "all_images", is_flag=True, help="Remove all images that no container uses, named ones too.")
@click.option("--volumes", is_flag=True, help="Remove anonymous volumes that no container has.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only what fits: until, label, label!.")
@click.option("--force", "-f", is_flag=True, help="Don't ask back.")
@click.pass_obj
def command(settings: Settings, /, *, all_images: bool, volumes: bool, filters: Sequence[str], force: bool) -> None:
    """Remove containers that don't run, networks and images that nothing uses, and unpacked layers that no container stands on.

    The images whose layers go stay whole: the next container has them unpacked again.
    """
    wanted = parse_filters(filters, known=("until", "label", "label!"))
    if volumes and "until" in wanted:
        raise UsageError("the filter 'until' can't be used with --volumes", hint="a volume has no time that would fit")
    if not confirmed(_warning(all_images=all_images, volumes=volumes, filters=filters), force=force):
        return
    with settings.engine() as engine:
        removed, freed = engine.containers.prune(matches=container_filter(wanted))
        print_removed("Containers", removed)
        print_removed("Networks", engine.networks.prune(matches=network_filter(wanted)))
        if volumes:
            names, freed_more = engine.volumes.prune(matches=volume_filter(wanted))
            print_removed("Volumes", names)
            freed += freed_more
        removals, freed_more = engine.images.prune(all_images=all_images, matches=image_filter(engine, wanted))
        print_removals(removals)
        freed += freed_more
        if not set(wanted) - {"until"}:  # a step of a build has no labels
            limits = [parse_time(text, now_ns=time.time_ns()) for text in wanted.get("until", ())]
            pruned = engine.images.prune_build_cache(all_steps=all_images, unused_since_ns=min(limits) if limits else None)
            print_removed("build cache objects", pruned.ids)
            freed += pruned.freed_bytes
        if not wanted:  # a layer has neither a time nor labels
            layers, freed_more = engine.system.discard_unused_layers()
            print_removed("unpacked layers", [f"{driver} {key}" for driver, key in layers])
            freed += freed_more
        click.echo(f"Total reclaimed space: {human_size(freed, digits=4)}")


def _warning(*, all_images: bool, volumes: bool, filters: Sequence[str]) -> str:
    lines = ["This will remove:", "  - all stopped containers", "  - all networks not used by at least one container"]
    if volumes:
        lines.append("  - all anonymous volumes not used by at least one container")
    lines.append(f"  - all {'images without at least one container associated to them' if all_images else 'dangling images'}")
    lines.append("  - all build cache" if all_images else "  - all dangling build cache")
    if filters:
        lines += ["", "  Items to be pruned will be filtered with:", *(f"  - {text}" for text in filters)]
    else:
        lines.append("  - all unpacked layers that no container stands on")
    return "\n".join([*lines, ""])


def container_filter(filters: Filters) -> Callable[[Container], bool]:
    """Read `until` and `label` filters as a question about a container."""
    limits = [parse_time(text, now_ns=time.time_ns()) for text in filters.get("until", ())]

    def fits(container: Container) -> bool:
        return all(container.created_ns < limit for limit in limits) and labels_match(container.config.labels, filters)

    return fits
