"""`lamina migrate`: move containers to another storage driver."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_containers
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.several import try_each
from lamina.errors import UsageError


@click.command(cls=Command)
@click.option("--to", "driver", required=True, metavar="DRIVER", help="The storage driver to move to.")
@click.option("--all", "-a", "all_containers", is_flag=True, help="Move every container that isn't there yet.")
@click.option("--restart", is_flag=True, help="Stop running containers for it, and start them again.")
@click.option("--quiet", "-q", is_flag=True, help="Don't say the steps.")
@click.argument("containers", nargs=-1, metavar="[CONTAINER...]", shell_complete=complete_containers)
@click.pass_obj
def command(settings: Settings, *, driver: str, all_containers: bool, restart: bool, quiet: bool, containers: Sequence[str]) -> int:
    """Move containers to another storage driver: what each has changed is copied, proved equal, and only then let go of.

    What a container is called, its settings, volumes and log stay; its files are the same to the nanosecond.
    """
    if bool(containers) == all_containers:
        raise UsageError("name the containers to move, or use --all" if not containers else "--all takes no names")
    with settings.engine() as engine:
        target = engine.context.layers.usable_driver(driver).name
        names = containers or [each.name for each in engine.containers.all() if each.record.driver != target]

        def migrate(name: str) -> None:
            def say(text: str) -> None:
                if not quiet:
                    click.echo(f"{name}: {text}", err=True)

            moved = engine.containers.get(name).migrate(target, restart=restart, step=say)
            if not moved.tree_digest:
                say(f"is on {moved.target} already")
            else:
                say(
                    f"moved from {moved.source} to {moved.target}: {moved.changes} changes, {moved.paths} paths equal,"
                    f" tree {moved.tree_digest[:16]}"
                )

        return try_each(names, migrate)
