"""Networks as users know them: made, listed, removed; containers connected and disconnected; ports; repair.

What an attached container has, from its start to its end, is `networking.py`'s. This is imported by the first use of
`engine.networks` and by nothing else.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from lamina.dataclasses import dataclass
from lamina.errors import ConflictError, LaminaError, NotFoundError, StateError, UsageError
from lamina.model.container import Container, check_name
from lamina.model.network import JOIN_PREFIX, Endpoint, EndpointRequest, Network, PortMapping, Subnet, check_request
from lamina.store.networks import NetworkRecords, own_id
from lamina.store.operations import locked
from lamina.usecases.context import Context
from lamina.usecases.settings import DEFAULT_NETWORK

if TYPE_CHECKING:
    from lamina.usecases.networking import Networking

DEFAULT_DRIVER = DEFAULT_NETWORK
"""The driver of a network for which none is named: the one whose own network is the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A running container in a network, for listings."""

    container: Container
    endpoint: Endpoint


class Networks:
    """The networks of one root directory: `engine.networks`."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.records = NetworkRecords(database=context.database)

    @cached_property
    def networking(self) -> "Networking":
        """What attaches containers and releases them."""
        from lamina.usecases.networking import Networking

        return Networking(self.context)

    # Networks

    def create(
        self,
        name: str,
        *,
        driver: str = DEFAULT_DRIVER,
        subnets: Sequence[Subnet] = (),
        internal: bool = False,
        ipv6: bool = False,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Network:
        """Make a network. Nothing of it is on the host until a container is attached.

        `subnets` may leave out their gateways (the first address), or be left out: then a free one is chosen, and with `ipv6` two.
        Raises `ConflictError` for a name or a subnet that is taken, `UsageError` for what is malformed or an unknown option,
        `NotFoundError` for an unknown driver; nothing is left behind.
        """
        check_name(name, "network")
        if name in self.context.host.names("network") or name in {"default", "container"}:
            raise ConflictError(f"network name '{name}' is a driver's or a mode's own", hint="choose another name")
        network_driver = self.context.network(driver)
        if not network_driver.makes_networks:
            raise UsageError(f"network driver '{network_driver.name}' has one network, its own: '{network_driver.name}'")
        self.records.check_name_is_free(name)
        network = self.networking.make(
            Network(
                id=os.urandom(32).hex(),
                name=name,
                driver=network_driver.name,
                subnets=tuple(subnets),
                options=dict(options or {}),
                labels=dict(labels or {}),
                internal=internal,
                ipv6=ipv6 or any(each.is_ipv6 for each in subnets),
                created_ns=time.time_ns(),
            ),
            network_driver,
        )
        self.networking.event("create", network)
        return network

    def get(self, name: str) -> Network:
        """Find a network by name, id, or the beginning of an id; raises `NotFoundError`."""
        found = self.records.find(name) or next(
            (each for each in self.all() if name == each.name or (len(name) > 1 and each.id.startswith(name))), None
        )
        if found is None:
            raise NotFoundError(f"no such network: '{name}'", hint="`lamina network ls` lists the networks")
        return found

    def all(self) -> list[Network]:
        """List every network by name: those that were made, and the drivers' own, used yet or not."""
        found = self.records.all()
        known = {each.name for each in found}
        for name in self.context.host.names("network"):
            if name not in known and self._has_own(name):
                found.append(Network(id=own_id(name, self.context.root_dir), name=name, driver=name))
        return sorted(found, key=lambda each: each.name)

    def _has_own(self, name: str) -> bool:
        """Whether a driver has a network of its own name; one that makes networks has it if it needs no option for that."""
        try:
            driver = self.context.network(name)
        except LaminaError:
            return True  # broken; whoever wants to use it hears how
        try:
            return not driver.makes_networks or self.networking.checked(self.networking.own(driver), driver) is not None
        except (LaminaError, OSError):
            return False

    def remove(self, name: str) -> Network:
        """Remove a network; raises `ConflictError` while running containers are in it, or if it is a driver's own."""
        network = self.get(name)
        if network.is_predefined:
            raise ConflictError(f"network '{network.name}' is predefined and can't be removed")
        with locked(self.context.run_dir, "networks"):
            self._remove(network)
        return network

    def _remove(self, network: Network) -> None:
        with self.context.database.transaction(durable=True) as tx:
            members = self.records.endpoints_in(network.id)
            if members:
                names = ", ".join(sorted(self._name_of(each.container_id) for each in members[:5]))
                raise ConflictError(
                    f"network '{network.name}' is in use by container '{names}'",
                    hint="stop the container, or `lamina network disconnect` it",
                )
            self.records.delete(tx, network.id)
        self.networking.event("destroy", network)

    def prune(self, *, matches: Callable[[Network], bool] = lambda _network: True) -> list[str]:
        """Remove every network that was made and that no container uses, running or not, if `matches` accepts it; gives names."""
        used = {request.network for container in self.context.records.all() for request in container.config.requests}
        removed = []
        for network in self.records.all():
            mentioned = network.name in used or any(len(each) > 1 and network.id.startswith(each) for each in used)
            if network.is_predefined or mentioned or not matches(network):
                continue
            try:
                with locked(self.context.run_dir, "networks"):
                    self._remove(network)
            except ConflictError:
                continue
            removed.append(network.name)
        return removed

    # Containers in them

    def members(self, network: Network) -> list[Member]:
        """List the running containers in a network, by name, with their addresses."""
        found = []
        for endpoint in self.records.endpoints_in(network.id):
            container = self.context.records.by_id(endpoint.container_id)
            if container is not None:
                found.append(Member(container=container, endpoint=endpoint))
        return sorted(found, key=lambda each: each.container.name)

    def endpoints(self, container: Container) -> list[tuple[Network, Endpoint]]:
        """List a running container's networks with its place in each, `eth0` first; empty for `none`, `host` and a joined one."""
        return [(self.records.by_id(each.network_id), each) for each in self.records.endpoints_of(container.id)]

    def ports(self, container: Container) -> list[PortMapping]:
        """List the ports that a running container has published, with the host's ports that they got."""
        return [port for endpoint in self.records.endpoints_of(container.id) for port in endpoint.ports]

    def connect(
        self,
        name: str,
        container: Container,
        *,
        aliases: Sequence[str] = (),
        ipv4: str = "",
        ipv6: str = "",
        mac: str = "",
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Put a container into one more network: at once if it runs, and at each start from now on.

        Raises `ConflictError` if it is in it, `UsageError` for what can't be, as an address that isn't the network's.
        """
        network = self.get(name)
        request = check_request(
            EndpointRequest(
                network=network.name, aliases=tuple(aliases), ipv4=ipv4, ipv6=ipv6, mac=mac, options=dict(options or {})
            )
        )
        self._check_can_change(container, network)
        with locked(self.context.run_dir, f"container-{container.id}"):
            container = self._current(container)
            requests = container.config.requests
            if any(self._is_meant(network, each) for each in requests):
                raise ConflictError(f"container '{container.name}' is in network '{network.name}' already")
            self.networking.check_request(network, request)
            self.networking.connect(container, network, request, (*requests, request))

    def disconnect(self, name: str, container: Container, *, force: bool = False) -> None:
        """Take a container out of a network: at once if it runs, and for its starts to come.

        Raises `ConflictError` if it isn't in it. `force` lets that pass.
        """
        network = self.get(name)
        self._check_can_change(container, network)
        with locked(self.context.run_dir, f"container-{container.id}"):
            container = self._current(container)
            requests = container.config.requests
            left = tuple(each for each in requests if not self._is_meant(network, each))
            if len(left) == len(requests):
                if force:
                    return
                raise ConflictError(f"container '{container.name}' is not in network '{network.name}'")
            self.networking.disconnect(container, network, left)

    def _check_can_change(self, container: Container, network: Network) -> None:
        mode = container.config.network
        if mode.startswith(JOIN_PREFIX) or self.context.plain_network(mode) is not None:
            raise StateError(f"container '{container.name}' has the network '{mode}', which can't be changed")
        if self.context.plain_network(network.name) is not None:
            raise UsageError(f"no container can be connected to network '{network.name}'", hint="choose it with `run --network`")

    def _current(self, container: Container) -> Container:
        current = self.context.records.by_id(container.id)
        if current is None:
            raise NotFoundError(f"no such container: '{container.name}'")
        return current

    def _is_meant(self, network: Network, request: EndpointRequest) -> bool:
        return request.network == network.name or (len(request.network) > 1 and network.id.startswith(request.network))

    def _name_of(self, container_id: str) -> str:
        container = self.context.records.by_id(container_id)
        return container.name if container is not None else container_id[:12]

    # Repair

    def repair(self, name: str = "") -> list[str]:
        """Make again what a network, or all that are in use, must have on the host: links, settings, rules, processes that forward.

        For after a firewall was loaded anew, or somebody deleted something. Gives the names of the networks that were in use.
        """
        chosen = [self.get(name)] if name else self.records.all()
        return [each.name for each in chosen if self.networking.repair(each)]
