"""`lamina version`: the version, without opening the store."""

import os
import sys

import click

from lamina import __version__
from lamina.cli.options import Command
from lamina.cli.talk import INSPECT_FORMAT_HELP, show_document
from lamina.model.machine import machine_architecture


@click.command(cls=Command)
@click.option("--format", "-f", "template", default=None, metavar="FORMAT", help=INSPECT_FORMAT_HELP)
def command(*, template: str | None) -> None:
    """Show the version of lamina, of Python and of the kernel."""
    facts = {
        "Version": __version__,
        "PythonVersion": ".".join(str(part) for part in sys.version_info[:3]),
        "KernelVersion": os.uname().release,
        "Os": "linux",
        "Arch": machine_architecture(),
    }
    if template:
        # there is no daemon: who asks for the server's version, as scripts for Docker do, asks for the same program
        show_document({"Client": facts, "Server": facts}, template=template)
        return
    click.echo("Client:")
    for title, value in (
        ("Version", facts["Version"]),
        ("Python version", facts["PythonVersion"]),
        ("Kernel version", facts["KernelVersion"]),
        ("OS/Arch", f"{facts['Os']}/{facts['Arch']}"),
    ):
        click.echo(f" {title + ':':<18} {value}")
