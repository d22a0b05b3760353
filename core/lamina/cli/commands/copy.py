"""`lamina copy`: an image from one place to another."""

import click

from lamina.cli.completion import complete_images
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.transfers import showing


@click.command(cls=Command)
@click.option("--all", "-a", "all_platforms", is_flag=True, help="Copy the images of all platforms, not only this machine's.")
@click.option("--platform", default="", metavar="OS/ARCH", help="Copy the image of this platform.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress, and print nothing.")
@click.argument("source", metavar="FROM", shell_complete=complete_images)
@click.argument("target", metavar="TO")
@click.pass_obj
def command(settings: Settings, /, *, source: str, target: str, all_platforms: bool, platform: str, quiet: bool) -> None:
    """Copy an image from one place to another.

    A place is docker://NAME, docker-archive:PATH[:NAME], docker-daemon:NAME, oci:PATH[:TAG], oci-archive:PATH[:TAG], dir:PATH, or
    an image here, by its name alone or as lamina:NAME. A PATH of - is standard input or output.
    """
    from lamina.errors import UsageError
    from lamina.registry.places import STANDARD_STREAM
    from lamina.usecases.imagecopy import copy_between, parse_places
    from lamina.usecases.transfers import wanted_platform

    if all_platforms and platform:
        raise UsageError("--all and --platform exclude each other", hint="leave one of them out")
    from_place, to_place = parse_places(source, target, all_platforms=all_platforms)
    wanted = wanted_platform(platform)
    with settings.engine() as engine, showing(quiet=quiet) as report:
        copy_between(engine.context, from_place, to_place, all_platforms=all_platforms, platform=wanted, report=report)
    if not quiet and to_place.path != STANDARD_STREAM:
        click.echo(f"Copied {from_place.described} to {to_place.described}")
