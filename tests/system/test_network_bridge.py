"""The networks `bridge` and `macvlan` with packets: who reaches whom, published ports, several networks, repair.

Each test has a network namespace of its own, which is "the host" to its containers; another one stands for another machine.
"""

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import leaks
import netspaces
import pytest
from netspaces import Netspace
from packets import Client, Server, addresses, exchange, net, say

from lamina.container import ContainerHandle
from lamina.engine import Engine
from lamina.errors import ConflictError, LaminaError, NotFoundError, StateError, UsageError
from lamina.linux import link, netlink, netns, route
from lamina.model.network import EndpointRequest, Subnet, parse_port

FOREVER = ["sleep", "1000000"]
V6 = "fd00:16::/64"
NO_SERVER = "127.0.0.1"
"""As name server: in a container nobody is there, so that an unknown name is refused at once."""


@pytest.fixture
def root(tmp_path: Path, prepared_roots: dict[str, Path], own_mounts: None, own_network: None) -> Iterator[Path]:
    """A root directory with `busybox`; at its end no link, no rule and no place in a network is left."""
    root = tmp_path / "root"
    subprocess.run(["cp", "--archive", "--reflink=auto", str(prepared_roots["overlay"]), str(root)], check=True)
    with leaks.nothing_left(root):
        yield root
    assert leaks.rows(root, "SELECT * FROM endpoints") == []
    assert leaks.rows(root, "SELECT * FROM network_addresses") == []
    assert leaks.rows(root, "SELECT * FROM published_ports") == []
    assert [each for each in links() if each.startswith(("lb", "lv", "ld", "lnew", "lamina"))] == []
    assert netspaces.run("nft", "list", "tables") == ""


@pytest.fixture
def warnings() -> list[str]:
    """What the engine has warned of."""
    return []


@pytest.fixture
def engine(root: Path, warnings: list[str]) -> Iterator[Engine]:
    """An engine on that root."""
    with Engine(root_dir=str(root), storage_driver="overlay", warn=warnings.append) as engine:
        yield engine


Run = Callable[..., ContainerHandle]


@pytest.fixture
def run(engine: Engine) -> Iterator[Run]:
    """Run a container for good; it is removed in the end."""
    made: list[ContainerHandle] = []

    def start(network: str = "bridge", *ports: str, **options: Any) -> ContainerHandle:
        mappings = tuple(mapping for text in ports for mapping in parse_port(text))
        options = {"dns": [NO_SERVER], **options} if not network.startswith("container:") else options
        container = engine.containers.create("busybox", FOREVER, network=network, ports=mappings, **options)
        made.append(container)
        container.start()
        return container

    yield start
    for container in made:
        container.remove(force=True)


@pytest.fixture
def machine(own_network: None) -> Iterator[Netspace]:
    """Another machine, 192.0.2.2 and 2001:db8::2, on a wire to the host, 192.0.2.1 and 2001:db8::1."""
    with netspaces.netspace() as other:
        with netlink.Socket() as host:
            link.create(host, "wire", link.Veth("wire", peer_namespace_fd=other.fd), is_up=True)
            ifindex = link.get(host, "wire").ifindex
            for address in ("192.0.2.1/24", "2001:db8::1/64"):
                route.add_address(host, ifindex, address, has_dad=False)
        with netlink.Socket(namespace=other.path) as there:
            link.change(there, "wire", is_up=True)
            ifindex = link.get(there, "wire").ifindex
            for address in ("192.0.2.2/24", "2001:db8::2/64"):
                route.add_address(there, ifindex, address, has_dad=False)
            while not link.get(there, "wire").is_running:
                os.sched_yield()
        yield other


def links() -> list[str]:
    with netlink.Socket() as host:
        return [each.name for each in link.links(host)]


# One network, several, none


def test_containers_of_a_network_reach_each_other_by_name_and_others_do_not(engine: Engine, run: Run) -> None:
    engine.networks.create("one")
    engine.networks.create("other")
    first = run("one", name="first")
    second = run("one", name="second")
    stranger = run("other", name="stranger")
    assert "1 packets received" in first.exec_output(["ping", "-c", "1", "-W", "2", "second"])
    assert "1 packets received" in second.exec_output(["ping", "-c", "1", "-W", "2", "first"])
    with pytest.raises(LaminaError):
        stranger.exec_output(["ping", "-c", "1", "-W", "1", "first"])
    (there,) = addresses(first)
    with Server(net(first), "udp", 5000) as server:
        say(net(second), there, 5000, b"neighbour")
        assert server.has_heard(b"neighbour")
        say(net(stranger), there, 5000, b"stranger")
        say(net(second), there, 5000, b"neighbour again")
        assert server.has_heard(b"neighbour again")
    second.stop(timeout_s=0)
    with pytest.raises(LaminaError, match="bad address"):
        first.exec_output(["ping", "-c", "1", "-W", "1", "second"])


def test_the_host_reaches_a_container_and_a_container_the_host_and_another_machine(run: Run, machine: Netspace) -> None:
    container = run()
    (there,) = addresses(container)
    with Server(net(container), "tcp", 80) as server, Client("", "tcp", there, 80) as client:
        assert server.meets(client) == "172.17.0.1"
    with Server("", "udp", 5353) as server, Client(net(container), "udp", "172.17.0.1", 5353) as client:
        assert server.meets(client) == there
    with Server(machine.path, "tcp", 80) as server, Client(net(container), "tcp", "192.0.2.2", 80) as client:
        assert server.meets(client) == "192.0.2.1"


def test_a_neighbour_that_routes_to_the_network_reaches_nothing_that_is_not_published(run: Run, machine: Netspace) -> None:
    container = run("bridge", "8080:80/udp")
    (there,) = addresses(container)
    machine.run("ip", "route", "add", "172.17.0.0/16", "via", "192.0.2.1")
    with Server(net(container), "udp", 80) as server:
        say(machine.path, "192.0.2.1", 8080, b"published")
        assert server.has_heard(b"published")
        say(machine.path, there, 80, b"routed")
        say(machine.path, "192.0.2.1", 8080, b"published again")
        assert server.has_heard(b"published again")


def test_an_internal_network_leads_nowhere_and_publishes_nothing(engine: Engine, run: Run, machine: Netspace) -> None:
    engine.networks.create("inside", internal=True)
    first, second = run("inside", "8080:80", name="first"), run("inside", name="second")
    assert "1 packets received" in first.exec_output(["ping", "-c", "1", "-W", "2", "second"])
    assert engine.networks.ports(first.record) == []
    with pytest.raises(OSError, match="unreachable"):
        Client(net(first), "udp", "192.0.2.2", 80)
    assert "default" not in second.exec_output(["ip", "route"])


def test_a_container_may_be_in_several_networks_and_the_first_leads_out(engine: Engine, run: Run) -> None:
    for name in ("front", "back"):
        engine.networks.create(name)
    both = run("", networks=(EndpointRequest(network="front"), EndpointRequest(network="back", aliases=("db",))), name="both")
    behind = run("back", name="behind")
    assert len(addresses(both)) == 2
    assert "1 packets received" in behind.exec_output(["ping", "-c", "1", "-W", "2", "db"])
    front = engine.networks.get("front")
    assert f"default via {front.subnets[0].gateway} dev eth0" in both.exec_output(["ip", "route"])


def test_a_running_container_is_connected_and_disconnected(engine: Engine, run: Run) -> None:
    for name in ("one", "two"):
        engine.networks.create(name)
    container, other = run("one", name="moving"), run("two", name="staying")
    engine.networks.connect("two", container.record, aliases=["moved"])
    assert "1 packets received" in other.exec_output(["ping", "-c", "1", "-W", "2", "moved"])
    assert [network.name for network, _ in engine.networks.endpoints(container.record)] == ["one", "two"]
    with pytest.raises(ConflictError, match="already"):
        engine.networks.connect("two", container.record)
    engine.networks.disconnect("one", container.record)
    gateway = engine.networks.get("two").subnets[0].gateway
    assert f"default via {gateway} dev eth1" in container.exec_output(["ip", "route"])
    assert "eth0" not in container.exec_output(["ip", "link"])
    engine.networks.disconnect("two", container.record)
    assert addresses(container) == []
    with pytest.raises(LaminaError, match="bad address"):
        other.exec_output(["ping", "-c", "1", "-W", "1", "moved"])
    engine.networks.connect("one", container.record)
    container.restart(timeout_s=0)
    assert [network.name for network, _ in engine.networks.endpoints(container.record)] == ["one"]


def test_published_ports_go_and_come_with_the_network_that_leads_out(engine: Engine, run: Run) -> None:
    for name in ("one", "two"):
        engine.networks.create(name)
    container = run("one", "4000:80", name="moving")
    engine.networks.disconnect("one", container.record)
    assert engine.networks.ports(container.record) == []
    with Server("", "tcp", 4000):
        with pytest.raises(ConflictError, match="tcp port 4000 is in use by another program"):
            engine.networks.connect("two", container.record)
    assert addresses(container) == []
    engine.networks.connect("two", container.record)
    assert exchange(container, "tcp", 80, "127.0.0.1", 4000) == engine.networks.get("two").subnets[0].gateway
    assert exchange(container, "tcp", 80, "::1", 4000) == engine.networks.get("two").subnets[0].gateway


def test_no_container_is_a_router_to_the_host_or_to_others(engine: Engine, run: Run) -> None:
    engine.networks.create("six", ipv6=True, internal=True)
    container = run("six")
    bridge = next(each for each in links() if each.startswith("lb"))
    assert netns.sysctl(f"net/ipv6/conf/{bridge}/accept_ra") == "0"
    assert netns.sysctl("net/ipv6/conf/eth0/accept_ra", namespace=net(container)) == "0"


def test_one_container_joins_another_ones_network_and_names(engine: Engine, run: Run) -> None:
    engine.networks.create("ours")
    first = run("ours", name="first", hostname="shared")
    second = run("container:first", name="second")
    assert os.stat(net(first)).st_ino == os.stat(net(second)).st_ino
    assert second.exec_output(["hostname"]) == "shared\n"
    assert second.exec_output(["cat", "/etc/hosts"]) == first.exec_output(["cat", "/etc/hosts"])
    run("ours", name="third")
    assert "third" in second.exec_output(["cat", "/etc/hosts"])
    with pytest.raises(UsageError, match="publishes no ports"):
        run("container:first", "80:80")
    second.stop(timeout_s=0)
    first.stop(timeout_s=0)
    with pytest.raises(StateError, match="'first', whose network is to be joined, is not running"):
        second.start()


# Published ports


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_published_port_is_reached_from_everywhere(run: Run, machine: Netspace, protocol: str) -> None:
    container = run("bridge", f"4000:80/{protocol}")
    (own,) = addresses(container)
    assert exchange(container, protocol, 80, "127.0.0.1", 4000) == "172.17.0.1"
    assert exchange(container, protocol, 80, "192.0.2.1", 4000) == "192.0.2.1"
    assert exchange(container, protocol, 80, "172.17.0.1", 4000) == "172.17.0.1"
    assert exchange(container, protocol, 80, "::1", 4000) == "172.17.0.1"
    assert exchange(container, protocol, 80, "2001:db8::1", 4000) == "172.17.0.1"
    assert exchange(container, protocol, 80, "192.0.2.1", 4000, origin=machine.path) == "192.0.2.2"
    assert exchange(container, protocol, 80, "2001:db8::1", 4000, origin=machine.path) == "172.17.0.1"
    assert exchange(container, protocol, 80, "192.0.2.1", 4000, origin=net(container)) == "172.17.0.1"
    neighbour = run()
    assert exchange(container, protocol, 80, "192.0.2.1", 4000, origin=net(neighbour)) == "172.17.0.1"
    assert own not in addresses(neighbour)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_in_a_network_with_ipv6_the_kernel_does_it_and_the_sender_is_seen(
    engine: Engine, run: Run, machine: Netspace, protocol: str
) -> None:
    engine.networks.create("six", subnets=[Subnet(subnet="172.30.0.0/24"), Subnet(subnet=V6)])
    container = run("six", f"4000:80/{protocol}")
    assert addresses(container) == ["172.30.0.2", "fd00:16::2"]
    assert exchange(container, protocol, 80, "2001:db8::1", 4000, origin=machine.path) == "2001:db8::2"
    assert exchange(container, protocol, 80, "2001:db8::1", 4000) == "2001:db8::1"
    assert exchange(container, protocol, 80, "127.0.0.1", 4000) == "172.30.0.1"
    with Server(net(container), protocol, 80, "::") as server, Client("", protocol, "::1", 4000) as client:
        assert server.meets(client) == "fd00:16::1"
    with Server(machine.path, protocol, 80, "2001:db8::2") as server:
        with Client(net(container), protocol, "2001:db8::2", 80) as client:
            assert server.meets(client) == "2001:db8::1"


def test_a_port_may_be_published_on_one_address_alone(run: Run, machine: Netspace) -> None:
    first, second = run("bridge", "127.0.0.1:4000:80/udp"), run("bridge", "192.0.2.1:4000:80/udp")
    assert exchange(first, "udp", 80, "127.0.0.1", 4000) == "172.17.0.1"
    assert exchange(second, "udp", 80, "192.0.2.1", 4000, origin=machine.path) == "192.0.2.2"
    third = run("bridge", "[::1]:5000:80/udp")
    assert exchange(third, "udp", 80, "::1", 5000) == "172.17.0.1"


def test_what_is_published_on_loopback_is_not_a_neighbours(run: Run, machine: Netspace) -> None:
    container = run("bridge", "127.0.0.1:4000:80/udp")
    for words in (
        ("ip", "addr", "del", "127.0.0.1/8", "dev", "lo"),
        ("sysctl", "-q", "-w", "net.ipv4.conf.all.route_localnet=1"),
        ("ip", "route", "add", "127.0.0.1/32", "via", "192.0.2.1"),
    ):
        machine.run(*words)
    with Server(net(container), "udp", 80) as server:
        say(machine.path, "127.0.0.1", 4000, b"neighbour")
        say("", "127.0.0.1", 4000, b"host")
        assert server.has_heard(b"host")


def test_containers_do_not_reach_the_hosts_loopback(run: Run) -> None:
    container = run("bridge", "4000:80")
    inside = ("nsenter", f"--net={net(container)}")
    for words in (
        ("ip", "addr", "del", "127.0.0.1/8", "dev", "lo"),
        ("sysctl", "-q", "-w", "net.ipv4.conf.all.route_localnet=1"),
        ("ip", "route", "add", "127.0.0.1/32", "via", "172.17.0.1"),
    ):
        netspaces.run(*inside, *words)
    with Server("", "udp", 5353, "127.0.0.1") as server:
        say(net(container), "127.0.0.1", 5353, b"container")
        say("", "127.0.0.1", 5353, b"host")
        assert server.has_heard(b"host")


def test_a_sender_of_udp_finds_the_container_that_has_the_port_now(run: Run, machine: Netspace) -> None:
    with Client(machine.path, "udp", "192.0.2.1", 4000) as client, Client("", "udp", "127.0.0.1", 4000) as local:
        for each in (client, local):
            each.socket.send(b"too early")
            with pytest.raises(OSError, match="refused"):
                each.socket.recv(100)
        container = run("bridge", "4000:80/udp")
        for _ in range(2):
            with Server(net(container), "udp", 80) as server:
                assert server.meets(client) == "192.0.2.2"
                assert server.meets(local) == "172.17.0.1"
            container.restart(timeout_s=0)


def test_a_port_that_a_program_has_is_refused_before_anything_starts(engine: Engine, run: Run, root: Path) -> None:
    with Server("", "tcp", 4000):
        with pytest.raises(ConflictError, match="tcp port 4000 is in use by another program"):
            run("bridge", "4000:80")
        run("bridge", "4000:80/udp")
    assert [each.pid for each in engine.containers.all() if each.status == "created"] == [0]


def test_a_port_that_a_container_has_is_refused_by_its_name(engine: Engine, run: Run) -> None:
    run("bridge", "4000:80", name="holder")
    for text in ("4000:81", "127.0.0.1:4000:80", "[::1]:4000:80"):
        with pytest.raises(ConflictError, match="tcp port 4000 is in use by container 'holder'"):
            run("bridge", text)
    failed = [each for each in engine.containers.all() if each.name != "holder"]
    assert all(each.inspect()["State"]["Error"].startswith("tcp port 4000") for each in failed)
    engine.containers.get("holder").stop(timeout_s=0)
    failed[0].start()


def test_while_a_port_is_published_no_program_gets_it(run: Run) -> None:
    run("bridge", "4000:80", "4001:80/udp")
    for protocol, port in (("tcp", 4000), ("udp", 4001)):
        with pytest.raises(OSError, match="in use"):
            Server("", protocol, port)


def test_ranges_and_any_port(engine: Engine, run: Run) -> None:
    container = run("bridge", "4000-4002:80-82", "80/udp")
    assert [each.host_port for each in engine.networks.ports(container.record) if each.protocol == "tcp"] == [4000, 4001, 4002]
    (any_port,) = [each for each in engine.networks.ports(container.record) if each.protocol == "udp"]
    assert exchange(container, "udp", 80, "127.0.0.1", any_port.host_port) == "172.17.0.1"
    assert exchange(container, "tcp", 82, "127.0.0.1", 4002) == "172.17.0.1"
    second = run("bridge", "4002-4004:80")
    assert [each.host_port for each in engine.networks.ports(second.record)] == [4003]
    third = run("bridge", publish_all=True)
    assert engine.networks.ports(third.record) == []
    with pytest.raises(ConflictError, match="every tcp port from 4000 to 4001"):
        run("bridge", "4000-4001:80")


def test_two_hundred_connections_through_the_process_that_forwards(run: Run) -> None:
    container = run("bridge", "4000:80")
    blob = os.urandom(1 << 20)
    with Server(net(container), "tcp", 80) as server:
        server.socket.listen(300)
        clients = [Client("", "tcp", "::1", 4000) for _ in range(200)]
        served = [server.socket.accept()[0] for _ in clients]
        clients[0].socket.settimeout(20)
        served[0].settimeout(20)
        for client, number in zip(clients[1:], range(1, 200), strict=True):
            client.socket.sendall(bytes([number % 256]))
        said = sorted(each.recv(1) for each in select_ready(served, 199))
        assert said == sorted(bytes([number % 256]) for number in range(1, 200))
        for each in (*served, *(client.socket for client in clients)):
            each.close()
        with Client("", "tcp", "::1", 4000) as client:
            connection, _ = server.socket.accept()
            sender = os.fork()
            if not sender:
                client.socket.sendall(blob)
                client.socket.shutdown(socket.SHUT_WR)
                os._exit(0)
            received = b""
            while chunk := connection.recv(1 << 16):
                received += chunk
            os.waitpid(sender, 0)
            assert received == blob
            connection.sendall(b"thanks")
            connection.close()
            assert client.socket.recv(100) == b"thanks"
            assert client.socket.recv(100) == b""


def select_ready(sockets: list[socket.socket], count: int) -> list[socket.socket]:
    """The first so many sockets that have something to read."""
    import select

    poll = select.poll()
    by_fd = {each.fileno(): each for each in sockets}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    found: list[socket.socket] = []
    while len(found) < count:
        for fd, _ in poll.poll(5000):
            poll.unregister(fd)
            found.append(by_fd[fd])
    return found


# The host


def test_forwarding_is_switched_on_where_it_is_needed_and_said_so(run: Run, engine: Engine, warnings: list[str]) -> None:
    netns.set_sysctls([("net/ipv4/ip_forward", "0"), ("net/ipv6/conf/all/forwarding", "0")])
    engine.networks.create("inside", internal=True)
    run("inside")
    assert warnings == []
    run()
    assert netns.sysctl("net/ipv4/ip_forward") == "1"
    assert netns.sysctl("net/ipv6/conf/all/forwarding") == "0"
    run()
    (warning,) = warnings
    assert warning == "the kernel's setting net.ipv4.ip_forward is 1 now: containers' packets are forwarded by it"


def test_rules_that_a_firewall_deleted_come_back_by_repair_and_by_the_next_start(engine: Engine, run: Run) -> None:
    engine.networks.create("other")
    first, second = run("bridge", "4000:80"), run("other", "5000:80")
    for heal in (engine.networks.repair, lambda: run("bridge")):
        netspaces.run("nft", "flush", "ruleset")
        heal()
        for container, port in ((first, 4000), (second, 5000)):
            assert (
                exchange(container, "tcp", 80, "127.0.0.1", port)
                == engine.networks.endpoints(container.record)[0][0].subnets[0].gateway
            )
    assert sorted(engine.networks.repair()) == ["bridge", "other"]
    ruleset = netspaces.run("nft", "list", "ruleset")
    engine.networks.repair()
    assert netspaces.run("nft", "list", "ruleset") == ruleset


def test_a_deleted_bridge_and_process_come_back_by_repair(engine: Engine, run: Run, root: Path) -> None:
    container = run("bridge", "4000:80")
    bridge = next(each for each in links() if each.startswith("lb"))
    ((forwarder,),) = leaks.rows(root, "SELECT forwarder FROM endpoints")
    os.kill(int(str(forwarder)), 9)
    os.waitpid(int(str(forwarder)), 0)
    with netlink.Socket() as host:
        link.delete(host, bridge)
    assert engine.networks.repair("bridge") == ["bridge"]
    assert exchange(container, "tcp", 80, "127.0.0.1", 4000) == "172.17.0.1"
    assert exchange(container, "tcp", 80, "::1", 4000) == "172.17.0.1"


def test_other_tables_are_not_touched(run: Run) -> None:
    theirs = (
        "table inet theirs { chain forward { type filter hook forward priority 0; policy accept; ip saddr 203.0.113.1 drop; }; }"
    )
    netspaces.run("nft", "-f", "-", input=theirs)
    before = netspaces.run("nft", "list", "table", "inet", "theirs")
    container = run("bridge", "4000:80")
    assert exchange(container, "tcp", 80, "127.0.0.1", 4000)
    container.stop(timeout_s=0)
    assert netspaces.run("nft", "list", "table", "inet", "theirs") == before
    netspaces.run("nft", "delete", "table", "inet", "theirs")


def test_a_link_of_the_name_that_is_somebody_elses_is_not_taken(engine: Engine, run: Run) -> None:
    engine.networks.create("named", options={"name": "theirs0"})
    with netlink.Socket() as host:
        link.create(host, "theirs0", link.Bridge())
    with pytest.raises(LaminaError, match="the host has a link 'theirs0' already, which isn't ours"):
        run("named")
    assert "theirs0" in links()


def test_the_mtu_is_the_networks(engine: Engine, run: Run) -> None:
    engine.networks.create("small", options={"com.docker.network.driver.mtu": "1400"})
    container = run("small")
    assert "mtu 1400" in container.exec_output(["ip", "link", "show", "eth0"])
    assert {each["mtu"] for each in netspaces.ip("link") if each["ifname"] != "lo"} == {1400}


def test_inside_ipv6_is_off_in_a_network_without_it(run: Run) -> None:
    container = run()
    assert netns.sysctl("net/ipv6/conf/eth0/disable_ipv6", namespace=net(container)) == "1"


# macvlan


def test_macvlans_of_one_parent_reach_each_other_and_the_wire(engine: Engine, run: Run, machine: Netspace) -> None:
    engine.networks.create("lan", driver="macvlan", subnets=[Subnet(subnet="192.0.2.0/24", ip_range="192.0.2.128/25")],
                           options={"parent": "wire"})  # fmt: skip
    first, second = run("lan", name="first"), run("lan", name="second")
    assert addresses(first) == ["192.0.2.128"]
    assert "1 packets received" in first.exec_output(["ping", "-c", "1", "-W", "2", "second"])
    assert "1 packets received" in second.exec_output(["ping", "-c", "1", "-W", "2", "192.0.2.2"])
    assert first.exec_output(["cat", "/sys/class/net/eth0/address"]) != second.exec_output(["cat", "/sys/class/net/eth0/address"])
    assert netspaces.run("nft", "list", "tables") == ""
    with pytest.raises(UsageError, match="can't be published on network 'lan'"):
        run("lan", "80:80")
    engine.networks.disconnect("lan", second.record)
    assert "eth0" not in second.exec_output(["ip", "link"])
    engine.networks.connect("lan", second.record, ipv4="192.0.2.200")
    assert "1 packets received" in first.exec_output(["ping", "-c", "1", "-W", "2", "192.0.2.200"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs the option 'parent'"), ({"parent": "gone"}, "no link 'gone'"), ({"x": "1"}, "no option 'x'"),
        ({"parent": "lo", "mode": "x"}, "no mode of macvlan"),
    ],
)  # fmt: skip
def test_macvlan_options_that_make_no_sense(engine: Engine, options: dict[str, str], words: str) -> None:
    with pytest.raises(LaminaError, match=words):
        engine.networks.create("lan", driver="macvlan", options=options)
    assert [each.name for each in engine.networks.all() if each.driver == "macvlan"] == []
    with pytest.raises(NotFoundError):
        engine.networks.get("lan")


def test_json_of_the_table_is_what_nft_reads(run: Run) -> None:
    run("bridge", "4000:80")
    listed = json.loads(netspaces.run("nft", "-j", "list", "ruleset"))["nftables"]
    assert len({each["table"]["name"] for each in listed if "table" in each}) == 1
