"""`lamina push`: send images to a registry or another place."""

import click

from lamina.cli.completion import complete_images
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.transfers import showing
from lamina.errors import UsageError


@click.command(cls=Command)
@click.option("--all-tags", "-a", is_flag=True, help="Push every tag that the repository has here.")
@click.option("--quiet", "-q", is_flag=True, help="Print the image's full name alone.")
@click.argument("name", metavar="NAME[:TAG]", shell_complete=complete_images)
@click.argument("place", required=False, metavar="[PLACE]")
@click.pass_obj
def command(settings: Settings, /, *, all_tags: bool, quiet: bool, name: str, place: str | None) -> None:
    """Push an image to the registry that its name says, or to a PLACE such as docker://NAME, oci:PATH:TAG or docker-archive:PATH.

    What the registry has is not sent again; layers that another of its repositories has are mounted from there.
    """
    from lamina.model.reference import Reference
    from lamina.registry.places import STANDARD_STREAM, Transport, parse_place

    if place is not None and all_tags:
        raise UsageError("--all-tags goes to the registry that the name says", hint="leave the place out")
    destination = parse_place(place, bare=Transport.REGISTRY) if place is not None else None
    with settings.engine() as engine:
        if destination is not None:
            with showing(quiet=quiet) as report:
                copied = engine.images.push_to(name, destination, report=report)
            if destination.path == STANDARD_STREAM:
                return  # the archive is what is printed
            click.echo(
                destination.described if quiet else f"{destination.described}: digest: {copied.digest} size: {copied.size_bytes}"
            )
            return
        reference = Reference.parse(name)
        if all_tags and reference != Reference.parse(reference.familiar_name):
            raise UsageError("--all-tags takes a repository's name without tag or digest")
        names = engine.images.tags(name) if all_tags else [reference]
        if not quiet:
            click.echo(f"The push refers to repository [{reference.name}]", err=True)
        for each in names:
            with showing(quiet=quiet) as report:
                copied = engine.images.push(each.canonical, report=report)
            click.echo(each.canonical if quiet else f"{each.tag or each.digest}: digest: {copied.digest} size: {copied.size_bytes}")
