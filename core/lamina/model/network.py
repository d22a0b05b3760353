"""Networks as values: what a user asks for with `-p` and `--network`, a network, and a container's place in one. No I/O.

`to_json` and `from_json` are the forms in which the database keeps them. Nothing here is imported by a container that has no
network but `none` or `host`. They are named tuples, which cost a start a third of what dataclasses do; write their fields by
keyword. Not here: which address is free, and what the kernel is told.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lamina.errors import UsageError

PROTOCOLS = ("tcp", "udp")
JOIN_PREFIX = "container:"
"""Before a container's name or id: its network namespace is shared."""


class PortMapping(NamedTuple):
    """One published port: a port of the host that leads to a port of the container.

    As a request `host_port` 0 is any free one, and with `host_port_end` the first free one of a range. Once the container runs,
    `host_port` is the one that it got and `host_port_end` is 0.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    """The address of the host that is listened on; "" is every one, of IPv4 and IPv6."""
    host_port: int = 0
    host_port_end: int = 0

    def __str__(self) -> str:
        """Say it as `-p` takes it."""
        host = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip
        ports = f"{self.host_port or ''}" + (f"-{self.host_port_end}" if self.host_port_end else "")
        return ":".join(([host] if host else []) + [ports, f"{self.container_port}/{self.protocol}"])

    @property
    def key(self) -> str:
        """The container's side, Docker's key in documents: `80/tcp`."""
        return f"{self.container_port}/{self.protocol}"

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return self._asdict()


class EndpointRequest(NamedTuple):
    """What was asked of a container's place in one network: one `--network`, or one `network connect`."""

    network: str
    """A network's name, or an id or its beginning; `host`, `none`, `container:NAME`."""
    aliases: tuple[str, ...] = ()
    ipv4: str = ""
    """The address asked for, without prefix; "" takes the next free one."""
    ipv6: str = ""
    mac: str = ""
    options: Mapping[str, str] = MappingProxyType({})
    """The driver's own, `driver-opt=KEY=VALUE`."""

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {
            "network": self.network, "aliases": list(self.aliases), "ipv4": self.ipv4, "ipv6": self.ipv6, "mac": self.mac,
            "options": dict(self.options),
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "EndpointRequest":
        """Read the stored form."""
        return cls(**{**document, "aliases": tuple(document.get("aliases", ()))})


class Subnet(NamedTuple):
    """One subnet of a network, `172.18.0.0/16`, its gateway's address, and the part of it that containers get addresses from."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    """"" for the whole subnet."""

    @property
    def is_ipv6(self) -> bool:
        """Whether it is a subnet of IPv6."""
        return ":" in self.subnet

    @property
    def prefix_length(self) -> int:
        """The number behind the slash."""
        return int(self.subnet.rpartition("/")[2])


class Network(NamedTuple):
    """A network as the database knows it."""

    id: str
    name: str
    driver: str
    subnets: tuple[Subnet, ...] = ()
    options: Mapping[str, str] = MappingProxyType({})
    labels: Mapping[str, str] = MappingProxyType({})
    internal: bool = False
    ipv6: bool = False
    created_ns: int = 0

    @property
    def is_predefined(self) -> bool:
        """Whether nobody made it: a driver's own network, such as `bridge`, which has the driver's name. It knows no names."""
        return self.name == self.driver


class Endpoint(NamedTuple):
    """A running container's place in a network, from its start, or the moment it is connected, to its end."""

    id: str
    network_id: str
    container_id: str
    interface: str
    """Its link's name in the container: `eth0`, `eth1` …"""
    mac: str
    addresses: tuple[str, ...]
    """With their prefixes: `172.18.0.2/16`, `fd00::2/64`."""
    aliases: tuple[str, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    """The published ports that lead to it, with the host's ports that they got."""

    @property
    def host_name(self) -> str:
        """The host's link of it, if its driver makes one: the name is the id's, so that what a killed start left is found."""
        return f"lv{self.id[:12]}"

    def address(self, *, ipv6: bool = False) -> str:
        """The IPv4 or the IPv6 address, without its prefix; "" if there is none."""
        return next((each.partition("/")[0] for each in self.addresses if (":" in each) is ipv6), "")


# What users write


def parse_port(text: str) -> tuple[PortMapping, ...]:
    """Parse one `-p [[IP:][HOST]:]CONTAINER[/PROTOCOL]`; HOST and CONTAINER may be ranges, `8000-8010`. Raises `UsageError`.

    Ranges of the same length are as many mappings; a range of HOST for one port of CONTAINER is the first of it that is free.
    """
    rest, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise UsageError(f"invalid port '{text}': protocol '{protocol}' is not tcp or udp")
    front, _, container = rest.rpartition(":")
    host_ip, host = "", front
    if ":" in front or front.startswith("["):
        host_ip, _, host = front.rpartition(":")
        if host_ip.startswith("[") and host_ip.endswith("]"):
            host_ip = host_ip[1:-1]
            if ":" not in host_ip:
                raise UsageError(f"invalid port '{text}': '{host_ip}' is no IPv6 address")
        elif ":" in host_ip or not host_ip:
            raise UsageError(f"invalid port '{text}'", hint="write [IP:]HOST:CONTAINER[/tcp|udp], an IPv6 address in [brackets]")
        host_ip = check_address(host_ip, f"port '{text}'")
    first, last = _port_range(container, text)
    if not host:
        return tuple(PortMapping(container_port=port, protocol=protocol, host_ip=host_ip) for port in range(first, last + 1))
    host_first, host_last = _port_range(host, text, allows_zero=True)
    if first == last and host_first != host_last:
        return (
            PortMapping(container_port=first, protocol=protocol, host_ip=host_ip, host_port=host_first, host_port_end=host_last),
        )
    if last - first != host_last - host_first:
        raise UsageError(f"invalid port '{text}': the ranges '{host}' and '{container}' aren't of the same length")
    return tuple(
        PortMapping(container_port=port, protocol=protocol, host_ip=host_ip, host_port=host_first + port - first)
        for port in range(first, last + 1)
    )


def _port_range(digits: str, text: str, *, allows_zero: bool = False) -> tuple[int, int]:
    first, dash, last = digits.partition("-")
    numbers = [each for each in (first, last if dash else first) if each.isascii() and each.isdigit() and len(each) <= 5]
    if len(numbers) != 2 or not (0 if allows_zero else 1) <= int(numbers[0]) <= int(numbers[1]) <= 65535:
        raise UsageError(f"invalid port '{text}': '{digits}' is not a port from 1 to 65535, or a range of them")
    if int(numbers[0]) == 0 and int(numbers[1]) != 0:
        raise UsageError(f"invalid port '{text}': '{digits}' is not a port from 1 to 65535, or a range of them")
    return int(numbers[0]), int(numbers[1])


_OPTION_KEYS = {
    "name": "network", "network": "network", "alias": "alias", "ip": "ipv4", "ip4": "ipv4", "ip6": "ipv6", "mac-address": "mac",
    "driver-opt": "driver-opt",
}  # fmt: skip


def parse_network_option(text: str) -> EndpointRequest:
    """Parse one `--network`: `NAME`, or `name=NAME,alias=…,ip=…,ip6=…,mac-address=…,driver-opt=KEY=VALUE`. Raises `UsageError`."""
    if "=" not in text:
        if not text:
            raise UsageError("'' is no network's name")
        return EndpointRequest(network=text)
    values: dict[str, str] = {}
    aliases: list[str] = []
    options: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        word = _OPTION_KEYS.get(key.strip().lower(), "")
        if not equals or not word or not value:
            raise UsageError(
                f"invalid network '{text}': '{part}' is not OPTION=VALUE", hint=f"options are {', '.join(_OPTION_KEYS)}"
            )
        if word == "alias":
            aliases.append(value)
        elif word == "driver-opt":
            name, _, content = value.partition("=")
            options[name] = content
        else:
            values[word] = value
    if "network" not in values:
        raise UsageError(f"invalid network '{text}': it has no name=")
    return check_request(EndpointRequest(aliases=tuple(aliases), options=options, **values))


def check_request(request: EndpointRequest) -> EndpointRequest:
    """Return a request whose addresses, MAC and aliases are well-formed, in their usual spelling; raises `UsageError`."""
    about = f"network '{request.network}'"
    ipv4 = check_address(request.ipv4, about) if request.ipv4 else ""
    ipv6 = check_address(request.ipv6, about) if request.ipv6 else ""
    if ":" in ipv4:
        raise UsageError(f"invalid {about}: '{request.ipv4}' is no IPv4 address", hint="an IPv6 address is --ip6")
    if ipv6 and ":" not in ipv6:
        raise UsageError(f"invalid {about}: '{request.ipv6}' is no IPv6 address")
    return EndpointRequest(
        network=request.network,
        aliases=tuple(dict.fromkeys(check_host_name(alias) for alias in request.aliases)),
        ipv4=ipv4,
        ipv6=ipv6,
        mac=check_mac(request.mac) if request.mac else "",
        options=request.options,
    )


def check_host_name(name: str) -> str:
    """Return a name that may stand in a hosts file (RFC 1123, and the underscore that Docker's names have); raises `UsageError`."""
    labels = name.split(".")
    if len(name) > 253 or not all(_is_label(label) for label in labels):
        raise UsageError(f"'{name}' is no host name", hint="use letters, digits, '-' and '_', with dots between")
    return name


def _is_label(label: str) -> bool:
    return (
        0 < len(label) < 64
        and label.isascii()
        and all(char.isalnum() or char in "-_" for char in label)
        and not label.startswith("-")
        and not label.endswith("-")
    )


def parse_extra_host(text: str) -> str:
    """Parse one `--add-host NAME:IP` or `NAME=IP` and give it as `NAME:IP`; the IP may be `host-gateway`. Raises `UsageError`."""
    cut = min((text.find(char) for char in ":=" if char in text), default=-1)
    if cut < 1:
        raise UsageError(f"invalid host '{text}'", hint="write NAME:IP")
    name, address = check_host_name(text[:cut]), text[cut + 1 :]
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != HOST_GATEWAY:
        address = check_address(address, f"host '{text}'")
    return f"{name}:{address}"


HOST_GATEWAY = "host-gateway"
"""In `--add-host`, the host's address as the container's network has it."""


def check_mac(mac: str) -> str:
    """Return a MAC address in its usual spelling; raises `UsageError` for a malformed or a multicast one."""
    parts = mac.lower().replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) == 2 and all(char in "0123456789abcdef" for char in part) for part in parts):
        raise UsageError(f"'{mac}' is no MAC address", hint="write it as 02:42:ac:11:00:02")
    if int(parts[0], 16) & 1:
        raise UsageError(f"MAC address '{mac}' is a multicast one, which no link can have")
    return ":".join(parts)


def check_address(address: str, about: str) -> str:
    """Return an IP address in its usual spelling; raises `UsageError` that begins with "invalid ABOUT"."""
    import socket  # 3 ms, here and below: a listing checks no address

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, address))
    except (OSError, ValueError):
        raise UsageError(f"invalid {about}: '{address}' is no IP address") from None


def subnet_bounds(subnet: str) -> tuple[int, int, int]:
    """Give a subnet's first address as a number, its prefix length, and how many bits an address has; raises `UsageError`.

    The address must be the subnet's own, with no bit set behind the prefix.
    """
    import socket

    address, slash, digits = subnet.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bits = 128 if family == socket.AF_INET6 else 32
    try:
        first = int.from_bytes(socket.inet_pton(family, address), "big")
    except (OSError, ValueError):
        first = -1
    if first < 0 or not slash or not (digits.isascii() and digits.isdigit() and len(digits) < 4 and int(digits) <= bits):
        raise UsageError(f"'{subnet}' is no subnet", hint="write it as 172.28.0.0/16 or fd00:1::/64")
    length = int(digits)
    if first & ((1 << bits - length) - 1):
        proper = address_text(first >> bits - length << bits - length, bits)
        raise UsageError(f"'{subnet}' has bits set behind its prefix", hint=f"its subnet is {proper}/{length}")
    return first, length, bits


def address_number(address: str) -> int:
    """An address, without prefix, as a number; it must be well-formed."""
    import socket

    return int.from_bytes(socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address), "big")


def address_text(number: int, bits: int) -> str:
    """A number as an address of so many bits."""
    import socket

    return socket.inet_ntop(socket.AF_INET6 if bits == 128 else socket.AF_INET, number.to_bytes(bits // 8, "big"))


def overlap(one: str, other: str) -> bool:
    """Whether two well-formed subnets have an address in common."""
    first, length, bits = subnet_bounds(one)
    second, other_length, other_bits = subnet_bounds(other)
    shift = bits - min(length, other_length)
    return bits == other_bits and first >> shift == second >> shift


def contains(subnet: str, address: str) -> bool:
    """Whether an address, without prefix, is in a subnet; both well-formed."""
    return overlap(subnet, f"{address}/{128 if ':' in address else 32}")


def exposed_mappings(exposed: Iterable[str]) -> tuple[PortMapping, ...]:
    """What `-P` publishes: each exposed port, `80/tcp` or `8000-8010`, on any free port of the host. Raises `UsageError`."""
    found: dict[str, PortMapping] = {}
    for text in exposed:
        ports, _, protocol = text.partition("/")
        if (protocol or "tcp").lower() not in PROTOCOLS:
            continue  # sctp, which an image may expose
        for mapping in parse_port(f"{ports}/{protocol or 'tcp'}"):
            found.setdefault(mapping.key, mapping)
    return tuple(found.values())
