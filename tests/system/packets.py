"""Packets between network namespaces, sent and received by the test itself: sockets made in a namespace stay there.

So a container's server needs no program in it, and what arrives where, and from whom, is seen at once. Not here: namespaces
(`netspaces.py`) and containers.
"""

import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

from lamina.container import ContainerHandle
from lamina.linux.netns import within

PATIENCE_S = 5.0
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Server:
    """A socket in a namespace, waiting for what comes."""

    def __init__(self, namespace: str, protocol: str, port: int, address: str = "") -> None:
        self.protocol = protocol
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = inside(namespace, lambda: socket.socket(family, KINDS[protocol]))
        self.socket.settimeout(PATIENCE_S)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((address, port))
        if protocol == "tcp":
            self.socket.listen()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def meets(self, client: "Client") -> str:
        """Exchange some bytes with a client, both ways; gives the client's address as it is seen here."""
        client.socket.sendall(b"question")
        if self.protocol == "udp":
            data, sender = self.socket.recvfrom(100)
            self.socket.sendto(data + b" answered", sender)
        else:
            connection, sender = self.socket.accept()
            with closing(connection):
                connection.settimeout(PATIENCE_S)
                connection.sendall(connection.recv(100) + b" answered")
        assert client.socket.recv(100) == b"question answered"
        return str(sender[0])

    def has_heard(self, text: bytes) -> bool:
        """Whether the next datagram is this one."""
        return self.socket.recv(100) == text


class Client:
    """A socket in a namespace, connected to somewhere."""

    def __init__(self, namespace: str, protocol: str, host: str, port: int, source: str = "") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = inside(namespace, lambda: socket.socket(family, KINDS[protocol]))
        self.socket.settimeout(PATIENCE_S)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((host, port))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()


def inside(namespace: str, call: Callable[[], Any]) -> Any:
    """Call it in a namespace, "" being the test's own."""
    return within(namespace, call) if namespace else call()


def net(container: ContainerHandle) -> str:
    """The path of a container's network namespace."""
    return f"/proc/{container.pid}/ns/net"


def say(namespace: str, host: str, port: int, text: bytes) -> None:
    """Send one datagram; whether it arrives is another thing."""
    with Client(namespace, "udp", host, port) as client:
        try:
            client.socket.send(text)
        except OSError:
            pass  # refused on the way, which is an answer, too


def exchange(container: ContainerHandle, protocol: str, port: int, host: str, host_port: int, *, origin: str = "") -> str:
    """Let a container serve a port, and ask for it at another address from a namespace; gives the sender as it was seen there."""
    ours = any(":" in each for each in addresses(container)) and ":" in host and host != "::1"
    with Server(net(container), protocol, port, "::" if ours else "") as server:
        with Client(origin, protocol, host, host_port) as client:
            return server.meets(client)


def addresses(container: ContainerHandle) -> list[str]:
    """A container's addresses, without prefixes."""
    engine = container._engine
    return [
        address.partition("/")[0] for _, endpoint in engine.networks.endpoints(container.record) for address in endpoint.addresses
    ]
