"""Links, addresses and routes over netlink: what we make `ip` shows, what it makes we read, and what is refused is said."""

import errno
import fcntl
import os
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest
from netspaces import Netspace, ip, netspace, run

from lamina.linux import link, namespace, netlink, netns, route
from lamina.linux.netlink import Socket

pytestmark = pytest.mark.usefixtures("own_network")


@pytest.fixture
def host(own_network: None) -> Iterator[Socket]:
    """A conversation about the test's own network namespace."""
    with Socket() as opened:
        yield opened


@pytest.fixture
def other() -> Iterator[Netspace]:
    """Another network namespace, standing in for a container's."""
    with netspace() as made:
        yield made


# Links


def test_a_bridge_comes_to_be_as_described(host: Socket):
    link.create(host, "br0", link.Bridge(stp=True, multicast_snooping=False), mac="02:00:00:00:00:01", mtu=1400, is_up=True)
    (seen,) = ip("link", "show", "br0")
    assert (seen["address"], seen["mtu"], "UP" in seen["flags"]) == ("02:00:00:00:00:01", 1400, True)
    assert seen["linkinfo"]["info_kind"] == "bridge"
    assert (seen["linkinfo"]["info_data"]["stp_state"], seen["linkinfo"]["info_data"]["mcast_snooping"]) == (1, 0)


def test_what_isnt_said_of_a_bridge_stays_as_the_kernel_has_it(host: Socket):
    link.create(host, "br0", link.Bridge())
    run("ip", "link", "add", "br1", "type", "bridge")
    ours, theirs = (ip("link", "show", name)[0] for name in ("br0", "br1"))
    changing = {"bridge_id", "root_id", "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer"}
    ours, theirs = ({k: v for k, v in each["linkinfo"]["info_data"].items() if k not in changing} for each in (ours, theirs))
    assert ours == theirs


def test_one_message_makes_a_pair_whose_other_end_is_in_a_namespace_and_whose_own_is_a_bridges_port(host: Socket, other: Netspace):
    link.create(host, "br0", link.Bridge(), is_up=True)
    peer = link.Veth("eth0", peer_namespace_fd=other.fd, peer_mac="02:42:ac:12:00:02", peer_mtu=1400)
    link.create(host, "lam0", peer, mtu=1400, master=link.get(host, "br0").ifindex, mac="02:00:00:00:00:09", is_up=True)
    (outside,) = ip("link", "show", "lam0")
    assert (outside["master"], outside["mtu"], outside["address"], "UP" in outside["flags"]) == (
        "br0",
        1400,
        "02:00:00:00:00:09",
        True,
    )
    (inside,) = other.ip("link", "show", "eth0")
    assert (inside["address"], inside["mtu"], inside["linkinfo"]["info_kind"]) == ("02:42:ac:12:00:02", 1400, "veth")
    assert "UP" not in inside["flags"]
    with Socket(namespace=other.path) as there:
        assert link.get(host, "lam0").lower == inside["ifindex"] == link.get(there, "eth0").ifindex
        assert link.get(there, "eth0").lower == outside["ifindex"]
    assert link.get(host, "lam0").lower_namespace_id == link.namespace_id(host, other.fd) >= 0


def test_a_namespace_that_no_link_leads_to_has_no_number(host: Socket, other: Netspace):
    assert link.namespace_id(host, other.fd) == -1


@pytest.mark.parametrize("mode", list(link.MACVLAN_MODES))
def test_a_macvlan_is_made_in_each_mode_and_can_be_made_in_a_namespace(host: Socket, other: Netspace, mode: str):
    link.create(host, "parent", link.Veth("far"))
    parent = link.get(host, "parent").ifindex
    link.create(host, "eth0", link.Macvlan(parent, mode), namespace_fd=other.fd)
    (seen,) = other.ip("link", "show", "eth0")
    assert (seen["linkinfo"]["info_kind"], seen["linkinfo"]["info_data"]["mode"]) == ("macvlan", mode)
    with Socket(namespace=other.path) as there:
        assert (link.get(there, "eth0").kind, link.get(there, "eth0").lower) == ("macvlan", parent)


def test_a_dummy_is_made_or_the_kernel_says_that_it_knows_none(host: Socket):
    try:
        link.create(host, "d0", link.Dummy())
    except OSError as error:
        assert error.errno == errno.EOPNOTSUPP
        assert str(error) == "[Errno 95] create dummy 'd0': Operation not supported: Unknown device type"
    else:
        assert ip("link", "show", "d0")[0]["linkinfo"]["info_kind"] == "dummy"


def test_a_link_is_changed_in_what_is_said_and_in_nothing_else(host: Socket, other: Netspace):
    link.create(host, "br0", link.Bridge())
    link.create(host, "v0", link.Veth("v1"), master=link.get(host, "br0").ifindex, mtu=1300)
    before = link.get(host, "v0")
    link.change(host, "v0", name="w0", alias="of ctr1", mac="02:00:00:00:00:07", is_up=True)
    (seen,) = ip("link", "show", "w0")
    assert (seen["ifalias"], seen["address"], seen["mtu"], seen["master"]) == ("of ctr1", "02:00:00:00:00:07", 1300, "br0")
    assert "UP" in seen["flags"]
    link.change(host, before.ifindex, master=0, mtu=1200, is_up=False)
    (seen,) = ip("link", "show", "w0")
    assert (seen.get("master"), seen["mtu"], "UP" in seen["flags"], seen["ifalias"]) == (None, 1200, False, "of ctr1")
    link.change(host, "w0", namespace_fd=other.fd)
    assert other.ip("link", "show", "w0")[0]["ifname"] == "w0"
    with pytest.raises(OSError, match="get link 'w0': No such device"):
        link.get(host, "w0")


def test_a_link_is_found_and_meant_by_its_other_name_however_long(host: Socket):
    altname = "lamina-endpoint-" + "x" * 64
    link.create(host, "v0", link.Veth("v1"))
    link.add_altname(host, "v0", altname)
    assert link.get(host, altname) == link.get(host, "v0")
    assert link.get(host, "v0").altnames == (altname,)
    assert ip("link", "show", "v0")[0]["altnames"] == [altname]
    link.change(host, altname, name="renamed", is_up=True)
    link.delete_altname(host, "renamed", altname)
    assert link.get(host, "renamed").altnames == ()
    link.add_altname(host, "renamed", altname)
    link.delete(host, altname)
    assert [each.name for each in link.links(host)] == ["lo"]


def test_what_ip_made_is_read_as_ip_shows_it(host: Socket, other: Netspace):
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "link", "add", "v0", "mtu", "1234", "type", "veth", "peer", "name", "v1")
    run("ip", "link", "set", "v0", "master", "br0", "up", "alias", "a b")
    run("ip", "link", "property", "add", "dev", "v0", "altname", "other-name-of-v0", "altname", "third")
    run("ip", "link", "add", "m0", "link", "v1", "type", "macvlan", "mode", "bridge")
    shown = {each["ifname"]: each for each in ip("link", "show")}
    found = {each.name: each for each in link.links(host)}
    assert found.keys() == shown.keys() == {"lo", "br0", "v0", "v1", "m0"}
    by_index = {each["ifindex"]: name for name, each in shown.items()}
    for name, theirs in shown.items():
        ours = found[name]
        assert (ours.ifindex, ours.mtu, ours.mac, ours.alias) == (
            theirs["ifindex"], theirs["mtu"], theirs["address"], theirs.get("ifalias", ""),
        )  # fmt: skip
        assert ours.kind == theirs.get("linkinfo", {}).get("info_kind", "")
        assert by_index.get(ours.master) == theirs.get("master")
        assert by_index.get(ours.lower) == theirs.get("link")
        assert list(ours.altnames) == theirs.get("altnames", [])
        assert ours.is_up is ("UP" in theirs["flags"])
        assert ours == link.get(host, name) == link.get(host, ours.ifindex)


def test_links_are_listed_by_kind_and_by_master(host: Socket):
    for name in ("br0", "br1"):
        link.create(host, name, link.Bridge())
        link.create(host, f"{name}-a", link.Veth(f"{name}-b"), master=link.get(host, name).ifindex)
    assert {each.name for each in link.links(host, kind="bridge")} == {"br0", "br1"}
    assert [each.name for each in link.links(host, master=link.get(host, "br1").ifindex)] == ["br1-a"]
    assert {each.name for each in link.links(host, kind="veth", master=link.get(host, "br0").ifindex)} == {"br0-a"}
    assert link.links(host, kind="no-such-kind") == []


def test_two_hundred_pairs_come_and_go(host: Socket, other: Netspace):
    link.create(host, "br0", link.Bridge(), is_up=True)
    bridge = link.get(host, "br0").ifindex
    for number in range(200):
        link.create(host, f"v{number}", link.Veth(f"e{number}", peer_namespace_fd=other.fd), master=bridge, is_up=True)
    assert {each.name for each in link.links(host, master=bridge)} == {f"v{number}" for number in range(200)}
    with Socket(namespace=other.path) as there:
        assert {each.name for each in link.links(there)} == {"lo", *(f"e{number}" for number in range(200))}
        assert len(other.ip("link", "show")) == 201
        for number in range(0, 200, 2):
            link.delete(host, f"v{number}")
            link.delete(there, f"e{number + 1}")
        assert [each.name for each in link.links(there)] == ["lo"]
    assert [each.name for each in link.links(host)] == ["lo", "br0"]


def test_a_list_that_changes_while_it_is_read_is_read_again_until_it_is_whole(host: Socket):
    lasting = {f"stay{number}" for number in range(60)}
    for name in lasting:
        link.create(host, name, link.Veth(f"{name}x"))
    lines = "\n".join(f"link add go{number} type veth peer name gox{number}\nlink del go{number}" for number in range(80))
    with subprocess.Popen(["ip", "-batch", "-"], stdin=subprocess.PIPE, text=True) as changing:
        assert changing.stdin is not None
        changing.stdin.write(lines)
        changing.stdin.close()
        rounds = 0
        while changing.poll() is None or not rounds:
            try:
                names = [each.name for each in link.links(host)]
            except OSError as error:  # changed each of twenty times: said, and not a part given for the whole
                assert error.errno == errno.EAGAIN
                continue
            assert len(names) == len(set(names))
            assert lasting <= set(names)
            rounds += 1
    assert changing.returncode == 0


# Addresses and routes


@pytest.fixture
def wire(host: Socket) -> int:
    """The index of a link that is up, as is the other end."""
    link.create(host, "v0", link.Veth("v1"), is_up=True)
    link.change(host, "v1", is_up=True)
    return link.get(host, "v0").ifindex


def _shown_addresses() -> set[str]:
    return {f"{each['local']}/{each['prefixlen']}" for entry in ip("addr", "show", "dev", "v0") for each in entry["addr_info"]}


def test_addresses_of_both_versions_are_added_listed_and_deleted(host: Socket, wire: int):
    route.add_address(host, wire, "172.18.0.1/16")
    route.add_address(host, wire, "172.18.0.9/16")
    route.add_address(host, wire, "fd00:18::1/64", has_dad=False)
    assert {"172.18.0.1/16", "172.18.0.9/16", "fd00:18::1/64"} <= _shown_addresses()
    assert {each.address for each in route.addresses(host, link=wire)} == _shown_addresses()
    assert [each.address for each in route.addresses(host, link=wire, family=socket.AF_INET)] == ["172.18.0.1/16", "172.18.0.9/16"]
    for address in ("172.18.0.9/16", "172.18.0.1/16", "fd00:18::1/64"):
        route.delete_address(host, wire, address)
    assert [each for each in route.addresses(host, link=wire) if each.scope == 0] == []
    assert "127.0.0.1/8" in [each.address for each in route.addresses(host)]


def test_an_address_without_duplicate_address_detection_is_usable_at_once(host: Socket, wire: int):
    route.add_address(host, wire, "fd00:18::1/64", has_dad=False)
    (found,) = [each for each in route.addresses(host, link=wire) if each.address == "fd00:18::1/64"]
    assert not found.flags & route.IFA_F_TENTATIVE
    with socket.socket(socket.AF_INET6) as bound:
        bound.bind(("fd00:18::1", 0))


def test_an_address_may_come_without_its_networks_route(host: Socket, wire: int):
    route.add_address(host, wire, "172.18.0.1/16", has_route=False)
    route.add_address(host, wire, "172.19.0.1/16")
    assert [each.destination for each in route.routes(host, family=socket.AF_INET)] == ["172.19.0.0/16"]


def test_routes_are_added_replaced_and_deleted(host: Socket, wire: int):
    route.add_address(host, wire, "172.18.0.2/16")
    route.add_address(host, wire, "fd00:18::2/64", has_dad=False)
    for each in (
        route.Route("0.0.0.0/0", gateway="172.18.0.1"),
        route.Route("10.1.0.0/16", gateway="172.18.0.1", metric=7, source="172.18.0.2"),
        route.Route("10.2.0.0/16", link=wire),
        route.Route("10.3.0.0/16", kind="blackhole"),
        route.Route("10.4.0.0/16", link=wire, table=1000),
        route.Route("::/0", gateway="fd00:18::1", metric=5),
    ):
        route.add_route(host, each)
    shown = {each["dst"]: each for each in ip("route", "show")}
    assert shown["default"]["gateway"] == "172.18.0.1"
    assert (shown["10.1.0.0/16"]["metric"], shown["10.1.0.0/16"]["prefsrc"]) == (7, "172.18.0.2")
    assert (shown["10.2.0.0/16"]["dev"], shown["10.2.0.0/16"]["scope"]) == ("v0", "link")
    assert shown["10.3.0.0/16"]["type"] == "blackhole"
    assert ip("route", "show", "table", "1000")[0]["dst"] == "10.4.0.0/16"
    assert [(each["gateway"], each["metric"]) for each in ip("-6", "route", "show", "default")] == [("fd00:18::1", 5)]
    route.replace_route(host, route.Route("0.0.0.0/0", gateway="172.18.0.3"))
    assert [each["gateway"] for each in ip("route", "show", "default")] == ["172.18.0.3"]
    route.delete_route(host, route.Route("0.0.0.0/0"))
    route.delete_route(host, route.Route("10.1.0.0/16", metric=7))
    route.delete_route(host, route.Route("10.3.0.0/16", kind="blackhole"))
    route.delete_route(host, route.Route("::/0"))
    assert {each.destination for each in route.routes(host, family=socket.AF_INET)} == {"172.18.0.0/16", "10.2.0.0/16"}
    assert [each.destination for each in route.routes(host, family=socket.AF_INET, table=1000)] == ["10.4.0.0/16"]
    assert "::/0" not in [each.destination for each in route.routes(host, family=socket.AF_INET6)]


def test_routes_that_ip_made_are_read_as_ip_shows_them(host: Socket, wire: int):
    run("ip", "addr", "add", "172.18.0.2/16", "dev", "v0")
    run("ip", "route", "add", "default", "via", "172.18.0.1", "metric", "100", "src", "172.18.0.2", "proto", "static")
    run("ip", "route", "add", "unreachable", "10.9.0.0/16")
    assert route.routes(host, family=socket.AF_INET) == [
        route.Route("0.0.0.0/0", "172.18.0.1", wire, 100, "172.18.0.2", protocol=route.RTPROT_STATIC),
        route.Route("10.9.0.0/16", kind="unreachable"),
        route.Route("172.18.0.0/16", link=wire, source="172.18.0.2", protocol=route.RTPROT_KERNEL),
    ]
    everywhere = route.routes(host, family=socket.AF_INET, table=None)
    assert route.Route("172.18.0.2/32", None, wire, None, "172.18.0.2", "local", route.RT_TABLE_LOCAL, 2) in everywhere


# What is refused


@pytest.mark.parametrize(
    ("ask", "number", "text"),
    [
        (lambda host: link.create(host, "lo", link.Bridge()), errno.EEXIST, "create bridge 'lo': File exists"),
        (lambda host: link.create(host, "a", link.Veth("lo")), errno.EEXIST, "create veth 'a' with its peer 'lo': File exists"),
        (lambda host: link.create(host, "x" * 16, link.Bridge()), errno.ERANGE, f"create bridge '{'x' * 16}': "),
        (lambda host: link.create(host, "a b", link.Bridge()), errno.EINVAL, "create bridge 'a b': Invalid argument"),
        (lambda host: link.create(host, "m", link.Macvlan(999)), errno.ENODEV, "create macvlan 'm': No such device"),
        (lambda host: link.create(host, "b", link.Bridge(), mac="ff:ff:ff:ff:ff:ff"), errno.EADDRNOTAVAIL, "create bridge 'b': "),
        (lambda host: link.create(host, "b", link.Bridge(), mtu=10), errno.EINVAL, "mtu less than device minimum"),
        (lambda host: link.get(host, "nope"), errno.ENODEV, "get link 'nope': No such device"),
        (lambda host: link.get(host, 999), errno.ENODEV, "get link 999: No such device"),
        (lambda host: link.delete(host, "nope"), errno.ENODEV, "delete link 'nope': No such device"),
        (lambda host: link.change(host, "nope", name="n"), errno.ENODEV, "get link 'nope': No such device"),
        (lambda host: link.change(host, "lo", master=1), errno.EOPNOTSUPP, "change link 'lo': Operation not supported"),
        (lambda host: route.add_address(host, 999, "10.0.0.1/8"), errno.ENODEV, "add address '10.0.0.1/8' to link 999: "),
        (lambda host: route.add_address(host, 1, "127.0.0.1/8"), errno.EEXIST, "add address '127.0.0.1/8' to link 1: File exists"),
        (lambda host: route.delete_address(host, 1, "10.0.0.1/8"), errno.EADDRNOTAVAIL, "delete address '10.0.0.1/8' of link 1: "),
        (lambda host: route.add_route(host, route.Route("10.0.0.0/8", gateway="192.0.2.1")), errno.ENETUNREACH,
            "add route 10.0.0.0/8 via 192.0.2.1: Network is unreachable: Nexthop has invalid gateway"),
        (lambda host: route.add_route(host, route.Route("10.0.0.1/8", link=1)), errno.EINVAL, "add route 10.0.0.1/8 dev link 1: "),
        (lambda host: route.delete_route(host, route.Route("10.0.0.0/8")), errno.ESRCH, "delete route 10.0.0.0/8: No such process"),
    ],
)  # fmt: skip
def test_an_error_names_what_was_asked_and_gives_the_kernels_words(
    host: Socket, ask: Callable[[Socket], None], number: int, text: str
):
    with pytest.raises(OSError) as caught:
        ask(host)
    assert caught.value.errno == number
    assert text in str(caught.value)
    assert [each.name for each in link.links(host)] == ["lo"]


def test_without_the_privilege_the_kernel_says_no(host: Socket):
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            with Socket() as unprivileged:
                link.create(unprivileged, "br0", link.Bridge())
        except PermissionError as error:
            os._exit(0 if "create bridge 'br0': Operation not permitted" in str(error) else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Other namespaces


def _own_state() -> tuple[tuple[int, int], set[str], int]:
    return namespace.identity("self", "net"), set(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def test_a_conversation_in_another_namespace_leaves_this_process_where_it_is(host: Socket, other: Netspace):
    before = _own_state()
    for _ in range(20):
        with Socket(namespace=other.path) as there:
            assert {each.name for each in link.links(there)} == {"lo"}
            assert _own_state()[:2] == before[:2]
        assert _own_state() == before
    link.create(host, "only-here", link.Bridge())
    with Socket(namespace=other.path) as there:
        assert {each.name for each in link.links(there)} == {"lo"}


@pytest.mark.parametrize(
    ("path", "number"), [("/proc/self/ns/nope", errno.ENOENT), ("/etc/passwd", errno.EINVAL), ("/proc/self/ns/uts", errno.EINVAL)]
)
def test_what_is_no_network_namespace_is_refused_by_its_path_and_nothing_is_left_open(path: str, number: int):
    before = _own_state()
    with pytest.raises(OSError) as caught:
        Socket(namespace=path)
    assert (caught.value.errno, caught.value.filename) == (number, path)
    assert _own_state() == before


def test_what_a_call_in_another_namespace_raises_is_raised_here(other: Netspace):
    before = _own_state()
    with pytest.raises(ZeroDivisionError):
        netns.within(other.path, lambda: 1 // 0)
    assert _own_state() == before


def test_a_setting_is_of_the_namespace_that_is_named(host: Socket, other: Netspace):
    link.create(host, "br.0", link.Bridge())
    forwarding = netns.sysctl("net/ipv4/ip_forward")
    opposite = "0" if forwarding == "1" else "1"
    netns.set_sysctls([("net/ipv4/ip_forward", opposite), ("net/ipv6/conf/lo/disable_ipv6", "1")], namespace=other.path)
    assert other.run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.lo.disable_ipv6").split() == [opposite, "1"]
    assert netns.sysctl("net/ipv4/ip_forward", namespace=other.path) == opposite
    assert (netns.sysctl("net/ipv4/ip_forward"), netns.sysctl("net/ipv6/conf/lo/disable_ipv6")) == (forwarding, "0")
    netns.set_sysctls([("net/ipv4/conf/br.0/route_localnet", "1")])
    assert netns.sysctl("net/ipv4/conf/br.0/route_localnet") == "1"


def test_a_setting_that_isnt_there_or_a_value_that_is_none_is_said_with_its_path(other: Netspace):
    with pytest.raises(FileNotFoundError) as missing:
        netns.set_sysctls([("net/ipv4/conf/nope/forwarding", "1")], namespace=other.path)
    assert missing.value.filename == "/proc/sys/net/ipv4/conf/nope/forwarding"
    with pytest.raises(OSError) as wrong:
        netns.set_sysctls([("net/ipv4/ip_forward", "many")], namespace=other.path)
    assert (wrong.value.errno, wrong.value.filename) == (errno.EINVAL, "/proc/sys/net/ipv4/ip_forward")


def test_a_socket_ends_with_execve(host: Socket):
    assert fcntl.fcntl(host._socket.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_an_answer_to_a_request_that_was_cut_off_isnt_taken_for_the_next_ones(host: Socket):
    request = netlink.Message(18, netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP, bytes(16))  # RTM_GETLINK, whose answer nobody read
    host._socket.send(netlink.encoded(request, 4000))
    assert link.get(host, "lo").name == "lo"
    assert [each.name for each in link.links(host)] == ["lo"]
