"""What a person writes about networks and ports, and what it means: every form, every error; and ports as they are printed."""

from pathlib import Path
from typing import Any

import pytest

from lamina.cli.commands.network_create import read_subnets
from lamina.cli.network_options import read_network_options
from lamina.cli.port_texts import port_lines, ports_text
from lamina.errors import LaminaError, UsageError
from lamina.model.container import ContainerConfig
from lamina.model.network import EndpointRequest, PortMapping, Subnet
from lamina.network.names import BEGIN, END, extra_lines, overwrite, resolvers, with_block

NOTHING: dict[str, Any] = {
    "networks": (), "network_aliases": (), "ip": "", "ip6": "", "mac_address": "", "published": (), "publish_all": False,
    "exposed": (), "extra_hosts": (), "dns": (), "dns_search": (), "dns_options": (), "hostname": "",
}  # fmt: skip


def read(**given: Any) -> dict[str, Any]:
    return dict(read_network_options(**NOTHING | given))


def mapping(container: int, host: int = 0, ip: str = "", protocol: str = "tcp", end: int = 0) -> PortMapping:
    return PortMapping(container_port=container, host_port=host, host_ip=ip, protocol=protocol, host_port_end=end)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("80", [mapping(80)]),
        ("80/udp", [mapping(80, protocol="udp")]),
        ("4000:80", [mapping(80, 4000)]),
        ("4000:80/UDP", [mapping(80, 4000, protocol="udp")]),
        ("127.0.0.1:4000:80", [mapping(80, 4000, "127.0.0.1")]),
        ("127.0.0.1::80", [mapping(80, ip="127.0.0.1")]),
        ("[::1]:4000:80", [mapping(80, 4000, "::1")]),
        ("[::]:4000:80/udp", [mapping(80, 4000, "::", "udp")]),
        ("[0:0:0::1]::80", [mapping(80, ip="::1")]),
        ("8000-8002:80-82", [mapping(80, 8000), mapping(81, 8001), mapping(82, 8002)]),
        ("8000-8002:80", [mapping(80, 8000, end=8002)]),
        ("80-81", [mapping(80), mapping(81)]),
        ("0:80", [mapping(80)]),
        ("65535:65535", [mapping(65535, 65535)]),
    ],
)
def test_a_published_port_is_read_in_every_form(text: str, meant: list[PortMapping]):
    found = read(published=(text,))
    assert list(found["ports"]) == meant
    assert found["exposed_ports"] == tuple(dict.fromkeys(each.key for each in meant)), "what is published is exposed, too"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is not a port"), ("x", "'x' is not a port"), ("0", "'0' is not a port"), ("65536", "'65536' is not a port"),
        ("80:", "'' is not a port"), (":80:", "invalid port ':80:'"), ("80/sctp", "'sctp' is not tcp or udp"),
        ("1-2:3-5", "the ranges '1-2' and '3-5' aren't of the same length"), ("9-8:80", "'9-8' is not a port"),
        ("300.0.0.1:80:80", "'300.0.0.1' is no IP address"), ("::1:80:80", "invalid port '::1:80:80'"),
        ("[::1:80:80", "invalid port"), ("[1.2.3.4]:80:80", "'1.2.3.4' is no IPv6 address"),
        ("name:80:80", "'name' is no IP address"),
        ("8000-9:80", "'8000-9' is not a port"), ("²:80", "'²' is not a port"), ("0-3:80", "'0-3' is not a port"),
        ("-1:80", "'-1'"),
        ("80-", "'80-' is not a port"),
    ],
)  # fmt: skip
def test_a_port_that_cannot_be_meant_is_one_line(text: str, why: str):
    with pytest.raises(UsageError) as caught:
        read(published=(text,))
    assert why in caught.value.message
    assert "\n" not in caught.value.message


def test_a_port_of_the_host_leads_to_one_port_of_the_container():
    with pytest.raises(UsageError, match="'4000:80/tcp' and '4000:81/tcp' are to be published at the same port"):
        read(published=("4000:80", "4000:81"))
    assert (
        len(
            read(published=("4000:80", "4000:80", "4000:80/udp", "127.0.0.1:4001:80", "80", "81", "5000-5001:8", "5000:9"))["ports"]
        )
        == 7
    )


def test_exposed_ports_are_single_ports_and_ranges():
    assert read(exposed=("80", "53/udp", "90-91/tcp"), published=("1:80",))["exposed_ports"] == (
        "80/tcp", "53/udp", "90/tcp", "91/tcp",
    )  # fmt: skip
    for text in ("1:80", "80/sctp", "x"):
        with pytest.raises(UsageError, match="invalid port"):
            read(exposed=(text,))


@pytest.mark.parametrize("name", ["host", "none", "some"])
def test_a_network_by_its_name_alone_asks_nothing_more_of_it(name: str):
    found = read(networks=(name,))
    assert (found["network"], found["networks"]) == (name, ())


def test_several_networks_are_listed_the_first_one_first():
    found = read(networks=("one", "name=two,alias=b,alias=c,ip=10.0.0.9,ip6=fd00::9,mac-address=02-00-00-00-00-0A,driver-opt=k=v"))
    assert found["network"] == "one"
    assert found["networks"] == (
        EndpointRequest(network="one"),
        EndpointRequest(
            network="two", aliases=("b", "c"), ipv4="10.0.0.9", ipv6="fd00::9", mac="02:00:00:00:00:0a", options={"k": "v"}
        ),
    )


def test_the_options_beside_it_are_about_the_first_network():
    found = read(networks=("one", "two"), network_aliases=("a",), ip="10.0.0.2", ip6="fd00::2", mac_address="02:00:00:00:00:02")
    assert found["networks"][0] == EndpointRequest(
        network="one", aliases=("a",), ipv4="10.0.0.2", ipv6="fd00::2", mac="02:00:00:00:00:02"
    )
    assert found["networks"][1] == EndpointRequest(network="two")


def test_they_may_be_about_the_default_network():
    found = read(mac_address="02:00:00:00:00:02")
    assert (found["network"], found["networks"]) == ("", (EndpointRequest(network="", mac="02:00:00:00:00:02"),))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"networks": ("",)}, "'' is no network's name"),
        ({"networks": ("alias=x",)}, "it has no name="),
        ({"networks": ("name=a,nonsense=1",)}, "'nonsense=1' is not OPTION=VALUE"),
        ({"networks": ("name=a,alias",)}, "'alias' is not OPTION=VALUE"),
        ({"networks": ("name=a,ip=fd00::1",)}, "'fd00::1' is no IPv4 address"),
        ({"networks": ("name=a,ip6=10.0.0.1",)}, "'10.0.0.1' is no IPv6 address"),
        ({"networks": ("a", "a")}, "network 'a' is asked for twice"),
        ({"networks": ("a", "container:b")}, "network 'container:b' can't be had with others"),
        ({"networks": ("container:",)}, "invalid network 'container:'"),
        ({"networks": ("container:b",), "published": ("80",)}, "--publish can't be given with --network container:b"),
        ({"networks": ("container:b",), "hostname": "x"}, "--hostname can't be given with --network container:b"),
        ({"networks": ("container:b",), "ip": "10.0.0.2"}, "--ip can't be given with --network container:b"),
        ({"networks": ("container:b",), "dns": ("1.1.1.1",)}, "--dns can't be given with"),
        (
            {"networks": ("name=a,ip=10.0.0.2",), "ip": "10.0.0.3"},
            "--ip '10.0.0.3' and --network's '10.0.0.2' contradict each other",
        ),
        ({"networks": ("a",), "ip": "10.0.0"}, "'10.0.0' is no IP address"),
        ({"networks": ("a",), "mac_address": "x"}, "'x' is no MAC address"),
        ({"networks": ("a",), "mac_address": "01:00:00:00:00:00"}, "a multicast one"),
        ({"networks": ("a",), "network_aliases": ("a b",)}, "'a b' is no host name"),
        ({"extra_hosts": ("x",)}, "invalid host 'x'"),
        ({"extra_hosts": ("x:y",)}, "'y' is no IP address"),
        ({"extra_hosts": (":1.2.3.4",)}, "invalid host ':1.2.3.4'"),
        ({"extra_hosts": ("a\nb:1.2.3.4",)}, "is no host name"),
        ({"dns": ("x",)}, "invalid name server: 'x' is no IP address"),
        ({"dns_search": ("a b",)}, "invalid --dns-search 'a b'"),
        ({"dns_options": ("ndots:1\nnameserver 1.2.3.4",)}, "invalid --dns-option"),
    ],
)
def test_what_networks_cannot_be_asked_is_one_line(given: dict[str, Any], why: str):
    with pytest.raises(LaminaError) as caught:
        read(**given)
    assert why in caught.value.message


def test_hosts_are_read_with_a_colon_or_an_equals_sign():
    found = read(extra_hosts=("a:10.0.0.1", "b=fd00::1", "c:[::1]", "d:host-gateway"))["extra_hosts"]
    assert found == ("a:10.0.0.1", "b:fd00::1", "c:::1", "d:host-gateway")
    assert extra_lines(found, ["172.18.0.1"]) == ["10.0.0.1\ta", "fd00::1\tb", "::1\tc", "172.18.0.1\td"]
    with pytest.raises(UsageError, match="host 'd' can't be the host-gateway"):
        extra_lines(found, [])


def test_gateways_and_ranges_go_to_the_subnet_that_they_lie_in():
    assert read_subnets(["10.1.0.0/16", "fd00:1::/64"], ["fd00:1::5", "10.1.0.9"], ["10.1.4.0/24"]) == [
        Subnet(subnet="10.1.0.0/16", gateway="10.1.0.9", ip_range="10.1.4.0/24"),
        Subnet(subnet="fd00:1::/64", gateway="fd00:1::5"),
    ]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (([], ["10.0.0.1"], []), "--gateway '10.0.0.1' needs a --subnet"),
        (([], [], ["10.0.0.0/24"]), "--ip-range '10.0.0.0/24' needs a --subnet"),
        ((["10.1.0.0/16"], ["10.2.0.1"], []), "--gateway '10.2.0.1' is in none of the subnets"),
        ((["10.1.0.0/16"], ["10.1.0.1", "10.1.0.2"], []), "'10.1.0.1' and '10.1.0.2' are both in the subnet '10.1.0.0/16'"),
        ((["10.1.0.0/16"], [], ["10.2.0.0/24"]), "--ip-range '10.2.0.0/24' is in none of the subnets"),
        ((["10.1.0.0"], [], []), "'10.1.0.0' is no subnet"),
        ((["10.1.0.7/16"], [], []), "'10.1.0.7/16' has bits set behind its prefix"),
        ((["10.1.0.0/33"], [], []), "'10.1.0.0/33' is no subnet"),
        ((["10.1.0.0/16"], ["x"], []), "invalid gateway: 'x' is no IP address"),
    ],
)
def test_subnets_that_make_no_sense_are_one_line(given: tuple[list[str], list[str], list[str]], why: str):
    with pytest.raises(UsageError) as caught:
        read_subnets(*given)
    assert why in caught.value.message


# As they are printed


def test_ports_are_printed_as_dockers_client_prints_them():
    assert ports_text(["80/tcp", "443/tcp"], [mapping(80, 4000)]) == "443/tcp, 0.0.0.0:4000->80/tcp, [::]:4000->80/tcp"
    assert ports_text([], [mapping(80, 80, "127.0.0.1")]) == "127.0.0.1:80->80/tcp"
    assert ports_text(["53/udp", "53/tcp"], []) == "53/tcp, 53/udp"
    assert ports_text([], []) == ""


def test_neighbouring_ports_are_drawn_together_where_they_have_the_hosts_number():
    same = [mapping(port, port, "10.0.0.1") for port in (8000, 8001, 8002, 8010)]
    assert ports_text([], same) == "10.0.0.1:8000-8002->8000-8002/tcp, 10.0.0.1:8010->8010/tcp"
    assert ports_text(["7000/tcp", "7001/tcp"], []) == "7000-7001/tcp"
    assert ports_text([], [mapping(80, 81, "10.0.0.1"), mapping(81, 82, "10.0.0.1")]) == "10.0.0.1:81->80/tcp, 10.0.0.1:82->81/tcp"


def test_port_prints_a_line_for_each_address():
    published = [mapping(80, 4000), mapping(53, 5353, "127.0.0.1", "udp")]
    assert port_lines(published) == ["53/udp -> 127.0.0.1:5353", "80/tcp -> 0.0.0.0:4000", "80/tcp -> [::]:4000"]
    assert port_lines(published, "80/tcp") == ["0.0.0.0:4000", "[::]:4000"]
    assert port_lines(published, "80/udp") == []


# The files


def test_the_block_of_others_is_replaced_and_the_rest_of_the_file_kept():
    first = with_block("127.0.0.1\tlocalhost\n", [BEGIN, "10.0.0.2\ta", END])
    assert first == f"127.0.0.1\tlocalhost\n{BEGIN}\n10.0.0.2\ta\n{END}\n"
    assert with_block(first + "10.9.9.9\tby-hand\n", [BEGIN, END]) == f"127.0.0.1\tlocalhost\n{BEGIN}\n{END}\n10.9.9.9\tby-hand\n"
    assert with_block(f"x\n{BEGIN}\nhalf", [BEGIN, END]) == f"x\n{BEGIN}\n{END}\n"


def test_a_file_is_overwritten_in_the_same_inode(tmp_path: Path):
    path = tmp_path / "hosts"
    path.write_text("a long line\n" * 9)
    inode = path.stat().st_ino
    for text in ("short\n", "a longer one than before\n" * 20, ""):
        overwrite(str(path), text)
        assert (path.read_text(), path.stat().st_ino) == (text, inode)


def resolv(tmp_path: Path, text: str, *, has_ipv6: bool = False, is_apart: bool = True, **config: Any) -> tuple[str, bool]:
    (tmp_path / "resolv.conf").write_text(text)
    paths = {"path": str(tmp_path / "resolv.conf"), "behind_path": str(tmp_path / "behind")}
    return resolvers(ContainerConfig(image="x", **config), has_ipv6=has_ipv6, is_apart=is_apart, **paths)


def test_resolvers_on_the_hosts_loopback_are_left_out(tmp_path: Path):
    host = (
        "# c\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver fd00::1\nnameserver fe80::1%eth0\nsearch a b\noptions x y:2\n"
    )
    assert resolv(tmp_path, host) == ("nameserver 10.0.0.1\nsearch a b\noptions x y:2\n", False)
    assert resolv(tmp_path, host, has_ipv6=True)[0].startswith("nameserver 10.0.0.1\nnameserver fd00::1\nsearch")
    assert resolv(tmp_path, "nameserver 127.0.0.1\nnameserver ::1\n", has_ipv6=True) == ("", True)
    assert resolv(tmp_path, "") == ("", False)


def test_behind_systemds_resolver_are_those_that_it_asks(tmp_path: Path):
    (tmp_path / "behind").write_text("nameserver 10.0.0.2\nnameserver 127.0.0.1\nsearch other\n")
    assert resolv(tmp_path, "nameserver 127.0.0.53\nsearch a\n") == ("nameserver 10.0.0.2\nsearch a\n", False)
    assert resolv(tmp_path, "nameserver 10.0.0.9\n") == ("nameserver 10.0.0.9\n", False)
    on_host = resolv(tmp_path, "nameserver 127.0.0.53\n", is_apart=False, dns_search=("a",))
    assert on_host == ("nameserver 127.0.0.53\nsearch a\n", False), "on the host's own network its loopback is reached"


def test_what_dns_options_say_replaces_the_hosts(tmp_path: Path):
    host = "nameserver 127.0.0.53\nsearch a\noptions b\n"
    said = resolv(tmp_path, host, dns=("9.9.9.9",), dns_search=("c", "d"), dns_options=("ndots:1",))
    assert said == ("nameserver 9.9.9.9\nsearch c d\noptions ndots:1\n", False)
    assert resolv(tmp_path, host, dns=("127.0.0.1",), dns_search=(".",)) == ("nameserver 127.0.0.1\noptions b\n", False)
