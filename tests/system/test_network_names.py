"""Names in networks: whom a container finds by which name, from when and until when; and the files that say so.

"The host" of these tests is a network namespace of each test's own.
"""

import os
import resource
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from cases import FOREVER, Lamina, driver_of, is_gone, wait_until

from lamina.container import ContainerHandle
from lamina.engine import Engine
from lamina.errors import LaminaError, UsageError
from lamina.model.network import EndpointRequest


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    """Names are the same on every storage driver."""
    return driver_of(request)


@pytest.fixture
def engine(own_network: None, lamina: Lamina) -> Iterator[Engine]:
    """The library, with the networks `one` and `two`; its containers are removed at the end."""
    with lamina.library() as found:
        for name in ("one", "two"):
            found.networks.create(name)
        yield found
        for container in found.containers.all():
            container.remove(force=True)


def run(engine: Engine, name: str, network: str = "one", **options: Any) -> ContainerHandle:
    """A container that stays. Its name server is its own loopback, where a question that no file answers ends at once."""
    return engine.containers.run("busybox", FOREVER, name=name, network=network, dns=["127.0.0.1"], **options)


def hosts(container: ContainerHandle) -> dict[str, list[str]]:
    """What a container's /etc/hosts says: name to addresses."""
    found: dict[str, list[str]] = {}
    for line in container.exec_output(["cat", "/etc/hosts"]).splitlines():
        if not line.startswith("#"):
            address, *names = line.split()
            for name in names:
                found.setdefault(name, []).append(address)
    return found


def reaches(container: ContainerHandle, name: str, *, patience_s: int = 5) -> bool:
    """Whether a program in the container finds the name and gets an answer from there."""
    return container.exec(["ping", "-c", "1", "-W", str(patience_s), name]) == 0


def address(engine: Engine, container: ContainerHandle, network: str = "one") -> str:
    return next(place.address() for each, place in engine.networks.endpoints(container.record) if each.name == network)


def test_a_name_is_there_at_once_after_start_and_gone_at_once_after_stop(engine: Engine):
    first = run(engine, "first")
    assert not reaches(first, "second")
    second = run(engine, "second", networks=[EndpointRequest(network="one", aliases=("other",))])
    for name in ("second", "other", second.id[:12], "second.one"):
        assert reaches(first, name)
    assert reaches(second, "first"), "and the new one knows who was there before"
    assert hosts(first)["other"] == [address(engine, second)]
    assert hosts(second)["second"] == [address(engine, second)], "and itself, once"
    second.kill("KILL")
    assert not reaches(first, "second")
    assert "other" not in hosts(first)
    second.start()
    assert reaches(first, "other")
    second.stop(timeout_s=0)
    assert "second" not in hosts(first)


def test_a_name_goes_when_its_container_ends_by_itself(engine: Engine):
    first = run(engine, "first")
    brief = engine.containers.run("busybox", ["sh", "-c", "read line"], name="brief", network="one", open_stdin=True)
    assert "brief" in hosts(first)
    reading, writing = os.pipe()
    os.write(writing, b"end\n")
    brief.attach(stdin_fd=reading)
    assert "brief" not in hosts(first)
    os.close(reading)
    os.close(writing)


def test_names_do_not_reach_across_networks(engine: Engine):
    here, there = run(engine, "here"), run(engine, "there", "two")
    assert not reaches(here, "there")
    assert not reaches(there, "here")
    assert not reaches(here, address(engine, there, "two"), patience_s=1), "nor do packets"


def test_on_the_default_bridge_there_are_no_names_as_with_docker(engine: Engine):
    first, second = run(engine, "first", "bridge"), run(engine, "second", "bridge")
    assert reaches(first, address(engine, second, "bridge"))
    assert not reaches(first, "second")
    assert not reaches(second, "first")
    assert "second" not in hosts(second), "nor its own"
    for one, other in ((first, second), (second, first)):
        assert address(engine, other, "bridge") not in one.exec_output(["cat", "/etc/hosts"])
    assert reaches(second, second.id[:12]), "its own host name it knows"


def test_whoever_is_in_two_networks_knows_both_and_each_knows_it_by_its_own_address(engine: Engine):
    left, right = run(engine, "left"), run(engine, "right", "two")
    both = run(engine, "both", networks=[EndpointRequest(network="one"), EndpointRequest(network="two")])
    assert (reaches(both, "left"), reaches(both, "right")) == (True, True)
    assert (hosts(left)["both"], hosts(right)["both"]) == ([address(engine, both)], [address(engine, both, "two")])
    assert (reaches(left, "both"), reaches(right, "both")) == (True, True)
    assert "right" not in hosts(left)


def test_an_alias_of_two_containers_has_both_addresses(engine: Engine):
    asking = run(engine, "asking")
    same = [run(engine, name, networks=[EndpointRequest(network="one", aliases=("same",))]) for name in ("a1", "a2")]
    assert sorted(hosts(asking)["same"]) == sorted(address(engine, each) for each in same)


def test_a_running_container_is_connected_and_disconnected(engine: Engine):
    left, moving = run(engine, "left"), run(engine, "moving", "two")
    engine.networks.connect("one", moving.record, aliases=["guest"])
    assert (reaches(left, "guest"), reaches(moving, "left")) == (True, True)
    assert hosts(left)["guest"] == [address(engine, moving)]
    engine.networks.disconnect("one", moving.record)
    assert (reaches(left, "guest"), "left" in hosts(moving)) == (False, False)
    assert hosts(moving)[moving.id[:12]] == [address(engine, moving, "two")], "nor does it know its own old address"
    engine.networks.disconnect("two", moving.record)
    assert "moving" not in hosts(moving)
    moving.stop(timeout_s=0)
    engine.networks.connect("one", moving.record, aliases=["later"])
    moving.start()
    assert reaches(left, "later"), "and at its next start it is where it was connected to while it was stopped"


def test_a_new_name_is_known_at_once(engine: Engine):
    asking, other = run(engine, "asking"), run(engine, "other")
    other.rename("another")
    assert "other" not in hosts(asking)
    assert reaches(asking, "another")
    assert reaches(other, "another"), "by itself, too"


def test_whoever_joins_another_ones_network_has_its_names_and_its_host_name(engine: Engine):
    owner = run(engine, "owner", hostname="box")
    joining = engine.containers.run("busybox", FOREVER, name="joining", network="container:owner")
    run(engine, "third")
    assert hosts(joining) == hosts(owner)
    assert reaches(joining, "third")
    assert joining.exec_output(["hostname"]) == "box\n"
    links = [each.exec_output(["ls", "/sys/class/net"]) for each in (owner, joining)]
    assert joining.exec_output(["readlink", "/proc/self/ns/net"]) == owner.exec_output(["readlink", "/proc/self/ns/net"]), links
    owner.stop(timeout_s=0)
    joining.stop(timeout_s=0)
    with pytest.raises(LaminaError, match="container 'owner', whose network is to be joined, is not running"):
        joining.start()


def test_the_file_keeps_its_inode_and_what_a_person_wrote_into_it(engine: Engine):
    first = run(engine, "first")
    first.exec(["sh", "-c", "echo 10.9.9.9 by-hand >> /etc/hosts; echo changed by hand"])
    inode = first.exec_output(["stat", "-c", "%i", "/etc/hosts"])
    second = run(engine, "second")
    assert (hosts(first)["by-hand"], "second" in hosts(first)) == (["10.9.9.9"], True)
    second.remove(force=True)
    assert (hosts(first)["by-hand"], "second" in hosts(first)) == (["10.9.9.9"], False)
    assert first.exec_output(["stat", "-c", "%i", "/etc/hosts"]) == inode


def test_a_file_that_its_container_has_made_huge_is_not_read_but_begun_anew(engine: Engine):
    """A file of holes costs the container nothing, and whoever reads it the memory of the host."""
    first = run(engine, "first")
    first.exec(["truncate", "-s", "64g", "/etc/hosts"])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, before[1]))
    try:
        run(engine, "second")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert hosts(first)["localhost"] == ["127.0.0.1", "::1"]
    assert "second" in hosts(first)
    assert int(first.exec_output(["stat", "-c", "%s", "/etc/hosts"])) < 1000


def test_a_name_goes_with_the_next_command_when_container_and_monitor_were_killed(engine: Engine, lamina: Lamina):
    first, victim = run(engine, "first"), run(engine, "victim")
    assert "victim" in hosts(first)
    record = victim.record
    os.kill(record.monitor_pid, signal.SIGKILL)
    os.kill(record.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(record.monitor_pid) and is_gone(record.pid), "the end of both")
    lamina("ps")
    assert "victim" not in hosts(first)


# Lines of one's own, and name servers


def test_hosts_and_name_servers_of_ones_own_are_in_the_files(engine: Engine):
    container = engine.containers.run(
        "busybox", FOREVER, network="one", hostname="box", domainname="example.org", extra_hosts=["db:10.0.0.9", "up:host-gateway"],
        dns=["10.0.0.53", "fd00::53"], dns_search=["example.org"], dns_options=["ndots:2"],
    )  # fmt: skip
    found = hosts(container)
    gateway = engine.networks.get("one").subnets[0].gateway
    assert (found["db"], found["up"], found["box"]) == (["10.0.0.9"], [gateway], [address(engine, container)])
    assert container.exec_output(["hostname", "-f"]) == "box.example.org\n"
    assert reaches(container, "up")
    assert container.exec_output(["cat", "/etc/resolv.conf"]) == (
        "nameserver 10.0.0.53\nnameserver fd00::53\nsearch example.org\noptions ndots:2\n"
    )


def test_they_are_there_without_a_network_too_but_for_the_gateway(engine: Engine):
    container = engine.containers.run("busybox", FOREVER, network="none", extra_hosts=["db:10.0.0.9"], dns=["10.0.0.53"])
    assert hosts(container)["db"] == ["10.0.0.9"]
    assert container.exec_output(["cat", "/etc/resolv.conf"]).startswith("nameserver 10.0.0.53\n")
    with pytest.raises(UsageError, match="host 'up' can't be the host-gateway"):
        engine.containers.run("busybox", FOREVER, name="not", network="none", extra_hosts=["up:host-gateway"])


def test_a_restart_forgets_what_was_written_by_hand_and_keeps_what_was_asked_for(engine: Engine):
    container = run(engine, "first", extra_hosts=["db:10.0.0.9"])
    container.exec(["sh", "-c", "echo 10.9.9.9 by-hand > /etc/hosts"])
    assert "db" not in hosts(container)
    container.restart(timeout_s=0)
    assert ("db" in hosts(container), "by-hand" in hosts(container)) == (True, False)
