"""The database: one SQLite file in WAL mode, its schema, and transactions.

Not here: what the rows mean; each subject's module holds its own queries. Sources: sqlite.org/wal.html, lang_transaction.html,
pragma.html#pragma_synchronous.

Durability has a price (one fsync), so a transaction says whether it needs it: an image or a container that a command reports done
does; a container that `--rm` takes away again doesn't. Either way a power cut leaves a consistent database.

A connection must not cross a fork: the child's SQLite would believe that it holds the parent's locks. The engine's children (the
monitor, a container's init) never touch it.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator

from lamina.errors import LaminaError, StateError
from lamina.linux.fs import fsync_path
from lamina.store.image_places import SCHEMA as IMAGE_PLACES_SCHEMA
from lamina.store.images import SCHEMA as IMAGES_SCHEMA
from lamina.store.reserve import give_up, keep_reserve

MIGRATIONS: tuple[str, ...] = (
    IMAGES_SCHEMA
    + """
    CREATE TABLE operations (              -- a state-changing command at work; what it has half made names it
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started INTEGER NOT NULL,          -- /proc/PID/stat field 22: with pid and boot it names the process for good
        boot TEXT NOT NULL
    ) STRICT;
    CREATE TABLE layers (                  -- what drivers have on disk
        driver TEXT NOT NULL,
        key TEXT NOT NULL,
        parent TEXT,                       -- the key below, NULL for a base layer
        state TEXT NOT NULL CHECK (state IN ('preparing', 'sealed', 'writable', 'discarding')),
        prepared_ns INTEGER NOT NULL DEFAULT 0,   -- no inode of a full copy with an older ctime has been touched since
        operation INTEGER,
        PRIMARY KEY (driver, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX layers_by_parent ON layers (driver, parent);
    CREATE INDEX layers_discarding ON layers (driver, key) WHERE state = 'discarding';
    CREATE INDEX layers_by_operation ON layers (operation) WHERE operation IS NOT NULL;
    CREATE TABLE containers (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        image_id TEXT NOT NULL,
        driver TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        status TEXT NOT NULL,              -- creating, created, running, paused, exited, removing
        pid INTEGER NOT NULL DEFAULT 0,
        pid_started INTEGER,
        monitor_pid INTEGER NOT NULL DEFAULT 0,
        monitor_started INTEGER,
        boot TEXT NOT NULL DEFAULT '',
        exit_code INTEGER NOT NULL DEFAULT 0,
        error TEXT NOT NULL DEFAULT '',
        started_ns INTEGER NOT NULL DEFAULT 0,
        finished_ns INTEGER NOT NULL DEFAULT 0,
        document TEXT NOT NULL,            -- the configuration, JSON
        operation INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX containers_by_image ON containers (image_id);
    CREATE INDEX containers_active ON containers (status) WHERE status IN ('creating', 'running', 'paused', 'removing');
    CREATE INDEX containers_by_operation ON containers (operation) WHERE operation IS NOT NULL;
    CREATE TABLE volumes (
        name TEXT PRIMARY KEY,
        driver TEXT NOT NULL,
        options TEXT NOT NULL,             -- JSON object
        labels TEXT NOT NULL,              -- JSON object
        created_ns INTEGER NOT NULL,
        anonymous INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('creating', 'filling', 'ready', 'removing')),
        operation INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE volume_users (
        volume TEXT NOT NULL,
        container_id TEXT NOT NULL,
        PRIMARY KEY (volume, container_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX volume_users_by_container ON volume_users (container_id);
    """,
    """
    CREATE TABLE build_cache (             -- what a step of a build came to
        key TEXT PRIMARY KEY,              -- digest of all that the step's result depends on
        kind TEXT NOT NULL,                -- the instruction's word, or 'content': what a bound or copied tree holds
        layer TEXT,                        -- blob, NULL if the step made none
        stored_bytes INTEGER NOT NULL,     -- of the blob
        chain TEXT NOT NULL,               -- chain ID of the result, '' for an empty file system
        content TEXT NOT NULL,             -- digest, for the kind 'content'
        description TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        used_ns INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX build_cache_by_layer ON build_cache (layer) WHERE layer IS NOT NULL;
    CREATE TABLE build_blobs (             -- what a running build stands on, which nobody may delete
        operation INTEGER NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (operation, digest)
    ) STRICT, WITHOUT ROWID;
    """,
    IMAGE_PLACES_SCHEMA,
    """
    CREATE TABLE intended_layers (         -- unpacked for an image that isn't there yet, or any more
        operation INTEGER NOT NULL,
        driver TEXT NOT NULL,
        key TEXT NOT NULL,
        height INTEGER NOT NULL,           -- 0 for the base
        PRIMARY KEY (operation, driver, key)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE networks (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        driver TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        internal INTEGER NOT NULL,
        ipv6 INTEGER NOT NULL,
        document TEXT NOT NULL             -- options and labels, JSON
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE network_subnets (
        network TEXT NOT NULL,
        place INTEGER NOT NULL,
        subnet TEXT NOT NULL,
        gateway TEXT NOT NULL,
        ip_range TEXT NOT NULL,
        last TEXT NOT NULL DEFAULT '',     -- the address that was given out last
        PRIMARY KEY (network, place)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE endpoints (               -- a running container's place in a network, from before it is made until it is gone
        id TEXT PRIMARY KEY,
        network TEXT NOT NULL,
        container_id TEXT NOT NULL,
        interface TEXT NOT NULL,
        mac TEXT NOT NULL,
        addresses TEXT NOT NULL,           -- with prefixes, JSON list
        aliases TEXT NOT NULL,             -- JSON list
        forwarder INTEGER NOT NULL DEFAULT 0,     -- the process that carries bytes where the kernel can't
        forwarder_started INTEGER,
        operation INTEGER,
        UNIQUE (container_id, network),
        UNIQUE (container_id, interface)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX endpoints_by_network ON endpoints (network);
    CREATE INDEX endpoints_by_operation ON endpoints (operation) WHERE operation IS NOT NULL;
    CREATE TABLE network_addresses (       -- who has which address: nobody the same as another
        network TEXT NOT NULL,
        address TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        PRIMARY KEY (network, address)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX network_addresses_by_endpoint ON network_addresses (endpoint);
    CREATE TABLE published_ports (
        protocol TEXT NOT NULL,
        host_port INTEGER NOT NULL,
        host_ip TEXT NOT NULL,             -- '' for every address
        endpoint TEXT NOT NULL,
        container_port INTEGER NOT NULL,
        PRIMARY KEY (protocol, host_port, host_ip)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX published_ports_by_endpoint ON published_ports (endpoint);
    """,
    """
    ALTER TABLE containers ADD COLUMN restart_count INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE containers ADD COLUMN restart_delay_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE containers ADD COLUMN stopped_by TEXT NOT NULL DEFAULT '';   -- user, shutdown: asked to end
    DROP INDEX containers_active;
    CREATE INDEX containers_active ON containers (status)
        WHERE status IN ('creating', 'running', 'paused', 'restarting', 'removing');
    """,
    """
    ALTER TABLE containers ADD COLUMN oom_killed INTEGER NOT NULL DEFAULT 0;
    """,
    """
    CREATE TABLE id_ranges (               -- whose users the ids from 100,000 + 65,536 N on are
        number INTEGER PRIMARY KEY,
        container_id TEXT NOT NULL UNIQUE
    ) STRICT;
    """,
)
"""The schema's steps; `PRAGMA user_version` counts those done. A released step is never edited, a new one is added."""

BUSY_TIMEOUT_S = 60.0


class Database:
    """The connection of one process. Made on first use; `close` before forking a child that will use the database."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection, for reading; writing goes through `transaction`."""
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Run the block in one BEGIN IMMEDIATE; commit at its end, roll back on an exception.

        With `durable` the commit is on disk when the block has ended. A transaction inside another is part of it.
        """
        connection = self.connection
        if connection.in_transaction:
            yield connection
            return
        keep_reserve(self.path, connection)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.commit()
        except BaseException:
            connection.rollback()
            raise

    def _open(self) -> sqlite3.Connection:
        old_mask = os.umask(0o077)
        try:
            connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise LaminaError(f"the database '{self.path}' can't be opened: {error}") from error
        finally:
            os.umask(old_mask)
        connection.row_factory = sqlite3.Row
        try:
            try:
                version = self._version(connection)
            except sqlite3.OperationalError:
                if _is_read_only(self.path) and not os.path.exists(f"{self.path}-wal"):  # then the file alone is all there is
                    connection.close()
                    connection = sqlite3.connect(f"file:{_quoted(self.path)}?immutable=1", uri=True, isolation_level=None)
                    connection.row_factory = sqlite3.Row
                elif not give_up(self.path):
                    raise
                version = self._version(connection)
            if version != len(MIGRATIONS):
                self._migrate(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise LaminaError(f"the database '{self.path}' can't be used: {error}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        version = self._version(connection)
        while 0 < version < len(MIGRATIONS) and not os.path.exists(self._copy_path(version)):
            connection.execute("COMMIT")  # VACUUM can't be in a transaction
            self._copy(connection, version)
            connection.execute("BEGIN IMMEDIATE")
            version = self._version(connection)  # another process may have done it all meanwhile
        for script in MIGRATIONS[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")

    def _version(self, connection: sqlite3.Connection) -> int:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StateError(
                f"'{self.path}' was written by a newer lamina (its version {version}, ours {len(MIGRATIONS)})",
                hint="use that release, or another --root",
            )
        return version

    def _copy_path(self, version: int) -> str:
        return f"{self.path}.version-{version}"

    def _copy(self, connection: sqlite3.Connection, version: int) -> None:
        """Keep the database as it is before its schema changes."""
        temporary = f"{self._copy_path(version)}.{os.getpid()}"
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        # SQLite would make it as the umask says; the store may be in a directory that others can enter.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        connection.execute("VACUUM INTO ?", (temporary,))
        fsync_path(temporary)
        os.rename(temporary, self._copy_path(version))
        fsync_path(os.path.dirname(self.path))


def _quoted(path: str) -> str:
    """Write a path as a URI has it (sqlite.org/uri.html)."""
    from urllib.parse import quote

    return quote(path)


def _is_read_only(path: str) -> bool:
    return bool(os.statvfs(os.path.dirname(path)).f_flag & os.ST_RDONLY)


def _statements(script: str) -> Iterator[str]:
    """Split a script at the ends of its statements; `executescript` would commit the transaction first."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
