"""What the drivers `bridge` and `macvlan` answer, as data; and that no container without networks imports any of it."""

import subprocess
import sys
from typing import Any

import pytest

from lamina.api.drivers import NetworkDriver
from lamina.api.host import PluginHost
from lamina.api.networks import EndpointSpec, NetworkSpec
from lamina.archive.fallback import fallback
from lamina.errors import NotUsableError, PluginError, UsageError
from lamina.linux.nftables import Batch
from lamina.model.network import PortMapping, Subnet
from lamina.network.apply import rules
from lamina_bridge import plugin as bridge
from lamina_bridge.options import read_options

NETWORK = NetworkSpec(id="ab" * 32, name="mine", subnets=(Subnet(subnet="172.18.0.0/16", gateway="172.18.0.1"),))
SIX = NETWORK._replace(subnets=(*NETWORK.subnets, Subnet(subnet="fd00::/64", gateway="fd00::1")), ipv6=True)


def endpoint(*ports: PortMapping, addresses: tuple[str, ...] = ("172.18.0.2/16",), **given: Any) -> EndpointSpec:
    return EndpointSpec(
        id="cd" * 32, container_id="ef" * 32, host_name="lvcdcdcdcdcdcd", interface="eth0", mac="02:42:ac:12:00:02",
        addresses=addresses, ports=ports, **given,
    )  # fmt: skip


def published(*ports: PortMapping, network: NetworkSpec = NETWORK, addresses: tuple[str, ...] = ("172.18.0.2/16",)) -> Any:
    attachment = bridge.network_attach({}, network, endpoint(*ports, addresses=addresses))
    elements = sorted((into.name.partition("-")[2], *each.key, *each.data) for into, each in attachment.elements)
    assert {each.comment for _, each in attachment.elements} <= {"ef" * 32}
    return elements, [(each.host_ip, each.address) for each in attachment.forwardings]


def test_a_port_on_every_address_is_the_kernel_s_for_ipv4_and_a_process_s_for_ipv6() -> None:
    port = PortMapping(container_port=80, host_port=4000)
    assert published(port) == ([("ports", "tcp", 4000, "172.18.0.2", 80)], [("::", "172.18.0.2")])
    both = ("172.18.0.2/16", "fd00::2/64")
    assert published(port, network=SIX, addresses=both) == (
        [("ports", "tcp", 4000, "172.18.0.2", 80), ("ports6", "tcp", 4000, "fd00::2", 80)],
        [("::", "fd00::2")],
    )


@pytest.mark.parametrize(
    ("host_ip", "elements", "forwardings"),
    [
        ("0.0.0.0", [("ports", "udp", 4000, "172.18.0.2", 80)], []),
        ("127.0.0.1", [("ports-at", "127.0.0.1", "udp", 4000, "172.18.0.2", 80)], []),
        ("::", [("ports6", "udp", 4000, "fd00::2", 80)], [("::", "fd00::2")]),
        ("::1", [], [("::1", "fd00::2")]),
        ("2001:db8::1", [("ports6-at", "2001:db8::1", "udp", 4000, "fd00::2", 80)], []),
    ],
)
def test_a_port_on_one_address(host_ip: str, elements: list[tuple[object, ...]], forwardings: list[tuple[str, str]]) -> None:
    port = PortMapping(container_port=80, host_port=4000, host_ip=host_ip, protocol="udp")
    assert published(port, network=SIX, addresses=("172.18.0.2/16", "fd00::2/64")) == (elements, forwardings)


def test_names_of_links_and_chains_fit_and_differ_between_networks() -> None:
    other = NETWORK._replace(id="ba" * 32)
    names = [{*(each.name for each in setup.links), *(each.name for each in setup.chains), *(each.name for each in setup.sets)}
             for setup in map(bridge.network_setup, (NETWORK, other))]  # fmt: skip
    assert not names[0] & names[1]
    assert all(len(each.name) < 16 for each in bridge.network_setup(NETWORK).links)
    assert bridge.network_setup(NETWORK._replace(is_main=True)).links[0].name == "lamina0"
    assert bridge.network_setup(NETWORK._replace(options={"name": "br-x"})).links[0].name == "br-x"


def test_an_internal_network_forwards_and_publishes_nothing() -> None:
    setup = bridge.network_setup(NETWORK._replace(internal=True))
    assert setup.sets == ()
    assert [each.name.rpartition("-")[2] for each in setup.chains] == ["forward"]
    assert not any("forward" in name for name, _ in setup.settings)
    attachment = bridge.network_attach({}, NETWORK._replace(internal=True), endpoint(is_gateway=True))
    assert attachment.links[0].routes == ()


def test_every_rule_can_be_said_and_encoded() -> None:
    batch = rules(bridge.network_setup(SIX), "lamina", ())
    said = batch.describe()
    assert len(batch.messages) == len(batch)
    assert 'add rule inet lamina lbabababababab-raw iifname "lbabababababab" ip daddr 127.0.0.0/8 drop' in said
    assert "ip6 saddr fd00::/64 masquerade" in said
    assert Batch("lamina").describe() == ""


def test_masquerading_and_traffic_within_can_be_switched_off() -> None:
    options = {"com.docker.network.bridge.enable_ip_masquerade": "false", "icc": "false"}
    said = rules(bridge.network_setup(NETWORK._replace(options=options)), "lamina", ()).describe()
    assert 'oifname != "lbabababababab"' not in said
    assert 'iifname "lbabababababab" oifname "lbabababababab" drop' in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mtu": "67"}, "68"),
        ({"mtu": "1e3"}, "1e3"),
        ({"name": "x" * 16}, "no name"),
        ({"name": "1x"}, "no name"),
        ({"": ""}, "no option"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_options(options, ipv6=False)
    with pytest.raises(UsageError, match="1280"):
        read_options({"mtu": "1000"}, ipv6=True)


def test_a_driver_that_makes_no_networks_is_left_as_it_was() -> None:
    host = PluginHost()
    host.register(fallback, "fallback.core")
    driver = NetworkDriver(host=host, asked_name="none")
    assert not driver.makes_networks
    assert driver.check(NETWORK, ()) is None
    assert driver.setup(NETWORK).links == ()
    bridge_driver = NetworkDriver(host=host, asked_name="bridge")
    assert bridge_driver.makes_networks
    assert bridge_driver.check(NETWORK, ()) == NETWORK
    with pytest.raises(NotUsableError, match="not for the commands of a build"):
        bridge_driver.attach("c", {})


def test_a_driver_that_answers_another_network_is_broken() -> None:
    from lamina.api.hookspecs import hookimpl

    class Liar:
        name = "liar"
        api_version = 1

        @hookimpl
        def network_check(self, network: NetworkSpec) -> NetworkSpec:
            return network._replace(name="other")

        @hookimpl
        def network_attach(self) -> None: ...

    host = PluginHost()
    host.register(Liar(), "network.liar")
    with pytest.raises(PluginError, match="answered 'network_check' with nonsense"):
        NetworkDriver(host=host, asked_name="liar").check(NETWORK, ())


def test_commands_that_need_no_network_import_none_of_it() -> None:
    program = """
import sys
from lamina.cli.commands import run, ps, start, stop, rm, images
from lamina.engine import Engine
from lamina.model.container import ContainerConfig
ContainerConfig.from_json(ContainerConfig(image="x", network="none").to_json())
print([name for name in sys.modules if name.startswith(("lamina.network", "lamina.api.networks", "lamina.model.network",
      "lamina.linux.n", "lamina.linux.link", "lamina.linux.route", "lamina.usecases.network", "lamina.store.networks", "lamina_"))
      and name != "lamina.linux.namespace"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
