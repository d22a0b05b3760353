"""What is neither a file nor a directory: sockets, fifos, devices; and file handles."""

import os
import socket
import stat

from lamina.compare.catalogue import inside
from lamina.linux import uncommon


def _connect() -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("d1/socket")
        client.send(b"x")
    return "ok"


@inside(
    "A socket bound in a directory of the image, and a connection to it",
    why="Databases and web servers listen on a socket in their own directory.",
    plain="ok",
)
def socket_connect() -> str:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("d1/socket")
        server.listen()
        return _connect()


@inside(
    "A connection to a socket whose owner and mode were changed after it was bound",
    why="Every daemon that starts as root and hands its socket to a group does this.",
    plain="ok",
)
def socket_chown() -> str:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("d1/socket")
        server.listen()
        os.chown("d1/socket", 7, 8)
        os.chmod("d1/socket", 0o660)
        os.rename("d1/socket", "d1/moved")
        os.rename("d1/moved", "d1/socket")
        return _connect()


@inside(
    "A fifo of the image when its mode is first changed",
    why="It must stay one; process supervisors have theirs in the image.",
    plain="stays a fifo",
)
def fifo_kept() -> str:
    os.chmod("fifo", 0o600)
    if not stat.S_ISFIFO(os.stat("fifo").st_mode):
        return "becomes something else"
    fd = os.open("fifo", os.O_RDWR)
    os.write(fd, b"x")
    return "stays a fifo" if os.read(fd, 1) == b"x" else "is broken"


@inside(
    "A device of the image when its mode is first changed",
    why="chroots with devices of their own are made in images.",
    plain="stays a device",
)
def device_kept() -> str:
    os.chmod("null", 0o600)
    found = os.stat("null")
    return "stays a device" if stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3) else "becomes something else"


@inside(
    "Making a device 1:3 and writing to it",
    why="debootstrap and other makers of root file systems make devices, and use them.",
    plain="ok",
)
def device_made() -> str:
    os.mknod("d1/null", 0o020666, os.makedev(1, 3))
    fd = os.open("d1/null", os.O_WRONLY)
    return "ok" if os.write(fd, b"x") == 1 else "is broken"


@inside(
    "Making a device 0:0",
    why="It is overlayfs's mark for a deleted name: container engines in containers need it, and so does unpacking their layers.",
    plain="ok",
)
def device_zero() -> str:
    os.mknod("whiteout", 0o020600, os.makedev(0, 0))
    return "ok" if os.path.exists("whiteout") else "made, but not there"


@inside(
    "A file handle of a file of the image (name_to_handle_at)",
    why="NFS servers, fanotify and systemd need handles; without them a directory of the container can't be exported.",
    plain="ok",
)
def file_handle() -> str:
    return "ok" if uncommon.file_handle("f1") == uncommon.file_handle("f1") else "changes each time"
