"""The host's ports: whether one is free, which one is taken for any, and holding it while a container has it published.

The kernel's rules take packets before any socket sees them, so a program that listened on a published port would hear nothing and
not know why. A socket bound to the port keeps it from being taken, here before anything of the container is started, and as long
as it runs by the process in `proxy.py`, which listens on some of them. Not here: what rules there are.
"""

import errno
import socket
import sqlite3
from collections.abc import Callable, Iterable, Sequence

from lamina.errors import ConflictError, UsageError
from lamina.model.network import PortMapping
from lamina.store.networks import NetworkRecords

_ANY_TRIES = 50


class Held:
    """Ports of the host and the sockets that are bound to them, each with its mapping."""

    def __init__(self, ports: Iterable[PortMapping] = ()) -> None:
        self.ports = list(ports)
        self.sockets: list[tuple[PortMapping, socket.socket]] = []

    def close(self) -> None:
        """Let go of them."""
        for _, each in self.sockets:
            each.close()
        self.sockets.clear()


def hold(
    tx: sqlite3.Connection, records: NetworkRecords, endpoint_id: str, wanted: Sequence[PortMapping], name_of: Callable[[str], str]
) -> Held:
    """Find a port of the host for each mapping, bind it and record it, in a transaction that keeps others waiting.

    `name_of` gives a container's name. Raises `ConflictError` that names who has a port, `UsageError` for an address that isn't the
    host's; then nothing is held.
    """
    held = Held()
    try:
        for mapping in _definite_first(wanted):
            chosen, sockets = _chosen(records, mapping, name_of)
            held.ports.append(chosen)
            held.sockets += [(chosen, each) for each in sockets]
            records.insert_port(tx, endpoint_id, chosen)
    except BaseException:
        held.close()
        raise
    return held


def hold_again(published: Sequence[PortMapping], warn: Callable[[str], None]) -> Held:
    """Bind ports that are published already, for a process that holds them in the place of one that has gone."""
    held = Held(published)
    for mapping in published:
        for place in _places(mapping):
            try:
                bound = _socket(mapping, place, mapping.host_port, is_optional=True)
            except ConflictError as error:
                warn(error.message)
                continue
            if bound is not None:
                held.sockets.append((mapping, bound))
    return held


def _places(mapping: PortMapping) -> Sequence[str]:
    return (mapping.host_ip,) if mapping.host_ip else ("0.0.0.0", "::")


def _definite_first(wanted: Sequence[PortMapping]) -> list[PortMapping]:
    """Those that leave no choice first, so that no other one takes theirs."""
    return sorted(dict.fromkeys(wanted), key=lambda each: (each.host_port == 0, each.host_port_end != 0))


def _chosen(
    records: NetworkRecords, mapping: PortMapping, name_of: Callable[[str], str]
) -> tuple[PortMapping, list[socket.socket]]:
    problem: ConflictError | None = None
    if mapping.host_port:
        for port in range(mapping.host_port, (mapping.host_port_end or mapping.host_port) + 1):
            found = mapping._replace(host_port=port, host_port_end=0)
            try:
                return found, _bound(records, found, name_of)
            except ConflictError as error:
                problem = error
    else:
        for _ in range(_ANY_TRIES):
            try:
                sockets = _bound(records, mapping, name_of)
            except ConflictError as error:  # the kernel's choice for one family may be taken in the other
                problem = error
                continue
            return mapping._replace(host_port=sockets[0].getsockname()[1]), sockets
    if mapping.host_port_end:
        raise ConflictError(f"every {mapping.protocol} port from {mapping.host_port} to {mapping.host_port_end} is in use")
    raise problem or ConflictError(f"no {mapping.protocol} port is free")


def _bound(records: NetworkRecords, mapping: PortMapping, name_of: Callable[[str], str]) -> list[socket.socket]:
    """Bind the port at each address that the mapping means; the first decides which one it is, if any will do."""
    sockets: list[socket.socket] = []
    port = mapping.host_port
    try:
        if port:
            _check_records(records, mapping, port, name_of)
        for place in _places(mapping):
            bound = _socket(mapping, place, port, is_optional=bool(sockets))
            if bound is None:
                continue
            sockets.append(bound)
            if not port:
                port = int(bound.getsockname()[1])
                _check_records(records, mapping, port, name_of)
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def _check_records(records: NetworkRecords, mapping: PortMapping, port: int, name_of: Callable[[str], str]) -> None:
    owner = records.port_owner(mapping.protocol, port, mapping.host_ip)
    if owner:
        raise ConflictError(
            f"{mapping.protocol} port {port} is in use by container '{name_of(owner)}'",
            hint="stop that container, or publish another port",
        )


def _socket(mapping: PortMapping, place: str, port: int, *, is_optional: bool) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in place else socket.AF_INET
    kind = socket.SOCK_DGRAM if mapping.protocol == "udp" else socket.SOCK_STREAM
    try:
        made = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    except OSError:
        if is_optional:
            return None  # a kernel without IPv6
        raise
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((place, port))
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"{mapping.protocol} port {port} is in use by another program at '{place}'",
                hint=f"`ss -ln{mapping.protocol[0]}p` shows by which; or publish another port",
            ) from error
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            if is_optional:
                return None  # IPv6 is switched off
            raise UsageError(f"'{place}' is no address of this host", hint="publish at one that `ip address` shows") from error
        if error.errno == errno.EACCES:
            raise UsageError(f"{mapping.protocol} port {port} at '{place}' can't be bound: {error.strerror}") from error
        raise
    return made
