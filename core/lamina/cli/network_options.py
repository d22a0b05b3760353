"""The network options of `run` and `create`: what they are, and how their texts become a configuration's fields.

Values of networks are imported where an option asks for them: `--network none` and `--network host` need nothing of that.
Not here: which networks there are and what each can do; the engine says so when the container is created.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.completion import complete_networks
from lamina.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from lamina.model.network import EndpointRequest, PortMapping

JOIN_PREFIX = "container:"

NETWORK_OPTIONS = (
    click.option(
        "--network", "--net", "networks", multiple=True, metavar="NETWORK", shell_complete=complete_networks,
        help="A network: bridge, host, none, container:NAME, one that was created, or name=NAME,alias=…,ip=….  [bridge]",
    ),
    click.option("--network-alias", "--net-alias", "network_aliases", multiple=True, metavar="NAME", help="One more name in it."),
    click.option("--ip", default="", metavar="ADDRESS", help="The IPv4 address in it."),
    click.option("--ip6", default="", metavar="ADDRESS", help="The IPv6 address in it."),
    click.option("--mac-address", default="", metavar="MAC", help="The MAC address in it."),
    click.option(
        "--publish", "-p", "published", multiple=True, metavar="[IP:][HOST:]CONTAINER[/tcp|udp]",
        help="Publish a port, or a range of ports, on the host.",
    ),
    click.option("--publish-all", "-P", is_flag=True, help="Publish every exposed port on any free port of the host."),
    click.option("--expose", "exposed", multiple=True, metavar="PORT[/tcp|udp]", help="Expose a port, or a range of ports."),
    click.option("--add-host", "extra_hosts", multiple=True, metavar="NAME:IP", help="Add a line to /etc/hosts."),
    click.option("--dns", multiple=True, metavar="ADDRESS", help="Use this name server."),
    click.option("--dns-search", multiple=True, metavar="DOMAIN", help="Look names up in this domain; . for none."),
    click.option("--dns-option", "--dns-opt", "dns_options", multiple=True, metavar="OPTION", help="A resolver option."),
)  # fmt: skip


def read_network_options(
    *, networks: Sequence[str], network_aliases: Sequence[str], ip: str, ip6: str, mac_address: str, published: Sequence[str],
    publish_all: bool, exposed: Sequence[str], extra_hosts: Sequence[str], dns: Sequence[str], dns_search: Sequence[str],
    dns_options: Sequence[str], hostname: str,
) -> Mapping[str, Any]:  # fmt: skip
    """Give the fields of `ContainerConfig` that the options mean. Raises `UsageError` for one that can't be meant."""
    first = {"--network-alias": network_aliases, "--ip": ip, "--ip6": ip6, "--mac-address": mac_address}
    network, requests = _read_networks(networks, first)
    if network.startswith(JOIN_PREFIX):
        _check_joined(
            network, first | {"--publish": published, "--publish-all": publish_all, "--expose": exposed, "--add-host": extra_hosts,
            "--dns": dns, "--dns-search": dns_search, "--dns-option": dns_options, "--hostname": hostname},
        )  # fmt: skip
    ports = _read_ports(published)
    return {
        "network": network,
        "networks": requests,
        "ports": ports,
        "publish_all": publish_all,
        "exposed_ports": tuple(dict.fromkeys((*(port.key for port in ports), *_read_exposed(exposed)))),
        "extra_hosts": _read_hosts(extra_hosts),
        "dns": _read_servers(dns),
        "dns_search": tuple(_word(each, "--dns-search") for each in dns_search),
        "dns_options": tuple(_word(each, "--dns-option") for each in dns_options),
    }


def _read_networks(texts: Sequence[str], first: Mapping[str, Any]) -> "tuple[str, tuple[EndpointRequest, ...]]":
    """The first network's name, and all of them if there is more to say than that; `first` are the options about the first."""
    if len(texts) <= 1 and not any("=" in text or not text for text in texts) and not any(first.values()):
        return (texts[0] if texts else ""), ()
    from lamina.model.network import EndpointRequest, check_request, parse_network_option

    requests = [parse_network_option(text) for text in texts] or [EndpointRequest(network="")]
    names = [each.network for each in requests]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"network '{name}' is asked for twice")
        if len(names) > 1 and name.startswith(JOIN_PREFIX):
            raise ConflictError(f"network '{name}' can't be had with others")
    asked = requests[0]
    for option, said in (("--ip", asked.ipv4), ("--ip6", asked.ipv6), ("--mac-address", asked.mac)):
        if said and first[option]:
            raise UsageError(f"{option} '{first[option]}' and --network's '{said}' contradict each other")
    requests[0] = check_request(
        EndpointRequest(
            network=asked.network,
            aliases=(*asked.aliases, *first["--network-alias"]),
            ipv4=asked.ipv4 or first["--ip"],
            ipv6=asked.ipv6 or first["--ip6"],
            mac=asked.mac or first["--mac-address"],
            options=asked.options,
        )
    )
    return requests[0].network, tuple(requests)


def _check_joined(network: str, options: Mapping[str, Any]) -> None:
    """Refuse what a container that has another's network can't have of its own (Docker's rule)."""
    for option, value in options.items():
        if value:
            raise UsageError(f"{option} can't be given with --network {network}", hint="give it to that container")
    if network == JOIN_PREFIX:
        raise UsageError(f"invalid network '{network}'", hint="write container:NAME")


def _read_ports(texts: Sequence[str]) -> "tuple[PortMapping, ...]":
    if not texts:
        return ()
    from lamina.model.network import parse_port

    ports = tuple(dict.fromkeys(port for text in texts for port in parse_port(text)))
    taken: dict[tuple[str, int, str], PortMapping] = {}
    for port in ports:
        if port.host_port and not port.host_port_end:
            other = taken.setdefault((port.host_ip, port.host_port, port.protocol), port)
            if other is not port:
                raise UsageError(f"'{other}' and '{port}' are to be published at the same port")
    return ports


def _read_exposed(texts: Sequence[str]) -> list[str]:
    if not texts:
        return []
    from lamina.model.network import parse_port

    for text in texts:
        if ":" in text:
            raise UsageError(f"invalid port '{text}'", hint="--expose takes PORT[/tcp|udp]; --publish takes [IP:]HOST:CONTAINER")
    return [port.key for text in texts for port in parse_port(text)]


def _read_hosts(texts: Sequence[str]) -> tuple[str, ...]:
    if not texts:
        return ()
    from lamina.model.network import parse_extra_host

    return tuple(parse_extra_host(text) for text in texts)


def _read_servers(texts: Sequence[str]) -> tuple[str, ...]:
    if not texts:
        return ()
    from lamina.model.network import check_address

    return tuple(check_address(text, "name server") for text in texts)


def _word(text: str, option: str) -> str:
    """A word of resolv.conf: a blank or a line break in it would be another word, or another line."""
    if not text or not text.isascii() or not all(char.isprintable() and not char.isspace() for char in text):
        raise UsageError(f"invalid {option} '{text}'", hint="give one word")
    return text
