"""`lamina info`: facts about this store and machine."""

from collections.abc import Iterator
from typing import Any

import click

from lamina.cli.main import Settings, print_warning
from lamina.cli.options import Command
from lamina.cli.output import printable
from lamina.cli.talk import INSPECT_FORMAT_HELP, show_document
from lamina.cli.units import human_binary_size


@click.command(cls=Command)
@click.option("--format", "-f", "template", default=None, metavar="FORMAT", help=INSPECT_FORMAT_HELP)
@click.pass_obj
def command(settings: Settings, /, *, template: str | None) -> None:
    """Show facts about this store and machine."""
    with settings.engine() as engine:
        document = engine.system.info()
    if template:
        show_document(document, template=template)
        return
    for line in lines_of(document):
        click.echo(printable(line))
    for warning in document["Warnings"]:
        print_warning(warning)


def lines_of(document: dict[str, Any]) -> Iterator[str]:
    """Write the document for people, in Docker's order and words."""
    yield f"Containers: {document['Containers']}"
    for state in ("Running", "Paused", "Stopped"):
        yield f" {state}: {document[f'Containers{state}']}"
    yield f"Images: {document['Images']}"
    yield f"Version: {document['ServerVersion']}"
    yield f"Storage Driver: {document['Driver'] or 'none'}"
    for name, value in document["DriverStatus"]:
        yield f" {name}: {value}"
    yield f"Logging Driver: {document['LoggingDriver']}"
    yield f"Cgroup Driver: {document['CgroupDriver']}"
    yield f"Cgroup Version: {document['CgroupVersion']}"
    yield "Security Options:"
    for option in document["SecurityOptions"]:
        name, *more = (part.partition("=")[2] for part in option.split(","))
        yield " ".join(["", name, *(f"({word})" for word in more)])
    users = document["UserNamespaces"]
    yield f"User Namespaces: {users['InUse']} in use" if users["Available"] else "User Namespaces: not available"
    yield "Plugins:"
    for kind, names in document["Plugins"].items():
        yield f" {kind}: {' '.join(names) or '-'}"
    yield f"Kernel Version: {document['KernelVersion']}"
    yield f"Operating System: {document['OperatingSystem']}"
    yield f"OSType: {document['OSType']}"
    yield f"Architecture: {document['Architecture']}"
    yield f"CPUs: {document['NCPU']}"
    yield f"Total Memory: {human_binary_size(document['MemTotal'])}"
    yield f"Name: {document['Name']}"
    yield f"Root Dir: {document['RootDir']}"
    yield f"Run Dir: {document['RunDir']}"
