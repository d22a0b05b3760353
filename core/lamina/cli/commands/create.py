"""`lamina create`: create a container without starting it."""

from typing import Any

import click

from lamina.cli.completion import complete_images
from lamina.cli.container_options import IdFile, container_options, read_config
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.talk import showing_pull
from lamina.errors import UsageError


@click.command(cls=Command, context_settings={"allow_interspersed_args": False})
@container_options
@click.argument("image", shell_complete=complete_images)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [ARG]...")
@click.pass_obj
def command(
    settings: Settings, /, *, name: str, cidfile: str, storage_driver: str, attach: tuple[str, ...], pull: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Create a container from IMAGE and print its id; `lamina start` runs it."""
    del attach  # it is `start` that says what is joined
    try:
        config = read_config(**options)
    except UsageError as error:
        error.exit_code = 125
        raise
    with IdFile(cidfile) as id_file, settings.engine(storage_driver) as engine:
        container = engine.containers.create_from(config, name=name, pull=pull or "", pulling=showing_pull)
        id_file.write(container.id)
        click.echo(container.id)
