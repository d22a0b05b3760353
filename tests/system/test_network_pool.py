"""Addresses and networks that come and go: what can't be made, what is used up, and many containers at once."""

import errno
import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import leaks
import netspaces
import pytest
from packets import addresses

from lamina.container import ContainerHandle
from lamina.engine import Engine
from lamina.errors import ConflictError, LaminaError, NotFoundError, NotUsableError, UsageError
from lamina.linux import link, netlink, route
from lamina.model.network import EndpointRequest, Subnet

FOREVER = ["sleep", "1000000"]
MANY = 200 if os.environ.get("LAMINA_KILLS") == "all" else 40
AT_ONCE = 20


@pytest.fixture
def root(tmp_path: Path, prepared_roots: dict[str, Path], own_mounts: None, own_network: None) -> Iterator[Path]:
    """A root directory with `busybox`; at its end no link, no rule and no place in a network is left."""
    root = tmp_path / "root"
    subprocess.run(["cp", "--archive", "--reflink=auto", str(prepared_roots["overlay"]), str(root)], check=True)
    with leaks.nothing_left(root):
        yield root
    assert nothing_of_networks(root)


def nothing_of_networks(root: Path) -> bool:
    """Whether nothing is left of endpoints, in the database or in the kernel."""
    for table in ("endpoints", "network_addresses", "published_ports", "operations"):
        assert leaks.rows(root, f"SELECT * FROM {table}") == []
    with netlink.Socket() as host:
        assert [each.name for each in link.links(host) if each.name != "lo" and not each.name.startswith("own")] == []
    assert netspaces.run("nft", "list", "tables") == ""
    return True


@pytest.fixture
def engine(root: Path) -> Iterator[Engine]:
    """An engine on that root."""
    with Engine(root_dir=str(root), storage_driver="overlay", warn=lambda _text: None) as engine:
        yield engine


Run = Callable[..., ContainerHandle]


@pytest.fixture
def run(engine: Engine) -> Iterator[Run]:
    """Run a container for good; it is removed in the end."""
    made: list[ContainerHandle] = []

    def start(network: str, **options: Any) -> ContainerHandle:
        made.append(engine.containers.create("busybox", FOREVER, network=network, **options))
        made[-1].start()
        return made[-1]

    yield start
    for container in made:
        container.remove(force=True)


# What can't be made


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"subnets": [Subnet(subnet="172.30.0.0")]}, "'172.30.0.0' is no subnet"),
        ({"subnets": [Subnet(subnet="172.30.0.0/33")]}, "is no subnet"),
        ({"subnets": [Subnet(subnet="172.30.0.1/24")]}, "has bits set behind its prefix"),
        ({"subnets": [Subnet(subnet="nonsense/24")]}, "is no subnet"),
        ({"subnets": [Subnet(subnet="172.30.0.0/31")]}, "no room"),
        ({"subnets": [Subnet(subnet="172.30.0.0/24", gateway="172.31.0.1")]}, "is not in the subnet"),
        ({"subnets": [Subnet(subnet="172.30.0.0/24", gateway="x")]}, "'x' is no IP address"),
        ({"subnets": [Subnet(subnet="172.30.0.0/24", ip_range="172.30.0.0/16")]}, "is not in the subnet"),
        ({"subnets": [Subnet(subnet="172.30.0.0/24"), Subnet(subnet="172.30.0.0/25")]}, "the same network has"),
        ({"subnets": [Subnet(subnet="172.30.0.0/24"), Subnet(subnet="172.31.0.0/24")]}, "two subnets of IPv4"),
        ({"subnets": [Subnet(subnet="172.29.128.0/17")]}, "overlaps with '172.29.0.0/16', which network 'taken' has"),
        ({"subnets": [Subnet(subnet="198.51.100.0/25")]}, "overlaps with '198.51.100.0/24', which this host reaches otherwise"),
        ({"options": {"mtu": "x"}}, "'x' is not a number"),
        ({"options": {"name": "a/b"}}, "no name of a bridge"),
        ({"options": {"nonsense": "1"}}, "no option 'nonsense'"),
        ({"options": {"icc": "maybe"}}, "not true or false"),
        ({"driver": "host"}, "has one network, its own"),
        ({"driver": "nobody"}, "network driver 'nobody' is not installed"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line_and_nothing_is_made(engine: Engine, given: dict[str, Any], words: str) -> None:
    engine.networks.create("taken", subnets=[Subnet(subnet="172.29.0.0/16")])
    with netlink.Socket() as host:
        link.create(host, "own0", link.Bridge(), is_up=True)
        route.add_address(host, link.get(host, "own0").ifindex, "198.51.100.1/24")
    with pytest.raises(LaminaError) as caught:
        engine.networks.create("wrong", **given)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert [each.name for each in engine.networks.all()] == ["bridge", "host", "none", "taken"]


@pytest.mark.parametrize("name", ["bridge", "host", "none", "macvlan", "default", "container", "taken"])
def test_names_that_are_taken(engine: Engine, name: str) -> None:
    engine.networks.create("taken")
    with pytest.raises(ConflictError):
        engine.networks.create(name)
    with pytest.raises(UsageError, match="invalid network name"):
        engine.networks.create("a:b")


def test_subnets_are_chosen_clear_of_networks_and_of_the_host(engine: Engine) -> None:
    with netlink.Socket() as host:
        link.create(host, "own0", link.Bridge(), is_up=True)
        ifindex = link.get(host, "own0").ifindex
        route.add_address(host, ifindex, "172.17.5.1/24")
        route.add_route(host, route.Route("172.18.0.0/15", gateway="172.17.5.2"))
    made = [engine.networks.create(f"net{number}", ipv6=number == 1) for number in range(3)]
    assert [each.subnets[0].subnet for each in made] == ["172.20.0.0/16", "172.21.0.0/16", "172.22.0.0/16"]
    assert made[1].subnets[1].subnet.startswith("fd")
    assert made[1].subnets[1].gateway.endswith("::1")


def test_when_no_subnet_is_left_it_is_said(engine: Engine) -> None:
    for first, subnet in enumerate(("172.16.0.0/12", "192.168.0.0/16")):
        engine.networks.create(f"all{first}", subnets=[Subnet(subnet=subnet)])
    with pytest.raises(LaminaError, match="no subnet is free for a new network"):
        engine.networks.create("more")


# Addresses


def test_a_pool_that_is_used_up_is_said_before_anything_starts_and_an_address_given_back_is_used(engine: Engine, run: Run) -> None:
    engine.networks.create("tiny", subnets=[Subnet(subnet="172.30.0.0/29", ip_range="172.30.0.4/30")])
    ours = [run("tiny") for _ in range(3)]
    assert sorted(addresses(each)[0] for each in ours) == ["172.30.0.4", "172.30.0.5", "172.30.0.6"]
    with pytest.raises(LaminaError, match=r"network 'tiny' has no free address left in '172\.30\.0\.4/30'"):
        run("tiny")
    assert [each.status for each in engine.containers.all()].count("created") == 1
    (given_back,) = addresses(ours[1])
    ours[1].stop(timeout_s=0)
    assert addresses(run("tiny")) == [given_back]


def test_an_address_that_was_just_given_back_rests(run: Run) -> None:
    first = run("bridge")
    assert addresses(first) == ["172.17.0.2"]
    first.stop(timeout_s=0)
    assert addresses(run("bridge")) == ["172.17.0.3"]
    first.start()
    assert addresses(first) == ["172.17.0.4"]


def test_an_address_may_be_chosen_in_a_network_that_was_made(engine: Engine, run: Run) -> None:
    engine.networks.create("mine", subnets=[Subnet(subnet="172.30.0.0/24"), Subnet(subnet="fd00:9::/64")])

    def asked(**given: Any) -> ContainerHandle:
        return run("", networks=[EndpointRequest(network="mine", **given)])

    chosen = asked(ipv4="172.30.0.77", ipv6="fd00:9::77", mac="02:00:00:00:00:77")
    assert addresses(chosen) == ["172.30.0.77", "fd00:9::77"]
    assert "02:00:00:00:00:77" in chosen.exec_output(["ip", "link", "show", "eth0"])
    assert addresses(asked())[0] == "172.30.0.2"
    for given, words in (
        ({"ipv4": "172.30.0.77"}, f"in use by container '{chosen.id[:12]}'"),
        ({"ipv4": "172.31.0.7"}, "is not in a subnet of network 'mine'"),
        ({"ipv4": "172.30.0.1"}, "is the gateway's"),
        ({"ipv4": "172.30.0.255"}, "broadcast"),
        ({"ipv6": "fd00:8::1"}, "is not in a subnet"),
    ):
        with pytest.raises(LaminaError, match=words):
            asked(**given)
    with pytest.raises(UsageError, match="network 'bridge' has no chosen addresses"):
        run("", networks=[EndpointRequest(network="bridge", ipv4="172.17.0.9")])
    with pytest.raises(UsageError, match="network 'bridge' has no aliases"):
        run("", networks=[EndpointRequest(network="bridge", aliases=("x",))])


# Networks that are used


def test_a_network_in_use_is_not_removed_and_an_unknown_one_is_said(engine: Engine, run: Run) -> None:
    engine.networks.create("mine")
    engine.networks.create("idle")
    container = run("mine", name="user")
    with pytest.raises(ConflictError, match="network 'mine' is in use by container 'user'"):
        engine.networks.remove("mine")
    assert engine.networks.prune() == ["idle"]
    container.stop(timeout_s=0)
    assert engine.networks.prune() == []
    engine.networks.remove("mine")
    with pytest.raises(NotFoundError, match="no such network: 'mine'"):
        container.start()
    with pytest.raises(NotFoundError, match="no such network: 'mine'"):
        run("mine")
    with pytest.raises(ConflictError, match="predefined"):
        engine.networks.remove("bridge")
    with pytest.raises(ConflictError, match="predefined"):
        engine.networks.remove("host")


def test_none_and_host_are_not_combined_nor_connected(engine: Engine, run: Run) -> None:
    engine.networks.create("mine")
    with pytest.raises(UsageError, match="can't be combined"):
        run("", networks=[EndpointRequest(network="host"), EndpointRequest(network="mine")])
    with pytest.raises(UsageError, match="can't be combined"):
        run("", networks=[EndpointRequest(network="mine"), EndpointRequest(network="none")])
    with pytest.raises(UsageError, match="given twice"):
        run("", networks=[EndpointRequest(network="mine"), EndpointRequest(network="mine")])
    alone = run("none")
    with pytest.raises(LaminaError, match="can't be changed"):
        engine.networks.connect("mine", alone.record)
    with pytest.raises(UsageError, match="no container can be connected to network 'host'"):
        engine.networks.connect("host", run("mine").record)


def test_a_setup_that_fails_leaves_nothing(engine: Engine, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.networks.create("named", options={"name": "own1"})
    with netlink.Socket() as host:
        link.create(host, "own1", link.Bridge())
    with pytest.raises(LaminaError, match="isn't ours"):
        run("named")
    assert leaks.rows(Path(engine.context.root_dir), "SELECT * FROM endpoints") == []
    assert netspaces.run("nft", "list", "tables") == ""
    assert [each.status for each in engine.containers.all()] == ["created"]


def test_without_nftables_it_is_said_in_one_line_and_nothing_is_left(
    engine: Engine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = netlink._opened

    def refused(protocol: int) -> Any:  # what socket(2) says where the kernel has it not
        if protocol == netlink.NETLINK_NETFILTER:
            raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")
        return opened(protocol)

    monkeypatch.setattr(netlink, "_opened", refused)
    with pytest.raises(NotUsableError, match="this kernel has no nftables, which bridges need"):
        run("bridge")
    assert run("none").status == "running"
    monkeypatch.undo()
    assert leaks.rows(Path(engine.context.root_dir), "SELECT * FROM endpoints") == []
    with netlink.Socket() as host:
        assert [each.name for each in link.links(host)] == ["lo"]
    assert [each.record.error for each in engine.containers.all() if each.status == "created"] == [
        "this kernel has no nftables, which bridges need"
    ]


# Many


def _start(root: str, count: int, number: int) -> list[tuple[str, str]]:
    started = []
    with Engine(root_dir=root, storage_driver="overlay", warn=lambda _text: None) as engine:
        for each in range(count):
            container = engine.containers.create("busybox", FOREVER, network="many", name=f"c{number}-{each}")
            container.start()
            started.append((container.id, addresses(container)[0]))
    return started


def _remove(root: str, ids: list[str]) -> int:
    with Engine(root_dir=root, storage_driver="overlay", warn=lambda _text: None) as engine:
        for each in ids:
            engine.containers.get(each).remove(force=True)
    return len(ids)


def test_many_containers_come_and_go_at_once(engine: Engine, root: Path) -> None:
    engine.networks.create("many")
    engine.context.database.close()
    each = MANY // AT_ONCE
    with multiprocessing.get_context("fork").Pool(AT_ONCE) as pool:
        started = pool.starmap(_start, [(str(root), each, number) for number in range(AT_ONCE)])
        found = [pair for some in started for pair in some]
        assert len({address for _, address in found}) == MANY
        with netlink.Socket() as host:
            bridge = next(one for one in link.links(host) if one.name.startswith("lb"))
            assert len(link.links(host, master=bridge.ifindex)) == MANY
        with engine.containers.get("c0-0") as first:
            known = {word for line in first.exec_output(["cat", "/etc/hosts"]).splitlines() for word in line.split()[1:]}
            assert known.issuperset({f"c{number}-{one}" for number in range(AT_ONCE) for one in range(each)} - {"c0-0"})
            assert "1 packets received" in first.exec_output(["ping", "-c", "1", "-W", "2", f"c{AT_ONCE - 1}-{each - 1}"])
            engine.context.database.close()
            pool.starmap(_remove, [(str(root), [name for name, _ in some]) for some in started])
        pool.close()
        pool.join()
    assert engine.containers.all() == []
    assert nothing_of_networks(root)
