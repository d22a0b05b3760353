"""`lamina port`: list a container's published ports."""

import click

from lamina.cli.completion import complete_running
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.errors import NotFoundError, UsageError


@click.command(cls=Command)
@click.argument("container", shell_complete=complete_running)
@click.argument("port", required=False, default="", metavar="[PORT[/tcp|udp]]")
@click.pass_obj
def command(settings: Settings, /, *, container: str, port: str) -> None:
    """List the ports that CONTAINER has published, or where PORT of it is on this host."""
    wanted = _key(port) if port else ""
    with settings.engine() as engine:
        from lamina.cli.port_texts import port_lines

        lines = port_lines(engine.networks.ports(engine.containers.get(container).record), wanted)
    if wanted and not lines:
        raise NotFoundError(f"port '{wanted}' of container '{container}' is not published", hint=f"`lamina port {container}`")
    for line in lines:
        click.echo(line)


def _key(text: str) -> str:
    from lamina.model.network import parse_port

    found = parse_port(text) if ":" not in text else ()
    if len(found) != 1:
        raise UsageError(f"invalid port '{text}'", hint="write PORT, PORT/tcp or PORT/udp")
    return found[0].key
