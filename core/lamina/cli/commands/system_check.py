"""`lamina system check`: does everything on disk agree with the database and with its digests, and what can be put right."""

import click

from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.output import printable
from lamina.usecases.check import Finding


@click.command(cls=Command)
@click.option("--repair", is_flag=True, help="Put right what can be; a container's own files and volumes are never touched.")
@click.option("--fast", is_flag=True, help="Don't read blobs and layers, only look whether they are there.")
@click.option("--format", "-f", "template", default=None, metavar="FORMAT", help="'json', or a Go template for each finding.")
@click.pass_obj
def command(settings: Settings, /, *, repair: bool, fast: bool, template: str | None) -> int:
    """Hold blobs against their digests, unpacked layers against their images, folders, mounts and records against each other.

    Other commands may run meanwhile. Prints a line for each finding; the exit code is 1 if any is left.
    """

    def tell(finding: Finding) -> None:
        if template is None:
            click.echo(printable(line(finding)))
        else:
            from lamina.cli.talk import show_document

            show_document(finding.to_json(), template=template)

    with settings.engine() as engine:
        findings = engine.system.check(repair=repair, reads_bytes=not fast, told=tell)
    return 1 if any(finding.is_left for finding in findings) else 0


def line(finding: Finding) -> str:
    """Write a finding for people."""
    text = f"{finding.kind} {finding.subject}: {finding.problem}"
    if finding.repaired:
        return f"{text}: {finding.repaired}"
    return f"{text} ({finding.advice})" if finding.advice else text
