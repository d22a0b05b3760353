"""Terminals: pseudo-terminal pairs, controlling terminals, raw mode, sizes.

Sources: pts(4), ioctl_tty(2) (TIOCGPTPEER, TIOCSCTTY, TIOCSWINSZ), termios(3).
"""

import errno
import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager

TIOCGPTPEER, TIOCSPTLCK = 0x5441, 0x40045431


def open_pair(ptmx: str) -> tuple[int, int]:
    """Open a new pseudo-terminal of the devpts that `ptmx` is of; returns the descriptors of both ends, master first.

    The other end is opened through the first (TIOCGPTPEER), not by a name that somebody could have put something else at.
    """
    master = os.open(ptmx, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        stat = os.fstat(master)
        if (os.major(stat.st_rdev), os.minor(stat.st_rdev)) != (5, 2):
            raise OSError(errno.ENODEV, "is not the terminal multiplexer", ptmx)
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        return master, fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    except OSError:
        os.close(master)
        raise


def make_controlling(fd: int) -> None:
    """Make a terminal the controlling one of this session, whose leader this process must be."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def size(fd: int) -> tuple[int, int]:
    """Rows and columns; (0, 0) if it isn't a terminal."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        return 0, 0
    return rows, columns


def set_size(fd: int, rows: int, columns: int) -> None:
    """Set the window size; its foreground processes get SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Pass every key on, uninterpreted, while the block runs; the terminal is put back however it ends."""
    import tty  # the client's alone, and only of one on a terminal

    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSANOW)
    try:
        yield
    finally:
        try:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
        except termios.error:
            pass  # it has hung up; there is nothing left to put back
