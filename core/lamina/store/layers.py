"""Layers: which ones each driver has on disk, in what state, and every step that makes, mounts, reads or discards one.

A layer's record comes before its bytes and names the operation that makes it (`operations.py`); it becomes 'sealed' only when
the driver has said that the bytes are durable. An image's layer has its chain ID's digits for a key, so that two pulls of one
image meet; a container's writable layer has the container's id.

An image's unpacked layers are a cache of the image store: made while it comes or when a container wants them, discarded with it.
"""

import contextlib
import errno
import functools
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING

from lamina.api.drivers import StorageDriver
from lamina.api.host import PluginHost
from lamina.api.types import Usage, View
from lamina.dataclasses import dataclass
from lamina.errors import ConflictError, LaminaError, NotFoundError, NotUsableError, PluginError, UsageError
from lamina.linux.fs import remove_tree
from lamina.store import views
from lamina.store.database import Database
from lamina.store.operations import Operation, locked
from lamina.store.reading import PATIENCE_S, bring_to_rest, reading

if TYPE_CHECKING:
    from lamina.api.entries import Change, LayerReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacking:
    """Where an image's layers are unpacked while they come."""

    layers: "LayerStore"
    driver: StorageDriver


class LayerGoneError(NotFoundError):
    """An image's layer, unpacked a moment ago, was discarded by another process before anything stood on it."""


@dataclass(slots=True, kw_only=True)
class LayerStore:
    """Every driver's layers under one root."""

    root_dir: str
    run_dir: str
    database: Database
    host: PluginHost
    _drivers: dict[str, StorageDriver]

    @classmethod
    def open(cls, *, root_dir: str, run_dir: str, database: Database, host: PluginHost) -> "LayerStore":
        """Make the value; touches nothing."""
        return cls(root_dir=root_dir, run_dir=run_dir, database=database, host=host, _drivers={})

    def driver(self, name: str) -> StorageDriver:
        """Give the driver of that name or alias, usable or not."""
        if name not in self._drivers:
            driver = StorageDriver(host=self.host, asked_name=name, home="")
            driver.home = os.path.join(self.root_dir, driver.name)
            self._drivers[name] = self._drivers.setdefault(driver.name, driver)
        return self._drivers[name]

    def usable_driver(self, name: str) -> StorageDriver:
        """Give a driver that can work here, or raise `NotUsableError` with its reason."""
        driver = self.driver(name)
        if not os.path.isdir(driver.home):  # probing costs mounts or files; a driver that has a home has passed
            probe = driver.probe()
            if not probe.usable:
                raise NotUsableError(f"storage driver '{driver.name}' can't work here: {probe.reason}", hint=probe.hint)
            driver.make_home()
        return driver

    def _is_known(self, driver: StorageDriver, key: str) -> bool:
        row = self.database.connection.execute("SELECT 1 FROM layers WHERE driver = ? AND key = ?", (driver.name, key)).fetchone()
        return row is not None

    def is_sealed(self, driver: StorageDriver, key: str) -> bool:
        """Whether the layer, and so every one below it, is there."""
        row = self.database.connection.execute(
            "SELECT 1 FROM layers WHERE driver = ? AND key = ? AND state = 'sealed'", (driver.name, key)
        ).fetchone()
        return row is not None

    def unpack(
        self,
        driver: StorageDriver,
        keys: Sequence[str],
        open_layer: Callable[[int], contextlib.AbstractContextManager["LayerReader"]],
        operation: Operation,
        *,
        before_again: Callable[[], object] = lambda: None,
    ) -> None:
        """Make every layer of an image, lowest first; `open_layer(n)` reads the n-th one and at its end checks its digest.

        Another process that makes the same layer meanwhile is waited for; if it discards one below, all begins again, once
        `before_again` has not raised. A layer that can't be made is discarded, and raises; those below it stay.
        """
        check_depth(driver, len(keys))
        while True:
            try:
                self._unpack_all(driver, keys, open_layer, operation)
                return
            except LayerGoneError:
                before_again()

    def _unpack_all(
        self,
        driver: StorageDriver,
        keys: Sequence[str],
        open_layer: Callable[[int], contextlib.AbstractContextManager["LayerReader"]],
        operation: Operation,
    ) -> None:
        for index, key in enumerate(keys):
            with locked(self.run_dir, f"{driver.name}-{key}"):
                if self.is_sealed(driver, key):
                    continue
                keys_from_top, opener = tuple(reversed(keys[: index + 1])), functools.partial(open_layer, index)
                if self._has_others_on_top(driver, key):  # it was lost, or a repair was killed
                    self._remake(driver, keys_from_top, opener, operation)
                    continue
                # Known: whoever was making or discarding it is dead, as we hold its lock. Unknown: a power cut has kept the bytes
                # and lost their record, which then isn't waited for.
                if self._is_known(driver, key) or key in set(driver.keys()):
                    self.discard(driver, key)
                self._unpack_one(driver, keys_from_top, opener, operation)

    def _unpack_one(
        self,
        driver: StorageDriver,
        keys_from_top: tuple[str, ...],
        open_layer: Callable[[], contextlib.AbstractContextManager["LayerReader"]],
        operation: Operation,
    ) -> None:
        key, *below = keys_from_top
        parents = tuple(below)
        with self.database.transaction() as tx:
            self.record(tx, driver, key, parents, operation, state="preparing")
        try:
            self._make(driver, key, parents, open_layer)
        except BaseException as error:
            try:
                self.discard(driver, key, half_made=True)
            except (OSError, LaminaError, sqlite3.Error) as second:  # the last on a full disk
                error.add_note(f"while cleaning up: {second}")
            raise
        with self.database.transaction() as tx:
            tx.execute("UPDATE layers SET state = 'sealed', operation = NULL WHERE driver = ? AND key = ?", (driver.name, key))

    def _make(
        self,
        driver: StorageDriver,
        key: str,
        parents: tuple[str, ...],
        open_layer: Callable[[], contextlib.AbstractContextManager["LayerReader"]],
    ) -> None:
        driver.prepare(key, parents, {})
        from lamina.store.layer_trees import LayerTrees  # no start has a use for it

        trees = LayerTrees(driver=driver, key=key, parents=parents, writable=True)
        with trees.stack, open_layer() as entries:
            driver.apply(key, parents, entries, trees)
        driver.seal(key)

    def remake(
        self,
        driver: StorageDriver,
        key: str,
        open_layer: Callable[[], contextlib.AbstractContextManager["LayerReader"]],
        operation: Operation,
    ) -> None:
        """Unpack a damaged or lost image layer again, in its place below whatever stands on it. Nobody may have it mounted.

        Killed or failed in the middle, it is 'preparing' and without an operation if layers stand on it: `unpack` makes it again.
        """
        with locked(self.run_dir, f"{driver.name}-{key}"):
            self._remake(driver, (key, *self.parents(driver.name, key)), open_layer, operation)

    def _remake(
        self,
        driver: StorageDriver,
        keys_from_top: tuple[str, ...],
        open_layer: Callable[[], contextlib.AbstractContextManager["LayerReader"]],
        operation: Operation,
    ) -> None:
        key, *below = keys_from_top
        with self.database.transaction() as tx:
            tx.execute(
                "UPDATE layers SET state = 'preparing', operation = ? WHERE driver = ? AND key = ?",
                (operation.begin(tx), driver.name, key),
            )
        try:
            if os.path.isdir(driver.home):
                self._leave_no_view(driver, key)
                driver.discard(key)
                driver.sweep()
            self._make(driver, key, tuple(below), open_layer)
        except BaseException:
            with self.database.transaction() as tx:
                tx.execute("UPDATE layers SET operation = NULL WHERE driver = ? AND key = ?", (driver.name, key))
            raise
        with self.database.transaction() as tx:
            tx.execute("UPDATE layers SET state = 'sealed', operation = NULL WHERE driver = ? AND key = ?", (driver.name, key))

    def _has_others_on_top(self, driver: StorageDriver, key: str) -> bool:
        query = "SELECT 1 FROM layers WHERE driver = ? AND parent = ? LIMIT 1"
        return self.database.connection.execute(query, (driver.name, key)).fetchone() is not None

    def record(
        self, tx: sqlite3.Connection, driver: StorageDriver, key: str, parents: Sequence[str], operation: Operation, *, state: str
    ) -> None:
        """Record a layer that the operation is about to have made. Raises `LayerGoneError` if the one below isn't there.

        Once recorded it holds the one below: `discard` refuses what has others on top of it.
        """
        if parents:
            below = tx.execute(
                "SELECT 1 FROM layers WHERE driver = ? AND key = ? AND state = 'sealed'", (driver.name, parents[0])
            ).fetchone()
            if below is None:
                raise LayerGoneError(
                    f"layer '{parents[0][:12]}' of the image was removed meanwhile", hint="look with `lamina images` if it is there"
                )
        tx.execute(
            "INSERT INTO layers (driver, key, parent, state, operation) VALUES (?, ?, ?, ?, ?)",
            (driver.name, key, parents[0] if parents else None, state, operation.begin(tx)),
        )

    def remember_touch_time(self, driver: StorageDriver, key: str) -> None:
        """After the preparation of a full copy: note the file system's time, so that a diff need not read what wasn't touched."""
        if driver.probe().capabilities.native_diff:
            return
        marker = os.path.join(driver.home, f".time-{key}")
        with open(marker, "wb"):
            stamp = os.stat(marker).st_ctime_ns
        os.unlink(marker)
        with self.database.transaction() as tx:
            tx.execute("UPDATE layers SET prepared_ns = ? WHERE driver = ? AND key = ?", (stamp, driver.name, key))

    def discard(self, driver: StorageDriver, key: str, *, half_made: bool = False) -> None:
        """Take a layer away, whole or half made; it must not be mounted.

        `half_made` says that the caller was making it: its record calls it rubbish as it is, and a full disk takes no other one
        before the bytes are gone.
        """
        if not half_made:
            # Of a sealed one the bytes must not go before the record, which else is believed after a power cut; a container's has a
            # record of its own, and what is half made is never believed.
            with self.database.transaction(durable=self.is_sealed(driver, key)) as tx:
                row = tx.execute("SELECT key FROM layers WHERE driver = ? AND parent = ? LIMIT 1", (driver.name, key)).fetchone()
                if row is not None:
                    raise ConflictError(f"layer '{key[:12]}' has others on top of it")
                tx.execute("UPDATE layers SET state = 'discarding' WHERE driver = ? AND key = ?", (driver.name, key))
        if os.path.isdir(driver.home):
            self._leave_no_view(driver, key)
            driver.discard(key)
            driver.sweep()  # before the row goes: who is killed in it leaves a row that says so
        with self.database.transaction() as tx:
            tx.execute("DELETE FROM layers WHERE driver = ? AND key = ?", (driver.name, key))

    def discard_unrecorded(self, driver: StorageDriver, key: str) -> None:
        """Discard what a power cut has kept of a layer whose record it has lost; the caller is about to make one by this key."""
        if not self._is_known(driver, key) and key in set(driver.keys()):
            self.discard(driver, key)

    def parents(self, name: str, key: str) -> tuple[str, ...]:
        """List the keys below a layer, nearest first."""
        rows = self.database.connection.execute(
            "WITH RECURSIVE chain (key) AS (SELECT parent FROM layers WHERE driver = :driver AND key = :key UNION ALL"
            " SELECT parent FROM layers JOIN chain USING (key) WHERE driver = :driver)"
            " SELECT key FROM chain WHERE key IS NOT NULL",
            {"driver": name, "key": key},
        )
        return tuple(row[0] for row in rows)

    def _leave_no_view(self, driver: StorageDriver, key: str) -> None:
        """Take away what a killed process left mounted at a view's place: only a view that can't be detached is ever there."""
        parents = self.parents(driver.name, key)
        for readonly in (True, False):
            try:
                view = driver.mounts(key, parents, readonly=readonly)
            except (OSError, LaminaError):
                continue  # half made: then nothing was mounted of it either
            if not all(views.can_detach(mount) for mount in view.mounts):
                views.detach(view)

    def intend(self, driver: StorageDriver, keys: Sequence[str], operation: Operation) -> None:
        """Note which layers an operation is about to unpack for an image that isn't there yet: none if the image never comes."""
        missing = [(height, key) for height, key in enumerate(keys) if not self.is_sealed(driver, key)]
        with self.database.transaction() as tx:
            number = operation.begin(tx)
            tx.executemany(
                "INSERT OR IGNORE INTO intended_layers (operation, driver, key, height) VALUES (?, ?, ?, ?)",
                [(number, driver.name, key, height) for height, key in missing],
            )

    def intend_to_discard(self, tx: sqlite3.Connection, keys: Sequence[str], operation: Operation) -> None:
        """Note which unpacked layers an operation is about to discard, in the transaction in which what had them goes."""
        for key in keys:
            for (name,) in tx.execute("SELECT driver FROM layers WHERE key = ? AND state = 'sealed'", (key,)).fetchall():
                tx.execute(
                    "INSERT OR IGNORE INTO intended_layers (operation, driver, key, height) VALUES (?, ?, ?, ?)",
                    (operation.begin(tx), name, key, len(self.parents(name, key))),
                )

    def discard_intended(self, operation: Operation, kept: Callable[[], Set[str]], *, measured: bool = False) -> int:
        """Discard what `intend_to_discard` has noted, as `undo_intended`, and end the operation; gives the bytes freed."""
        if operation.id is None:
            return 0
        freed = self.undo_intended(operation.id, kept, measured=measured)
        with self.database.transaction() as tx:
            operation.end(tx)
        return freed

    def undo_intended(self, operation_id: int, of_images: Callable[[], Set[str]], *, measured: bool = False) -> int:
        """Discard, from the top, what an operation unpacked and failed, or is to discard; what images or other layers need stays.

        Gives the bytes freed if they are to be `measured`, which reads the layers' directories.
        """
        rows = self.database.connection.execute(
            "SELECT driver, key FROM intended_layers WHERE operation = ? ORDER BY height DESC", (operation_id,)
        ).fetchall()
        kept = of_images() if rows else set()
        freed = 0
        for name, key in rows:
            if key in kept:
                continue
            try:
                driver = self.driver(name)
            except (NotFoundError, PluginError):
                continue  # an uninstalled or broken driver's layers stay until it is back
            self.finish_discard(name, key)  # with which a killed one had begun
            with locked(self.run_dir, f"{name}-{key}"), contextlib.suppress(ConflictError):
                if not self.is_sealed(driver, key):
                    continue
                size = 0
                if measured:
                    with contextlib.suppress(FileNotFoundError):
                        size = self.usage(driver, key, self.parents(name, key)).size_bytes
                self.discard(driver, key)
                freed += size
        with self.database.transaction() as tx:
            self.forget_intended(tx, operation_id)
        return freed

    @staticmethod
    def forget_intended(tx: sqlite3.Connection, operation_id: int | None) -> None:
        """The image has come, or what was unpacked for it, or for one that went, is gone."""
        tx.execute("DELETE FROM intended_layers WHERE operation = ?", (operation_id,))

    def finish_discard(self, name: str, key: str) -> None:
        """Go on with a discard that was killed; nothing to do if it has been finished, and the layer perhaps made anew."""
        driver = self.driver(name)
        with locked(self.run_dir, f"{driver.name}-{key}"):
            row = self.database.connection.execute(
                "SELECT state FROM layers WHERE driver = ? AND key = ?", (driver.name, key)
            ).fetchone()
            if row is not None and row["state"] == "discarding":
                self.discard(driver, key)

    def undo_preparation(self, name: str, key: str, operation_id: int) -> None:
        """Discard what a killed operation was making, unless somebody else has taken it over."""
        driver = self.driver(name)
        with locked(self.run_dir, f"{driver.name}-{key}"):
            row = self.database.connection.execute(
                "SELECT operation, state FROM layers WHERE driver = ? AND key = ?", (driver.name, key)
            ).fetchone()
            if row is not None and row["operation"] == operation_id and row["state"] != "sealed":
                if self._has_others_on_top(driver, key):  # a repair of it was killed: who wants it next makes it again
                    with self.database.transaction() as tx:
                        tx.execute("UPDATE layers SET operation = NULL WHERE driver = ? AND key = ?", (driver.name, key))
                else:
                    self.discard(driver, key)

    def mount(
        self, driver: StorageDriver, key: str, parents: Sequence[str], *, first_id: int = 0, is_passing: bool = False,
        label: str = "",
    ) -> View:  # fmt: skip
        """Attach a writable layer's union at its place in the host's mount namespace.

        With `first_id` a kernel's union shows what is 0 on disk as that id, and so on; who mounts a plain tree maps it himself.
        One that `is_passing` need not outlive a power cut, or is synced by its seal: overlayfs, which else syncs the whole file
        system below when it is unmounted, leaves that out. With a `label` of SELinux that is what all files in it have.
        """
        driver.before_mount(key, parents)
        view = driver.mounts(key, parents, readonly=False)
        if is_passing:
            view = views.without_sync(view)
        if label:
            view = views.labelled(view, label)
        views.attach(view, first_id=first_id)
        return view

    def unmount(self, driver: StorageDriver, key: str, parents: Sequence[str]) -> None:
        """Take a writable layer's union away and bring the layer to rest; may be repeated."""
        views.detach(driver.mounts(key, parents, readonly=False))
        bring_to_rest(self.run_dir, driver, key)

    def unmount_if_mounted(self, driver: StorageDriver, key: str, parents: Sequence[str], *, is_going: bool = False) -> None:
        """Like `unmount`, for a layer that may be half made or not there at all.

        One that `is_going` to be discarded need not come to rest if a full disk has no room for that.
        """
        if key not in set(driver.keys()):
            return
        views.detach(driver.mounts(key, parents, readonly=False))
        try:
            bring_to_rest(self.run_dir, driver, key, patience_s=0 if is_going else PATIENCE_S)
        except OSError as error:
            if not is_going or error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise

    @contextlib.contextmanager
    def seen(self, driver: StorageDriver, key: str, parents: Sequence[str]) -> Iterator[str]:
        """Give a path of the layer's union for reading while the block runs. Raises what `reading` raises."""
        with reading(self.run_dir, driver, key, parents) as view, views.seen(view) as path:
            yield path

    def changes(self, driver: StorageDriver, key: str, parents: Sequence[str]) -> "list[Change]":
        """List what a layer changes; the one source of `diff` and of a commit."""
        from lamina.store.layer_trees import LayerTrees

        row = self.database.connection.execute(
            "SELECT prepared_ns FROM layers WHERE driver = ? AND key = ?", (driver.name, key)
        ).fetchone()
        trees = LayerTrees(driver=driver, key=key, parents=tuple(parents), prepared_ns=row[0] if row else 0)
        with reading(self.run_dir, driver, key, parents), trees.stack:
            return driver.changes(key, parents, trees)

    def usage(self, driver: StorageDriver, key: str, parents: Sequence[str]) -> Usage:
        """Say what the layer alone takes on disk."""
        return driver.usage(key, parents)

    def records(self) -> list[tuple[str, str, str | None, str]]:
        """List every layer known: driver, key, parent, state."""
        return [tuple(row) for row in self.database.connection.execute("SELECT driver, key, parent, state FROM layers")]

    def sweep_all(self) -> None:
        """Empty every driver's trash."""
        for name in self.host.names("storage"):
            home = os.path.join(self.root_dir, name)
            if os.path.isdir(home):
                try:
                    self.driver(name).sweep()
                except NotFoundError:
                    remove_tree(os.path.join(home, "trash"))
                except PluginError:
                    continue  # said by whoever needs it


def check_depth(driver: StorageDriver, image_layers: int) -> None:
    """Refuse an image that with one more, writable layer is too deep for the driver."""
    limit = driver.probe().capabilities.max_depth
    if limit is not None and image_layers + 1 > limit:
        raise NotUsableError(
            f"the image has {image_layers} layers; storage driver '{driver.name}' unites at most {limit}, the container's included",
            hint="choose a deeper driver with --storage-driver, such as vfs",
        )


def read_size(driver: StorageDriver, storage_options: Mapping[str, str]) -> tuple[int | None, Mapping[str, str]]:
    """Take Docker's `size` out of a container's storage options, in bytes, or refuse it where the driver can't keep it."""
    if "size" not in storage_options:
        return None, storage_options
    from lamina.model.sizes import parse_size

    size_bytes = parse_size(storage_options["size"])
    if not size_bytes:
        raise UsageError("a container can't have a size of 0", hint="leave the storage option 'size' out for no limit")
    probe = driver.probe()
    if not probe.capabilities.quota:
        reason = probe.no_quota_reason or "the driver has no quotas"
        raise NotUsableError(
            f"storage driver '{driver.name}' can't limit a container's size here: {reason}",
            hint=probe.no_quota_hint or "leave the storage option 'size' out, or choose another driver: see lamina driver ls",
        )
    return size_bytes, {name: value for name, value in storage_options.items() if name != "size"}
