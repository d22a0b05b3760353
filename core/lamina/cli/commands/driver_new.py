"""`lamina driver new`: write the package of a storage driver that works, to be changed from there. Opens no store."""

import click

from lamina.cli.main import Settings
from lamina.cli.options import Command


@click.command(cls=Command)
@click.option("--dir", "directory", default="", metavar="DIR", help="The directory to write, which must not exist.  [lamina-NAME]")
@click.argument("name", metavar="NAME")
@click.pass_obj
def command(_settings: Settings, /, *, directory: str, name: str) -> None:
    """Write a ready package of a storage driver: the driver, its tests by the conformance kit, a README.

    It installs and passes at once, as a driver that copies. Prints the directory.
    """
    from lamina.usecases.driver_package import write_package

    place = write_package(name, directory)
    click.echo(place)
    click.echo(f"next: pip install -e '{place}[test]', then as root: pytest {place}", err=True)
