"""`lamina network create`: create a network."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from lamina.cli.completion import complete_network_drivers
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.errors import UsageError

if TYPE_CHECKING:
    from lamina.model.network import Subnet


@click.command(cls=Command)
@click.option(
    "--driver", "-d", default="", metavar="NAME", help="The network driver.  [bridge]", shell_complete=complete_network_drivers
)
@click.option("--subnet", "subnets", multiple=True, metavar="SUBNET", help="A subnet, as 172.28.0.0/16.  [a free one]")
@click.option("--gateway", "gateways", multiple=True, metavar="ADDRESS", help="A subnet's gateway.  [its first address]")
@click.option("--ip-range", "ip_ranges", multiple=True, metavar="SUBNET", help="Give containers addresses of this part alone.")
@click.option("--internal", is_flag=True, help="Let nothing out of the network, and nothing in.")
@click.option("--ipv6", is_flag=True, help="Give it IPv6 addresses, too.")
@click.option("--opt", "-o", "options", multiple=True, metavar="KEY=VALUE", help="What the driver is told.")
@click.option("--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Set a label.")
@click.argument("name", metavar="NETWORK")
@click.pass_obj
def command(
    settings: Settings, /, *, driver: str, subnets: Sequence[str], gateways: Sequence[str], ip_ranges: Sequence[str],
    internal: bool, ipv6: bool, options: Sequence[str], labels: Sequence[str], name: str,
) -> None:  # fmt: skip
    """Create a network and print its id.

    A --gateway or an --ip-range belongs to the --subnet that it lies in.
    """
    told = {"driver": driver} if driver else {}
    with settings.engine() as engine:
        network = engine.networks.create(
            name, subnets=read_subnets(subnets, gateways, ip_ranges), internal=internal, ipv6=ipv6,
            options=_pairs(options), labels=_pairs(labels), **told,
        )  # fmt: skip
        click.echo(network.id)


def read_subnets(subnets: Sequence[str], gateways: Sequence[str], ip_ranges: Sequence[str]) -> "list[Subnet]":
    """Put each gateway and each range to its subnet. Raises `UsageError`."""
    if not subnets:
        for option, values in (("--gateway", gateways), ("--ip-range", ip_ranges)):
            if values:
                raise UsageError(f"{option} '{values[0]}' needs a --subnet that it lies in")
        return []
    from lamina.model.network import Subnet, check_address, contains, subnet_bounds

    for each in (*subnets, *ip_ranges):
        subnet_bounds(each)
    gateway_of = _placed(subnets, {each: check_address(each, "gateway") for each in gateways}, "--gateway", contains)
    range_of = _placed(subnets, {each: each.partition("/")[0] for each in ip_ranges}, "--ip-range", contains)
    return [Subnet(subnet=each, gateway=gateway_of.get(each, ""), ip_range=range_of.get(each, "")) for each in subnets]


def _placed(
    subnets: Sequence[str], addresses: Mapping[str, str], option: str, contains: Callable[[str, str], bool]
) -> dict[str, str]:
    """Which text belongs to which subnet: texts with an address of each."""
    found: dict[str, str] = {}
    for text, address in addresses.items():
        subnet = next((each for each in subnets if contains(each, address)), None)
        if subnet is None:
            raise UsageError(f"{option} '{text}' is in none of the subnets", hint=f"they are: {', '.join(subnets)}")
        if subnet in found:
            raise UsageError(f"{option} '{found[subnet]}' and '{text}' are both in the subnet '{subnet}'", hint="give it one")
        found[subnet] = text
    return found


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key:
            raise UsageError(f"invalid option '{text}'", hint="write KEY=VALUE")
        pairs[key] = value
    return pairs
