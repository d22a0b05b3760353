"""Operations: who is changing the store right now, and how it is put right after one was killed.

A command that makes something in steps is an operation: a row with its process. What it has half made (a layer, a container, a
volume) carries the operation's number until the step that finishes it takes the number off, in one transaction with the row's own
end. An operation whose process is gone owns only rubbish, and `recovery` undoes all that carries its number. Locks are flock(2)
on files in the run directory: the kernel lets go of them when their process dies.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lamina.dataclasses import dataclass
from lamina.linux.process import boot_id, is_alive, start_time

if TYPE_CHECKING:
    from lamina.store.database import Database


@dataclass(slots=True, kw_only=True)
class Operation:
    """A command's work in progress; its row is written with the first thing that carries its number."""

    name: str
    id: int | None = None

    def begin(self, tx: sqlite3.Connection) -> int:
        """Write the row, once; call it in the transaction that records the first half-made thing."""
        if self.id is None:
            pid = os.getpid()
            cursor = tx.execute(
                "INSERT INTO operations (name, pid, started, boot) VALUES (?, ?, ?, ?)",
                (self.name, pid, start_time(pid), boot_id()),
            )
            self.id = cursor.lastrowid
            if self.id is None:
                raise sqlite3.DatabaseError("no row id")
        return self.id

    def end(self, tx: sqlite3.Connection) -> None:
        """Delete the row; call it in the transaction that finishes the last half-made thing."""
        if self.id is not None:
            tx.execute("DELETE FROM operations WHERE id = ?", (self.id,))
            self.id = None

    def end_unless_owning(self, tx: sqlite3.Connection) -> None:
        """Delete the row of an operation that has failed, unless its own undoing failed too: then recovery goes on from the row."""
        owned = " UNION ALL ".join(
            f"SELECT 1 FROM {table} WHERE operation = :id" for table in ("containers", "layers", "endpoints")
        )
        if self.id is not None and tx.execute(owned, {"id": self.id}).fetchone() is None:
            self.end(tx)


def dead_operations(database: "Database") -> list[int]:
    """List the operations whose process is gone."""
    rows = database.connection.execute("SELECT id, pid, started, boot FROM operations").fetchall()
    if not rows:
        return []
    boot = boot_id()
    return [row["id"] for row in rows if row["boot"] != boot or not is_alive(row["pid"], row["started"])]


def _lock(fd: int, how: int, pause: Callable[[], None] | None) -> None:
    while pause is not None:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pause()
    fcntl.flock(fd, how)


@contextlib.contextmanager
def locked(run_dir: str, name: str, *, shared: bool = False, pause: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of that name while the block runs; waits for who has it, with `pause` by calling that and trying again.

    The file is deleted by whoever holds it last, so that names don't pile up: a holder that finds its file deleted tries again.
    """
    path = os.path.join(run_dir, "locks", name)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, pause)
            try:
                same = os.stat(path).st_ino == os.fstat(fd).st_ino
            except FileNotFoundError:
                same = False
            if not same:
                continue
            try:
                yield
            finally:
                _delete_if_last(path, fd)
                fcntl.flock(fd, fcntl.LOCK_UN)  # a forked child may still have the descriptor
            return
        finally:
            os.close(fd)


def _delete_if_last(path: str, fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(fd).st_ino:  # from shared to exclusive the lock is let go for a moment
            os.unlink(path)
    except OSError:
        pass  # somebody has it, or has deleted it


def sweep_locks(run_dir: str) -> None:
    """Delete the files of locks that nobody has: who is killed with one leaves it, and perhaps nobody asks for that one again."""
    directory = os.path.join(run_dir, "locks")
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            _delete_if_last(path, fd)
        finally:
            os.close(fd)
