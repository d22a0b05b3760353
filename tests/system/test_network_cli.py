"""The commands and options for networks and ports as a person types them: what they print, and one line for what can't be.

"The host" of these tests is a network namespace of each test's own. What packets do is `test_networks.py`'s, names are
`test_network_names.py`'s.
"""

import contextlib
import ctypes
import errno
import io
import json
import os
import re
import socket
import struct
import subprocess
import urllib.request

import pytest
from cases import FOREVER, Lamina, driver_of, wait_until
from netspaces import ip, run

from lamina.cli.main import OPEN_ENGINES, main
from lamina.errors import LaminaError
from lamina.linux import netlink


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    """Networks are the same on every storage driver."""
    return driver_of(request)


class Here(Lamina):
    """The command line in the test's own process, which spares the start of an interpreter; for what carries no streams."""

    def result(
        self, *words: str, driver: str = "", stdin: str | None = None, timeout_s: float = 60, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        if stdin is not None or env is not None or "exec" in words:
            return super().result(*words, driver=driver, stdin=stdin, timeout_s=timeout_s, env=env)
        command = self.command(*words, driver=driver)
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = main(command[1:])
        while OPEN_ENGINES:  # a command's engine isn't closed, for its process ends
            OPEN_ENGINES.pop().close()
        return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


@pytest.fixture
def host(own_network: None, lamina: Lamina) -> Lamina:
    """The command line, with a network namespace of the test's own as "the host's"."""
    return Here(lamina.root, lamina.driver)


def rows(lamina: Lamina, *words: str) -> list[str]:
    return lamina(*words).splitlines()


# network create, ls, inspect, rm, prune


def test_a_network_is_created_shown_and_removed(host: Lamina):
    created = host(
        "network", "create", "--subnet", "10.77.0.0/16", "--gateway", "10.77.0.9", "--ip-range", "10.77.4.0/24", "--subnet",
        "fd00:77::/64", "--internal", "--opt", "mtu=1400", "--label", "kind=test", "--label", "bare", "back",
    )  # fmt: skip
    (document,) = json.loads(host("network", "inspect", "back"))
    assert created == document["Id"]
    assert re.fullmatch(r"[0-9a-f]{64}", created)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", document.pop("Created"))
    assert document == {
        "Name": "back", "Id": created, "Scope": "local", "Driver": "bridge", "EnableIPv6": True,
        "IPAM": {
            "Driver": "default", "Options": None,
            "Config": [
                {"Subnet": "10.77.0.0/16", "IPRange": "10.77.4.0/24", "Gateway": "10.77.0.9"},
                {"Subnet": "fd00:77::/64", "Gateway": "fd00:77::1"},
            ],
        },
        "Internal": True, "Attachable": False, "Ingress": False, "ConfigFrom": {"Network": ""}, "ConfigOnly": False,
        "Containers": {}, "Options": {"mtu": "1400"}, "Labels": {"kind": "test", "bare": ""},
    }  # fmt: skip
    assert host("network", "inspect", "--format", "{{.Name}} {{(index .IPAM.Config 0).Gateway}}", created[:12]) == "back 10.77.0.9"
    assert (
        host("inspect", "--format", "{{.Driver}}", "back")
        == host("inspect", "--type", "network", "-f", "{{.Driver}}", "back")
        == "bridge"
    )
    assert host("network", "rm", "back") == "back"
    assert "no such network: 'back'" in host.error("network", "inspect", "back", code=1).replace("[]", "")
    assert host("network", "rm", "--force", "back") == "back"
    assert [each["ifname"] for each in ip("link")] == ["lo"], "nothing of it was ever on the host"


def test_networks_are_listed_and_filtered(host: Lamina):
    ids = {name: host("network", "create", "--label", f"kind={name}", name) for name in ("alpha", "beta")}
    host("create", "--network", "alpha", "busybox")
    table = rows(host, "network", "ls")
    assert table[0].split() == ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]
    listed = [line.split()[1:] for line in table[1:]]
    assert [each for each in listed if each[0] != "macvlan"] == [
        ["alpha", "bridge", "local"], ["beta", "bridge", "local"], ["bridge", "bridge", "local"], ["host", "host", "local"],
        ["none", "none", "local"],
    ]  # fmt: skip

    def names(*filters: str) -> list[str]:
        return rows(host, "network", "ls", "--format", "{{.Name}}", *(word for each in filters for word in ("-f", each)))

    assert names("name=a") == ["alpha", "beta"]
    assert names("type=custom") == ["alpha", "beta"]
    assert names("label=kind=beta") == ["beta"]
    assert names(f"id={ids['alpha'][:9]}") == ["alpha"]
    assert names("dangling=true") == ["beta"]
    assert names("driver=host") == ["host"]
    assert host("network", "ls", "-q", "--no-trunc", "-f", "name=beta") == ids["beta"]
    assert host(
        "network", "ls", "--format", '{{.IPv4}} {{.IPv6}} {{.Internal}} {{.Labels}} {{.Label "kind"}}', "-f", "name=beta"
    ) == ("true false false kind=beta beta")
    assert "type=x" in host.error("network", "ls", "-f", "type=x", code=1)

    assert "is in use" not in host("network", "prune", "--force")
    assert names("type=custom") == ["alpha"], "one that a container has is kept, running or not"
    host("rm", host("ps", "-aq"))
    assert host("network", "prune", "--force") == "Deleted Networks:\nalpha\n"
    assert host("network", "prune", "--force") == ""
    assert host("network", "prune", stdin="n\n") == ""


NETWORKS_THAT_CANNOT_BE = [
    ("'10.77.0.0' is no subnet", "--subnet", "10.77.0.0", "x1"),
    ("'10.77.0.1/16' has bits set behind its prefix (its subnet is 10.77.0.0/16)", "--subnet", "10.77.0.1/16", "x1"),
    ("'10.77.0.0/99' is no subnet", "--subnet", "10.77.0.0/99", "x1"),
    ("has no room for a gateway and a container", "--subnet", "10.77.0.0/32", "x1"),
    ("overlaps with '10.77.0.0/16'", "--subnet", "10.77.0.0/16", "--subnet", "10.77.4.0/24", "x1"),
    ("subnet '10.50.3.0/24' overlaps with '10.50.0.0/16', which network 'taken' has", "--subnet", "10.50.3.0/24", "x1"),
    ("subnet '10.60.0.0/24' overlaps with '10.60.0.0/16', which this host reaches", "--subnet", "10.60.0.0/24", "x1"),
    ("--gateway '10.77.0.1' needs a --subnet", "--gateway", "10.77.0.1", "x1"),
    ("--gateway '10.78.0.1' is in none of the subnets", "--subnet", "10.77.0.0/16", "--gateway", "10.78.0.1", "x1"),
    ("'10.77.0.0/8' has bits set behind its prefix", "--subnet", "10.77.0.0/16", "--ip-range", "10.77.0.0/8", "x1"),
    ("--ip-range '10.76.0.0/15' is in none of the subnets", "--subnet", "10.77.0.0/16", "--ip-range", "10.76.0.0/15", "x1"),
    ("network 'taken' exists already", "taken"),
    ("network name 'bridge' is", "bridge"),
    ("invalid network name 'a/b'", "a/b"),
    ("network driver 'zzz' is not installed", "--driver", "zzz", "x1"),
    ("network driver 'host' has one network, its own", "--driver", "host", "x1"),
    ("'zzz'", "--opt", "zzz=1", "x1"),
    ("invalid option '=1'", "--opt", "=1", "x1"),
]


def test_a_network_that_cannot_be_is_one_line_and_nothing_half_made(host: Lamina):
    run("ip", "link", "add", "elsewhere", "type", "veth", "peer", "far-end")
    run("ip", "addr", "add", "10.60.0.7/16", "dev", "elsewhere")
    run("ip", "link", "set", "elsewhere", "up")
    host("network", "create", "--subnet", "10.50.0.0/16", "taken")
    for said, *words in NETWORKS_THAT_CANNOT_BE:
        assert said in host.error("network", "create", *words, code=1)
        assert host("network", "ls", "-f", "type=custom", "--format", "{{.Name}}") == "taken", words


def test_an_exhausted_pool_is_one_line(host: Lamina):
    with host.library() as engine:
        for count in range(100):
            try:
                engine.networks.create(f"n{count}")
            except LaminaError:
                break
    assert count >= 30, "that many networks everybody may have"
    assert "no subnet is free for a new network" in host.error("network", "create", "more", code=1)
    host("network", "create", "--subnet", "10.77.0.0/24", "more")
    assert len(host("network", "prune", "--force").splitlines()) == count + 2


WHAT_CANNOT_BE_DONE = [
    ("no such network: 'nowhere'", "network", "rm", "nowhere"),
    ("network 'host' is predefined and can't be removed", "network", "rm", "host"),
    ("network 'taken' is in use by container 'box'", "network", "rm", "taken"),
    ("no such network: 'nowhere'", "network", "connect", "nowhere", "box"),
    ("no such container: 'nobody'", "network", "connect", "taken", "nobody"),
    ("container 'box' is in network 'taken' already", "network", "connect", "taken", "box"),
    ("no container can be connected to network 'host'", "network", "connect", "host", "box"),
    ("container 'box' is not in network 'tiny'", "network", "disconnect", "tiny", "box"),
    ("address '10.9.9.9' is not in a subnet of network 'tiny'", "network", "connect", "--ip", "10.9.9.9", "tiny", "box"),
    ("network 'tiny' has no free address left in '10.51.0.0/30'", "network", "connect", "tiny", "box"),
    ("port '99/tcp' of container 'box' is not published", "port", "box", "99"),
    ("invalid port 'x'", "port", "box", "x"),
    ("no such container: 'nobody'", "port", "nobody"),
    ("invalid port 'x'", "ps", "--filter", "publish=x"),
]
CONTAINERS_THAT_CANNOT_BE = [
    ("no such network: 'nowhere'", "--network", "nowhere"),
    ("address '10.9.9.9' is not in a subnet of network 'taken'", "--network", "taken", "--ip", "10.9.9.9"),
    ("address '10.50.0.1' is the gateway's", "--network", "taken", "--ip", "10.50.0.1"),
    ("address '10.50.0.2' of network 'taken' is in use by container", "--network", "taken", "--ip", "10.50.0.2"),
    ("network 'tiny' has no free address left in '10.51.0.0/30'", "--network", "tiny"),
    ("network 'bridge' has no chosen addresses", "--network", "bridge", "--ip", "172.17.0.9"),
    ("network 'bridge' has no aliases", "--network", "bridge", "--network-alias", "x"),
    ("network 'none' gives a container no address", "--network", "none", "--ip", "10.50.0.3"),
    ("network 'host' can't be combined with others", "--network", "host", "--network", "taken"),
    ("no such container: 'nobody'", "--network", "container:nobody"),
    ("--publish can't be given with --network container:box", "--network", "container:box", "-p", "80"),
    ("tcp port 4000 is in use by container 'box'", "--network", "taken", "-p", "4000:80"),
    ("tcp port 5000 is in use by another program", "--network", "taken", "-p", "5000:80"),
    ("'10.1.2.3' is no address of this host", "--network", "taken", "-p", "10.1.2.3:5001:80"),
    ("'99999' is not a port", "--network", "taken", "-p", "99999:80"),
    ("invalid host 'x'", "--network", "taken", "--add-host", "x"),
    ("'x' is no MAC address", "--network", "taken", "--mac-address", "x"),
]


def test_what_networks_cannot_do_is_one_line_and_nothing_half_made(host: Lamina):
    host("network", "create", "--subnet", "10.50.0.0/16", "taken")
    host("network", "create", "--subnet", "10.51.0.0/30", "tiny")
    host.background("--name", "box", "--net", "taken", "-p", "4000:80", "busybox", *FOREVER)
    host.background("--name", "last", "--net", "tiny", "busybox", *FOREVER)
    before = sorted(each["ifname"] for each in ip("link")), run("nft", "list", "ruleset")
    for said, *words in WHAT_CANNOT_BE_DONE:
        assert said in host.error(*words, code=1)
    with socket.socket() as program:
        program.bind(("127.0.0.1", 5000))
        for said, *words in CONTAINERS_THAT_CANNOT_BE:
            assert said in host.error("run", "--rm", *words, "busybox", "true", code=125)
    assert rows(host, "ps", "-a", "--format", "{{.Names}}") == ["last", "box"]
    assert (sorted(each["ifname"] for each in ip("link")), run("nft", "list", "ruleset")) == before
    host("rm", "--force", "box", "last")


def test_published_ports_that_no_network_can_have_are_a_warning(host: Lamina):
    done = host.result("run", "--rm", "--network", "none", "-p", "4000:80", "busybox", "echo", "here", env={})
    assert (done.returncode, done.stdout) == (0, "here\n")
    assert done.stderr == "warning: network 'none' publishes no ports: those asked for are left out\n"


# A container in networks, as it is shown


def test_a_container_in_a_network_is_shown_as_docker_shows_it(host: Lamina):
    host("network", "create", "--subnet", "10.50.0.0/16", "--subnet", "fd00:50::/64", "front")
    container = host.background(
        "--name", "web", "--network", "name=front,alias=www,ip=10.50.0.80", "--mac-address", "02:00:00:00:00:80", "-p",
        "127.0.0.1:4000:80", "-p", "5353:53/udp", "-p", "9000-9001:9000-9001", "--expose", "443", "busybox", *FOREVER,
    )  # fmt: skip
    document = host.document("web")
    settings = document["NetworkSettings"]
    everywhere = ("0.0.0.0", "::")
    assert settings["Ports"] == {
        "443/tcp": None,
        "53/udp": [{"HostIp": each, "HostPort": "5353"} for each in everywhere],
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "4000"}],
        "9000/tcp": [{"HostIp": each, "HostPort": "9000"} for each in everywhere],
        "9001/tcp": [{"HostIp": each, "HostPort": "9001"} for each in everywhere],
    }
    (network,) = json.loads(host("network", "inspect", "front"))
    endpoint = settings["Networks"]["front"]
    assert endpoint == {
        "IPAMConfig": {"IPv4Address": "10.50.0.80"}, "Links": None, "Aliases": ["www"], "NetworkID": network["Id"],
        "EndpointID": endpoint["EndpointID"], "Gateway": "10.50.0.1", "IPAddress": "10.50.0.80", "IPPrefixLen": 16,
        "IPv6Gateway": "fd00:50::1", "GlobalIPv6Address": "fd00:50::2", "GlobalIPv6PrefixLen": 64,
        "MacAddress": "02:00:00:00:00:80", "DriverOpts": None,
    }  # fmt: skip
    assert network["Containers"] == {
        container: {
            "Name": "web", "EndpointID": endpoint["EndpointID"], "MacAddress": "02:00:00:00:00:80", "IPv4Address": "10.50.0.80/16",
            "IPv6Address": "fd00:50::2/64",
        }
    }  # fmt: skip
    assert settings["IPAddress"] == "", "the older place is for a driver's own network"
    asked = document["HostConfig"]
    assert asked["NetworkMode"] == "front"
    assert asked["PortBindings"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "4000"}]
    assert set(document["Config"]["ExposedPorts"]) == set(settings["Ports"])

    assert host("ps", "--format", "{{.Ports}}|{{.Networks}}") == (
        "443/tcp, 0.0.0.0:9000-9001->9000-9001/tcp, [::]:9000-9001->9000-9001/tcp, 0.0.0.0:5353->53/udp, [::]:5353->53/udp, "
        "127.0.0.1:4000->80/tcp|front"
    )
    for wanted in (
        "network=front",
        f"network={network['Id'][:10]}",
        "publish=4000",
        "publish=9000-9001",
        "expose=443",
        "expose=53/udp",
    ):
        assert host("ps", "-q", "--no-trunc", "--filter", wanted) == container, wanted
    for wanted in ("network=bridge", "publish=80", "publish=5353", "expose=444", "network=container:web"):
        assert host("ps", "-q", "--filter", wanted) == "", wanted
    assert rows(host, "port", "web")[:3] == ["53/udp -> 0.0.0.0:5353", "53/udp -> [::]:5353", "80/tcp -> 127.0.0.1:4000"]
    assert host("container", "port", "web", "80") == "127.0.0.1:4000"
    assert host("port", "web", "53/udp") == "0.0.0.0:5353\n[::]:5353"

    host("rm", "--force", host("run", "-d", "--network", "container:web", "busybox", *FOREVER))
    host("stop", "-t", "0", "web")
    settings = host.document("web")["NetworkSettings"]
    assert (settings["Ports"], settings["Networks"]["front"]["IPAddress"]) == ({}, "")
    assert host("port", "web") == ""
    assert host("ps", "-a", "--format", "{{.Ports}}|{{.Networks}}") == "|front"
    host("rm", "web")


def test_on_the_default_bridge_the_older_places_have_the_address_and_p_publishes_what_is_exposed(host: Lamina):
    done = host.result("run", "-d", "--name", "web", "-P", "--expose", "80", "busybox", *FOREVER, env={"LAMINA_NETWORK": "bridge"})
    assert done.returncode == 0, done.stderr
    settings = host.document("web")["NetworkSettings"]
    inner = settings["Networks"]["bridge"]
    for key in ("IPAddress", "IPPrefixLen", "Gateway", "MacAddress", "EndpointID"):
        assert settings[key] == inner[key] != ""
    (first, second) = rows(host, "port", "web", "80/tcp")
    assert first.partition(":")[2] == second.rpartition(":")[2]
    assert host("inspect", "-f", "{{.HostConfig.NetworkMode}} {{.HostConfig.PublishAllPorts}}", "web") == "bridge true"
    host("rm", "--force", "web")


def test_a_range_of_the_host_gives_each_container_the_next_free_port(host: Lamina):
    host("network", "create", "front")
    for name in ("a1", "a2"):
        host.background("--name", name, "--net", "front", "-p", "127.0.0.1:8000-8001:80", "busybox", *FOREVER)
    assert [host("port", name, "80") for name in ("a1", "a2")] == ["127.0.0.1:8000", "127.0.0.1:8001"]
    line = host.error("run", "--rm", "--net", "front", "-p", "127.0.0.1:8000-8001:80", "busybox", "true", code=125)
    assert "every tcp port from 8000 to 8001 is in use" in line
    host("rm", "--force", "a1", "a2")


def test_a_container_moves_between_networks_by_connect_and_disconnect(host: Lamina):
    host("network", "create", "--subnet", "10.50.0.0/16", "one")
    host("network", "create", "--subnet", "10.51.0.0/16", "two")
    host.background("--name", "web", "--net", "one", "-p", "4000:80", "busybox", *FOREVER)
    host("network", "connect", "--ip", "10.51.0.9", "--alias", "w", "two", "web")
    assert host(
        "inspect", "-f", "{{range $name, $each := .NetworkSettings.Networks}}{{$name}}={{$each.IPAddress}} {{end}}", "web"
    ) == ("one=10.50.0.2 two=10.51.0.9 ")
    assert host("ps", "--format", "{{.Networks}}") == "one,two"
    host("network", "disconnect", "one", "web")
    assert list(host.document("web")["NetworkSettings"]["Networks"]) == ["two"]
    assert host("ps", "--format", "{{.Networks}}") == "two"
    host("network", "disconnect", "--force", "one", "web")
    host("network", "disconnect", "two", "web")
    assert host.document("web")["NetworkSettings"]["Networks"] == {}
    assert host("exec", "web", "ls", "/sys/class/net") == "lo"
    host("restart", "-t", "0", "web")
    host("rm", "--force", "web")
    assert [each["ifname"] for each in ip("link")] == ["lo"]


def test_repair_makes_again_what_a_firewall_that_was_loaded_anew_has_wiped_out(host: Lamina):
    host("network", "create", "one")
    host.background("--net", "one", "-p", "4000:80", "--name", "web", "busybox", "sh", "-c", "mkdir /w; echo hi > /w/index.html; "
        "exec httpd -f -p 80 -h /w")  # fmt: skip
    wait_until(lambda: answer() == "hi\n", "an answer")
    run("nft", "flush", "ruleset")
    run("nft", "add", "table", "inet", "theirs")
    assert answer() is None
    assert host("network", "repair") == "one"
    assert answer() == "hi\n"
    run("ip", "link", "delete", next(each["ifname"] for each in ip("link") if each["ifname"].startswith("lb")))
    assert host("network", "repair", "one") == "one"
    wait_until(lambda: answer() == "hi\n", "an answer by a new bridge")
    host("rm", "--force", "web")
    assert run("nft", "list", "tables").splitlines() == ["table inet theirs"]
    assert host("network", "repair") == ""


def answer() -> str | None:
    try:
        with urllib.request.urlopen("http://127.0.0.1:4000/", timeout=2) as page:
            return str(page.read().decode())
    except OSError:
        return None


def test_names_of_networks_are_completed(host: Lamina):
    host("network", "create", "alpha")

    def offered(*words: str) -> list[str]:
        line = ["lamina", "--root", str(host.root), *words]
        asked = {"_LAMINA_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
        return [each.partition(",")[2] for each in host.result(env=asked).stdout.splitlines()]

    assert offered("network", "rm", "al") == ["alpha"]
    assert {"alpha", "bridge", "host", "none"} <= set(offered("run", "--network", ""))
    assert offered("network", "create", "--driver", "br") == ["bridge"]


# Without nftables

_NR_SOCKET, _ARCH_X86_64 = 41, 0xC000003E
_REFUSE = 0x00050000 | errno.EPROTONOSUPPORT
"""SECCOMP_RET_ERRNO with what a kernel without nfnetlink says."""
_FILTER = (  # seccomp_data: the number at 0, the architecture at 4, the arguments' lower halves at 16, 24, 32 (seccomp(2))
    (0x20, 0, 0, 4), (0x15, 0, 7, _ARCH_X86_64), (0x20, 0, 0, 0), (0x15, 0, 5, _NR_SOCKET), (0x20, 0, 0, 16),
    (0x15, 0, 3, socket.AF_NETLINK), (0x20, 0, 0, 32), (0x15, 0, 1, netlink.NETLINK_NETFILTER), (0x06, 0, 0, _REFUSE),
    (0x06, 0, 0, 0x7FFF0000),
)  # fmt: skip


def without_nftables() -> None:
    """From here on the kernel has no nfnetlink for this process, as if it had been built without."""
    program = b"".join(struct.pack("HBBI", *each) for each in _FILTER)
    code = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(_FILTER), ctypes.addressof(code))
    pr_set_seccomp, filter_mode = 22, 2
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_seccomp, filter_mode, ctypes.create_string_buffer(header), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter of system calls is written for x86-64")
def test_without_nftables_a_bridge_is_one_line_and_the_other_networks_work(host: Lamina):
    host("network", "create", "one")

    def run_in(network: str) -> subprocess.CompletedProcess[str]:
        words = host.command("run", "--rm", "--network", network, "busybox", "echo", "here")
        return subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=without_nftables)

    done = run_in("one")
    assert (done.returncode, done.stdout) == (125, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: "), line
    assert "nftables" in line
    assert host("ps", "-aq") == ""
    assert [each["ifname"] for each in ip("link")] == ["lo"]
    assert run_in("none").stdout == "here\n"
    assert run_in("host").stdout == "here\n"
