"""The hosts and resolv.conf files of containers: who is called what, for members of the networks that users made.

There is no name server. Each running container's /etc/hosts is a file of the engine's, which ends with a block of lines about those
that it can reach by name; when one comes, goes or is renamed, the blocks of its networks' members are written anew, in the same
inode, because that is what is mounted. What a person has written into such a file above the block stays until the next start.
Not here: when that is (`usecases/networking.py`), and the files of a container without a network of its own.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from lamina.errors import UsageError
from lamina.model.container import Container, ContainerConfig
from lamina.model.network import HOST_GATEWAY, Endpoint, Network
from lamina.store.containers import ContainerRecords
from lamina.store.networks import NetworkRecords
from lamina.store.operations import locked

LOOPBACK_LINES = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "ff00::0\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)
"""Docker's (moby: libnetwork/etchosts)."""
BEGIN = "# by lamina, written anew when a container in the same network starts or stops:"
END = "# by lamina, end"
HOSTS_MAX_BYTES = 1 << 20
HOST_RESOLVERS = "/etc/resolv.conf"
SYSTEMD_RESOLVERS = "/run/systemd/resolve/resolv.conf"
"""The real ones behind systemd-resolved's 127.0.0.53 (systemd-resolved(8))."""


class Known(NamedTuple):
    """The running members of a network, as lines of a hosts file: of each endpoint those for itself and those for the others."""

    itself: Mapping[str, list[str]]
    others: Mapping[str, list[str]]
    """Ordered by name; empty in a network without names."""


class Names:
    """The files of the containers of one root directory. `folder_of` says where a container's are, by its id."""

    def __init__(
        self,
        *,
        containers: ContainerRecords,
        networks: NetworkRecords,
        folder_of: Callable[[str], str],
        run_dir: str,
        warn: Callable[[str], None],
    ) -> None:
        self.containers = containers
        self.networks = networks
        self.folder_of = folder_of
        self.run_dir = run_dir
        self.warn = warn

    def write(self, container: Container) -> None:
        """Write hostname, hosts and resolv.conf of a container that is about to start; its endpoints are recorded already.

        Raises `UsageError` for a `host-gateway` where there is none.
        """
        config = container.config
        endpoints = [(self.networks.by_id(each.network_id), each) for each in self.networks.endpoints_of(container.id)]
        hostname = config.hostname or container.short_id
        has_ipv6 = any(":" in address for _, endpoint in endpoints for address in endpoint.addresses)
        gateways = [subnet.gateway for subnet in endpoints[0][0].subnets if subnet.gateway] if endpoints else []
        lines = [*LOOPBACK_LINES, *extra_lines(config.extra_hosts, gateways)]
        with locked(self.run_dir, "names"):
            self._put(container.id, "hosts", "\n".join([*lines, *self._block(container.id, {})]) + "\n")
        self._put(container.id, "hostname", hostname + "\n")
        text, lacks = resolvers(config, has_ipv6=has_ipv6)
        if lacks:
            self.warn(
                f"container '{container.name}' can't look names up: this host's resolver is on its loopback; give --dns ADDRESS"
            )
        self._put(container.id, "resolv.conf", text)

    def refresh(self, network: Network) -> None:
        """Write anew what the running members of a network know of each other; nothing in a network without names."""
        if network.is_predefined:
            return
        with locked(self.run_dir, "names"):
            known: dict[str, Known] = {}
            for endpoint in self.networks.endpoints_in(network.id):
                self._rewrite(endpoint.container_id, known)

    def refresh_own(self, container: Container) -> None:
        """Write anew what a running container knows, whose own networks have changed."""
        with locked(self.run_dir, "names"):
            self._rewrite(container.id, {})

    def renamed(self, container: Container) -> None:
        """Tell the others of a running container's new name."""
        for endpoint in self.networks.endpoints_of(container.id):
            self.refresh(self.networks.by_id(endpoint.network_id))

    def _rewrite(self, container_id: str, known: dict[str, Known]) -> None:
        path = os.path.join(self.folder_of(container_id), "hosts")
        with contextlib.suppress(FileNotFoundError):  # it is just being removed, or hasn't been written yet
            text = _read(path)
            new = with_block(text, self._block(container_id, known))
            if new != text:
                overwrite(path, new)

    def _block(self, container_id: str, known: dict[str, Known]) -> list[str]:
        """The lines about a container itself and all that it can reach by name; `known` are members of networks, by their ids."""
        lines = [BEGIN]
        owns = self.networks.endpoints_of(container_id)
        for own in owns:
            if own.network_id not in known:
                known[own.network_id] = self._members(self.networks.by_id(own.network_id))
            lines += known[own.network_id].itself.get(own.id, ())
        for own in owns:
            for endpoint_id, about in known[own.network_id].others.items():
                if endpoint_id != own.id:
                    lines += about
        return [*lines, END]

    def _members(self, network: Network) -> Known:
        itself: dict[str, list[str]] = {}
        others: dict[str, list[str]] = {}
        found = [(each, self.containers.by_id(each.container_id)) for each in self.networks.endpoints_in(network.id)]
        members = sorted(((container, each) for each, container in found if container is not None), key=lambda pair: pair[0].name)
        for container, endpoint in members:
            itself[endpoint.id] = _lines(endpoint, names_of(container, network, endpoint, is_itself=True))
            if not network.is_predefined:
                others[endpoint.id] = _lines(endpoint, names_of(container, network, endpoint, is_itself=False))
        return Known(itself=itself, others=others)

    def _put(self, container_id: str, name: str, text: str) -> None:
        path = os.path.join(self.folder_of(container_id), name)
        if os.path.exists(path):
            overwrite(path, text)
            return
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)


def names_of(container: Container, network: Network, endpoint: Endpoint, *, is_itself: bool) -> list[str]:
    """What a container is called in a network; the first is its address's name, and for itself that is its host name."""
    config = container.config
    hostname = config.hostname or container.short_id
    full = [f"{hostname}.{config.domainname}"] if config.domainname else []
    names = [*full, hostname] if is_itself else []
    if not network.is_predefined:
        names += [container.name, *endpoint.aliases, *full, hostname, container.short_id, f"{container.name}.{network.name}"]
    return list(dict.fromkeys(names))


def _lines(endpoint: Endpoint, names: Sequence[str]) -> list[str]:
    said = " ".join(names)
    return [f"{address.partition('/')[0]}\t{said}" for address in endpoint.addresses]


def extra_lines(extra_hosts: Iterable[str], gateways: Sequence[str]) -> list[str]:
    """The lines for `--add-host`; `gateways` are the host's addresses as the container sees it."""
    lines = []
    for each in extra_hosts:
        name, _, address = each.partition(":")
        if address == HOST_GATEWAY and not gateways:
            raise UsageError(
                f"host '{name}' can't be the host-gateway: the container's network has none", hint="give an IP address"
            )
        lines += [f"{one}\t{name}" for one in (gateways if address == HOST_GATEWAY else (address,))]
    return lines


def with_block(text: str, block: Sequence[str]) -> str:
    """Put the lines about others into a hosts file in the place of those that it has, or at its end."""
    lines = text.splitlines()
    start = lines.index(BEGIN) if BEGIN in lines else len(lines)
    end = lines.index(END, start) + 1 if END in lines[start:] else len(lines)
    return "\n".join([*lines[:start], *block, *lines[end:]]) + "\n"


def _read(path: str) -> str:
    """Read a container's hosts file, in which it can write what it likes: one that it has made too large begins anew."""
    with open(path, "rb") as file:
        data = file.read(HOSTS_MAX_BYTES + 1)
    return "\n".join(LOOPBACK_LINES) if len(data) > HOSTS_MAX_BYTES else data.decode("utf-8", "surrogateescape")


def overwrite(path: str, text: str) -> None:
    """Give a file other contents and keep its inode, which containers have mounted.

    It is written in one go and never empty in between; a shorter text is followed by empty lines until the file is cut. (Whoever
    reads in that very moment may still get old bytes and new ones: the kernel promises no more.)
    """
    data = text.encode(errors="surrogateescape")
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        old_bytes = os.fstat(fd).st_size
        if old_bytes > HOSTS_MAX_BYTES:  # its container's doing, and as many line ends as that would be its doing, too
            os.ftruncate(fd, HOSTS_MAX_BYTES)
            old_bytes = HOSTS_MAX_BYTES
        os.pwrite(fd, data + b"\n" * (old_bytes - len(data)), 0)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


# resolv.conf


def resolvers(
    config: ContainerConfig, *, has_ipv6: bool, is_apart: bool = True, path: str = HOST_RESOLVERS,
    behind_path: str = SYSTEMD_RESOLVERS,
) -> tuple[str, bool]:  # fmt: skip
    """Give a container's resolv.conf, and whether it lacks a name server that the container could reach.

    It is the host's. Where the network is apart from the host's, resolvers on the host's loopback are left out, which is not the
    container's; if none is left, it has those of `behind_path`, which systemd-resolved asks. What --dns, --dns-search and
    --dns-option say replaces what is said there of that kind.
    """
    servers, search, options = read_resolvers(path)
    reachable = [each for each in servers if not is_apart or _is_reachable(each, has_ipv6=has_ipv6)]
    if servers and not reachable:
        reachable = [each for each in read_resolvers(behind_path)[0] if _is_reachable(each, has_ipv6=has_ipv6)]
    chosen = list(config.dns) or reachable
    search = [each for each in config.dns_search if each != "."] if config.dns_search else search
    options = list(config.dns_options) or options
    lines = [f"nameserver {each}" for each in chosen]
    if search:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines), bool(servers) and not chosen


def read_resolvers(path: str) -> tuple[list[str], list[str], list[str]]:
    """Read name servers, search domains and options of a resolv.conf (resolv.conf(5)); none if there is no such file."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return [], [], []
    for line in lines:
        word, *values = line.split() or [""]
        if word == "nameserver" and values:
            servers.append(values[0])
        elif word in {"search", "domain"} and values:
            search = values if word == "search" else values[:1]
        elif word == "options":
            options += values
    return servers, search, options


def _is_reachable(server: str, *, has_ipv6: bool) -> bool:
    """Whether a container in a network of its own may reach a name server of the host's."""
    if ":" not in server:
        return not server.startswith("127.")
    try:
        packed = socket.inet_pton(socket.AF_INET6, server)
    except OSError:
        return False  # with a zone, `fe80::1%eth0`: a link of the host's
    return has_ipv6 and packed != socket.inet_pton(socket.AF_INET6, "::1") and not (packed[0] == 0xFE and packed[1] & 0xC0 == 0x80)
