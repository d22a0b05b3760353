"""Recovery: undoing what killed commands left half made, and settling containers whose monitor is gone.

Every command begins with `recover`. With nothing to do it reads two small tables; done twice it is the same as once. What it may
undo is named by the database: rows of an operation whose process is gone, containers that are called running but have no process.
"""

import os
from typing import TYPE_CHECKING, Protocol

from lamina.errors import LaminaError
from lamina.linux import process
from lamina.linux.fs import remove_tree
from lamina.model.container import Container, Status
from lamina.store.operations import dead_operations, locked, sweep_locks
from lamina.usecases.context import Context

if TYPE_CHECKING:
    from lamina.usecases.control import Control
    from lamina.usecases.create import Creation
    from lamina.usecases.restarts import Restarts
    from lamina.usecases.start import Starter
    from lamina.usecases.volumes import Volumes


class UseCases(Protocol):
    """What undoes things, imported when it is asked for: mostly there is nothing to undo."""

    @property
    def creation(self) -> "Creation": ...
    @property
    def starter(self) -> "Starter": ...
    @property
    def control(self) -> "Control": ...
    @property
    def restarts(self) -> "Restarts": ...
    @property
    def volumes(self) -> "Volumes": ...


class Recovery:
    """Puts the store right."""

    def __init__(self, context: Context, use_cases: UseCases) -> None:
        self.context = context
        self.use_cases = use_cases

    def recover(self) -> None:
        """Do all there is to do; what fails is a warning, so that it stops no command that doesn't need it."""
        dead = dead_operations(self.context.database)
        if dead:
            with locked(self.context.run_dir, "recovery"):
                for operation_id in dead_operations(self.context.database):
                    self._undo_operation(operation_id)
                self._finish_volumes()
                try:
                    self.context.images.recover()
                except OSError as error:
                    self.context.warn(f"the image store's index could not be written: {error.strerror}")
                self.context.layers.sweep_all()
                sweep_locks(self.context.run_dir)
        for container in self.context.records.active():
            self._settle_if_ended(container)
        for driver, key in self._half_discarded():
            try:
                self.context.layers.finish_discard(driver, key)
            except (OSError, LaminaError) as error:
                self.context.warn(f"layer '{key[:12]}' of storage driver '{driver}' could not be discarded: {error}")

    def _half_discarded(self) -> list[tuple[str, str]]:
        """List the layers that are being discarded, or were when a process was killed: driver and key.

        A container's own layer is its removal's affair; the one that it had before it moved to another driver is not.
        """
        rows = self.context.database.connection.execute(
            "SELECT driver, key FROM layers WHERE state = 'discarding' AND NOT EXISTS"
            " (SELECT 1 FROM containers WHERE containers.id = layers.key AND containers.driver = layers.driver)"
        )
        return [(row["driver"], row["key"]) for row in rows.fetchall()]

    def _settle_if_ended(self, container: Container) -> None:
        try:
            if container.status is Status.REMOVING:
                if not self._is_being_removed(container):
                    self.use_cases.control.finish_removal(container)
            elif container.status is Status.RESTARTING:
                self._keep(container)
            elif container.is_active and self._has_ended(container):
                settled = self.use_cases.starter.settle(container)
                if settled is not None and settled.config.auto_remove and not settled.is_active:
                    self.use_cases.control.remove(settled, volumes=True)
            elif container.status is Status.PAUSED:
                self.use_cases.control.unpause_if_abandoned(container)
        except (OSError, LaminaError) as error:
            self.context.warn(f"container '{container.name}' could not be put right: {error}")

    def _keep(self, container: Container) -> None:
        from lamina.usecases.restarts import is_kept

        if not is_kept(container) or self.context.records.boot_of(container.id) != process.boot_id():
            self.use_cases.restarts.put_right(container)

    def _has_ended(self, container: Container) -> bool:
        if self.context.records.boot_of(container.id) != process.boot_id():
            return True
        if process.is_alive(container.monitor_pid, container.monitor_started):
            return False
        return not process.is_alive(container.pid, container.pid_started)

    def _is_being_removed(self, container: Container) -> bool:
        """Whether some process holds the container's lock, and so is at it."""
        import fcntl

        path = os.path.join(self.context.run_dir, "locks", f"container-{container.id}")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(fd)

    def _undo_operation(self, operation_id: int) -> None:
        context = self.context
        try:
            for container in context.records.of_operation(operation_id):
                if container.status is Status.CREATING:
                    with locked(context.run_dir, f"container-{container.id}"):  # whose file a killed start has left
                        self.use_cases.creation.undo(container)
                else:
                    self.use_cases.starter.undo_start(container)
            for endpoint_id in context.records.endpoints_of_operation(operation_id):
                self.use_cases.starter.networking.release_endpoint(endpoint_id)
            rows = context.database.connection.execute(
                "SELECT driver, key FROM layers WHERE operation = ? AND state != 'sealed'", (operation_id,)
            ).fetchall()
            for driver, key in rows:
                moving = context.records.by_id(key)
                if moving is not None:
                    self._undo_move(moving, driver, operation_id)
                else:
                    self._undo_layer(driver, key, operation_id)
            context.layers.undo_intended(operation_id, context.images.layer_keys)
            remove_tree(context.build_dir(operation_id))
            for volume, _state, owner in self.use_cases.volumes.half_made():
                if owner == operation_id:
                    self.use_cases.volumes.finish_removal(volume)
            with context.database.transaction() as tx:
                tx.execute("DELETE FROM build_blobs WHERE operation = ?", (operation_id,))
                tx.execute("DELETE FROM operations WHERE id = ?", (operation_id,))
        except (OSError, LaminaError) as error:
            context.warn(f"what a killed command left behind could not be removed: {error}")

    def _undo_layer(self, driver: str, key: str, operation_id: int) -> None:
        """Discard a layer that no container has: an image's half unpacked, or one that a killed build ran a command on."""
        layers = self.context.layers
        writable = layers.database.connection.execute(
            "SELECT parent FROM layers WHERE driver = ? AND key = ? AND state = 'writable' AND operation = ?",
            (driver, key, operation_id),
        ).fetchone()
        if writable is not None:
            from lamina.runtime.cgroups import cgroup_of

            cgroup_of(key, None).remove()
            layers.unmount_if_mounted(layers.driver(driver), key, layers.parents(driver, key))
        layers.undo_preparation(driver, key, operation_id)

    def _undo_move(self, container: Container, driver: str, operation_id: int) -> None:
        """Discard what a killed migration was making of a container on another driver."""
        context = self.context
        with locked(context.run_dir, f"container-{container.id}"):
            row = context.database.connection.execute(
                "SELECT operation FROM layers WHERE driver = ? AND key = ?", (driver, container.id)
            ).fetchone()
            if row is not None and row["operation"] == operation_id:
                context.layers.unmount_if_mounted(context.layers.driver(driver), container.id, container.parents)
                context.layers.undo_preparation(driver, container.id, operation_id)

    def _finish_volumes(self) -> None:
        for volume, state, _operation in self.use_cases.volumes.half_made():
            if state == "removing":
                try:
                    self.use_cases.volumes.finish_removal(volume)
                except (OSError, LaminaError) as error:
                    self.context.warn(f"volume '{volume.name}' could not be removed: {error}")
