"""What a file contains, as a digest, and a cache that spares reading it again.

The cache is a file that the caller names, SQLite, and only ever a help: without one, or with one that is damaged, locked or can't
be written, everything is read. A row says what a file was like (device, inode, size, mtime, ctime) when its content was read; any
change of content, mode, owner or extended attributes changes the ctime, which no program can set.

A file that was changed within the granularity of its file system's clock before it was read could be changed again without another
ctime: such a one gets no row (git's racy entries: its Documentation/technical/racy-git). Which that may be is read off the times
themselves: a file system that keeps whole seconds has whole seconds in both.
"""

import os
import stat
import time
from typing import TYPE_CHECKING, Self

from lamina.archive import paths
from lamina.errors import LaminaError

if TYPE_CHECKING:
    import sqlite3

CHUNK_BYTES = 1 << 18
_RETRIES = 3
_FINE_NS, _COARSE_NS = 100_000_000, 2_100_000_000
"""How old a change must be: more than a tick of a kernel's clock, and more than FAT's two seconds."""
_KEPT_DAYS = 30
_LOCK_WAIT_S = 5.0
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_VERSION = 1
_SCHEMA = """CREATE TABLE files (
    device INTEGER, inode INTEGER, size INTEGER, mtime INTEGER, ctime INTEGER,
    digest TEXT NOT NULL, capability BLOB NOT NULL, used_day INTEGER NOT NULL,
    PRIMARY KEY (device, inode)
) WITHOUT ROWID, STRICT"""
CAPABILITY = "security.capability"


class ContentHashes:
    """Digests of files. Close it at the end, which is when new rows are written. Used by one thread at a time."""

    def __init__(self, cache_path: str = "") -> None:
        self._path = cache_path
        self._database: sqlite3.Connection | None = None
        self._new: dict[tuple[int, int], tuple[int, int, int, str, bytes]] = {}
        self._used: list[tuple[int, int, int]] = []
        self._today = time.time_ns() // (86_400 * 10**9)
        self.read_bytes = 0
        """How much was really read."""
        if cache_path:
            self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def of(self, dir_fd: int, name: str, found: os.stat_result, shown: str) -> tuple[str, bytes]:
        """Give a regular file's content digest (64 digits) and its file capabilities (b"" for none).

        `found` is what stat said of it. Raises `LaminaError` for a file that changes while it is read, every time it is tried.
        """
        row = self._row(found)
        if row is not None:
            return row
        for _ in range(_RETRIES):
            started_ns = time.time_ns()
            fd = os.open(name, _OPEN, dir_fd=dir_fd)
            try:
                before = os.fstat(fd)
                if not stat.S_ISREG(before.st_mode):
                    break
                digest = self._read(fd, before.st_size)
                capability = read_capability(fd)
                after = os.fstat(fd)
            finally:
                os.close(fd)
            if facts(before) == facts(after) == facts(found):
                if started_ns - max(before.st_ctime_ns, before.st_mtime_ns) > _margin_ns(before):
                    self._keep(before, digest, capability)
                return digest, capability
            found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        raise LaminaError(f"'{paths.shown(shown)}' changes while it is read", hint="build again when nothing writes there")

    def close(self) -> None:
        """Write what was learned. No error: the next build reads again."""
        database, self._database = self._database, None
        if database is None:
            return
        import sqlite3

        try:
            if self._new or self._used:
                with database:
                    database.execute("BEGIN IMMEDIATE")
                    database.executemany(
                        "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        [(*key, *row, self._today) for key, row in self._new.items()],
                    )
                    database.executemany("UPDATE files SET used_day = ? WHERE device = ? AND inode = ?", self._used)
                    database.execute("DELETE FROM files WHERE used_day < ?", (self._today - _KEPT_DAYS,))
        except sqlite3.Error:
            pass
        finally:
            database.close()

    def _open(self) -> None:
        import sqlite3  # whoever builds has paid for it: the store's database

        for attempt in (1, 2):
            try:
                database = sqlite3.connect(self._path, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
                try:
                    database.execute("PRAGMA journal_mode = WAL")
                    database.execute("PRAGMA synchronous = NORMAL")
                    if _version(database) != _VERSION:
                        database.execute("BEGIN IMMEDIATE")
                        if _version(database) != _VERSION:  # nobody else has made it meanwhile
                            if database.execute("SELECT 1 FROM sqlite_schema").fetchone() is not None:
                                raise sqlite3.DatabaseError("a cache of another version")
                            database.execute(_SCHEMA)
                            database.execute(f"PRAGMA user_version = {_VERSION}")
                        database.execute("COMMIT")
                except BaseException:
                    database.close()
                    raise
                self._database = database
                return
            except sqlite3.OperationalError:
                return  # locked, or there is no place for it
            except sqlite3.DatabaseError:
                if attempt == 1:
                    self._discard()

    def _discard(self) -> None:
        """Take a damaged cache away."""
        for suffix in ("", "-wal", "-shm"):
            try:
                os.unlink(self._path + suffix)
            except OSError:
                pass

    def _row(self, found: os.stat_result) -> tuple[str, bytes] | None:
        key = (_signed(found.st_dev), _signed(found.st_ino))
        if key in self._new:  # another name of a file that was just read
            row = self._new[key]
            return (row[3], row[4]) if row[:3] == (found.st_size, found.st_mtime_ns, found.st_ctime_ns) else None
        if self._database is None:
            return None
        import sqlite3

        try:
            known = self._database.execute(
                "SELECT digest, capability, used_day FROM files"
                " WHERE device = ? AND inode = ? AND size = ? AND mtime = ? AND ctime = ?",
                (*key, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
            ).fetchone()
        except (sqlite3.Error, OverflowError):
            return None
        if known is None:
            return None
        if known[2] != self._today:
            self._used.append((self._today, *key))
        return str(known[0]), bytes(known[1])

    def _keep(self, found: os.stat_result, digest: str, capability: bytes) -> None:
        key = (_signed(found.st_dev), _signed(found.st_ino))
        self._new[key] = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, digest, capability)

    def _read(self, fd: int, size_bytes: int) -> str:
        """Digest what a file had when it was opened; one that somebody appends to would have no end."""
        from hashlib import sha256

        digest = sha256()
        while size_bytes and (data := os.read(fd, min(size_bytes, CHUNK_BYTES))):
            digest.update(data)
            size_bytes -= len(data)
            self.read_bytes += len(data)
        return digest.hexdigest()


def _version(database: "sqlite3.Connection") -> object:
    return database.execute("PRAGMA user_version").fetchone()[0]


def facts(found: os.stat_result) -> tuple[int, int, int, int, int]:
    """What says that a file is still the same, unchanged."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_capability(path: str | int) -> bytes:
    """Read a file's capabilities, of a path that isn't followed, or a descriptor."""
    try:
        return os.getxattr(path, CAPABILITY) if isinstance(path, int) else os.getxattr(path, CAPABILITY, follow_symlinks=False)
    except OSError:
        return b""  # it has none, or its file system knows none


def _margin_ns(found: os.stat_result) -> int:
    return _FINE_NS if found.st_mtime_ns % 10**9 or found.st_ctime_ns % 10**9 else _COARSE_NS


def _signed(number: int) -> int:
    """SQLite's integers have a sign; inode numbers may use all 64 bits."""
    return number - (1 << 64) if number >= 1 << 63 else number
