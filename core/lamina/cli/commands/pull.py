"""`lamina pull`: bring images from a registry or another place."""

import click

from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.transfers import showing
from lamina.errors import UsageError


@click.command(cls=Command)
@click.option("--all-tags", "-a", is_flag=True, help="Pull every tag of the repository.")
@click.option("--platform", default="", metavar="OS/ARCH[/VARIANT]", help="Choose the image for this platform.  [this machine's]")
@click.option("--quiet", "-q", is_flag=True, help="Print the image's full name alone.")
@click.argument("name", metavar="NAME[:TAG][@DIGEST]|PLACE")
@click.pass_obj
def command(settings: Settings, /, *, all_tags: bool, platform: str, quiet: bool, name: str) -> None:
    """Pull an image from a registry, or take it in from a place such as docker-archive:PATH or oci:PATH:TAG.

    Every byte is verified before the image is there. A pull that breaks off goes on where it was; one that fails leaves nothing.
    """
    from lamina.registry.places import Transport, parse_place

    place = parse_place(name, bare=Transport.REGISTRY)
    reference = place.reference if place.transport is Transport.REGISTRY else None
    if all_tags and (reference is None or reference != type(reference).parse(reference.familiar_name)):
        raise UsageError("--all-tags takes a repository's name without tag or digest")
    with settings.engine() as engine:
        names = engine.images.registry_tags(name) if all_tags else [reference]
        for each in names:
            with showing(quiet=quiet) as report:
                if each is None:
                    pulled, known = engine.images.pull_from(place, platform=platform, report=report)
                    shown = known[0].familiar if known else str(pulled.image.id)
                    full = known[0].canonical if known else str(pulled.image.id)
                else:
                    if not quiet:
                        click.echo(f"{each.digest or each.tag}: Pulling from {each.path}", err=True)
                    pulled = engine.images.pull(each.canonical, platform=platform, report=report)
                    shown, full = each.familiar, each.canonical
            if not quiet:
                click.echo(f"Digest: {pulled.digest}")
                click.echo(f"Status: {'Downloaded newer image' if pulled.is_new else 'Image is up to date'} for {shown}")
            click.echo(full)
