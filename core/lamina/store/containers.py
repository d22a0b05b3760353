"""Containers' records: their rows, how they are found by name or id, and the changes of state.

Not here: their layers, mounts and processes.
"""

import sqlite3
from typing import Any

from lamina import json
from lamina.dataclasses import dataclass, replace
from lamina.errors import ConflictError, NotFoundError, UsageError
from lamina.linux.process import boot_id
from lamina.model.container import Container, ContainerConfig, Status
from lamina.store.database import Database
from lamina.store.operations import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecords:
    """The `containers` table."""

    database: Database

    def insert(self, tx: sqlite3.Connection, container: Container, operation: Operation) -> None:
        """Record a new container as 'creating'; raises `ConflictError` if the name is taken."""
        self.check_name_is_free(container.name)
        tx.execute(
            "INSERT INTO containers (id, name, image_id, driver, created_ns, status, document, operation)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                container.id,
                container.name,
                container.image_id,
                container.driver,
                container.created_ns,
                Status.CREATING,
                _document(container),
                operation.begin(tx),
            ),
        )
        for volume in sorted(set(container.volumes.values())):
            tx.execute("INSERT OR IGNORE INTO volume_users (volume, container_id) VALUES (?, ?)", (volume, container.id))

    def check_name_is_free(self, name: str) -> None:
        """Raise `ConflictError` if a container has the name; sure only inside a transaction."""
        taken = self._one("name = ?", name)
        if taken is not None:
            raise ConflictError(
                f"the container name '{name}' is already in use by container '{taken['id'][:12]}'",
                hint="remove or rename that container, or choose another name",
            )

    def update_document(self, tx: sqlite3.Connection, container: Container) -> None:
        """Write a changed configuration back."""
        tx.execute("UPDATE containers SET document = ? WHERE id = ?", (_document(container), container.id))

    def set_state(self, tx: sqlite3.Connection, container_id: str, **values: Any) -> None:
        """Set columns of the state, such as `status`, `pid`, `exit_code`, `error`."""
        names = ", ".join(f"{name} = ?" for name in values)
        tx.execute(f"UPDATE containers SET {names} WHERE id = ?", (*values.values(), container_id))

    def set_running(self, tx: sqlite3.Connection, container: Container, **processes: int | None) -> Container:
        """Record the processes of a container that is about to execute its command, and when; gives it as it is then.

        They are `pid`, `pid_started`, `monitor_pid`, `monitor_started` and `started_ns`.
        """
        state: dict[str, Any] = {
            "status": Status.RUNNING, "finished_ns": 0, "exit_code": 0, "oom_killed": False, "error": "", **processes,
        }  # fmt: skip
        self.set_state(tx, container.id, boot=boot_id(), operation=None, **state)
        return replace(container, **state)

    def delete(self, tx: sqlite3.Connection, container_id: str) -> None:
        """Forget a container."""
        tx.execute("DELETE FROM volume_users WHERE container_id = ?", (container_id,))
        tx.execute("DELETE FROM id_ranges WHERE container_id = ?", (container_id,))
        tx.execute("DELETE FROM containers WHERE id = ?", (container_id,))

    def find(self, name: str) -> Container:
        """Find by name, id, or the unambiguous beginning of an id; raises `NotFoundError`."""
        bare = name.removeprefix("/")
        row = self._one("name = ? OR id = ?", bare, bare)
        if row is None and bare and all(char in "0123456789abcdef" for char in bare):
            rows = self.database.connection.execute(
                "SELECT * FROM containers WHERE id >= ? AND id < ? LIMIT 2", (bare, bare + "g")
            ).fetchall()
            if len(rows) > 1:
                raise UsageError(f"container id '{name}' is ambiguous", hint="give more digits")
            row = rows[0] if rows else None
        if row is None or row["status"] == Status.CREATING:
            raise NotFoundError(f"no such container: '{name}'", hint="`lamina ps -a` lists the containers")
        return _container(row)

    def by_id(self, container_id: str) -> Container | None:
        """Find by the whole id, in whatever state."""
        row = self._one("id = ?", container_id)
        return _container(row) if row is not None else None

    def in_networks(self) -> set[str]:
        """The ids of the containers that have a place in a network; here, because most listings have no need of `networks.py`."""
        return {row["container_id"] for row in self.database.connection.execute("SELECT container_id FROM endpoints")}

    def all(self) -> list[Container]:
        """List all that exist, the newest first."""
        rows = self.database.connection.execute(
            "SELECT * FROM containers WHERE status != 'creating' ORDER BY created_ns DESC"
        ).fetchall()
        return [_container(row) for row in rows]

    def active(self) -> list[Container]:
        """List those that have, or had when last seen, a process, or are on their way in or out."""
        rows = self.database.connection.execute(
            "SELECT * FROM containers WHERE status IN ('creating', 'running', 'paused', 'restarting', 'removing')"
        ).fetchall()
        return [_container(row) for row in rows]

    def of_image(self, image_id: str) -> list[Container]:
        """List the containers made from an image."""
        rows = self.database.connection.execute("SELECT * FROM containers WHERE image_id = ?", (image_id,)).fetchall()
        return [_container(row) for row in rows]

    def of_operation(self, operation_id: int) -> list[Container]:
        """List those that an operation has half made."""
        rows = self.database.connection.execute("SELECT * FROM containers WHERE operation = ?", (operation_id,)).fetchall()
        return [_container(row) for row in rows]

    def has_endpoints(self, container_id: str) -> bool:
        """Whether it has places in networks; asked here, so that nothing of networks is imported for one that has none."""
        query = "SELECT 1 FROM endpoints WHERE container_id = ? LIMIT 1"
        return self.database.connection.execute(query, (container_id,)).fetchone() is not None

    def endpoints_of_operation(self, operation_id: int) -> list[str]:
        """The ids of those places that an operation has half made or half removed."""
        rows = self.database.connection.execute("SELECT id FROM endpoints WHERE operation = ?", (operation_id,)).fetchall()
        return [row["id"] for row in rows]

    def boot_of(self, container_id: str) -> str:
        """The boot in which it was last started."""
        row = self._one("id = ?", container_id)
        return str(row["boot"]) if row is not None else ""

    def _one(self, where: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.database.connection.execute(f"SELECT * FROM containers WHERE {where}", values).fetchone()
        return row


def _document(container: Container) -> str:
    return json.dumps(
        {
            "config": container.config.to_json(),
            "parents": list(container.parents),
            "volumes": dict(container.volumes),
            "made_mountpoints": list(container.made_mountpoints),
        }
    )


def _container(row: sqlite3.Row) -> Container:
    document = json.loads(row["document"])
    return Container(
        id=row["id"],
        name=row["name"],
        image_id=row["image_id"],
        driver=row["driver"],
        created_ns=row["created_ns"],
        status=Status(row["status"]),
        config=ContainerConfig.from_json(document["config"]),
        parents=tuple(document["parents"]),
        volumes=document["volumes"],
        made_mountpoints=tuple(document["made_mountpoints"]),
        pid=row["pid"],
        pid_started=row["pid_started"],
        monitor_pid=row["monitor_pid"],
        monitor_started=row["monitor_started"],
        exit_code=row["exit_code"],
        oom_killed=bool(row["oom_killed"]),
        error=row["error"],
        started_ns=row["started_ns"],
        finished_ns=row["finished_ns"],
        restart_count=row["restart_count"],
        restart_delay_ms=row["restart_delay_ms"],
        stopped_by=row["stopped_by"],
    )
