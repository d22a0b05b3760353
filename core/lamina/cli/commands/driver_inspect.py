"""`lamina driver inspect`: what a storage driver can do here, and if it can't, what would help."""

from collections.abc import Iterator, Sequence
from typing import Any

import click

from lamina.cli.completion import complete_drivers
from lamina.cli.documents import print_documents
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.output import printable
from lamina.cli.several import try_each


@click.command(cls=Command)
@click.option("--format", "-f", "template", default=None, metavar="FORMAT", help="'json', or a Go template; text without it.")
@click.argument("drivers", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_drivers)
@click.pass_obj
def command(settings: Settings, /, *, template: str | None, drivers: Sequence[str]) -> int:
    """Tell whether a storage driver can work here and how, what it can do, and where its files lie."""
    with settings.engine() as engine:
        from lamina.usecases.system import driver_document

        def find(name: str) -> dict[str, Any]:
            return driver_document(engine.system.driver(name))

        if template:
            return print_documents(drivers, find, template=template)

        def tell(name: str) -> None:
            for line in lines_of(find(name)):
                click.echo(printable(line))

        return try_each(drivers, tell, shows_names=False)


def lines_of(document: dict[str, Any]) -> Iterator[str]:
    """Write the document for people."""
    yield f"Name:          {document['Name']}" + (" (the default here)" if document["Default"] else "")
    yield f"Aliases:       {', '.join(document['Aliases']) or '-'}"
    yield f"Usable here:   {'yes' if document['Usable'] else 'no'}"
    if document["Reason"]:
        yield f"Why not:       {document['Reason']}"
    if document["Hint"]:
        yield f"What helps:    {document['Hint']}"
    yield f"Mounts by:     {document['Method'] or '-'}"
    yield f"Files in:      {document['Home'] or '-'}"
    yield f"Entry point:   {document['EntryPoint']}"
    able = document["Capabilities"]
    if able is None:
        return
    yield "Capabilities:"
    yield f"  whiteouts:         {able['Whiteouts']}" + (" (layers are full trees)" if able["Whiteouts"] == "none" else "")
    yield f"  native diff:       {_yes(able['NativeDiff'])}"
    yield f"  depth:             {able['MaxDepth'] if able['MaxDepth'] is not None else 'no limit'}"
    yield f"  quota:             {_yes(able['Quota'])}"
    yield f"  preserves:         {', '.join(able['Preserves']) or '-'}"
    yield f"  as a plain tree:   {', '.join(able['Behaves']) or '-'}"
    yield f"  forbidden names:   {able['ForbiddenPrefix'] + '*' if able['ForbiddenPrefix'] else 'none'}"
    yield f"  longest name:      {able['MaxNameBytes']} bytes"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
