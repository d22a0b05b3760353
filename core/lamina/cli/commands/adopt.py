"""`lamina adopt`: take over a Docker data directory."""

import click

from lamina.cli.completion import complete_drivers
from lamina.cli.main import Settings, print_error
from lamina.cli.options import Command
from lamina.cli.progress import progress


@click.command(cls=Command)
@click.option(
    "--storage-driver", "driver", default="", metavar="NAME", shell_complete=complete_drivers,
    help="The containers' storage driver.  [the one of Docker's form]",
)  # fmt: skip
@click.option("--volumes", "-v", is_flag=True, help="Copy the volumes of the containers; without it those with volumes stay.")
@click.option("--all", "-a", "intermediate", is_flag=True, help="Take intermediate images too, as `docker images -a` lists them.")
@click.option("--relayer", is_flag=True, help="Make a new layer, and so a new image id, where the old one can't be made again.")
@click.option("--force", "-f", is_flag=True, help="Even if a daemon runs on it, or it was cut off while containers ran.")
@click.option("--quiet", "-q", is_flag=True, help="Say only what is adopted and what can't be.")
@click.argument("directory", type=click.Path(), metavar="DIR")
@click.pass_obj
def command(
    settings: Settings,
    *,
    driver: str,
    volumes: bool,
    intermediate: bool,
    relayer: bool,
    force: bool,
    quiet: bool,
    directory: str,
) -> int:
    """Take over the images and containers of a Docker data directory (overlay2 or aufs), without Docker; it is only read.

    Images keep their ids, containers their ids, names and changes.
    """
    from lamina.usecases.adopt import Wishes

    wishes = Wishes(
        driver=driver or settings.storage_driver, volumes=volumes, intermediate=intermediate, relayer=relayer, force=force
    )

    def say(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    with settings.engine() as engine:
        with progress("adopting", hidden=quiet) as advance:
            adopted = engine.adopt(directory, wishes, step=say, progress=advance)
    for each in adopted.images:
        if not each.was_here:
            shown = ", ".join(name.familiar for name in each.names)
            was = f" (was {each.docker_id})" if each.docker_id != each.image.id else ""
            click.echo(f"Adopted image: {shown or '<none>'} {each.image.id}{was}")
    for container in adopted.containers:
        click.echo(f"Adopted container: {container.name} {container.id}")
    for volume in adopted.volumes:
        click.echo(f"Adopted volume: {volume}")
    for note in adopted.notes:
        click.echo(f"note: {note}", err=True)
    for problem in adopted.problems:
        print_error(problem)
    return 1 if adopted.problems else 0
