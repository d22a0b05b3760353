"""`lamina network connect`: put a container into one more network."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_containers, complete_networks
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.errors import UsageError


@click.command(cls=Command)
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="One more name in it.")
@click.option("--ip", default="", metavar="ADDRESS", help="The IPv4 address in it.")
@click.option("--ip6", default="", metavar="ADDRESS", help="The IPv6 address in it.")
@click.option("--mac-address", default="", metavar="MAC", help="The MAC address in it.")
@click.option("--driver-opt", "options", multiple=True, metavar="KEY=VALUE", help="What the driver is told.")
@click.argument("network", shell_complete=complete_networks)
@click.argument("container", shell_complete=complete_containers)
@click.pass_obj
def command(
    settings: Settings, /, *, aliases: Sequence[str], ip: str, ip6: str, mac_address: str, options: Sequence[str], network: str,
    container: str,
) -> None:  # fmt: skip
    """Put CONTAINER into NETWORK: at once if it runs, and at each of its starts."""
    told = dict(_pair(text) for text in options)
    with settings.engine() as engine:
        record = engine.containers.get(container).record
        engine.networks.connect(network, record, aliases=aliases, ipv4=ip, ipv6=ip6, mac=mac_address, options=told)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"invalid option '{text}'", hint="write KEY=VALUE")
    return key, value
