"""`lamina system start`: start the containers that a boot has ended; `lamina system unit` writes what calls it."""

import click

from lamina.cli.main import Settings, print_error
from lamina.cli.options import Command
from lamina.errors import LaminaError
from lamina.model.container import Container


@click.command(cls=Command)
@click.pass_obj
def command(settings: Settings) -> int:
    """Start the containers whose restart policy says so after a boot, and print their names.

    Those with --restart always; with unless-stopped, if nobody has stopped them; with on-failure, if besides they ended with a
    failure.
    """
    failed = False

    def report(container: Container, error: LaminaError | None) -> None:
        nonlocal failed
        if error is None:
            click.echo(container.name)
        else:
            failed = True
            print_error(f"container '{container.name}': {error.message}", error.hint, as_it_is=True)

    with settings.engine() as engine:
        engine.restarts.start_all(report=report)
    return 1 if failed else 0
