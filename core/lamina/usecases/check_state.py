"""Rows that belong to nothing, and the folders of containers, volumes and temporary files against the database.

Each query is one snapshot of the database. A folder is looked at first and its row afterwards, as a row comes before what it names
and goes after it; a row without a folder is looked at again under the lock of what it names.
"""

import contextlib
import os
from collections.abc import Iterator

from lamina.api.types import VolumeSpec
from lamina.errors import LaminaError, NotFoundError, PluginError
from lamina.linux import process
from lamina.linux.fs import remove_tree
from lamina.model.container import Container, Status
from lamina.store.operations import dead_operations, locked
from lamina.usecases.check import Check

_BELONGS = (
    ("volume_users", "container_id", "containers", "id"),
    ("volume_users", "volume", "volumes", "name"),
    ("image_names", "image_id", "images", "id"),
    ("image_blobs", "image_id", "images", "id"),
    ("network_subnets", "network", "networks", "id"),
    ("endpoints", "network", "networks", "id"),
    ("endpoints", "container_id", "containers", "id"),
    ("network_addresses", "endpoint", "endpoints", "id"),
    ("published_ports", "endpoint", "endpoints", "id"),
)
"""Which rows belong to which: table, column, and the table and column that must have the value."""


def check_state(run: Check) -> None:
    """Check the database itself, then what it says against the folders."""
    _check_file(run)
    _check_rows(run)
    _check_operations(run)
    _check_containers(run)
    _check_volumes(run)
    _check_temporary_files(run)


def _check_file(run: Check) -> None:
    rows = [row[0] for row in run.context.database.connection.execute("PRAGMA quick_check(10)").fetchall()]
    if rows != ["ok"]:
        run.found(
            "record", "lamina.db", f"SQLite finds it damaged: {'; '.join(map(str, rows))}",
            advice="stop all containers and restore a copy, or `sqlite3 lamina.db .recover`",
        )  # fmt: skip


def _check_rows(run: Check) -> None:
    """Find rows whose owner is gone."""
    database = run.context.database
    checks = [
        (f"{table}.{column}", table, f"{column} NOT IN (SELECT {key} FROM {owner})") for table, column, owner, key in _BELONGS
    ]
    for table in _tables_of_operations(run):
        if table != "layers":  # what lies on disk of them is recovery's
            checks.append((f"{table}.operation", table, "operation IS NOT NULL AND operation NOT IN (SELECT id FROM operations)"))
    for subject, table, where in checks:
        (count,) = database.connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()
        if not count:
            continue
        owns_files = table in {"containers", "volumes", "endpoints"} and subject.endswith(".operation")

        def delete(table: str = table, where: str = where, owns_files: bool = owns_files) -> str:
            with database.transaction() as tx:
                tx.execute(
                    f"UPDATE {table} SET operation = NULL WHERE {where}" if owns_files else f"DELETE FROM {table} WHERE {where}"
                )
            return "released" if owns_files else "deleted"

        run.found("record", subject, f"{count} row{'s' if count > 1 else ''} name something that isn't there", repair=delete)


def _tables_of_operations(run: Check) -> Iterator[str]:
    connection = run.context.database.connection
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        if any(row["name"] == "operation" for row in connection.execute(f"PRAGMA table_info({table})").fetchall()):
            yield str(table)


def _check_operations(run: Check) -> None:
    """Find operations whose process is gone: recovery, with which every command begins, could not undo them."""
    for number in dead_operations(run.context.database):
        row = run.context.database.connection.execute("SELECT name FROM operations WHERE id = ?", (number,)).fetchone()
        if row is not None:
            run.found(
                "record", f"operation {number}", f"what a killed '{row['name']}' left behind could not be undone",
                advice="the warnings of this command say why; put that right and it will be",
            )  # fmt: skip


def _check_containers(run: Check) -> None:
    context = run.context
    folders = [(where, os.path.join(where, name)) for where in (os.path.join(context.root_dir, "containers"),
               os.path.join(context.run_dir, "containers")) for name in sorted(os.listdir(where))]  # fmt: skip
    for _where, path in folders:
        container_id = os.path.basename(path)
        with locked(context.run_dir, f"container-{container_id}"):
            if os.path.lexists(path) and context.records.by_id(container_id) is None:

                def remove(path: str = path) -> str:
                    remove_tree(path)
                    return "removed"

                run.found("container", container_id[:12], f"no container has the folder '{path}'", repair=remove)
    for container in context.records.all():
        _check_container(run, container)


def _check_container(run: Check, container: Container) -> None:
    context = run.context
    with locked(context.run_dir, f"container-{container.id}"):
        current = context.records.by_id(container.id)
        if current is None or current.status in {Status.CREATING, Status.REMOVING}:
            return
        directory = context.container_dir(current.id)
        if not os.path.isdir(directory):

            def make() -> str:
                os.mkdir(directory, 0o710)
                return "made anew, empty: its log is lost"

            run.found("container", current.name, f"its folder '{directory}' is missing, with its log", repair=make)
        try:
            context.images.get(current.image_id)
        except NotFoundError:
            run.found(
                "container", current.name, f"its image {current.image_id[:19]} isn't there any more",
                advice="it may still work as long as its layers are unpacked: commit it, or remove it",
            )  # fmt: skip
        row = context.database.connection.execute(
            "SELECT 1 FROM layers WHERE driver = ? AND key = ?", (current.driver, current.id)
        ).fetchone()
        if row is None:
            run.found(
                "container", current.name, f"the database knows no layer of it on '{current.driver}'",
                advice=f"remove it with `lamina rm {current.name}`",
            )  # fmt: skip
        for name in sorted(set(current.volumes.values())):
            with contextlib.suppress(NotFoundError):
                run.volumes.find(name)
                continue
            run.found(
                "container", current.name, f"its volume '{name}' isn't there",
                advice=f"make it with `lamina volume create {name}`, or remove the container",
            )  # fmt: skip
        for (endpoint,) in _endpoints(run, current):
            if not current.is_active:
                run.found("network", current.name, "it has a place in a network and doesn't run", repair=_release(run, endpoint))


def _endpoints(run: Check, container: Container) -> list[tuple[str]]:
    query = "SELECT id FROM endpoints WHERE container_id = ? AND operation IS NULL"
    return [(row[0],) for row in run.context.database.connection.execute(query, (container.id,)).fetchall()]


def _release(run: Check, endpoint_id: str) -> "_Release":
    return _Release(run, endpoint_id)


class _Release:
    """Give a place in a network back."""

    def __init__(self, run: Check, endpoint_id: str) -> None:
        self.run, self.endpoint_id = run, endpoint_id

    def __call__(self) -> str:
        from lamina.usecases.networking import Networking

        Networking(self.run.context).release_endpoint(self.endpoint_id)
        return "given back"


def _check_volumes(run: Check) -> None:
    """A volume's files are a user's: nothing here ever deletes one, known or not."""
    context = run.context
    homes: dict[str, str] = {}
    for name in context.host.names("volume"):
        with contextlib.suppress(LaminaError):
            driver = context.volume_driver(name)
            homes[driver.home] = driver.name
    for home, driver_name in sorted(homes.items()):
        driver = context.volume_driver(driver_name)
        for name in sorted(os.listdir(home)) if os.path.isdir(home) else ():
            with contextlib.suppress(LaminaError, OSError):
                place = driver.mountpoint(VolumeSpec(name=name))
                if name.startswith(".") or not place or not os.path.isdir(place):
                    continue
                with locked(context.run_dir, f"volume-{name}"):
                    query = "SELECT 1 FROM volumes WHERE name = ?"
                    if context.database.connection.execute(query, (name,)).fetchone() is None and os.path.isdir(place):
                        run.found(
                            "volume", name, f"'{place}' has files that no volume names",
                            advice=f"`lamina volume create {name}` takes them over; or look and delete them",
                        )  # fmt: skip
    for volume in run.volumes.all():
        try:
            place = run.volumes.mountpoint(volume)
        except (NotFoundError, PluginError) as error:
            run.found("volume", volume.name, f"it can't be looked at: {error.message}", advice="install its driver again")
            continue
        if not place or os.path.isdir(place):
            continue
        with locked(context.run_dir, f"volume-{volume.name}"), contextlib.suppress(NotFoundError):
            run.volumes.find(volume.name)
            if not os.path.isdir(place):
                run.found(
                    "volume", volume.name, f"its folder '{place}' is missing: what was in it is lost",
                    advice=f"bring it back from a backup, or `lamina volume rm {volume.name}`",
                )  # fmt: skip


def _check_temporary_files(run: Check) -> None:
    """Find what builds and ingests that are gone have left in `tmp`."""
    context = run.context
    tmp_dir = context.images.content.tmp_dir
    names = sorted(os.listdir(tmp_dir)) if os.path.isdir(tmp_dir) else []
    alive = _alive_operations(run)
    for name in names:
        path = os.path.join(tmp_dir, name)
        number = name.removeprefix("build-")
        if name.startswith("build-") and number.isdigit():
            is_rubbish = int(number) not in alive
        elif name.startswith("blob-"):
            with context.images.content.exclusive(wait=False) as held:
                is_rubbish = held and os.path.lexists(path)
        else:
            continue
        if is_rubbish and os.path.lexists(path):

            def remove(path: str = path) -> str:
                remove_tree(path)
                return "removed"

            run.found("file", path, "a command that is gone has left it", repair=remove)


def _alive_operations(run: Check) -> set[int]:
    boot = process.boot_id()
    rows = run.context.database.connection.execute("SELECT id, pid, started, boot FROM operations").fetchall()
    return {row["id"] for row in rows if row["boot"] == boot and process.is_alive(row["pid"], row["started"])}
