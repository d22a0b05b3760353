"""The address pool: which subnet a new network gets, and which address of it a container gets.

An address is the next one behind the last that was given out, not the lowest that is free: one that was just given back rests, so
that what others remember of it (neighbours' caches, connections) is about nobody else. What is taken is the database's to know.
Not here: setting addresses (`apply.py`).
"""

import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from lamina.errors import ConflictError, LaminaError, UsageError
from lamina.model.network import (
    EndpointRequest,
    Network,
    Subnet,
    address_number,
    address_text,
    check_address,
    contains,
    overlap,
    subnet_bounds,
)
from lamina.store.networks import NetworkRecords

POOLS = (*(f"172.{number}.0.0/16" for number in range(17, 32)), *(f"192.168.{number}.0/20" for number in range(0, 256, 16)))
"""What a network is given that names no subnet: Docker's choice (moby: libnetwork/ipamutils), private by RFC 1918."""
_ULA_TRIES = 100


def host_networks() -> list[str]:
    """The subnets of this host's addresses and routes, but for the default ones: what a new network must keep clear of."""
    from lamina.linux import netlink, route

    with netlink.Socket() as kernel:
        found = {each.address for each in route.addresses(kernel)}
        for family in (socket.AF_INET, socket.AF_INET6):
            found |= {each.destination for each in route.routes(kernel, family=family)}
    subnets = {_network_of(each) for each in found if not each.endswith("/0")}
    return sorted(
        each for each in subnets if not overlap(each, "fe80::/10") and not overlap(each, "127.0.0.0/8") and each != "::1/128"
    )


def _network_of(address: str) -> str:
    host, _, digits = address.partition("/")
    bits = 128 if ":" in host else 32
    shift = bits - int(digits)
    return f"{address_text(address_number(host) >> shift << shift, bits)}/{digits}"


def free_subnet(used: Sequence[str], *, ipv6: bool = False) -> str:
    """Choose a subnet that has nothing in common with those used; raises `LaminaError` if there is none."""
    if ipv6:
        candidates: Iterable[str] = (f"{_unique_local()}/64" for _ in range(_ULA_TRIES))
    else:
        candidates = POOLS
    for candidate in candidates:
        if not any(overlap(candidate, each) for each in used):
            return candidate
    raise LaminaError(
        "no subnet is free for a new network", hint="remove networks (`lamina network prune`), or name one with --subnet"
    )


def _unique_local() -> str:
    """A /64 of one's own by RFC 4193: fd, 40 random bits, and 16 for the subnet."""
    return socket.inet_ntop(socket.AF_INET6, b"\xfd" + os.urandom(7) + bytes(8))


def checked_subnet(subnet: Subnet) -> Subnet:
    """Return a subnet that makes sense, with a gateway; raises `UsageError`."""
    _, length, bits = subnet_bounds(subnet.subnet)
    if bits - length < 2:
        raise UsageError(f"subnet '{subnet.subnet}' has no room for a gateway and a container")
    gateway = check_address(subnet.gateway, "gateway") if subnet.gateway else next(_hosts(subnet.subnet))
    if not contains(subnet.subnet, gateway):
        raise UsageError(f"the gateway '{gateway}' is not in the subnet '{subnet.subnet}'")
    if subnet.ip_range:
        first, range_length, range_bits = subnet_bounds(subnet.ip_range)
        if range_bits != bits or range_length < length or not contains(subnet.subnet, address_text(first, bits)):
            raise UsageError(f"the range '{subnet.ip_range}' is not in the subnet '{subnet.subnet}'")
    return Subnet(subnet=subnet.subnet, gateway=gateway, ip_range=subnet.ip_range)


def check_clear(subnets: Sequence[Subnet], others: Sequence[tuple[str, str]]) -> None:
    """Raise `ConflictError` for a subnet that has something in common with one of the others, given with their networks' names."""
    for place, each in enumerate(subnets):
        for subnet, name in (*others, *((one.subnet, "") for one in subnets[:place])):
            if overlap(each.subnet, subnet):
                where = f"network '{name}' has" if name else "the same network has, too"
                raise ConflictError(f"subnet '{each.subnet}' overlaps with '{subnet}', which {where}", hint="choose another one")


def allocate(tx: sqlite3.Connection, records: NetworkRecords, network: Network, request: EndpointRequest) -> tuple[str, ...]:
    """Choose an address of each of a network's subnets, with prefixes; the caller records them in the same transaction.

    Raises `ConflictError` for one that is taken, `UsageError` for one that isn't the network's, `LaminaError` if none is left.
    """
    taken = records.taken_addresses(network.id)
    found = []
    for ipv6, wanted in ((False, request.ipv4), (True, request.ipv6)):
        subnets = [each for each in network.subnets if each.is_ipv6 is ipv6]
        if wanted:
            found.append(_wanted(records, network, subnets, wanted, taken))
            continue
        for subnet in subnets[:1]:
            address = next_address(subnet, taken, records.last_address(network.id, subnet.subnet))
            if not address:
                raise LaminaError(
                    f"network '{network.name}' has no free address left in '{subnet.ip_range or subnet.subnet}'",
                    hint="stop containers of it, or make a network with a larger --subnet or --ip-range",
                )
            records.set_last_address(tx, network.id, subnet.subnet, address)
            found.append(f"{address}/{subnet.prefix_length}")
    return tuple(found)


def _wanted(records: NetworkRecords, network: Network, subnets: Sequence[Subnet], wanted: str, taken: set[str]) -> str:
    subnet = next((each for each in subnets if contains(each.subnet, wanted)), None)
    if subnet is None:
        have = ", ".join(each.subnet for each in network.subnets) or "none"
        raise UsageError(f"address '{wanted}' is not in a subnet of network '{network.name}'", hint=f"its subnets: {have}")
    first, length, bits = subnet_bounds(subnet.subnet)
    number = address_number(wanted)
    if wanted == subnet.gateway or number == first or (bits == 32 and number == first + (1 << bits - length) - 1):
        raise UsageError(f"address '{wanted}' is the gateway's, the subnet's own or its broadcast address")
    if wanted in taken:
        owner = records.owner_of(network.id, wanted)
        raise ConflictError(f"address '{wanted}' of network '{network.name}' is in use by container '{owner[:12]}'")
    return f"{wanted}/{subnet.prefix_length}"


def next_address(subnet: Subnet, taken: set[str], last: str) -> str:
    """Give the first free address behind `last`, beginning anew at the end; "" if all are taken."""
    first, length, bits = subnet_bounds(subnet.ip_range or subnet.subnet)
    size = 1 << bits - length
    whole_first, whole_length, _ = subnet_bounds(subnet.subnet)
    never = {whole_first, address_number(subnet.gateway)}
    if bits == 32:
        never.add(whole_first + (1 << bits - whole_length) - 1)
    start = address_number(last) - first + 1 if last and contains(subnet.ip_range or subnet.subnet, last) else 0
    for step in range(min(size, len(taken) + len(never) + 1)):
        number = first + (start + step) % size
        if number not in never and (address := address_text(number, bits)) not in taken:
            return address
    return ""


def _hosts(subnet: str) -> Iterator[str]:
    first, length, bits = subnet_bounds(subnet)
    for number in range(first + 1, first + (1 << bits - length)):
        yield address_text(number, bits)


def new_mac(addresses: Sequence[str]) -> str:
    """A MAC address, locally administered: 02:42 and the IPv4 address, so that the same address has the same one; or random."""
    ipv4 = next((each.partition("/")[0] for each in addresses if ":" not in each), "")
    raw = socket.inet_aton(ipv4) if ipv4 else os.urandom(4)
    return (b"\x02\x42" + raw).hex(":")
