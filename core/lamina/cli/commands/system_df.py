"""`lamina system df`: what takes space, images and their unpacked layers apart."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.output import Column, Row, ellipsis
from lamina.cli.talk import FORMAT_HELP, json_text, print_rows
from lamina.cli.units import NEVER_NS, human_ago, human_size

if TYPE_CHECKING:
    from lamina.engine import Engine
    from lamina.model.reference import Reference
    from lamina.usecases.disk import ContainerUsage, DiskUsage, ImageUsage

SUMMARY = (
    Column(field="Type", header="TYPE"),
    Column(field="TotalCount", header="TOTAL"),
    Column(field="Active", header="ACTIVE"),
    Column(field="Size", header="SIZE"),
    Column(field="Reclaimable", header="RECLAIMABLE"),
)
IMAGES = (
    Column(field="Repository", header="REPOSITORY"),
    Column(field="Tag", header="TAG"),
    Column(field="ID", header="IMAGE ID"),
    Column(field="CreatedSince", header="CREATED"),
    Column(field="Size", header="SIZE"),
    Column(field="SharedSize", header="SHARED SIZE"),
    Column(field="UniqueSize", header="UNIQUE SIZE"),
    Column(field="Containers", header="CONTAINERS"),
)
LAYERS = (
    Column(field="Driver", header="DRIVER"),
    Column(field="ID", header="LAYER ID"),
    Column(field="Size", header="SIZE"),
    Column(field="Inodes", header="INODES"),
    Column(field="Containers", header="CONTAINERS"),
)
CONTAINERS = (
    Column(field="ID", header="CONTAINER ID"),
    Column(field="Image", header="IMAGE"),
    Column(field="Command", header="COMMAND"),
    Column(field="LocalVolumes", header="LOCAL VOLUMES"),
    Column(field="Driver", header="DRIVER"),
    Column(field="Size", header="SIZE"),
    Column(field="RunningFor", header="CREATED"),
    Column(field="Status", header="STATUS"),
    Column(field="Names", header="NAMES"),
)
VOLUMES = (
    Column(field="Name", header="VOLUME NAME"),
    Column(field="Links", header="LINKS"),
    Column(field="Size", header="SIZE"),
)


@click.command(cls=Command)
@click.option("--format", "template", default=None, metavar="FORMAT", help=FORMAT_HELP)
@click.option("--verbose", "-v", is_flag=True, help="Show every image, layer, container and volume.")
@click.pass_obj
def command(settings: Settings, /, *, template: str | None, verbose: bool) -> None:
    """Show what takes space: packed images, what each storage driver has unpacked of them, containers, volumes.

    Sizes are those on disk, as du counts them. Unpacked layers are a cache: a container that wants one has it made again.
    """
    with settings.engine() as engine:
        usage = engine.system.disk_usage()
        parts = _parts(engine, usage) if verbose else {}
    if not verbose:
        print_rows(summary_rows(usage), columns=SUMMARY, template=template)
    elif template:
        _print_parts(parts, template)
    else:
        for title, name, columns in (
            ("Images", "Images", IMAGES),
            ("Unpacked layers", "Layers", LAYERS),
            ("Containers", "Containers", CONTAINERS),
            ("Local Volumes", "Volumes", VOLUMES),
        ):
            click.echo(f"{title} space usage:\n")
            print_rows(parts[name], columns=columns, template=None)
            click.echo("")


def summary_rows(usage: "DiskUsage") -> Iterator[Row]:
    """Give the rows of the plain table."""
    in_use = sum(bool(each.containers) for each in usage.images)
    yield _summary("Images", len(usage.images), in_use, usage.blobs_bytes, usage.images_reclaimable_bytes)
    for driver in usage.drivers:
        layers = [layer for layer in usage.layers if layer.driver == driver]
        yield _summary(
            f"Unpacked ({driver})",
            len(layers),
            sum(bool(layer.containers) for layer in layers),
            usage.unpacked_bytes(driver),
            usage.unpacked_bytes(driver, unused_only=True),
        )
    yield _summary(
        "Containers", len(usage.containers), usage.containers_running, usage.containers_bytes, usage.containers_reclaimable_bytes
    )
    yield _summary(
        "Local Volumes",
        len(usage.volumes),
        sum(bool(each.containers) for each in usage.volumes),
        usage.volumes_bytes,
        usage.volumes_reclaimable_bytes,
    )
    yield _summary("Build Cache", usage.build_records, usage.build_records_active, usage.build_bytes, usage.build_reclaimable_bytes)


def _summary(kind: str, total: int, active: int, size_bytes: int, reclaimable_bytes: int) -> Row:
    share = f" ({reclaimable_bytes * 100 // size_bytes}%)" if size_bytes else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": human_size(size_bytes, digits=4),
        "Reclaimable": human_size(reclaimable_bytes, digits=4) + share,
    }


def _parts(engine: "Engine", usage: "DiskUsage") -> dict[str, list[dict[str, Any]]]:
    now_ns = time.time_ns()
    return {
        "Images": [row for each in usage.images for row in _image_rows(engine, each, now_ns)],
        "Layers": [
            {
                "Driver": each.driver,
                "ID": each.key[:12],
                "Size": human_size(each.usage.size_bytes),
                "Inodes": str(each.usage.inodes),
                "Containers": str(each.containers),
            }
            for each in usage.layers
        ],
        "Containers": [_container_row(each, now_ns) for each in usage.containers],
        "Volumes": [
            {"Name": each.volume.name, "Links": str(each.containers), "Size": human_size(each.size_bytes)} for each in usage.volumes
        ],
    }


def _image_rows(engine: "Engine", usage: "ImageUsage", now_ns: int) -> Iterator[dict[str, Any]]:
    """Write an image's rows, one for each name, as `images` does but with what its blobs take."""
    from lamina.cli.commands.images import image_row

    names: list[Reference | None] = [*engine.images.store.names(usage.image)] or [None]
    for name in names:
        yield {
            **image_row(usage.image, name, now_ns=now_ns, no_trunc=False),
            "Size": human_size(usage.packed_bytes),
            "SharedSize": human_size(usage.shared_bytes),
            "UniqueSize": human_size(usage.packed_bytes - usage.shared_bytes),
            "Containers": str(usage.containers),
        }


def _container_row(usage: "ContainerUsage", now_ns: int) -> dict[str, Any]:
    record = usage.container
    return {
        "ID": record.short_id,
        "Image": record.config.image,
        "Command": f'"{ellipsis(" ".join(record.config.arguments), 20)}"',
        "LocalVolumes": str(usage.volumes),
        "Driver": record.driver,
        "Size": human_size(usage.usage.size_bytes),
        "RunningFor": human_ago(record.created_ns or NEVER_NS, now_ns=now_ns),
        "Status": record.status.value,
        "Names": record.name,
    }


def _print_parts(parts: dict[str, list[dict[str, Any]]], template: str) -> None:
    if template == "json":
        click.echo(json_text(parts, indent=None))
        return
    from lamina.cli.template import Template, unescape

    click.echo(Template(unescape(template)).render(parts))
