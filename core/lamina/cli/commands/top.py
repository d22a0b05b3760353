"""`lamina top`: list a container's processes."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_running
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.output import align, printable


@click.command(cls=Command, context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
@click.argument("container", shell_complete=complete_running)
@click.argument("ps_options", nargs=-1, type=click.UNPROCESSED, metavar="[PS OPTION]...")
@click.pass_obj
def command(settings: Settings, *, container: str, ps_options: Sequence[str]) -> None:
    """List a container's processes, with the host's pids; with options as the host's ps(1) shows them."""
    with settings.engine() as engine:
        titles, rows = engine.containers.get(container).process_table(ps_options)
    lines = ["\t".join(printable(cell) for cell in row) for row in (titles, *rows)]
    click.echo(align("\n".join(lines), min_width=20))
