"""Starting a container, and settling one that has ended: the two ends between which its mounts and processes exist."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lamina.api.drivers import StorageDriver
from lamina.api.types import Attachment, NetworkNamespace
from lamina.dataclasses import replace
from lamina.errors import LaminaError, NotFoundError, PluginError, StartError, StateError
from lamina.linux import process
from lamina.linux.cgroup import Cgroup
from lamina.linux.fs import read_bytes, remove_tree
from lamina.model.container import Container, ContainerConfig, Status
from lamina.runtime import cgroups
from lamina.runtime.attach import DEFAULT_DETACH_KEYS, Relay, parse_detach_keys
from lamina.runtime.confinement import confine
from lamina.runtime.launch import Launch, launch
from lamina.runtime.monitor import MonitorPlan
from lamina.runtime.plan import USUAL, plan
from lamina.runtime.steps import Step
from lamina.runtime.watch import EndEvent, WatchPlan
from lamina.store import views
from lamina.store.operations import Operation, locked
from lamina.usecases.context import Context
from lamina.usecases.mounting import own_files, planned_mounts, write_own_files
from lamina.usecases.volumes import Volumes

if TYPE_CHECKING:
    from lamina.runtime.devices import GivenDevices
    from lamina.runtime.probes import ProbePlan
    from lamina.usecases.networking import Networking, Preparation

JOIN_PREFIX = "container:"  # as in `model/network.py`, which a container that joins nobody doesn't import
LOST_EXIT_CODE = 255
"""Recorded when nobody was left to see how a container ended."""


class Starter:
    """Starts and settles containers."""

    def __init__(self, context: Context, volumes: Volumes) -> None:
        self.context = context
        self.volumes = volumes

    @cached_property
    def networking(self) -> "Networking":
        """What attaches containers to networks; imported only for those that have some."""
        from lamina.usecases.networking import Networking

        return Networking(self.context)

    def start(
        self,
        container: Container,
        *,
        operation: Operation | None = None,
        terminal_size: tuple[int, int] = (0, 0),
        keeps: bool = False,
    ) -> tuple[Container, Launch]:
        """Start a created or ended container; its command runs when this returns. Raises `StartError`, `StateError`.

        A failed start leaves the container as it was, with the error recorded. With `keeps` it is the restart of a container that
        this process keeps (`usecases/restarts.py`); any other start begins to count restarts anew.
        """
        context = self.context
        with locked(context.run_dir, f"container-{container.id}"):
            if operation is None:
                container = self.refreshed(container)
                if container.status is Status.RUNNING:
                    raise StateError(f"container '{container.name}' is running already")
                if container.status is Status.PAUSED:
                    raise StateError(f"container '{container.name}' is paused", hint=f"`lamina unpause {container.name}`")
                if container.status is Status.REMOVING:
                    raise StateError(f"container '{container.name}' is being removed")
                if keeps:
                    if container.status is not Status.RESTARTING or container.monitor_pid != os.getpid():
                        raise StateError(f"container '{container.name}' is not ours to restart any more")
                else:
                    if container.status is Status.RESTARTING:
                        self.end_restarting(container)
                    container = replace(container, restart_count=0, restart_delay_ms=0, stopped_by="")
                operation = Operation(name="start")
            storage = context.layers.usable_driver(container.driver)
            context.happened("starting", container)
            try:
                container, launched = self._launch(container, storage, operation, terminal_size)
            except BaseException as error:
                try:
                    self._take_down(container)
                except (OSError, LaminaError) as second:
                    error.add_note(f"while cleaning up: {second}")
                self._record_failure(container, operation, error)
                raise
        context.happened("started", container)
        return container, launched

    def plan(self, container: Container) -> list[Step]:
        """Say every step that a start of this container takes in its first process."""
        try:
            joined = self.joined(container)
        except NotFoundError:  # it can't be started, but its files can be copied
            joined = None
        driver = None if joined else self.context.plain_network(container.config.network)
        if driver is not None:
            return self._plan(container, driver.attach(container.id, {}), joined)
        return self._plan(container, _joining(joined) if joined else Attachment(namespace=NetworkNamespace.NEW), joined)

    def joined(self, container: Container) -> Container | None:
        """The container whose network namespace and names this one shares, if it was told to. Raises `NotFoundError`."""
        if not container.config.network.startswith(JOIN_PREFIX):
            return None
        return self.context.records.find(container.config.network.removeprefix(JOIN_PREFIX))

    def _plan(
        self, container: Container, attachment: Attachment, joined: Container | None, *,
        devices: "GivenDevices | None" = None, cgroup: Cgroup | None = None,
    ) -> list[Step]:  # fmt: skip
        storage = self.context.layers.driver(container.driver)
        view = storage.mounts(container.id, container.parents, readonly=False)
        spaces = USUAL
        if container.config.isolation is not None:
            from lamina.usecases import isolating

            spaces = isolating.spaces(
                self.context, container, container.config.isolation, root_is_mapped=views.is_mapped_by_layers(view)
            )
        return plan(
            root=view.root,
            config=container.config,
            container_id=container.id,
            attachment=attachment,
            mounts=planned_mounts(self.context, self.volumes, container),
            files=own_files(self.context, joined or container),
            cgroup=cgroups.planned(cgroup or cgroups.own_cgroup(container), container.config.limits),
            devices=devices.nodes if devices is not None else (),
            confined=confine(container.config.confinement, filter_dir=self.context.filter_dir),
            spaces=spaces,
        )

    def _launch(
        self, container: Container, storage: StorageDriver, operation: Operation, terminal_size: tuple[int, int]
    ) -> tuple[Container, Launch]:
        context = self.context
        config = container.config
        joined = self.joined(container)
        if joined is not None and not self._runs(joined):
            raise StateError(
                f"container '{joined.name}', whose network is to be joined, is not running", hint=f"`lamina start {joined.name}`"
            )
        driver = None if joined else context.plain_network(config.network)
        prepared: Preparation | None = None
        if driver is not None:
            attachment = driver.attach(container.id, {})
        elif joined is not None:
            attachment = _joining(joined)
        else:
            self._begin(container, operation)
            prepared = self.networking.prepare(container)
            attachment = prepared.attachment
        try:
            devices = _given_devices(config)
            cgroup = cgroups.own_cgroup(container)
            steps = self._plan(container, attachment, joined, devices=devices, cgroup=cgroup)
            rules = cgroups.device_rules(config, devices.rules if devices is not None else ())
            return self._launch_attached(
                container, storage, operation, terminal_size,
                steps=steps, cgroup=cgroup, rules=rules, prepared=prepared, joined=joined, writes_files=driver is not None,
            )  # fmt: skip
        finally:
            if prepared is not None:
                prepared.close()

    def _begin(self, container: Container, operation: Operation) -> None:
        """Record, before anything is made, that it is being started, unless that is recorded."""
        if operation.id is None:
            with self.context.database.transaction() as tx:
                self.context.records.set_state(
                    tx, container.id, operation=operation.begin(tx), restart_count=container.restart_count,
                    restart_delay_ms=container.restart_delay_ms, stopped_by=container.stopped_by,
                )  # fmt: skip

    def _launch_attached(
        self, container: Container, storage: StorageDriver, operation: Operation, terminal_size: tuple[int, int], *,
        steps: list[Step], cgroup: Cgroup, rules: tuple[str, ...], prepared: "Preparation | None", joined: Container | None,
        writes_files: bool,
    ) -> tuple[Container, Launch]:  # fmt: skip
        context = self.context
        config = container.config
        first_id, pid_namespace = 0, ""
        donors: Sequence[Container] = ()
        if config.isolation is not None:
            from lamina.usecases import isolating

            isolating.check_raised(config.isolation)
            donors = isolating.joined_containers(context, config.isolation)
            pid_namespace = isolating.pid_namespace(context, config.isolation)
            first_id = isolating.own_first_id(context, container)
        for request in config.mounts:
            if request.type == "bind" and not os.path.exists(request.source):
                raise NotFoundError(
                    f"the volume's source '{request.source}' doesn't exist", hint="create it, or remove the container"
                )
        watch = WatchPlan(
            tty=config.tty,
            title=container.id,
            **self._log_plan(container),
            exit_path=context.exit_path(container.id),
            probe=self._probe_plan(container),
            end_event=EndEvent(
                path=context.journal.path, action="die", actor=container.id, attributes=context.event_attributes(container),
                begun_ns=time.time_ns(), oom_path=cgroups.oom_path(cgroup),
            ),
            socket_path=context.socket_path(container.id),
            finish_command=(sys.executable, "-P", "-m", "lamina.finish", context.root_dir, context.run_dir, container.id),
        )  # fmt: skip
        monitor_plan = MonitorPlan(
            steps=steps, open_stdin=config.open_stdin, watch=watch, terminal_size=terminal_size, pid_namespace=pid_namespace,
            forks_again=bool(first_id),
        )  # fmt: skip
        launched = launch(monitor_plan)
        context.children.add(launched.monitor_pid)
        try:
            self._begin(container, operation)
            if writes_files:
                write_own_files(context, container)
            remove_tree(context.exit_path(container.id))
            os.makedirs(context.container_run_dir(container.id), mode=0o700, exist_ok=True)
            file_label = config.confinement.file_label if config.confinement is not None else ""
            context.layers.mount(
                storage, container.id, container.parents, first_id=first_id, is_passing=config.auto_remove, label=file_label
            )
            if file_label:
                from lamina.usecases.labelling import label_files

                label_files(container, file_label, [path for path, _ in own_files(context, container)], self.volumes)
            cgroups.prepare(cgroup, limits=config.limits, rules=rules)
            launched.wait_ready()
            if prepared is not None:
                self.networking.carry_out(prepared, container, launched.pid)
            for donor in (*donors, *((joined,) if joined is not None else ())):
                if not self._runs(donor):  # then the namespace may be of whoever got its pid
                    raise StateError(f"container '{donor.name}', of which a namespace is to be joined, has just ended")
            # A new container is durable once it runs, unless it will go with its end; of one that will, the record 'created', if a
            # `create --rm` made that durable, must be gone before the bytes go.
            durable = (container.status is Status.CREATING) != config.auto_remove and container.started_ns == 0
            with context.database.transaction(durable=durable) as tx:
                made = tuple(dict.fromkeys((*container.made_mountpoints, *launched.made_mountpoints)))
                if made != container.made_mountpoints:
                    container = replace(container, made_mountpoints=made)
                    context.records.update_document(tx, container)
                container = context.records.set_running(
                    tx,
                    container,
                    pid=launched.pid,
                    pid_started=process.start_time(launched.pid),
                    monitor_pid=launched.monitor_pid,
                    monitor_started=process.start_time(launched.monitor_pid),
                    started_ns=time.time_ns(),
                )
                tx.execute("UPDATE layers SET operation = NULL WHERE driver = ? AND key = ?", (container.driver, container.id))
                operation.end(tx)
            launched.go()
        except BaseException:
            launched.abandon()
            context.children.discard(launched.monitor_pid)
            raise
        return container, launched

    def _probe_plan(self, container: Container) -> "ProbePlan | None":
        """Plan the checks of a container's health, and have it start anew."""
        if container.config.supervision is None or container.config.supervision.health is None:
            return None
        from lamina.runtime.probes import ProbePlan
        from lamina.usecases.health import begin

        begin(self.context, container)
        asked = container.config.supervision.health.with_defaults()
        return ProbePlan(
            command=(sys.executable, "-P", "-m", "lamina.probe", self.context.root_dir, self.context.run_dir, container.id),
            interval_s=asked.interval_ns / 1e9,
            start_interval_s=asked.start_interval_ns / 1e9,
            start_period_s=asked.start_period_ns / 1e9,
        )

    def _log_plan(self, container: Container) -> dict[str, Any]:
        supervision = container.config.supervision
        if supervision is None:
            return {"log_path": self.context.log_path(container.id)}
        from lamina.model.supervision import log_limits

        driver = supervision.log_driver or "json-file"
        limits = log_limits(driver, supervision.log_options)
        path = self.context.log_path(container.id) if driver == "json-file" else ""
        return {"log_path": path, "log_file_bytes": limits.file_bytes, "log_files": limits.files}

    def undo_start(self, container: Container) -> None:
        """Take away what a start that was killed before the container was running has set up; may be repeated."""
        context = self.context
        with locked(context.run_dir, f"container-{container.id}"):
            self._take_down(container)
            with context.database.transaction() as tx:
                context.records.set_state(tx, container.id, operation=None)

    def _take_down(self, container: Container, cgroup: Cgroup | None = None) -> None:
        """End its processes, give the network back, unmount, forget the socket: the end of every start, whole or not."""
        context = self.context
        (cgroup or cgroups.own_cgroup(container)).remove()
        try:
            if context.records.has_endpoints(container.id):
                self.networking.release(container.id)
            elif (driver := context.plain_network(container.config.network)) is not None:
                driver.detach(container.id, {})
        except (NotFoundError, PluginError) as broken:  # what it holds can't be given back, but the container has ended
            context.warn(broken.message)
        storage = context.layers.driver(container.driver)
        context.layers.unmount(storage, container.id, container.parents)
        remove_tree(context.container_run_dir(container.id))

    def _record_failure(self, container: Container, operation: Operation, error: BaseException) -> None:
        code = error.exit_code if isinstance(error, StartError) else 128
        message = error.message if isinstance(error, LaminaError) else str(error)
        status = Status.CREATED if container.started_ns == 0 else Status.EXITED
        if container.status is Status.CREATING and container.config.auto_remove:
            status = Status.REMOVING  # `run --rm`, which removes it
        with self.context.database.transaction() as tx:
            self.context.records.set_state(
                tx,
                container.id,
                status=status,
                exit_code=code,
                error=message,
                pid=0,
                monitor_pid=0,
                operation=None,
                started_ns=container.started_ns,
                finished_ns=container.finished_ns,
            )
            tx.execute("UPDATE layers SET operation = NULL WHERE driver = ? AND key = ?", (container.driver, container.id))
            operation.end(tx)

    def relay(
        self,
        container: Container,
        launched: Launch,
        *,
        stdin_fd: int,
        stdout_fd: int,
        stderr_fd: int,
        detach_keys: str = DEFAULT_DETACH_KEYS,
        pass_signals: bool = True,
    ) -> int | None:
        """Carry a started container's streams until it ends, then settle it. Gives its exit code, or None if detached."""
        code = Relay(
            channel=launched.channel,
            stdin_fd=stdin_fd,
            stdout_fd=stdout_fd,
            stderr_fd=stderr_fd,
            tty=container.config.tty,
            detach_keys=parse_detach_keys(detach_keys),
            early=launched.early,
            parser=launched.parser,
            pid=container.pid if pass_signals else 0,
            passing=self.stop_remembered(container),
        ).run()
        if code is None and process.is_alive(container.monitor_pid, container.monitor_started):
            return None
        ended = self.settle(container)
        return code if code is not None else (ended.exit_code if ended is not None else LOST_EXIT_CODE)

    # Settling

    def settle(self, container: Container) -> Container | None:
        """Record how a container ended and undo what its start set up, last first; gives what is left of it, None if `--rm`.

        Whoever first finds that a container's monitor is gone, or that it has said goodbye, calls this; it may be repeated.
        """
        context = self.context
        with locked(context.run_dir, f"container-{container.id}"):
            current = context.records.by_id(container.id)
            if current is None:
                return None
            if not current.is_active:
                return current
            if process.is_alive(current.pid, current.pid_started):
                return current  # its monitor was killed, but it lives on
            code, finished_ns, error = self._read_exit(current)
            cgroup = cgroups.own_cgroup(current)
            oom_killed = cgroups.oom_kills(cgroup) > 0
            self._take_down(current, cgroup)
            # One that goes with its end is on its way out from here on: else who is killed before the removal leaves it for ever.
            state: dict[str, Any] = {
                "status": Status.REMOVING if current.config.auto_remove else Status.EXITED, "monitor_pid": 0, "pid": 0,
                "exit_code": code, "error": error, "finished_ns": finished_ns, "oom_killed": oom_killed,
            }  # fmt: skip
            if current.config.supervision is not None:
                from lamina.usecases.restarts import ending

                state |= ending(context, current, exit_code=code, finished_ns=finished_ns)
            with context.database.transaction() as tx:
                context.records.set_state(tx, current.id, **state)
            current = replace(current, **state)
        context.reap()
        if oom_killed:
            context.happened("oom", current)
        if error:  # else the monitor has written it down
            if oom_killed:
                context.container_event("oom", current, time_ns=finished_ns)
            context.container_event("die", current, time_ns=finished_ns, exitCode=str(code))
        context.happened("exited", current, exitCode=str(code))
        return current

    def remember_stop(self, container: Container, asked_by: str) -> Container:
        """Record that a container's end is asked for, and end a restart that it waits for; gives it as it is now."""
        supervision = container.config.supervision
        if supervision is None or supervision.restart == "no":
            current = self.refreshed(container)
            if current.is_active:
                with self.context.database.transaction() as tx:
                    self.context.records.set_state(tx, current.id, stopped_by=asked_by)
            return current
        with locked(self.context.run_dir, f"container-{container.id}"):  # else its end may be settled in between, and restarted
            current = self.refreshed(container)
            if current.status is Status.RESTARTING:
                self.end_restarting(current, stopped_by=asked_by)
            elif current.is_active:
                with self.context.database.transaction(durable=True) as tx:
                    self.context.records.set_state(tx, current.id, stopped_by=asked_by)
            return self.refreshed(current)

    def stop_remembered(self, container: Container) -> Callable[[int], None] | None:
        """What a client calls before it passes a signal on: a person who ends a container at its terminal has stopped it."""
        if container.config.supervision is None or container.config.supervision.restart == "no":
            return None

        def passing(number: int) -> None:
            if number in {signal.SIGINT, signal.SIGTERM, signal.SIGQUIT}:
                self.remember_stop(container, "user")

        return passing

    def end_restarting(self, container: Container, *, stopped_by: str = "") -> None:
        """Let a restarting container be an ended one; the caller holds its lock."""
        from lamina.usecases.restarts import dismiss

        dismiss(container)
        with self.context.database.transaction(durable=bool(stopped_by)) as tx:
            self.context.records.set_state(tx, container.id, status=Status.EXITED, monitor_pid=0, stopped_by=stopped_by)

    def _read_exit(self, container: Container) -> tuple[int, int, str]:
        try:
            code, finished_ns = read_bytes(self.context.exit_path(container.id)).split()
            return int(code), int(finished_ns), ""
        except (OSError, ValueError):
            return LOST_EXIT_CODE, time.time_ns(), "the container's monitor was killed, so how it ended is not known"

    def refreshed(self, container: Container) -> Container:
        """Read a container's record anew."""
        current = self.context.records.by_id(container.id)
        if current is None:
            raise NotFoundError(f"no such container: '{container.name}'")
        return current

    def _runs(self, container: Container) -> bool:
        return container.is_active and process.is_alive(container.pid, container.pid_started)


def _given_devices(config: ContainerConfig) -> "GivenDevices | None":
    """Look at the host's devices that a container is given; None for one that is given none, which imports nothing for it."""
    if (config.limits is not None and config.limits.devices) or (config.confinement is not None and config.confinement.privileged):
        from lamina.runtime.devices import given_devices

        return given_devices(config)
    return None


def _joining(joined: Container) -> Attachment:
    return Attachment(namespace=NetworkNamespace.JOIN, path=f"/proc/{joined.pid}/ns/net")
