"""`lamina driver ls`: list the storage drivers and what they can do here."""

from typing import Any

import click

from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.output import Column, Row
from lamina.cli.talk import FORMAT_HELP, print_rows

COLUMNS = (
    Column(field="Name", header="NAME"),
    Column(field="Usable", header="USABLE"),
    Column(field="Method", header="METHOD"),
    Column(field="Capabilities", header="CAPABILITIES"),
    Column(field="Reason", header="REASON"),
    Column(field="Default", header="DEFAULT", in_table=False),
    Column(field="Aliases", header="ALIASES", in_table=False),
    Column(field="Home", header="HOME", in_table=False),
    Column(field="EntryPoint", header="ENTRY POINT", in_table=False),
    Column(field="Hint", header="HINT", in_table=False),
)


@click.command(cls=Command)
@click.option("--format", "template", default=None, metavar="FORMAT", help=FORMAT_HELP)
@click.option("--quiet", "-q", is_flag=True, help="Show names alone.")
@click.pass_obj
def command(settings: Settings, /, *, template: str | None, quiet: bool) -> None:
    """List the storage drivers that are installed, broken ones too. The default has an asterisk."""
    with settings.engine() as engine:
        from lamina.usecases.system import driver_document

        rows = [driver_row(driver_document(status), marks_default=template is None) for status in engine.system.drivers()]
    if quiet:
        rows = [{**row, "Name": str(row["Name"]).removesuffix(" *")} for row in rows]
    print_rows(rows, columns=COLUMNS, template=template, quiet_field="Name" if quiet else None)


def driver_row(document: dict[str, Any], *, marks_default: bool) -> Row:
    """Write one row. In a template the name is the name, and `.Default` says whether it is the default."""
    return {
        "Name": document["Name"] + (" *" if document["Default"] and marks_default else ""),
        "Usable": "yes" if document["Usable"] else "no",
        "Method": document["Method"] or "-",
        "Capabilities": ", ".join(short_capabilities(document["Capabilities"])) or "-",
        "Reason": document["Reason"],
        "Default": str(document["Default"]).lower(),
        "Aliases": ",".join(document["Aliases"]),
        "Home": document["Home"],
        "EntryPoint": document["EntryPoint"],
        "Hint": document["Hint"],
    }


def short_capabilities(able: dict[str, Any] | None) -> list[str]:
    """Say in a few words what tells one driver from another."""
    if able is None:
        return []
    words = ["full copies" if able["Whiteouts"] == "none" else f"{able['Whiteouts']} whiteouts"]
    words += ["native diff"] if able["NativeDiff"] else []
    words += [f"depth {able['MaxDepth']}" if able["MaxDepth"] is not None else "any depth"]
    return words + (["quota"] if able["Quota"] else [])
