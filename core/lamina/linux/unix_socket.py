"""Unix stream sockets: connected pairs, sockets known by a path of any length, descriptors sent over one. Source: unix(7).

They are those of `_socket`, the C part of the standard library's `socket`: the part in Python makes classes of the constants of all
protocols and imports `selectors`, 3 ms of every start. Their methods are the same.
"""

import _socket
import os
import struct

Socket = _socket.socket
SHUT_WR = _socket.SHUT_WR
_BACKLOG = 16


def pair() -> tuple[Socket, Socket]:
    """Make two sockets that are connected with each other."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)


def opened(fd: int) -> Socket:
    """Take a descriptor of such a socket over: closing the value closes it."""
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)


def listen(path: str) -> Socket:
    """Listen at a path, which is made, in place of what was there; `accept` doesn't wait."""
    listening = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    directory_fd, name = _short(path)
    try:
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass
        bind(listening, name)
    finally:
        os.close(directory_fd)
    listening.listen(_BACKLOG)
    listening.setblocking(False)
    return listening


def bind(listening: Socket, path: str) -> None:
    """Make a path, as `listen` has it done: a function of this module's, which a trace can put a recording one in the place of."""
    listening.bind(path)


def accept(listening: Socket) -> Socket:
    """Take the next one that has connected; raises `BlockingIOError` if there is none."""
    return opened(listening._accept()[0])  # type: ignore[attr-defined] # what `socket.accept` calls


def connect(path: str) -> Socket:
    """Connect to who listens at a path; raises `FileNotFoundError`, `ConnectionRefusedError` if nobody does."""
    directory_fd, name = _short(path)
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        client.connect(name)
    except OSError:
        client.close()
        raise
    finally:
        os.close(directory_fd)
    return client


def send_descriptor(channel: Socket, fd: int) -> None:
    """Send a descriptor (SCM_RIGHTS)."""
    channel.sendmsg([b"t"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))])


def receive_descriptor(channel: Socket) -> int | None:
    """Receive one, or None if the other side closed without sending."""
    data, ancillary, _flags, _address = channel.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    for level, kind, payload in ancillary:
        if data and level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            return int(struct.unpack("i", payload[:4])[0])
    return None


def _short(path: str) -> tuple[int, str]:
    """Open a path's directory, and name the path by it: a socket's address has room for 107 bytes."""
    directory_fd = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return directory_fd, f"/proc/self/fd/{directory_fd}/{os.path.basename(path)}"
