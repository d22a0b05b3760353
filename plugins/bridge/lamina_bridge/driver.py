"""The network driver `bridge`: a bridge on the host, a veth pair for each container, the host as the way out and in.

Everything is data; the engine makes it. The host's part is there while a container is in the network: the bridge with the gateways'
addresses, the rules (`rules.py`), and that the host forwards packets at all.
"""

from collections.abc import Mapping, Sequence

from lamina.api.hookspecs import hookimpl
from lamina.api.networks import ContainerLink, EndpointSpec, HostLink, NetworkSetup, NetworkSpec
from lamina.api.types import API_VERSION, Attachment, NetworkNamespace
from lamina.errors import ConflictError, NotUsableError, UsageError
from lamina.linux.route import Route
from lamina.model.network import overlap
from lamina_bridge import rules
from lamina_bridge.options import Options, read_options

MAIN_BRIDGE = "lamina0"
"""The bridge of the network `bridge` in the usual root directory, as `docker0` is Docker's."""


class BridgeNetwork:
    """Makes any number of networks, each with a bridge and a subnet of its own."""

    name = "bridge"
    api_version = API_VERSION

    @hookimpl
    def network_check(self, network: NetworkSpec, host_networks: Sequence[str]) -> NetworkSpec:
        """Take one subnet of each IP version, clear of what the host reaches otherwise."""
        read_options(network.options, ipv6=network.ipv6)
        for ipv6 in (False, True):
            found = [each for each in network.subnets if each.is_ipv6 is ipv6]
            if len(found) > 1:
                raise UsageError(f"network '{network.name}' has two subnets of IPv{6 if ipv6 else 4}, which a bridge can't have")
            for subnet in found:
                other = next((each for each in host_networks if overlap(each, subnet.subnet)), None)
                if other is not None:
                    raise ConflictError(
                        f"subnet '{subnet.subnet}' overlaps with '{other}', which this host reaches otherwise",
                        hint="choose another one; `ip route` shows what is taken",
                    )
        return network

    @hookimpl
    def network_setup(self, network: NetworkSpec) -> NetworkSetup:
        """The bridge, its rules, and forwarding unless the network is internal."""
        options, bridge = _read(network)
        has_ipv6 = any(each.is_ipv6 for each in network.subnets)
        folder = f"net/ipv6/conf/{bridge}"
        # Its addresses are used at once, for they are nobody else's; and no container is a router of the host's (CVE-2020-13401).
        settings = [(f"{folder}/accept_ra", "0"), (f"{folder}/accept_dad", "0")] if has_ipv6 else [(f"{folder}/disable_ipv6", "1")]
        if not network.internal:
            settings += [(f"net/ipv4/conf/{bridge}/route_localnet", "1"), ("net/ipv4/ip_forward", "1")]
            if has_ipv6:
                settings.append(("net/ipv6/conf/all/forwarding", "1"))
        return NetworkSetup(
            links=(
                HostLink(
                    name=bridge,
                    mtu=options.mtu,
                    addresses=tuple(f"{each.gateway}/{each.prefix_length}" for each in network.subnets),
                ),
            ),
            settings=tuple(settings),
            sets=() if network.internal else rules.port_sets(bridge),
            chains=rules.chains(bridge, internal=network.internal),
            rules=rules.rules(bridge, network.subnets, internal=network.internal, masquerade=options.masquerade, icc=options.icc),
        )

    @hookimpl
    def network_attach(self, options: Mapping[str, str], network: NetworkSpec | None, endpoint: EndpointSpec | None) -> Attachment:
        """A veth pair, one end a port of the bridge, with default routes if this network leads out."""
        if network is None or endpoint is None:
            raise NotUsableError("network 'bridge' is not for the commands of a build", hint="use host or none, or a plugin's")
        if options:
            raise UsageError(f"network driver 'bridge' has no option '{next(iter(options))}' for a container")
        own, bridge = _read(network)
        routes = [
            Route("::/0" if each.is_ipv6 else "0.0.0.0/0", gateway=each.gateway)
            for each in network.subnets
            if endpoint.is_gateway and not network.internal
        ]
        return Attachment(
            namespace=NetworkNamespace.NEW,
            links=(
                ContainerLink(
                    name=endpoint.interface,
                    kind="veth",
                    parent=bridge,
                    host_name=endpoint.host_name,
                    has_hairpin=bool(endpoint.ports),
                    mac=endpoint.mac,
                    mtu=own.mtu,
                    addresses=endpoint.addresses,
                    routes=tuple(routes),
                ),
            ),
            elements=rules.elements(bridge, endpoint),
            forwardings=rules.forwardings(endpoint),
        )


def _read(network: NetworkSpec) -> tuple[Options, str]:
    """The network's options, and the name of its bridge."""
    options = read_options(network.options, ipv6=network.ipv6)
    return options, options.name or (MAIN_BRIDGE if network.is_main else f"lb{network.id[:12]}")


plugin = BridgeNetwork()
