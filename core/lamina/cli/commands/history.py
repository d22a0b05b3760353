"""`lamina history`: how an image came to be."""

import time

import click

from lamina.cli.completion import complete_images
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.output import Column, ellipsis, short_id
from lamina.cli.talk import FORMAT_HELP, print_rows
from lamina.cli.units import NEVER_NS, format_time_ns, human_ago, human_size

MISSING = "<missing>"


@click.command(cls=Command)
@click.option("--format", "template", default=None, metavar="FORMAT", help=FORMAT_HELP)
@click.option("--human/--no-human", "-H", default=True, help="Sizes and times for people (--human=false: exact).")
@click.option("--no-trunc", is_flag=True, help="Don't cut ids and commands.")
@click.option("--quiet", "-q", is_flag=True, help="Show ids alone.")
@click.argument("image", metavar="IMAGE", shell_complete=complete_images)
@click.pass_obj
def command(settings: Settings, /, *, template: str | None, human: bool, no_trunc: bool, quiet: bool, image: str) -> None:
    """Show how an image came to be, the newest step first."""
    with settings.engine() as engine:
        steps = engine.images.history(image)
    now_ns = time.time_ns()
    rows = []
    for step in steps:
        since = human_ago(step.created_ns or NEVER_NS, now_ns=now_ns)
        at = format_time_ns(step.created_ns) if step.created_ns else "N/A"
        created_by = step.created_by.replace("\t", " ")
        identifier = MISSING if step.image_id is None else step.image_id if no_trunc else short_id(step.image_id)
        rows.append(
            {
                "ID": identifier,
                "CreatedSince": since if human else at,
                "CreatedAt": at,
                "CreatedBy": created_by if no_trunc else ellipsis(created_by, 45),
                "Size": human_size(step.size_bytes) if human else str(step.size_bytes),
                "Comment": step.comment,
            }
        )
    columns = [
        Column(field="ID", header="IMAGE"),
        Column(field="CreatedSince", header="CREATED" if human else "CREATED AT"),
        Column(field="CreatedAt", header="CREATED AT", in_table=False),
        Column(field="CreatedBy", header="CREATED BY"),
        Column(field="Size", header="SIZE"),
        Column(field="Comment", header="COMMENT"),
    ]
    print_rows(rows, columns=columns, template=template, quiet_field="ID" if quiet else None)
