"""What drivers answered, made true in the kernel, and taken away: links, settings, rules; a container's links and what leads to it.

Everything here may be done twice: what is there stays, what has gone is no error. Not here: when, under which lock, and for whom.
"""

import errno
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from lamina.api.networks import ContainerLink, HostLink, NetworkSetup
from lamina.errors import LaminaError, NotUsableError
from lamina.linux import link, netlink, netns, nftables, route
from lamina.linux.nft_listing import tables
from lamina.linux.nftables import Batch, Element, Set
from lamina.model.network import PortMapping

ALIAS = "lamina"
"""The alias of our host links: a link of the wanted name without it is somebody else's, and not touched."""
_READY_S = 0.2

Elements = Sequence[tuple[Set, Element]]


def table_name(root_dir: str, *, is_default: bool) -> str:
    """The name of a root directory's table of nftables."""
    if is_default:
        return "lamina"
    from hashlib import sha256

    return f"lamina-{sha256(root_dir.encode()).hexdigest()[:8]}"


# A network


def is_up(setup: NetworkSetup, table: str) -> bool:
    """Whether the host has what a network needs, so far as that is told in a millisecond: table, links, addresses, settings."""
    if setup.chains and not has_table(table):
        return False
    with netlink.Socket() as kernel:
        for wanted in setup.links:
            try:
                found = link.get(kernel, wanted.name)
            except OSError:
                return False
            have = {each.address for each in route.addresses(kernel, link=found.ifindex)}
            if not found.is_up or found.alias != ALIAS or not have.issuperset(wanted.addresses):
                return False
    return not list(_different(setup.settings))


def has_table(table: str) -> bool:
    """Whether our table is there; a firewall that is loaded anew with `flush ruleset` deletes it."""
    try:
        with netlink.Socket(netlink.NETLINK_NETFILTER) as kernel:
            return table in tables(kernel)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL):
            raise _no_nftables() from error
        raise


def set_up(setup: NetworkSetup, table: str, elements: Elements, warn: Callable[[str], None]) -> None:
    """Make what a network needs, rules first so that no packet passes without them; `elements` are what its sets hold.

    `warn` hears of settings that are not of the network's own links. Raises `NotUsableError`; the caller takes away what was made.
    """
    if setup.chains or setup.sets:
        _apply(rules(setup, table, elements))
    with netlink.Socket() as kernel:
        for each in setup.links:
            _make_link(kernel, each)
        _write_settings(setup, warn)
        for each in setup.links:
            _start_link(kernel, each)


def rules(setup: NetworkSetup, table: str, elements: Elements) -> Batch:
    """The batch that makes a network's sets, chains and rules what they are to be, whatever they were."""
    batch = Batch(table)
    batch.add_table()
    for made in setup.sets:
        batch.add_set(made)
        batch.flush_set(made.name)
    for chain in setup.chains:
        batch.add_chain(chain)
        batch.flush_chain(chain.name)
    for rule in setup.rules:
        batch.add_rule(rule)
    for into, element in elements:
        batch.add_elements(into, element)
    return batch


def take_down(setup: NetworkSetup, table: str, *, is_last: bool) -> None:
    """Take a network's links, chains and sets away; with `is_last` the whole table."""
    with netlink.Socket() as kernel:
        for each in setup.links:
            try:
                if link.get(kernel, each.name).alias == ALIAS:
                    link.delete(kernel, each.name)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
            unplug(_unfinished(each))
    if not setup.chains and not setup.sets and not is_last:
        return
    batch = Batch(table)
    batch.add_table()
    if is_last:
        batch.delete_table()
    else:
        for chain in setup.chains:  # made if it isn't there, so that deleting it is no error; then nothing jumps any more
            batch.add_chain(chain)
            batch.flush_chain(chain.name)
        for chain in setup.chains:
            batch.delete_chain(chain.name)
        for made in setup.sets:
            batch.add_set(made)
            batch.delete_set(made.name, is_map=bool(made.data or made.has_verdicts))
    with suppress(NotUsableError):  # no nftables: then there is nothing of it to take away
        _apply(batch)


def add_elements(table: str, elements: Elements) -> None:
    """Add elements to a network's sets."""
    if elements:
        batch = Batch(table)
        for into, element in elements:
            batch.add_elements(into, element)
        _apply(batch)


def delete_elements(table: str, elements: Elements) -> None:
    """Take elements away, those that are there."""
    for into, element in elements:
        batch = Batch(table)
        batch.delete_elements(into, element)
        with suppress(FileNotFoundError):
            _apply(batch)


def forget_senders(ports: Iterable[PortMapping], addresses: Iterable[str]) -> None:
    """Let what is sent to published ports of UDP find its way anew: the kernel would go on as it began with a sender.

    It may have begun before the port was published, at the host itself, or with the container that had the address before.
    """
    wanted = {each.host_port for each in ports if each.protocol == "udp"}
    if not wanted:
        return
    from lamina.linux import conntrack  # a start that publishes UDP pays for it

    containers = set(addresses)
    with netlink.Socket() as kernel:
        own = {each.address.partition("/")[0] for each in route.addresses(kernel)}
    with netlink.Socket(netlink.NETLINK_NETFILTER) as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            for each in conntrack.connections(kernel, family):
                is_meant = each.origin.destination_port in wanted and each.reply.source in own
                if each.protocol == socket.IPPROTO_UDP and (is_meant or each.reply.source in containers):
                    with suppress(FileNotFoundError):
                        conntrack.delete(kernel, each)


def _apply(batch: Batch) -> None:
    try:
        with netlink.Socket(netlink.NETLINK_NETFILTER) as kernel:
            batch.apply(kernel)
    except FileNotFoundError:
        if nftables.is_supported():
            raise
        raise _no_nftables() from None
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL) and not _is_supported():
            raise _no_nftables() from error
        raise


def _is_supported() -> bool:
    try:
        return nftables.is_supported()
    except OSError:
        return False


def _no_nftables() -> NotUsableError:
    return NotUsableError(
        "this kernel has no nftables, which bridges need", hint="load it with `modprobe nf_tables`, or use --network host or none"
    )


def _make_link(kernel: netlink.Socket, wanted: HostLink) -> None:
    kinds: dict[str, link.Kind] = {"bridge": link.Bridge(), "dummy": link.Dummy()}
    if wanted.kind not in kinds:
        raise LaminaError(f"link '{wanted.name}' can't be made: '{wanted.kind}' is not bridge or dummy")
    try:
        found = link.get(kernel, wanted.name)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    else:
        if found.kind != wanted.kind or found.alias != ALIAS:
            raise NotUsableError(
                f"the host has a link '{wanted.name}' already, which isn't ours", hint="remove it, or give the network another name"
            )
        return
    unplug(_unfinished(wanted))
    try:
        link.create(kernel, _unfinished(wanted), kinds[wanted.kind], mac=wanted.mac or None, mtu=wanted.mtu or None)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise NotUsableError(
                f"this kernel has no links of the kind '{wanted.kind}'", hint=f"`modprobe {wanted.kind}`"
            ) from error
        raise
    link.change(kernel, _unfinished(wanted), alias=ALIAS)
    link.change(kernel, _unfinished(wanted), name=wanted.name)


def _unfinished(wanted: HostLink) -> str:
    """The name that a link has until its alias says whose it is; if its maker is killed there, it is found by this."""
    from zlib import crc32

    return f"lnew-{crc32(wanted.name.encode()):08x}"


def _start_link(kernel: netlink.Socket, wanted: HostLink) -> None:
    found = link.get(kernel, wanted.name)
    if not found.is_up:
        link.change(kernel, found.ifindex, is_up=True)
    for address in wanted.addresses:
        with suppress(FileExistsError):
            route.add_address(kernel, found.ifindex, address, has_dad=False)


def _different(settings: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    for name, value in settings:
        try:
            if netns.sysctl(name) != value:
                yield name, value
        except FileNotFoundError:
            if not name.startswith("net/ipv6/"):  # a kernel without IPv6 has nothing to set
                raise


def _write_settings(setup: NetworkSetup, warn: Callable[[str], None]) -> None:
    ours = tuple(f"/{each.name}/" for each in setup.links)
    for name, value in list(_different(setup.settings)):
        netns.set_sysctls([*(_kept_routers() if name == "net/ipv6/conf/all/forwarding" else ()), (name, value)])
        if not any(each in name for each in ours):
            warn(f"the kernel's setting {name.replace('/', '.')} is {value} now: containers' packets are forwarded by it")


def _kept_routers() -> list[tuple[str, str]]:
    """Links that learn their routes from routers, and would stop to when the host becomes one itself (ip-sysctl, accept_ra)."""
    folder = "/proc/sys/net/ipv6/conf"
    names = [name for name in os.listdir(folder) if name not in {"all", "default", "lo"}]
    return [
        (f"net/ipv6/conf/{name}/accept_ra", "2")
        for name in names
        if netns.sysctl(f"net/ipv6/conf/{name}/accept_ra") == "1" and netns.sysctl(f"net/ipv6/conf/{name}/forwarding") == "0"
    ]


# A container's links


def plug(wanted: ContainerLink, namespace: str) -> None:
    """Make a container's link in its network namespace, given by its path, with addresses and routes."""
    namespace_fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with netlink.Socket() as host:
            try:
                parent = link.get(host, wanted.parent).ifindex
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                raise NotUsableError(f"the host has no link '{wanted.parent}'", hint="`ip link` lists them") from error
            if wanted.kind == "macvlan":
                link.create(
                    host,
                    wanted.name,
                    link.Macvlan(parent, wanted.mode or "bridge"),
                    mac=wanted.mac or None,
                    mtu=wanted.mtu or None,
                    namespace_fd=namespace_fd,
                )
            else:
                pair = link.Veth(wanted.name, namespace_fd, wanted.mac or None, wanted.mtu or None)
                link.create(host, wanted.host_name, pair, mtu=wanted.mtu or None, master=parent, is_up=True)
                if wanted.has_hairpin:
                    link.set_hairpin(host, wanted.host_name, is_on=True)
        has_ipv6 = any(":" in each for each in wanted.addresses)
        folder = f"net/ipv6/conf/{wanted.name}"
        settings = [(f"{folder}/accept_dad", "0")] if has_ipv6 else [(f"{folder}/disable_ipv6", "1")]
        if has_ipv6 and wanted.kind == "veth":
            settings.append((f"{folder}/accept_ra", "0"))  # its routes are told; who else advertises some is another container

        def inside() -> netlink.Socket:
            with suppress(FileNotFoundError):
                netns.set_sysctls(settings)
            return netlink.Socket()

        with netns.within(namespace, inside) as kernel:
            ifindex = link.get(kernel, wanted.name).ifindex
            link.change(kernel, ifindex, is_up=True)
            for address in wanted.addresses:
                route.add_address(kernel, ifindex, address, has_dad=False)
            for each in wanted.routes:
                route.replace_route(kernel, each._replace(link=ifindex))
    finally:
        os.close(namespace_fd)


def replug(wanted: ContainerLink, namespace: str) -> None:
    """Make a container's link again if it has gone, and a veth a port of its bridge again if that has been made anew."""
    if wanted.kind == "veth":
        with netlink.Socket() as kernel:
            try:
                found, bridge = link.get(kernel, wanted.host_name), link.get(kernel, wanted.parent)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
            else:
                if found.master != bridge.ifindex or not found.is_up:
                    link.change(kernel, found.ifindex, master=bridge.ifindex, is_up=True)
                if wanted.has_hairpin:
                    link.set_hairpin(kernel, found.ifindex, is_on=True)
                return
    try:
        with netlink.Socket(namespace=namespace) as kernel:
            link.get(kernel, wanted.name)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        plug(wanted, namespace)


def add_routes(wanted: ContainerLink, namespace: str) -> None:
    """Give a container the routes of a link that it has already."""
    with netlink.Socket(namespace=namespace) as kernel:
        ifindex = link.get(kernel, wanted.name).ifindex
        for each in wanted.routes:
            route.replace_route(kernel, each._replace(link=ifindex))


def unplug(wanted: str, namespace: str = "") -> None:
    """Delete a link of the host, or with a namespace one there, if it is there."""
    try:
        with netlink.Socket(namespace=namespace or None) as kernel:
            link.delete(kernel, wanted)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT, errno.ESRCH):
            raise


def wait_ready(wanted: ContainerLink) -> None:
    """Wait for the moment, some milliseconds at most, until packets pass a fresh veth: what is sent before is lost."""
    deadline = time.monotonic() + _READY_S
    with netlink.Socket() as kernel:
        while time.monotonic() < deadline:
            if all(link.get(kernel, name).is_running for name in (wanted.host_name, wanted.parent)):
                return
            os.sched_yield()
