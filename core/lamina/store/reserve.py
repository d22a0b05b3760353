"""Space that is set aside while there is some, so that on a full disk things can still be removed.

Removing needs a little room itself: SQLite's log grows with each transaction, a directory is made for what is set aside, a lock's
file wants an inode. So a root directory has a folder `reserve` with a file of allocated blocks and a few empty files. Who is about
to change the database and finds the disk full takes it: first the log (`lamina.db-wal`) gets blocks of its own, which no process
that fills the disk can take from it any more, and the rest is free for what the removal does. It is made anew once there is room.

Sources: fallocate(2), statvfs(3); sqlite.org/wal.html, "Avoiding Excessively Large WAL Files".
"""

import os
import sqlite3

LOW_BYTES, LOW_INODES = 1 << 20, 32
"""With less than this a disk may be full: a file system keeps some for root, or, as ext4, for itself, and tells of either."""
RESERVE_BYTES, RESERVE_INODES = 2 << 20, 24
ENOUGH_BYTES, ENOUGH_INODES = 16 << 20, 1000
"""With this much left the reserve is made."""
LOG_BYTES = 512 << 10
"""What a few removals write to SQLite's log before it can begin from its start again."""


def keep_reserve(database_path: str, connection: sqlite3.Connection) -> None:
    """Make the reserve if it isn't there and can be; give it up if the disk is full. Never an error."""
    root_dir = os.path.dirname(database_path)
    folder = os.path.join(root_dir, "reserve")
    try:
        disk = os.statvfs(root_dir)
        free_bytes, free_inodes = disk.f_bavail * disk.f_frsize, disk.f_favail if disk.f_files else ENOUGH_INODES
        if free_bytes < LOW_BYTES or free_inodes < LOW_INODES:
            _give_up(folder, f"{database_path}-wal", connection)
        elif free_bytes >= ENOUGH_BYTES and free_inodes >= ENOUGH_INODES and not os.path.isdir(folder):
            _make(folder)
    except (OSError, sqlite3.Error):
        pass  # the transaction itself will say what is wrong


def give_up(database_path: str) -> bool:
    """Give the reserve up because the database can't even be opened; False if there is none."""
    folder = os.path.join(os.path.dirname(database_path), "reserve")
    try:
        _remove(folder)
    except OSError:
        return False
    return not os.path.isdir(folder)


def _make(folder: str) -> None:
    os.mkdir(folder, 0o700)  # made by another process, it is an error like others
    try:
        fd = os.open(f"{folder}/space", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        finally:
            os.close(fd)
        for number in range(RESERVE_INODES):
            os.mknod(f"{folder}/{number}", 0o600)
    except OSError:
        _remove(folder)


def _give_up(folder: str, log_path: str, connection: sqlite3.Connection) -> None:
    if not _takes(os.path.dirname(folder)):
        _remove(folder)
    from lamina.linux.uncommon import preallocate

    fd = os.open(log_path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_blocks * 512 < LOG_BYTES:
            preallocate(fd, LOG_BYTES)
    finally:
        os.close(fd)  # SQLite's locks are on the database and its -shm, never on the log: closing loses none
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # the log then begins from its start, in blocks that it has


def _takes(directory: str) -> bool:
    """Whether one more file, of the log's size, has room."""
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        os.posix_fallocate(fd, 0, LOG_BYTES)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _remove(folder: str) -> None:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        try:
            os.unlink(f"{folder}/{name}")
        except FileNotFoundError:
            pass  # another process gives it up, too
    try:
        os.rmdir(folder)
    except OSError:
        pass
