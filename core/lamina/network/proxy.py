"""The process that carries bytes from a port of the host to a container where the kernel can't: from ::1, and from IPv6 to IPv4.

One for each container that publishes ports. It holds the sockets that keep its ports from others (`ports.py`), listens on those
that are to be forwarded, and ends with the container's first process, or by TERM. TCP is passed on in both directions, each
closed as it is closed; UDP by the sender, forgotten after 90 s of silence. The container sees its gateway as the sender.
Not here: everything else that is published, which the kernel's rules do alone.
"""

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Sequence

from lamina.api.networks import Forwarding
from lamina.linux import process
from lamina.model.network import PortMapping

_CHUNK_BYTES = 1 << 16
_UDP_SILENCE_S = 90.0
_CONNECTIONS = 1000
_BACKLOG = 128


def start(sockets: Sequence[tuple[PortMapping, socket.socket]], forwardings: Sequence[Forwarding], container_pid: int) -> int:
    """Fork the process; gives its pid. The sockets are its own then, the caller closes them."""
    served = [(each, one) for mapping, each in sockets for one in forwardings if _is_meant(one, mapping, each)]
    for each, one in served:
        if one.protocol == "tcp":
            each.listen(_BACKLOG)  # before there is a process: whoever connects from now on will be answered
    pidfd = os.pidfd_open(container_pid)
    try:
        pid = os.fork()
        if pid:
            return pid
        try:
            _be([each for _, each in sockets], served, pidfd)
        finally:
            os._exit(0)
    finally:
        os.close(pidfd)


def _is_meant(forwarding: Forwarding, mapping: PortMapping, bound: socket.socket) -> bool:
    wanted = (forwarding.protocol, forwarding.host_ip, forwarding.host_port)
    return wanted == (mapping.protocol, bound.getsockname()[0], mapping.host_port)


def _be(sockets: Sequence[socket.socket], served: Sequence[tuple[socket.socket, Forwarding]], pidfd: int) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir("/")
    null_fd = os.open("/dev/null", os.O_RDWR)
    for standard_fd in (0, 1, 2):
        os.dup2(null_fd, standard_fd)
    process.close_descriptors(frozenset({0, 1, 2, pidfd, *(each.fileno() for each in sockets)}))
    loop = Loop(pidfd)
    for each, forwarding in served:
        loop.listen(each, forwarding)
    loop.run()


class _Half:
    """One direction of a connection: what has been read and isn't written yet."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.pending = b""
        self.is_over = False


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.is_connected = False
        self.halves = (_Half(client, server), _Half(server, client))


class Loop:
    """Waits for all of it at once, and ends when the process of `pidfd` has ended."""

    def __init__(self, pidfd: int) -> None:
        self.pidfd = pidfd
        self.listeners: dict[int, tuple[socket.socket, Forwarding]] = {}
        self.connections: dict[int, _Connection] = {}
        self.senders: dict[tuple[int, object], socket.socket] = {}
        self.replies: dict[int, tuple[socket.socket, socket.socket, object]] = {}
        self.heard: dict[int, float] = {}

    def listen(self, listener: socket.socket, forwarding: Forwarding) -> None:
        """Forward what comes to this socket, which listens already if it is TCP's."""
        listener.setblocking(False)
        self.listeners[listener.fileno()] = (listener, forwarding)

    def run(self) -> None:
        """Forward until the container has ended."""
        while True:
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            is_full = len(self.connections) >= 2 * _CONNECTIONS
            for fd, (_, forwarding) in self.listeners.items():
                if forwarding.protocol == "udp" or not is_full:
                    poll.register(fd, select.POLLIN)
            for connection in set(self.connections.values()):
                for fd, events in _events(connection).items():
                    poll.register(fd, events)
            for fd in self.replies:
                poll.register(fd, select.POLLIN)
            ready = dict(poll.poll(_UDP_SILENCE_S * 1000 if self.replies else None))
            if self.pidfd in ready:
                return
            for fd in ready:
                if fd in self.listeners:
                    listener, forwarding = self.listeners[fd]
                    (self._accept if forwarding.protocol == "tcp" else self._receive)(listener, forwarding)
                elif fd in self.connections:
                    self._relay(self.connections[fd])
                elif fd in self.replies:
                    self._reply(fd)
            self._forget_silent()

    def _accept(self, listener: socket.socket, forwarding: Forwarding) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        server = socket.socket(_family(forwarding), socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        client.setblocking(False)
        server.setblocking(False)
        code = server.connect_ex((forwarding.address, forwarding.port))
        if code not in (0, errno.EINPROGRESS):
            client.close()
            server.close()
            return
        connection = _Connection(client, server)
        self.connections[client.fileno()] = self.connections[server.fileno()] = connection

    def _relay(self, connection: _Connection) -> None:
        """Carry what can be carried now; a side that fails ends the other as well, abruptly, as it itself did."""
        try:
            if not connection.is_connected:
                code = connection.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                try:
                    connection.server.getpeername()
                except OSError:
                    return  # not yet
                connection.is_connected = True
            for half in connection.halves:
                _carry(half)
        except OSError:
            self._close(connection, is_reset=True)
            return
        if all(half.is_over and not half.pending for half in connection.halves):
            self._close(connection)

    def _close(self, connection: _Connection, *, is_reset: bool = False) -> None:
        for each in (connection.client, connection.server):
            self.connections.pop(each.fileno(), None)
            if is_reset:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            each.close()

    def _receive(self, listener: socket.socket, forwarding: Forwarding) -> None:
        while True:
            try:
                data, sender = listener.recvfrom(_CHUNK_BYTES)
            except OSError:
                return
            key = (listener.fileno(), sender)
            server = self.senders.get(key)
            if server is None:
                if len(self.senders) >= _CONNECTIONS:
                    continue
                server = socket.socket(_family(forwarding), socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                server.setblocking(False)
                server.connect((forwarding.address, forwarding.port))
                self.senders[key] = server
                self.replies[server.fileno()] = (server, listener, sender)
            self.heard[server.fileno()] = time.monotonic()
            try:
                server.send(data)
            except OSError:
                pass  # a datagram may be lost; nobody listens there, perhaps

    def _reply(self, fd: int) -> None:
        server, listener, sender = self.replies[fd]
        try:
            while True:
                data = server.recv(_CHUNK_BYTES)
                listener.sendto(data, sender)  # type: ignore[call-overload]
                self.heard[fd] = time.monotonic()
        except OSError:
            pass

    def _forget_silent(self) -> None:
        limit = time.monotonic() - _UDP_SILENCE_S
        for fd in [fd for fd, heard in self.heard.items() if heard < limit]:
            server, listener, sender = self.replies.pop(fd)
            del self.senders[listener.fileno(), sender], self.heard[fd]
            server.close()


def _events(connection: _Connection) -> dict[int, int]:
    if not connection.is_connected:
        return {connection.server.fileno(): select.POLLOUT}
    events = {connection.client.fileno(): 0, connection.server.fileno(): 0}
    for half in connection.halves:
        if half.pending:
            events[half.target.fileno()] |= select.POLLOUT
        elif not half.is_over:
            events[half.source.fileno()] |= select.POLLIN
    return {fd: wanted for fd, wanted in events.items() if wanted}  # asked for nothing, poll(2) tells of a hang-up again and again


def _carry(half: _Half) -> None:
    while True:
        while half.pending:
            try:
                half.pending = half.pending[half.target.send(half.pending) :]
            except BlockingIOError:
                return
        if half.is_over:
            return
        try:
            half.pending = half.source.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        if not half.pending:
            half.is_over = True
            half.target.shutdown(socket.SHUT_WR)


def _family(forwarding: Forwarding) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in forwarding.address else socket.AF_INET
