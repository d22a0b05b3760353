"""`lamina images`: list images, a line for each name."""

import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from lamina.cli.completion import complete_images
from lamina.cli.filters import Filters, flag_filter, labels_match, parse_filters, path_pattern
from lamina.cli.main import Settings
from lamina.cli.options import Command, filter_option
from lamina.cli.output import Column, Row, short_id
from lamina.cli.talk import FORMAT_HELP, print_rows
from lamina.cli.units import NEVER_NS, format_list_time, human_ago, human_size, parse_time

if TYPE_CHECKING:
    from lamina.engine import Engine
    from lamina.model.digest import Digest
    from lamina.model.reference import Reference
    from lamina.store.images import Image

NONE = "<none>"
COLUMNS = (
    Column(field="Repository", header="REPOSITORY"),
    Column(field="Tag", header="TAG"),
    Column(field="Digest", header="DIGEST", in_table=False),
    Column(field="ID", header="IMAGE ID"),
    Column(field="CreatedSince", header="CREATED"),
    Column(field="CreatedAt", header="CREATED AT", in_table=False),
    Column(field="Size", header="SIZE"),
    Column(field="VirtualSize", header="SIZE", in_table=False),
    Column(field="SharedSize", header="SHARED SIZE", in_table=False),
    Column(field="UniqueSize", header="UNIQUE SIZE", in_table=False),
    Column(field="Containers", header="CONTAINERS", in_table=False),
)


@click.command(cls=Command)
@click.option("--all", "-a", "all_images", is_flag=True, help="Show all images; none is hidden anyway.")
@click.option("--digests", is_flag=True, help="Show digests.")
@filter_option
@click.option("--format", "template", default=None, metavar="FORMAT", help=FORMAT_HELP)
@click.option("--no-trunc", is_flag=True, help="Don't cut ids.")
@click.option("--quiet", "-q", is_flag=True, help="Show ids alone.")
@click.argument("pattern", required=False, metavar="[REPOSITORY[:TAG]]", shell_complete=complete_images)
@click.pass_obj
def command(
    settings: Settings,
    /,
    *,
    all_images: bool,
    digests: bool,
    filters: Sequence[str],
    template: str | None,
    no_trunc: bool,
    quiet: bool,
    pattern: str | None,
) -> None:
    """List images, the newest first, a line for each name.

    Filters: reference=PATTERN, dangling=true|false, label=KEY[=VALUE], before=IMAGE, since=IMAGE, until=TIME.
    """
    del all_images  # Docker hides the images that a build leaves between its steps; there are none here
    wanted = parse_filters(filters, known=("reference", "dangling", "label", "label!", "before", "since", "until"))
    if pattern:
        wanted = {**wanted, "reference": (*wanted.get("reference", ()), pattern)}
    with settings.engine() as engine:
        print_rows(
            image_rows(engine, wanted, no_trunc=no_trunc),
            columns=[
                Column(field=each.field, header=each.header, in_table=each.in_table or (digests and each.field == "Digest"))
                for each in COLUMNS
            ],
            template=template,
            quiet_field="ID" if quiet else None,
        )


def image_rows(engine: "Engine", filters: Filters, *, no_trunc: bool) -> Iterator[Row]:
    """Give the list's rows: one for each name that fits, one for an image that has none."""
    now_ns = time.time_ns()
    for image, names in chosen_images(engine, filters, now_ns=now_ns):
        tagged = {name.name for name in names if name.tag}  # Docker shows a digest where the repository has no tag of the image
        shown: list[Reference | None] = [name for name in names if name.tag or name.name not in tagged] or [None]
        digests = dict(engine.images.store.known_as(image)) if names else {}
        for name in shown:
            yield image_row(image, name, now_ns=now_ns, no_trunc=no_trunc, digests=digests)


def image_row(
    image: "Image", name: "Reference | None", *, now_ns: int, no_trunc: bool, digests: "Mapping[str, Digest]" = MappingProxyType({})
) -> dict[str, str]:
    """Write one row by Docker's field names. What Docker's list leaves open is N/A here too; `system df -v` has it."""
    created_ns = image.created_ns or NEVER_NS
    return {
        "Repository": name.familiar_name if name is not None else NONE,
        "Tag": (name.tag if name is not None else None) or NONE,
        "Digest": str(name.digest or digests.get(name.name, image.manifest)) if name is not None else NONE,
        "ID": str(image.id) if no_trunc else short_id(image.id),
        "CreatedSince": human_ago(created_ns, now_ns=now_ns),
        "CreatedAt": format_list_time(created_ns) if image.created_ns else "N/A",
        "Size": human_size(image.size_bytes),
        "VirtualSize": human_size(image.size_bytes, digits=4),
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "Containers": "N/A",
    }


def chosen_images(engine: "Engine", filters: Filters, *, now_ns: int) -> "Iterator[tuple[Image, list[Reference]]]":
    """Give the images that the filters let through, each with its names that fit."""
    dangling = flag_filter(filters, "dangling")
    patterns = [path_pattern(text) for text in filters.get("reference", ())]
    before = [engine.images.get(text).created_ns for text in filters.get("before", ())]
    before += [parse_time(text, now_ns=now_ns) for text in filters.get("until", ())]
    since = [engine.images.get(text).created_ns for text in filters.get("since", ())]
    has_labels = "label" in filters or "label!" in filters
    names: dict[str, list[Reference]] = {}
    for name, image_id in engine.images.store.all_names():
        names.setdefault(image_id, []).append(name)
    for image in engine.images.all():
        own = names.get(image.id, [])
        if dangling is not None and dangling is bool(own):
            continue
        if any(image.created_ns >= limit for limit in before) or any(image.created_ns <= limit for limit in since):
            continue
        if patterns:
            own = [name for name in own if any(p.fullmatch(name.familiar) or p.fullmatch(name.familiar_name) for p in patterns)]
            if not own:
                continue
        if has_labels and not labels_match(engine.images.store.config(image).config.labels, filters):
            continue
        yield image, own
