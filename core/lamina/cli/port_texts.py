"""Published and exposed ports in Docker's words: as `ps` and `port` print them. Text alone; imported where there are some."""

from collections.abc import Iterable

from lamina.model.network import PortMapping
from lamina.usecases.network_documents import host_addresses


def ports_text(exposed: Iterable[str], published: Iterable[PortMapping]) -> str:
    """Write the ports of a running container as `ps` does: `0.0.0.0:4000->80/tcp, [::]:4000->80/tcp, 443/tcp`.

    Neighbouring ones are drawn together, `8000-8002->8000-8002/tcp`, if each has its own number on the host: the rule of
    Docker's client (formatter/container.go: DisplayablePorts).
    """
    known = list(published)
    taken = {port.key for port in known}
    rows = [(port.container_port, address, port.host_port, port.protocol) for port in known for address in host_addresses(port)]
    rows += [(number, "", 0, protocol) for number, protocol in (_split(key) for key in exposed if key not in taken)]
    groups: dict[tuple[str, str], list[int]] = {}
    done: list[str] = []
    others: list[str] = []
    for number, address, host_port, protocol in sorted(rows):
        if address and host_port != number:
            others.append(f"{host_text(address, host_port)}->{number}/{protocol}")
            continue
        group = groups.get((address, protocol))
        if group is not None and number <= group[1] + 1:
            group[1] = number
            continue
        if group is not None:
            done.append(_group_text(address, protocol, *group))
        groups[address, protocol] = [number, number]
    done += [_group_text(address, protocol, *group) for (address, protocol), group in sorted(groups.items())]
    return ", ".join([*done, *others])


def _group_text(address: str, protocol: str, first: int, last: int) -> str:
    numbers = f"{first}" if first == last else f"{first}-{last}"
    if not address:
        return f"{numbers}/{protocol}"
    return f"{f'[{address}]' if ':' in address else address}:{numbers}->{numbers}/{protocol}"


def _split(key: str) -> tuple[int, str]:
    number, _, protocol = key.partition("/")
    return int(number.partition("-")[0]), protocol or "tcp"


def host_text(address: str, port: int) -> str:
    """An address and a port, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def port_lines(published: Iterable[PortMapping], wanted: str = "") -> list[str]:
    """Write the published ports as `port` does, a line each; of one port of the container, `80/tcp`, the host's side alone."""
    lines = []
    for port in sorted(published, key=lambda port: (port.container_port, port.protocol, port.host_port)):
        for address in host_addresses(port):
            host = host_text(address, port.host_port)
            if not wanted:
                lines.append(f"{port.key} -> {host}")
            elif port.key == wanted:
                lines.append(host)
    return lines
