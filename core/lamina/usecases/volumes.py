"""Volumes: named and anonymous ones, their drivers, who uses them, and the image's content that a new one is filled with."""

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Mapping

from lamina import json
from lamina.api.drivers import VolumeDriver
from lamina.api.types import VolumeSpec
from lamina.dataclasses import dataclass, field
from lamina.errors import ConflictError, NotFoundError
from lamina.linux.fs import open_in_root, remove_tree
from lamina.model.container import Container, MountRequest, check_name
from lamina.store.operations import Operation, locked
from lamina.usecases.context import DEFAULT_VOLUME_DRIVER, Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume as the database knows it."""

    name: str
    driver: str
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    created_ns: int = 0
    anonymous: bool = False
    is_filled: bool = True
    """Whether the image's content has been copied in, or never will be."""

    @property
    def spec(self) -> VolumeSpec:
        """What its driver is told."""
        return VolumeSpec(name=self.name, options=self.options)


class Volumes:
    """The volumes of one root directory."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def create(
        self,
        name: str = "",
        *,
        driver: str = DEFAULT_VOLUME_DRIVER,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        fill: bool = False,
        operation: Operation | None = None,
    ) -> Volume:
        """Create a volume, or give the one of that name; without a name it is anonymous.

        With `fill` it counts as new until `fill_from_image` has seen it. An anonymous one made under an `operation` is there only
        when `complete` was called, with the container that it is for. Raises `ConflictError` if it is another driver's.
        """
        anonymous = not name
        name = name or os.urandom(32).hex()
        if not anonymous:
            check_name(name, "volume")
        volume_driver = self.context.volume_driver(driver)
        volume = Volume(
            name=name,
            driver=volume_driver.name,
            options=dict(options or {}),
            labels=dict(labels or {}),
            created_ns=time.time_ns(),
            anonymous=anonymous,
            is_filled=not fill,
        )
        with locked(self.context.run_dir, f"volume-{name}"):
            known = self._row(name)
            if known is not None:
                if known.driver != volume.driver:
                    raise ConflictError(f"volume '{name}' is there already, with the driver '{known.driver}'")
                return known
            self._clear_half_made(volume_driver, name)
            of_container = operation if anonymous else None
            operation = of_container or Operation(name="volume create")
            # Of a named one the record is durable before the directory, which a power cut could leave without an owner.
            with self.context.database.transaction(durable=not anonymous) as tx:
                tx.execute(
                    "INSERT INTO volumes (name, driver, options, labels, created_ns, anonymous, state, operation)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'creating', ?)",
                    (
                        name,
                        volume.driver,
                        json.dumps(volume.options),
                        json.dumps(volume.labels),
                        volume.created_ns,
                        anonymous,
                        operation.begin(tx),
                    ),
                )
            try:
                volume_driver.create(volume.spec)
            except BaseException:
                with self.context.database.transaction() as tx:
                    tx.execute("DELETE FROM volumes WHERE name = ?", (name,))
                    if of_container is None:
                        operation.end(tx)
                raise
            if of_container is not None:
                return volume
            if not anonymous:  # an anonymous one is made durable with its container
                self.context.sync(volume_driver.home)
            with self.context.database.transaction(durable=not anonymous) as tx:
                tx.execute("UPDATE volumes SET state = ?, operation = NULL WHERE name = ?", ("filling" if fill else "ready", name))
                operation.end(tx)
        self.context.journal.append("volume", "create", name, {"driver": volume.driver})
        return volume

    def complete(self, tx: sqlite3.Connection, name: str, operation: Operation, *, fill: bool) -> None:
        """Let an anonymous volume that was made under an operation be there, in the transaction that records its container."""
        tx.execute(
            "UPDATE volumes SET state = ?, operation = NULL WHERE name = ? AND state = 'creating' AND operation = ?",
            ("filling" if fill else "ready", name, operation.id),
        )

    def find(self, name: str) -> Volume:
        """Give a volume; raises `NotFoundError`."""
        volume = self._row(name)
        if volume is None:
            raise NotFoundError(f"no such volume: '{name}'", hint="`lamina volume ls` lists the volumes")
        return volume

    def all(self) -> list[Volume]:
        """List every volume, by name."""
        rows = self.context.database.connection.execute(
            "SELECT * FROM volumes WHERE state IN ('filling', 'ready') ORDER BY name"
        ).fetchall()
        return [_volume(row) for row in rows]

    def users(self, name: str) -> list[str]:
        """List the ids of the containers that have a volume."""
        rows = self.context.database.connection.execute("SELECT container_id FROM volume_users WHERE volume = ?", (name,))
        return [row[0] for row in rows]

    def mountpoint(self, volume: Volume) -> str:
        """Where the host sees its files."""
        return self.context.volume_driver(volume.driver).mountpoint(volume.spec)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Delete a volume; one in use is a `ConflictError`. With `force` one that isn't there is no error."""
        with locked(self.context.run_dir, f"volume-{name}"):
            volume = self._row(name)
            if volume is None:
                if force:
                    return
                raise NotFoundError(f"no such volume: '{name}'", hint="`lamina volume ls` lists the volumes")
            self.context.volume_driver(volume.driver)  # a missing one is said before anything changes
            with self.context.database.transaction(durable=True) as tx:  # the bytes must not go before the record
                users = tx.execute("SELECT container_id FROM volume_users WHERE volume = ?", (name,)).fetchall()
                if users:
                    raise ConflictError(f"volume '{name}' is in use by the container {users[0][0][:12]}", hint="remove it first")
                operation = Operation(name="volume rm")
                tx.execute("UPDATE volumes SET state = 'removing', operation = ? WHERE name = ?", (operation.begin(tx), name))
            self._delete(volume)
            with self.context.database.transaction() as tx:
                operation.end(tx)

    def begin_removal(self, tx: sqlite3.Connection, container: Container, operation: Operation) -> list[Volume]:
        """Mark a container's anonymous volumes as being removed, for `finish_removal`, but those that another one has too.

        To be called in the transaction that removes the container or calls it 'removing': so neither goes without the other.
        """
        doomed = []
        for name in sorted(set(container.volumes.values())):
            row = tx.execute(
                "UPDATE volumes SET state = 'removing', operation = ?"
                " WHERE name = ? AND anonymous AND state IN ('creating', 'filling', 'ready')"
                " AND NOT EXISTS (SELECT 1 FROM volume_users WHERE volume = name AND container_id != ?) RETURNING *",
                (operation.begin(tx), name, container.id),
            ).fetchone()
            if row is not None:
                doomed.append(_volume(row))
        return doomed

    def finish_removal(self, volume: Volume) -> None:
        """Delete what a killed making or removal has left; nothing to do if somebody has, and the volume is perhaps a new one."""
        with locked(self.context.run_dir, f"volume-{volume.name}"):
            if any(each == volume for each, _state, _operation in self.half_made(volume.name)):
                self._delete(volume)

    def _delete(self, volume: Volume) -> None:
        """Delete what a volume is made of, then its row; may be repeated."""
        driver = self.context.volume_driver(volume.driver)
        driver.remove(volume.spec)
        if not volume.anonymous:  # an anonymous one's name never comes again; another must not be found full after a power cut
            self.context.sync(driver.home)
        with self.context.database.transaction() as tx:
            tx.execute("DELETE FROM volumes WHERE name = ?", (volume.name,))
        self.context.journal.append("volume", "destroy", volume.name, {"driver": volume.driver})

    def _clear_half_made(self, driver: VolumeDriver, name: str) -> None:
        """Delete what a killed command has left of a volume of this name; we hold its lock, so nobody is at it."""
        for volume, _state, _operation in self.half_made(name):
            if volume.driver != driver.name:
                raise ConflictError(f"volume '{name}' of the driver '{volume.driver}' is half removed", hint="remove it first")
            self._delete(volume)

    def prune(
        self, *, all_volumes: bool = False, matches: Callable[[Volume], bool] = lambda _volume: True
    ) -> tuple[list[str], int]:
        """Remove volumes without a container, only anonymous ones unless `all_volumes`, of those that `matches` accepts.

        Gives their names and the bytes freed.
        """
        removed, freed = [], 0
        for volume in self.all():
            if (volume.anonymous or all_volumes) and matches(volume) and not self.users(volume.name):
                size = self.size_bytes(volume)
                try:
                    self.remove(volume.name)
                except (ConflictError, NotFoundError):
                    continue
                removed.append(volume.name)
                freed += size
        return removed, freed

    def size_bytes(self, volume: Volume) -> int:
        """What its files take on disk, as du(1) counts."""
        from lamina.archive.fallback import tree_usage

        path = self.mountpoint(volume)
        return tree_usage(path).size_bytes if path and os.path.isdir(path) else 0

    def for_request(self, request: MountRequest, operation: Operation) -> Volume:
        """Give the volume that a mount asks for, new if need be. If no driver was named, one of any driver will do.

        A new anonymous one needs `complete`.
        """
        is_named = request.source and request.volume_driver == DEFAULT_VOLUME_DRIVER
        known = self._row(request.source) if is_named else None
        driver = request.volume_driver if known is None else known.driver
        return self.create(
            request.source, driver=driver, options=request.options, fill=request.copy_image_content, operation=operation
        )

    def fill_from_image(self, volume: Volume, image_root: str, target: str) -> None:
        """Copy what the image has at `target` into a new, empty volume; Docker's rule for a volume's first use."""
        place = self.mountpoint(volume)
        with locked(self.context.run_dir, f"volume-{volume.name}"):
            current = self._row(volume.name)
            if current is None or current.is_filled:
                return
            if place and not os.listdir(place):
                root_fd = os.open(image_root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    source_fd = open_in_root(root_fd, target.lstrip("/"), os.O_PATH | os.O_DIRECTORY)
                except OSError as error:
                    if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                        raise
                else:
                    try:
                        beside = f"{place}.filling"  # renamed over the empty directory when it is whole
                        remove_tree(beside)
                        from lamina.api.copytree import copy_tree

                        copy_tree(f"/proc/self/fd/{source_fd}", beside)
                        os.rename(beside, place)
                    finally:
                        os.close(source_fd)
                finally:
                    os.close(root_fd)
            with self.context.database.transaction() as tx:
                tx.execute("UPDATE volumes SET state = 'ready' WHERE name = ?", (volume.name,))

    def half_made(self, name: str = "") -> list[tuple[Volume, str, int | None]]:
        """List volumes that are being made or removed, or the one of a name: the volume, its state, the operation."""
        query = "SELECT * FROM volumes WHERE state IN ('creating', 'removing')"
        found = self.context.database.connection.execute(f"{query} AND name = ?" if name else query, (name,) if name else ())
        return [(_volume(row), row["state"], row["operation"]) for row in found.fetchall()]

    def _row(self, name: str) -> Volume | None:
        row = self.context.database.connection.execute(
            "SELECT * FROM volumes WHERE name = ? AND state IN ('filling', 'ready')", (name,)
        ).fetchone()
        return None if row is None else _volume(row)


def _volume(row: sqlite3.Row) -> Volume:
    return Volume(
        name=row["name"],
        driver=row["driver"],
        options=json.loads(row["options"]),
        labels=json.loads(row["labels"]),
        created_ns=row["created_ns"],
        anonymous=bool(row["anonymous"]),
        is_filled=row["state"] != "filling",
    )
