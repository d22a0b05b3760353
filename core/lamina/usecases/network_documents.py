"""The network parts of the documents that inspect commands show, in Docker's shapes: a network's, and a container's settings.

Imported by those commands alone. Not here: the rest of a container's document (`inspect.py`).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lamina.model.container import Container, ContainerConfig
from lamina.model.image_config import format_time
from lamina.model.network import JOIN_PREFIX, Endpoint, EndpointRequest, Network, PortMapping
from lamina.store.networks import NetworkRecords
from lamina.usecases.context import Context
from lamina.usecases.inspect import NEVER

if TYPE_CHECKING:
    from lamina.usecases.networks import Networks

EVERYWHERE = ("0.0.0.0", "::")
"""What Docker shows for a port that is published on every address."""


def network_document(networks: "Networks", network: Network) -> dict[str, Any]:
    """A network's document."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": format_time(network.created_ns) if network.created_ns else NEVER,
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [
                {
                    "Subnet": subnet.subnet,
                    **({"IPRange": subnet.ip_range} if subnet.ip_range else {}),
                    **({"Gateway": subnet.gateway} if subnet.gateway else {}),
                }
                for subnet in network.subnets
            ],
        },
        "Internal": network.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {member.container.id: _member(member.container, member.endpoint) for member in networks.members(network)},
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }


def _member(container: Container, endpoint: Endpoint) -> dict[str, str]:
    return {
        "Name": container.name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": next((each for each in endpoint.addresses if ":" not in each), ""),
        "IPv6Address": next((each for each in endpoint.addresses if ":" in each), ""),
    }


def network_settings(context: Context, container: Container) -> dict[str, Any]:
    """A container's `NetworkSettings`; addresses and ports are there while it runs.

    The addresses above `Networks` are those in a driver's own network, such as `bridge`: older than the rest.
    """
    records = NetworkRecords(database=context.database)
    endpoints = {each.network_id: each for each in records.endpoints_of(container.id)}
    listed: dict[str, Any] = {}
    own = _endpoint(None, None, None)
    for request in _requests(container.config):
        network = records.find(request.network)
        place = _endpoint(request, network, endpoints.get(network.id) if network is not None else None)
        listed[network.name if network is not None else request.network] = place
        if network is not None and network.is_predefined:
            own = place
    return {
        "Bridge": "",
        "SandboxID": "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": _ports(container.config, endpoints.values()) if endpoints else {},
        "SandboxKey": f"/proc/{container.pid}/ns/net" if container.is_active else "",
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{
            key: own[key]
            for key in (
                "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway",
                "MacAddress",
            )
        },
        "Networks": listed,
    }  # fmt: skip


def _requests(config: ContainerConfig) -> tuple[EndpointRequest, ...]:
    """The networks to list; a container in another's network has none of its own."""
    return () if config.network.startswith(JOIN_PREFIX) else config.requests


def _endpoint(request: EndpointRequest | None, network: Network | None, endpoint: Endpoint | None) -> dict[str, Any]:
    addresses = endpoint.addresses if endpoint is not None else ()
    ipv4 = next((each for each in addresses if ":" not in each), "")
    ipv6 = next((each for each in addresses if ":" in each), "")
    gateways = [each.gateway for each in network.subnets] if network is not None and endpoint is not None else []
    asked = {
        key: value for key, value in (("IPv4Address", request.ipv4), ("IPv6Address", request.ipv6)) if value
    } if request is not None else {}  # fmt: skip
    return {
        "IPAMConfig": asked or None,
        "Links": None,
        "Aliases": list(request.aliases) or None if request is not None else None,
        "NetworkID": network.id if network is not None else "",
        "EndpointID": endpoint.id if endpoint is not None else "",
        "Gateway": next((each for each in gateways if ":" not in each), ""),
        "IPAddress": ipv4.partition("/")[0],
        "IPPrefixLen": int(ipv4.partition("/")[2] or 0),
        "IPv6Gateway": next((each for each in gateways if ":" in each), ""),
        "GlobalIPv6Address": ipv6.partition("/")[0],
        "GlobalIPv6PrefixLen": int(ipv6.partition("/")[2] or 0),
        "MacAddress": endpoint.mac if endpoint is not None else "",
        "DriverOpts": dict(request.options) or None if request is not None else None,
    }


def _ports(config: ContainerConfig, endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Exposed ports, each with where the host publishes it, or null."""
    found: dict[str, Any] = dict.fromkeys(config.exposed_ports)
    for port in (port for endpoint in endpoints for port in endpoint.ports):
        found[port.key] = [*(found.get(port.key) or []), *_bindings(port)]
    return dict(sorted(found.items()))


def _bindings(port: PortMapping) -> list[dict[str, str]]:
    return [{"HostIp": ip, "HostPort": str(port.host_port)} for ip in host_addresses(port)]


def host_addresses(port: PortMapping) -> tuple[str, ...]:
    """The addresses of the host that a published port is said to be at."""
    return (port.host_ip,) if port.host_ip else EVERYWHERE


def port_bindings(config: ContainerConfig) -> dict[str, Any]:
    """`HostConfig.PortBindings`: the published ports as they were asked for."""
    found: dict[str, list[dict[str, str]]] = {}
    for port in config.ports:
        end = f"-{port.host_port_end}" if port.host_port_end else ""
        found.setdefault(port.key, []).append({"HostIp": port.host_ip, "HostPort": f"{port.host_port or ''}{end}"})
    return found
