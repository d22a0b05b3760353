"""Networks' records: the networks, the running containers' places in them, the addresses and ports that are taken.

A place (endpoint) is recorded before anything of it is made, and forgotten after all of it is gone: whatever a killed command left
on the host is found from here. That no address and no port is given twice is the tables' doing (PRIMARY KEY).
Not here: which address is next (`network/addresses.py`), and anything of the kernel's.
"""

import sqlite3
from collections.abc import Iterable

from lamina import json
from lamina.errors import ConflictError, NotFoundError, UsageError
from lamina.model.digest import Digest
from lamina.model.network import Endpoint, Network, PortMapping, Subnet
from lamina.store.database import Database
from lamina.store.operations import Operation


class NetworkRecords:
    """The tables `networks`, `network_subnets`, `endpoints`, `network_addresses` and `published_ports`."""

    def __init__(self, *, database: Database) -> None:
        self.database = database

    # Networks

    def insert(self, tx: sqlite3.Connection, network: Network) -> None:
        """Record a network; raises `ConflictError` if its name is taken."""
        self.check_name_is_free(network.name)
        document = json.dumps({"options": dict(network.options), "labels": dict(network.labels)})
        tx.execute(
            "INSERT INTO networks (id, name, driver, created_ns, internal, ipv6, document) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (network.id, network.name, network.driver, network.created_ns, network.internal, network.ipv6, document),
        )
        for place, each in enumerate(network.subnets):
            tx.execute(
                "INSERT INTO network_subnets (network, place, subnet, gateway, ip_range) VALUES (?, ?, ?, ?, ?)",
                (network.id, place, each.subnet, each.gateway, each.ip_range),
            )

    def check_name_is_free(self, name: str) -> None:
        """Raise `ConflictError` if a network has the name; sure only inside a transaction."""
        taken = self._rows("SELECT * FROM networks WHERE name = ?", name)
        if taken:
            raise ConflictError(f"network '{name}' exists already", hint="choose another name, or remove that network first")

    def delete(self, tx: sqlite3.Connection, network_id: str) -> None:
        """Forget a network, which has no endpoints."""
        tx.execute("DELETE FROM network_subnets WHERE network = ?", (network_id,))
        tx.execute("DELETE FROM networks WHERE id = ?", (network_id,))

    def find(self, name: str) -> Network | None:
        """Find by name, id, or the unambiguous beginning of an id; raises `UsageError` for an ambiguous one."""
        rows = self._rows("SELECT * FROM networks WHERE name = ? OR id = ?", name, name)
        if not rows and name and all(char in "0123456789abcdef" for char in name):
            rows = self._rows("SELECT * FROM networks WHERE id >= ? AND id < ? LIMIT 2", name, name + "g")
            if len(rows) > 1:
                raise UsageError(f"network id '{name}' is ambiguous", hint="give more digits")
        return self._network(rows[0]) if rows else None

    def by_id(self, network_id: str) -> Network:
        """Find by the whole id; raises `NotFoundError`."""
        rows = self._rows("SELECT * FROM networks WHERE id = ?", network_id)
        if not rows:
            raise NotFoundError(f"network '{network_id[:12]}' has just been removed")
        return self._network(rows[0])

    def all(self) -> list[Network]:
        """List them by name."""
        return [self._network(row) for row in self._rows("SELECT * FROM networks ORDER BY name")]

    def subnets(self) -> list[tuple[str, str]]:
        """Every network's subnets, each with the network's name."""
        rows = self._rows("SELECT subnet, name FROM network_subnets JOIN networks ON networks.id = network_subnets.network")
        return [(row["subnet"], row["name"]) for row in rows]

    # Addresses

    def taken_addresses(self, network_id: str) -> set[str]:
        """The addresses that endpoints of a network have, without prefix."""
        return {row["address"] for row in self._rows("SELECT address FROM network_addresses WHERE network = ?", network_id)}

    def last_address(self, network_id: str, subnet: str) -> str:
        """The address of a subnet that was given out last; "" if none was."""
        rows = self._rows("SELECT last FROM network_subnets WHERE network = ? AND subnet = ?", network_id, subnet)
        return str(rows[0]["last"]) if rows else ""

    def set_last_address(self, tx: sqlite3.Connection, network_id: str, subnet: str, address: str) -> None:
        """Note which address was given out last, so that the next one is behind it."""
        tx.execute("UPDATE network_subnets SET last = ? WHERE network = ? AND subnet = ?", (address, network_id, subnet))

    def owner_of(self, network_id: str, address: str) -> str:
        """The id of the container that has an address of a network; "" for none."""
        rows = self._rows(
            "SELECT container_id FROM network_addresses JOIN endpoints ON endpoints.id = endpoint"
            " WHERE network_addresses.network = ? AND address = ?",
            network_id,
            address,
        )
        return str(rows[0]["container_id"]) if rows else ""

    # Endpoints

    def insert_endpoint(self, tx: sqlite3.Connection, endpoint: Endpoint, operation: Operation | None) -> None:
        """Record an endpoint with its addresses, as made under an operation; with None its container's start is that."""
        tx.execute(
            "INSERT INTO endpoints (id, network, container_id, interface, mac, addresses, aliases, operation)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                endpoint.id, endpoint.network_id, endpoint.container_id, endpoint.interface, endpoint.mac,
                json.dumps(endpoint.addresses), json.dumps(endpoint.aliases), operation.begin(tx) if operation else None,
            ),
        )  # fmt: skip
        tx.executemany(
            "INSERT INTO network_addresses (network, address, endpoint) VALUES (?, ?, ?)",
            [(endpoint.network_id, each.partition("/")[0], endpoint.id) for each in endpoint.addresses],
        )

    def insert_port(self, tx: sqlite3.Connection, endpoint_id: str, port: PortMapping) -> None:
        """Record a published port; `port_owner` says beforehand whether it is free."""
        tx.execute(
            "INSERT INTO published_ports (protocol, host_port, host_ip, endpoint, container_port) VALUES (?, ?, ?, ?, ?)",
            (port.protocol, port.host_port, port.host_ip, endpoint_id, port.container_port),
        )

    def port_owner(self, protocol: str, host_port: int, host_ip: str) -> str:
        """The id of a container whose published port is in the way of this one; "" if there is none."""
        rows = self._rows(
            "SELECT container_id, host_ip FROM published_ports JOIN endpoints ON endpoints.id = endpoint"
            " WHERE protocol = ? AND host_port = ?",
            protocol,
            host_port,
        )
        return next((str(row["container_id"]) for row in rows if _clash(row["host_ip"], host_ip)), "")

    def set_forwarder(self, tx: sqlite3.Connection, endpoint_id: str, pid: int, started: int | None) -> None:
        """Note the process that carries an endpoint's bytes where the kernel can't; 0 for none."""
        tx.execute("UPDATE endpoints SET forwarder = ?, forwarder_started = ? WHERE id = ?", (pid, started, endpoint_id))

    def forwarder(self, endpoint_id: str) -> tuple[int, int | None]:
        """That process and its start time."""
        rows = self._rows("SELECT forwarder, forwarder_started FROM endpoints WHERE id = ?", endpoint_id)
        return (rows[0]["forwarder"], rows[0]["forwarder_started"]) if rows else (0, None)

    def begin_removal(self, tx: sqlite3.Connection, endpoint_id: str, operation: Operation) -> None:
        """Put an endpoint under an operation that takes it away: if that is killed, recovery goes on."""
        tx.execute("UPDATE endpoints SET operation = ? WHERE id = ?", (operation.begin(tx), endpoint_id))

    def finish_endpoint(self, tx: sqlite3.Connection, endpoint_id: str) -> None:
        """Take the operation's number off an endpoint that is whole."""
        tx.execute("UPDATE endpoints SET operation = NULL WHERE id = ?", (endpoint_id,))

    def delete_endpoint(self, tx: sqlite3.Connection, endpoint_id: str) -> None:
        """Forget an endpoint, its addresses and its ports."""
        for table in ("network_addresses", "published_ports"):
            tx.execute(f"DELETE FROM {table} WHERE endpoint = ?", (endpoint_id,))
        tx.execute("DELETE FROM endpoints WHERE id = ?", (endpoint_id,))

    def endpoints_of(self, container_id: str) -> list[Endpoint]:
        """A container's endpoints, in the order of their interfaces."""
        rows = self._rows("SELECT * FROM endpoints WHERE container_id = ?", container_id)
        return self._endpoints(sorted(rows, key=lambda row: (len(row["interface"]), row["interface"])))

    def endpoints_in(self, network_id: str) -> list[Endpoint]:
        """A network's endpoints."""
        return self._endpoints(self._rows("SELECT * FROM endpoints WHERE network = ? ORDER BY id", network_id))

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """Find an endpoint by its id."""
        found = self._endpoints(self._rows("SELECT * FROM endpoints WHERE id = ?", endpoint_id))
        return found[0] if found else None

    def in_use(self) -> list[str]:
        """The ids of the networks that have endpoints."""
        return [row["network"] for row in self._rows("SELECT DISTINCT network FROM endpoints ORDER BY network")]

    def _endpoints(self, rows: Iterable[sqlite3.Row]) -> list[Endpoint]:
        found = []
        for row in rows:
            ports = self._rows("SELECT * FROM published_ports WHERE endpoint = ? ORDER BY container_port, host_port", row["id"])
            found.append(
                Endpoint(
                    id=row["id"],
                    network_id=row["network"],
                    container_id=row["container_id"],
                    interface=row["interface"],
                    mac=row["mac"],
                    addresses=tuple(json.loads(row["addresses"])),
                    aliases=tuple(json.loads(row["aliases"])),
                    ports=tuple(
                        PortMapping(
                            container_port=each["container_port"], protocol=each["protocol"], host_ip=each["host_ip"],
                            host_port=each["host_port"],
                        )
                        for each in ports
                    ),
                )
            )  # fmt: skip
        return found

    def _network(self, row: sqlite3.Row) -> Network:
        document = json.loads(row["document"])
        subnets = self._rows("SELECT * FROM network_subnets WHERE network = ? ORDER BY place", row["id"])
        return Network(
            id=row["id"],
            name=row["name"],
            driver=row["driver"],
            subnets=tuple(Subnet(subnet=each["subnet"], gateway=each["gateway"], ip_range=each["ip_range"]) for each in subnets),
            options=document["options"],
            labels=document["labels"],
            internal=bool(row["internal"]),
            ipv6=bool(row["ipv6"]),
            created_ns=row["created_ns"],
        )

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        return self.database.connection.execute(query, values).fetchall()


def own_id(name: str, root_dir: str) -> str:
    """The id of a driver's own network: of Docker's shape, and the same for ever in one root directory."""
    return Digest.of(f"network {name} {root_dir}".encode()).hex


def _clash(one: str, other: str) -> bool:
    """Whether two addresses of the host, "" for all, can't both have the same port."""
    if one and other and one not in {"0.0.0.0", "::"} and other not in {"0.0.0.0", "::"}:
        return one == other
    families = [{4, 6} if not each else {6} if ":" in each else {4} for each in (one, other)]
    return bool(families[0] & families[1])
