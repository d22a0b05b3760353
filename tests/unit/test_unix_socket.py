"""Unix sockets: pairs, paths longer than an address, descriptors sent over one."""

import os
from pathlib import Path

import pytest

from lamina.linux import unix_socket


def test_a_pair_is_connected_and_closed_on_exec():
    ours, theirs = unix_socket.pair()
    ours.sendall(b"hello")
    assert theirs.recv(10) == b"hello"
    assert not os.get_inheritable(ours.fileno())
    assert not os.get_inheritable(theirs.fileno())
    ours.close()
    assert theirs.recv(10) == b""
    theirs.close()


def test_a_path_may_be_longer_than_an_address_and_what_was_there_is_replaced(tmp_path: Path):
    directory = tmp_path / ("long" * 40)
    directory.mkdir()
    path = directory / "socket"
    path.write_text("left by one that was killed", encoding="utf-8")
    listening = unix_socket.listen(str(path))
    assert path.is_socket()
    with pytest.raises(BlockingIOError):
        unix_socket.accept(listening)
    client = unix_socket.connect(str(path))
    server = unix_socket.accept(listening)
    server.sendall(b"here")
    assert client.recv(10) == b"here"
    assert not os.get_inheritable(server.fileno())
    for each in (client, server, listening):
        each.close()
    with pytest.raises(ConnectionRefusedError):
        unix_socket.connect(str(path))
    with pytest.raises(FileNotFoundError):
        unix_socket.connect(str(tmp_path / "nowhere/socket"))


def test_a_descriptor_is_sent_and_received(tmp_path: Path):
    ours, theirs = unix_socket.pair()
    (tmp_path / "file").write_text("content", encoding="utf-8")
    with (tmp_path / "file").open("rb") as file:
        unix_socket.send_descriptor(ours, file.fileno())
    received = unix_socket.receive_descriptor(theirs)
    assert received is not None
    assert os.read(received, 10) == b"content"
    assert not os.get_inheritable(received)
    os.close(received)
    ours.close()
    assert unix_socket.receive_descriptor(theirs) is None
    theirs.close()
