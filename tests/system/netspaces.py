"""Network namespaces for tests: made here, kept by a descriptor, entered by programs through nsenter(1)."""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

from lamina.linux import link, namespace, netlink, route


class Netspace:
    """A network namespace beside the test's own; gone, with its links, when it is closed."""

    def __init__(self) -> None:
        here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespace.unshare(namespace.CLONE_NEWNET)
            self.fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            namespace.loopback_up()
            namespace.setns(here, namespace.CLONE_NEWNET)
        finally:
            os.close(here)
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"

    def run(self, *words: str, **options: Any) -> str:
        """Run a program inside and return what it says."""
        return run("nsenter", f"--net={self.path}", *words, **options)

    def ip(self, *words: str) -> Any:
        """What `ip -j` says inside."""
        return json.loads(self.run("ip", "-j", "-d", *words) or "[]")


@contextlib.contextmanager
def netspace() -> Iterator[Netspace]:
    """A network namespace for a while."""
    made = Netspace()
    try:
        yield made
    finally:
        os.close(made.fd)


def run(*words: str, **options: Any) -> str:
    """Run a program in the test's own namespace and return what it says."""
    return subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE, **options).stdout


def ip(*words: str) -> Any:
    """What `ip -j` says in the test's own namespace."""
    return json.loads(run("ip", "-j", "-d", *words) or "[]")


def plug(
    inside: Netspace, host_name: str, name: str, addresses: list[str], gateways: list[str], *, master: int | None = None
) -> None:
    """Join a namespace to the test's own by a veth pair: its addresses and default routes, as a container's network is made."""
    with netlink.Socket() as host, netlink.Socket(namespace=inside.path) as there:
        link.create(host, host_name, link.Veth(name, peer_namespace_fd=inside.fd), master=master, is_up=True)
        link.change(there, name, is_up=True)
        ifindex = link.get(there, name).ifindex
        for address in addresses:
            route.add_address(there, ifindex, address, has_dad=False)
        for gateway in gateways:
            route.add_route(there, route.Route("::/0" if ":" in gateway else "0.0.0.0/0", gateway=gateway))
        ends = [(host, host_name), (there, name)] + ([] if master is None else [(host, link.get(host, master).name)])
        while not all(_is_ready(*each) for each in ends):
            os.sched_yield()  # the kernel's own work, of milliseconds


def _is_ready(where: netlink.Socket, name: str) -> bool:
    """Whether packets pass, and its link-local address is there: without it no IPv6 neighbour is asked for on another's behalf."""
    found = link.get(where, name)
    local = [each for each in route.addresses(where, link=found.ifindex, family=socket.AF_INET6) if each.scope == 253]
    return found.is_running and bool(local) and not any(each.flags & route.IFA_F_TENTATIVE for each in local)
