"""`lamina cp`: copy files between a container and the host."""

import sys

import click

from lamina.cli.main import Settings


@click.command("cp")
@click.option("--archive", "-a", is_flag=True, help="Keep the owner (uid and gid) of each file.")
@click.option("--follow-link", "-L", is_flag=True, help="Copy what the source symlink leads to, not the symlink.")
@click.option("--quiet", "-q", is_flag=True, help="Don't say what was copied. Nothing is said if standard error is no terminal.")
@click.argument("source")
@click.argument("destination")
@click.pass_obj
def command(settings: Settings, *, archive: bool, follow_link: bool, quiet: bool, source: str, destination: str) -> None:
    """Copy files between a container and the host.

    One side is CONTAINER:PATH, the other a path on the host or "-": a tar archive on standard output or input. A host path with a
    colon in it is written ./PATH or as an absolute one.

    A directory's contents alone are copied from DIR/. ; a source that doesn't end so is copied into an existing directory under
    its own name, else to the destination's name. The files belong to root, with -a to their owner.
    """
    from lamina.errors import UsageError

    from_container, from_path = split(source)
    to_container, to_path = split(destination)
    if not source or not destination:
        raise UsageError("the source is empty" if not source else "the destination is empty")
    if from_container and to_container:
        raise UsageError("copying between containers is not supported", hint="write a host path with a colon as ./PATH")
    if not from_container and not to_container:
        raise UsageError("neither side is in a container", hint="write CONTAINER:PATH for one of them")
    with settings.engine() as engine:
        if from_container:
            container = engine.containers.get(from_container)
            if to_path == "-":
                container.copy_out(from_path, sys.stdout.buffer, follow=follow_link)
                return
            size_bytes = container.copy_out(from_path, to_path, archive=archive, follow=follow_link)
        else:
            container = engine.containers.get(to_container)
            size_bytes = container.copy_in(
                sys.stdin.buffer if from_path == "-" else from_path, to_path, archive=archive, follow=follow_link
            )
    if not quiet and sys.stderr.isatty():
        from lamina.cli.units import human_size

        click.echo(f"Successfully copied {human_size(size_bytes)} to {destination}", err=True)


def split(argument: str) -> tuple[str, str]:
    """Split CONTAINER:PATH; the container is "" for a path on the host, which is absolute, begins with a dot or has no colon."""
    if argument.startswith(("/", ".")):
        return "", argument
    container, colon, path = argument.partition(":")
    return (container, path) if colon else ("", argument)
