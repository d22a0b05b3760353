"""The network driver `macvlan`: containers are machines of their own on a link of the host's, with their own MAC addresses.

There is no bridge, no rule and no translation: who is on the wire reaches the containers and they reach it. The host itself doesn't
(the kernel passes nothing between a macvlan and its parent), so nothing is published. Options as in Docker: `parent`, the host's
link, and `macvlan_mode` (or `mode`). An internal network has no default route.
"""

import socket
from collections.abc import Mapping

from lamina.api.hookspecs import hookimpl
from lamina.api.networks import ContainerLink, EndpointSpec, NetworkSetup, NetworkSpec
from lamina.api.types import API_VERSION, Attachment, NetworkNamespace
from lamina.errors import NotUsableError, UsageError
from lamina.linux.link import MACVLAN_MODES
from lamina.linux.route import Route

OPTIONS = {"parent": "parent", "macvlan_mode": "mode", "mode": "mode"}


class MacvlanNetwork:
    """Makes any number of networks, each on a link of the host."""

    name = "macvlan"
    api_version = API_VERSION

    @hookimpl
    def network_check(self, network: NetworkSpec) -> NetworkSpec:
        """Check parent and mode."""
        options = _read(network.options)
        if not options["parent"]:
            raise UsageError("network driver 'macvlan' needs the option 'parent'", hint="-o parent=eth0, a link of the host")
        if options["mode"] not in MACVLAN_MODES:
            raise UsageError(f"'{options['mode']}' is no mode of macvlan", hint=f"its modes are {', '.join(MACVLAN_MODES)}")
        _check_link(options["parent"])
        return network

    @hookimpl
    def network_setup(self, network: NetworkSpec) -> NetworkSetup:
        """Nothing; but the parent must be there."""
        _check_link(_read(network.options)["parent"])
        return NetworkSetup()

    @hookimpl
    def network_attach(self, options: Mapping[str, str], network: NetworkSpec | None, endpoint: EndpointSpec | None) -> Attachment:
        """A macvlan on top of the parent."""
        if network is None or endpoint is None:
            raise NotUsableError("network driver 'macvlan' has no network of its own", hint="make one with `lamina network create`")
        if options:
            raise UsageError(f"network driver 'macvlan' has no option '{next(iter(options))}' for a container")
        if endpoint.ports:
            raise UsageError(
                f"port '{endpoint.ports[0]}' can't be published on network '{network.name}'",
                hint="the host has no part in a macvlan: its containers are reached by their own addresses",
            )
        own = _read(network.options)
        routes = [
            Route("::/0" if each.is_ipv6 else "0.0.0.0/0", gateway=each.gateway)
            for each in network.subnets
            if endpoint.is_gateway and not network.internal
        ]
        link = ContainerLink(
            name=endpoint.interface,
            kind="macvlan",
            parent=own["parent"],
            mode=own["mode"],
            mac=endpoint.mac,
            addresses=endpoint.addresses,
            routes=tuple(routes),
        )
        return Attachment(namespace=NetworkNamespace.NEW, links=(link,))


def _read(options: Mapping[str, str]) -> dict[str, str]:
    found = {"parent": "", "mode": "bridge"}
    for key, value in options.items():
        if key not in OPTIONS:
            raise UsageError(f"network driver 'macvlan' has no option '{key}'", hint="its options are parent and macvlan_mode")
        found[OPTIONS[key]] = value
    return found


def _check_link(name: str) -> None:
    try:
        socket.if_nametoindex(name)
    except (OSError, ValueError):
        raise NotUsableError(f"the host has no link '{name}'", hint="`ip link` lists them") from None


plugin = MacvlanNetwork()
