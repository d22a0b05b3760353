"""`lamina volume create`: create a volume."""

from collections.abc import Iterable, Sequence

import click

from lamina.cli.completion import complete_volume_drivers
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.errors import UsageError


@click.command(cls=Command)
@click.option(
    "--driver", "-d", default="local", metavar="NAME", help="The volume driver.  [local]", shell_complete=complete_volume_drivers
)
@click.option("--opt", "-o", "options", multiple=True, metavar="KEY=VALUE", help="What the driver is told.")
@click.option("--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Set a label.")
@click.argument("name", required=False, default="", metavar="[VOLUME]")
@click.pass_obj
def command(settings: Settings, /, *, driver: str, options: Sequence[str], labels: Sequence[str], name: str) -> None:
    """Create a volume and print its name. Without one it is anonymous. A volume that is there already is left as it is."""
    told = _pairs(options, needs_value=True)
    with settings.engine() as engine:
        click.echo(engine.volumes.create(name, driver=driver, options=told, labels=_pairs(labels)).name)


def _pairs(texts: Iterable[str], *, needs_value: bool = False) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or (needs_value and not equals):
            raise UsageError(f"invalid option '{text}'", hint="write KEY=VALUE")
        pairs[key] = value
    return pairs
