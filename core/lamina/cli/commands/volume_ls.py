"""`lamina volume ls`: list volumes."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import click

from lamina.cli.filters import Filters, flag_filter, labels_match, parse_filters
from lamina.cli.main import Settings
from lamina.cli.options import Command, filter_option
from lamina.cli.output import Column, Row, label_header
from lamina.cli.talk import FORMAT_HELP, print_rows
from lamina.errors import UsageError

if TYPE_CHECKING:
    from lamina.engine import Engine
    from lamina.usecases.volumes import Volume

COLUMNS = (
    Column(field="Driver", header="DRIVER"),
    Column(field="Name", header="VOLUME NAME"),
    Column(field="Scope", header="SCOPE", in_table=False),
    Column(field="Mountpoint", header="MOUNTPOINT", in_table=False),
    Column(field="Labels", header="LABELS", in_table=False),
    Column(field="Label", header=label_header, in_table=False),
    Column(field="Links", header="LINKS", in_table=False),
    Column(field="Size", header="SIZE", in_table=False),
    Column(field="Availability", header="AVAILABILITY", in_table=False),
    Column(field="Group", header="GROUP", in_table=False),
    Column(field="Status", header="STATUS", in_table=False),
)


@click.command(cls=Command)
@filter_option
@click.option("--format", "template", default=None, metavar="FORMAT", help=FORMAT_HELP)
@click.option("--quiet", "-q", is_flag=True, help="Show names alone.")
@click.pass_obj
def command(settings: Settings, /, *, filters: Sequence[str], template: str | None, quiet: bool) -> None:
    """List volumes. Filters: dangling=true|false, driver=NAME, name=PART, label=KEY[=VALUE]."""
    wanted = parse_filters(filters, known=("dangling", "driver", "name", "label", "label!"))
    with settings.engine() as engine:
        rows = [volume_row(engine, volume) for volume in _chosen(engine, wanted)]
    print_rows(rows, columns=COLUMNS, template=template, quiet_field="Name" if quiet else None)


def _chosen(engine: "Engine", filters: Filters) -> "list[Volume]":
    dangling = flag_filter(filters, "dangling")
    try:
        parts = [re.compile(text) for text in filters.get("name", ())]
    except re.error as error:
        raise UsageError(f"invalid filter 'name': {error}") from None
    return [
        volume
        for volume in engine.volumes.all()
        if (dangling is None or dangling is not bool(engine.volumes.users(volume.name)))
        and ("driver" not in filters or volume.driver in filters["driver"])
        and (not parts or any(part.search(volume.name) for part in parts))
        and labels_match(volume.labels, filters)
    ]


def volume_row(engine: "Engine", volume: "Volume", *, links: int | None = None, size: str = "N/A") -> Row:
    """Write one row by Docker's field names."""
    return {
        "Driver": volume.driver,
        "Name": volume.name,
        "Scope": "local",
        "Mountpoint": engine.volumes.mountpoint(volume),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(volume.labels.items())),
        "Label": _label_of(volume),
        "Links": "N/A" if links is None else str(links),
        "Size": size,
        "Availability": "N/A",
        "Group": "N/A",
        "Status": "N/A",
    }


def _label_of(volume: "Volume") -> Callable[[str], str]:
    return lambda name: volume.labels.get(name, "")


def volume_filter(filters: Filters) -> "Callable[[Volume], bool]":
    """Read `label` filters as a question about a volume."""
    return lambda volume: labels_match(volume.labels, filters)


def print_removed(title: str, names: Iterable[str]) -> None:
    """Say what has gone, as Docker's prune commands do; nothing if nothing has."""
    listed = list(names)
    if listed:
        click.echo("\n".join([f"Deleted {title}:", *listed, ""]))
