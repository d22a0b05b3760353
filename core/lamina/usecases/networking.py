"""A container's networks from its start to its end: places in them, addresses, links, published ports, names.

A start prepares (addresses and ports, in the database, before there is a process), carries out (links and rules, once the network
namespace is there and before the command runs) and, in the end or after a failure, releases. What a driver answers is asked anew
each time, so nothing but the choice of addresses and ports is kept. One lock, `networks`, is held by whoever makes or takes away
what several containers have in common: a network's links and rules, and the files with names. Not here: users' verbs
(`networks.py`), and the kernel (`network/apply.py`).
"""

import os
import signal
import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lamina.api.drivers import NetworkDriver
from lamina.api.networks import EndpointSpec, NetworkSetup, NetworkSpec
from lamina.api.types import Attachment, NetworkNamespace
from lamina.dataclasses import replace
from lamina.errors import LaminaError, NotFoundError, StateError, UsageError
from lamina.linux import process
from lamina.model.container import Container, ContainerConfig
from lamina.model.network import Endpoint, EndpointRequest, Network, PortMapping, Subnet, exposed_mappings
from lamina.network import addresses, apply
from lamina.network.names import Names
from lamina.store.networks import NetworkRecords, own_id
from lamina.store.operations import Operation, locked
from lamina.usecases.context import Context
from lamina.usecases.settings import DEFAULT_ROOT_DIR

if TYPE_CHECKING:
    from lamina.network.ports import Held

LOCK = "networks"
_ENDPOINT_ID_BYTES = 32


class Joining(NamedTuple):
    """A container's place in one network, with all that is to be done for it."""

    network: Network
    driver: NetworkDriver
    endpoint: Endpoint
    attachment: Attachment


class Preparation:
    """What a start has chosen: places in networks, and sockets that hold the ports."""

    def __init__(self) -> None:
        self.joinings: list[Joining] = []
        self.held: Held | None = None

    def close(self) -> None:
        """Let go of ports that nobody has taken over."""
        if self.held is not None:
            self.held.close()

    @property
    def attachment(self) -> Attachment:
        """What the container's first process does about it: leave the host's network namespace, no more."""
        return Attachment(namespace=NetworkNamespace.NEW)


class Networking:
    """Attaches containers to networks, and releases them."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.records = NetworkRecords(database=context.database)
        self.names = Names(
            containers=context.records, networks=self.records, folder_of=context.container_dir, run_dir=context.run_dir,
            warn=context.warn,
        )  # fmt: skip
        self.table = apply.table_name(context.root_dir, is_default=context.root_dir == DEFAULT_ROOT_DIR)

    # Networks

    def make(self, network: Network, driver: NetworkDriver) -> Network:
        """Record a network, its subnets chosen and its options checked; one after the other, so that no two choose the same."""
        with locked(self.context.run_dir, LOCK):
            checked = self.checked(network, driver)
            if checked is None:
                raise UsageError(f"network driver '{driver.name}' makes no networks")
            with self.context.database.transaction(durable=True) as tx:
                self.records.insert(tx, checked)
        return checked

    def checked(self, network: Network, driver: NetworkDriver) -> Network | None:
        """A network with what was left open filled in, by us and by its driver; None if the driver makes none."""
        others = self.records.subnets()
        host = addresses.host_networks()
        given = tuple(addresses.checked_subnet(each) for each in network.subnets)
        addresses.check_clear(given, others)
        used = [*host, *(subnet for subnet, _ in others), *(each.subnet for each in given)]
        for ipv6 in (False, True):
            if (not ipv6 or network.ipv6) and not any(each.is_ipv6 is ipv6 for each in given):
                chosen = addresses.checked_subnet(Subnet(subnet=addresses.free_subnet(used, ipv6=ipv6)))
                given = (*given, chosen) if ipv6 else (chosen, *given)
        ours = {subnet for subnet, _ in others}
        spec = driver.check(self.spec(network._replace(subnets=given)), [each for each in host if each not in ours])
        if spec is None:
            return None
        return network._replace(subnets=spec.subnets, options=dict(spec.options), internal=spec.internal, ipv6=spec.ipv6)

    def own(self, driver: NetworkDriver) -> Network:
        """A driver's own network, of its name, before anything is chosen for it."""
        return Network(
            id=own_id(driver.name, self.context.root_dir), name=driver.name, driver=driver.name, created_ns=time.time_ns()
        )

    def resolve(self, name: str) -> Network:
        """Give the network that a container's configuration means; a driver's own is made by its first use.

        Raises `NotFoundError`.
        """
        found = self.records.find(name)
        if found is None and name in self.context.host.names("network"):
            driver = self.context.network(name)
            found = self.records.find(driver.name)
            if found is None and driver.makes_networks:
                try:
                    return self.make(self.own(driver), driver)
                except LaminaError:
                    found = self.records.find(driver.name)  # somebody else was faster
                    if found is None:
                        raise
        if found is None:
            raise NotFoundError(f"no such network: '{name}'", hint="`lamina network ls` lists the networks")
        return found

    def check(self, config: ContainerConfig) -> None:
        """Check what a new container asks of networks, so far as that can be told before it starts."""
        seen: set[str] = set()
        for request in config.requests:
            network = self.records.find(request.network)
            if network is None and request.network in self.context.host.names("network"):
                driver = self.context.network(request.network)
                if not driver.makes_networks:
                    raise UsageError(f"network '{request.network}' can't be combined with others")
                network = self.own(driver)
            if network is None:
                raise NotFoundError(f"no such network: '{request.network}'", hint="`lamina network ls` lists the networks")
            if network.id in seen:
                raise UsageError(f"network '{network.name}' is given twice")
            seen.add(network.id)
            self.check_request(network, request)

    def check_request(self, network: Network, request: EndpointRequest) -> None:
        """Refuse what a network that nobody made has not: names beside the container's own, and chosen addresses. Docker's rule."""
        if network.is_predefined and (request.aliases or request.ipv4 or request.ipv6):
            what = "aliases" if request.aliases else "chosen addresses"
            raise UsageError(f"network '{network.name}' has no {what}", hint="`lamina network create` makes one that has")

    def spec(self, network: Network) -> NetworkSpec:
        """A network as its driver is told."""
        return NetworkSpec(
            id=network.id,
            name=network.name,
            subnets=network.subnets,
            options=network.options,
            internal=network.internal,
            ipv6=network.ipv6,
            is_main=network.is_predefined and self.context.root_dir == DEFAULT_ROOT_DIR,
        )

    # A start

    def prepare(self, container: Container) -> Preparation:
        """Choose and record addresses and ports, and write the files with names. `release` takes it back, however far it came.

        Raises `ConflictError` for a port that is in use, `NotFoundError` for a network that has gone, and what the drivers raise.
        """
        requests = container.config.requests
        found = [(self.resolve(request.network), request) for request in requests]
        prepared = Preparation()
        endpoints: list[Endpoint] = []
        with self.context.database.transaction() as tx:
            for at, (network, request) in enumerate(found):
                endpoints.append(self._record(tx, network, container, request, interface=f"eth{at}", operation=None))
            place = self._gateway_place([network for network, _ in found])
            wanted = published(container.config)
            if wanted and place is not None:
                prepared.held = held = self._hold(tx, endpoints[place].id, wanted)
                endpoints[place] = endpoints[place]._replace(ports=tuple(held.ports))
        try:
            for at, ((network, request), endpoint) in enumerate(zip(found, endpoints, strict=True)):
                prepared.joinings.append(self._joining(network, endpoint, request.options, is_gateway=at == place))
            self.names.write(container)
        except BaseException:
            prepared.close()
            raise
        return prepared

    def carry_out(self, prepared: Preparation, container: Container, pid: int) -> None:
        """Make links, rules and names for a container whose first process waits in its new network namespace."""
        for joining in prepared.joinings:
            self._plug(joining, f"/proc/{pid}/ns/net")
            self.event("connect", joining.network, container=container.id)
        self._forward(prepared.joinings, prepared.held, pid)
        self._refresh_names(joining.network for joining in prepared.joinings)
        for joining in prepared.joinings:
            for each in joining.attachment.links:
                if each.kind == "veth":
                    apply.wait_ready(each)

    def event(self, action: str, network: Network, **attributes: str) -> None:
        """Write down in the journal what happened to a network."""
        self.context.journal.append("network", action, network.id, {"name": network.name, "type": network.driver, **attributes})

    def _record(
        self, tx: sqlite3.Connection, network: Network, container: Container, request: EndpointRequest, *, interface: str,
        operation: Operation | None,
    ) -> Endpoint:  # fmt: skip
        self.records.by_id(network.id)  # it may have been removed meanwhile
        chosen = addresses.allocate(tx, self.records, network, request)
        endpoint = Endpoint(
            id=os.urandom(_ENDPOINT_ID_BYTES).hex(),
            network_id=network.id,
            container_id=container.id,
            interface=interface,
            mac=request.mac or addresses.new_mac(chosen),
            addresses=chosen,
            aliases=request.aliases,
        )
        self.records.insert_endpoint(tx, endpoint, operation)
        return endpoint

    def _gateway_place(self, networks: Sequence[Network]) -> int | None:
        """Which of a container's networks leads out, and has its ports: the first that isn't internal."""
        return next((place for place, each in enumerate(networks) if not each.internal), None)

    def _joining(self, network: Network, endpoint: Endpoint, options: object, *, is_gateway: bool) -> Joining:
        driver = self.context.network(network.driver)
        spec = EndpointSpec(
            id=endpoint.id,
            container_id=endpoint.container_id,
            host_name=endpoint.host_name,
            interface=endpoint.interface,
            mac=endpoint.mac,
            addresses=endpoint.addresses,
            ports=endpoint.ports,
            is_gateway=is_gateway,
        )
        given = dict(options) if isinstance(options, dict) else {}
        attachment = driver.attach(endpoint.container_id, given, self.spec(network), spec)
        return Joining(network=network, driver=driver, endpoint=endpoint, attachment=attachment)

    def _plug(self, joining: Joining, namespace: str) -> None:
        with locked(self.context.run_dir, LOCK):
            self._ensure_up(joining.network, joining.driver)
            apply.add_elements(self.table, joining.attachment.elements)
        apply.forget_senders(joining.endpoint.ports, ())
        for each in joining.attachment.links:
            apply.plug(each, namespace)

    def _ensure_up(self, network: Network, driver: NetworkDriver) -> None:
        """Make what the network needs on the host, if it isn't there; and if the table is gone, the other networks' part of it."""
        setup = driver.setup(self.spec(network))
        if apply.is_up(setup, self.table):
            return
        if setup.chains and not apply.has_table(self.table):
            for network_id in self.records.in_use():
                if network_id != network.id:
                    other = self.records.by_id(network_id)
                    self._set_up(other, self.context.network(other.driver).setup(self.spec(other)))
        self._set_up(network, setup)

    def _set_up(self, network: Network, setup: NetworkSetup) -> None:
        elements = [
            element
            for endpoint in self.records.endpoints_in(network.id)
            if endpoint.ports
            for element in self._joining(network, endpoint, None, is_gateway=False).attachment.elements
        ]
        apply.set_up(setup, self.table, elements, self.context.warn)

    def _hold(self, tx: sqlite3.Connection, endpoint_id: str, wanted: Sequence[PortMapping]) -> "Held":
        from lamina.network import ports  # for those who publish some

        return ports.hold(tx, self.records, endpoint_id, wanted, self._name_of)

    def _forward(self, joinings: Iterable[Joining], held: "Held | None", pid: int) -> None:
        """Hand the ports' sockets to the process that holds them, and forwards where the kernel can't."""
        if held is None or not held.sockets:
            return
        from lamina.network import proxy

        joining = next(each for each in joinings if each.endpoint.ports)
        forwarder = proxy.start(held.sockets, joining.attachment.forwardings, pid)
        held.close()
        self.context.children.add(forwarder)
        with self.context.database.transaction() as tx:
            self.records.set_forwarder(tx, joining.endpoint.id, forwarder, process.start_time(forwarder))

    # The end

    def release(self, container_id: str) -> None:
        """Take away all that a container has in networks; may be repeated. What a broken driver holds is a warning."""
        for endpoint in self.records.endpoints_of(container_id):
            self._release(endpoint, "")

    def release_endpoint(self, endpoint_id: str) -> None:
        """Take away what a killed `network connect` or `disconnect` has left half made."""
        endpoint = self.records.endpoint(endpoint_id)
        if endpoint is not None:
            container = self.context.records.by_id(endpoint.container_id)
            self._release(endpoint, _namespace(container) if container is not None else "")

    def _release(self, endpoint: Endpoint, namespace: str) -> None:
        self._end_forwarder(endpoint)
        if namespace:  # the container lives on: a link that has no end on the host is deleted there
            apply.unplug(endpoint.interface, namespace)
        apply.unplug(endpoint.host_name)
        network = self.records.by_id(endpoint.network_id)
        with locked(self.context.run_dir, LOCK):
            others = [each for each in self.records.endpoints_in(network.id) if each.id != endpoint.id]
            try:
                self._give_back(network, endpoint, has_others=bool(others))
            except (NotFoundError, LaminaError) as broken:  # what it holds can't be given back, but the container has ended
                self.context.warn(broken.message)
            with self.context.database.transaction() as tx:
                self.records.delete_endpoint(tx, endpoint.id)
        self.event("disconnect", network, container=endpoint.container_id)
        self._refresh_names([network])

    def _give_back(self, network: Network, endpoint: Endpoint, *, has_others: bool) -> None:
        driver = self.context.network(network.driver)
        spec = self.spec(network)
        driver.detach(endpoint.container_id, {}, spec)
        apply.forget_senders(endpoint.ports, [each.partition("/")[0] for each in endpoint.addresses])
        if has_others:
            if endpoint.ports:
                joining = self._joining(network, endpoint, None, is_gateway=False)
                apply.delete_elements(self.table, joining.attachment.elements)
            return
        apply.take_down(driver.setup(spec), self.table, is_last=self.records.in_use() == [network.id])

    def _end_forwarder(self, endpoint: Endpoint) -> None:
        pid, started = self.records.forwarder(endpoint.id)
        if pid and process.is_alive(pid, started):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.context.reap()

    # A running container

    def connect(
        self, container: Container, network: Network, request: EndpointRequest, requests: tuple[EndpointRequest, ...]
    ) -> None:
        """Put a container into a network now, if it runs, and record what it asks of networks from now on."""
        operation = Operation(name="network connect")
        endpoint: Endpoint | None = None
        held: Held | None = None
        try:
            if container.is_active:
                namespace = _namespace(container)
                if not namespace:
                    raise StateError(f"container '{container.name}' has just ended", hint="try again")
                present = self.records.endpoints_of(container.id)
                leads_out = any(not self.records.by_id(each.network_id).internal for each in present)
                with self.context.database.transaction() as tx:
                    endpoint = self._record(
                        tx, network, container, request, interface=_next_interface(present), operation=operation
                    )
                    wanted = () if network.internal or leads_out else published(container.config)
                    if wanted:
                        held = self._hold(tx, endpoint.id, wanted)
                        endpoint = endpoint._replace(ports=tuple(held.ports))
                is_gateway = not network.internal and not leads_out
                joining = self._joining(network, endpoint, dict(request.options), is_gateway=is_gateway)
                self._plug(joining, namespace)
                self.event("connect", network, container=container.id)
                self._forward([joining], held, container.pid)
                self._refresh_names([network])
                self.names.refresh_own(container)
            self._record_requests(container, requests, endpoint, operation)
        except BaseException as error:
            try:
                if endpoint is not None:
                    self.release_endpoint(endpoint.id)
                with self.context.database.transaction() as tx:
                    operation.end_unless_owning(tx)
            except (OSError, LaminaError) as second:
                error.add_note(f"while cleaning up: {second}")
            raise
        finally:
            if held is not None:
                held.close()

    def disconnect(self, container: Container, network: Network, requests: tuple[EndpointRequest, ...]) -> None:
        """Take a container out of a network now, if it runs, and record what it asks of networks from now on."""
        operation = Operation(name="network disconnect")
        endpoint = next((each for each in self.records.endpoints_of(container.id) if each.network_id == network.id), None)
        if endpoint is not None:
            with self.context.database.transaction() as tx:
                self.records.begin_removal(tx, endpoint.id, operation)
            namespace = _namespace(container)
            self._release(endpoint, namespace)
            if namespace:
                self._lead_out(container, namespace)
                self.names.refresh_own(container)
        self._record_requests(container, requests, None, operation)

    def _lead_out(self, container: Container, namespace: str) -> None:
        """Give a container the default route of the network that leads out now."""
        joinings = self._joinings(container.id)
        for joining in joinings:
            if not joining.network.internal:
                for each in joining.attachment.links:
                    apply.add_routes(each, namespace)
                return

    def _joinings(self, container_id: str) -> list[Joining]:
        """A running container's places, as they were made."""
        endpoints = self.records.endpoints_of(container_id)
        networks = [self.records.by_id(each.network_id) for each in endpoints]
        gateway = self._gateway_place(networks)
        return [
            self._joining(network, endpoint, None, is_gateway=place == gateway)
            for place, (network, endpoint) in enumerate(zip(networks, endpoints, strict=True))
        ]

    def _record_requests(
        self, container: Container, requests: tuple[EndpointRequest, ...], endpoint: Endpoint | None, operation: Operation
    ) -> None:
        config = replace(container.config, networks=requests, network=requests[0].network if requests else "")
        with self.context.database.transaction(durable=True) as tx:
            self.context.records.update_document(tx, replace(container, config=config))
            if endpoint is not None:
                self.records.finish_endpoint(tx, endpoint.id)
            operation.end(tx)

    # Repair

    def repair(self, network: Network) -> bool:
        """Make again what a network has on the host, all of it, and what its containers have there; False if nobody is in it."""
        with locked(self.context.run_dir, LOCK):
            endpoints = self.records.endpoints_in(network.id)
            if not endpoints:
                return False
            driver = self.context.network(network.driver)
            self._set_up(network, driver.setup(self.spec(network)))
        self._refresh_names([network])
        for endpoint in endpoints:
            container = self.context.records.by_id(endpoint.container_id)
            namespace = _namespace(container) if container is not None else ""
            if container is None or not namespace:
                continue
            joining = next((each for each in self._joinings(container.id) if each.endpoint.id == endpoint.id), None)
            if joining is None:
                continue
            for each in joining.attachment.links:
                apply.replug(each, namespace)
            pid, started = self.records.forwarder(endpoint.id)
            if endpoint.ports and not (pid and process.is_alive(pid, started)):
                from lamina.network import ports

                self._forward([joining], ports.hold_again(endpoint.ports, self.context.warn), container.pid)
        return True

    # Names

    def renamed(self, container: Container) -> None:
        """Tell the others in a container's networks its new name."""
        self.names.renamed(container)

    def _refresh_names(self, networks: Iterable[Network]) -> None:
        for network in networks:
            self.names.refresh(network)

    def _name_of(self, container_id: str) -> str:
        container = self.context.records.by_id(container_id)
        return container.name if container is not None else container_id[:12]


def published(config: ContainerConfig) -> tuple[PortMapping, ...]:
    """The ports that a container asks to be published: by `-p`, and with `-P` the exposed ones that `-p` doesn't name."""
    if not config.publish_all:
        return config.ports
    named = {each.key for each in config.ports}
    return (*config.ports, *(each for each in exposed_mappings(config.exposed_ports) if each.key not in named))


def _next_interface(present: Sequence[Endpoint]) -> str:
    taken = {each.interface for each in present}
    return next(name for name in (f"eth{number}" for number in range(len(taken) + 1)) if name not in taken)


def _namespace(container: Container) -> str:
    """The path of a running container's network namespace; "" if it doesn't run."""
    if container.is_active and process.is_alive(container.pid, container.pid_started):
        return f"/proc/{container.pid}/ns/net"
    return ""
