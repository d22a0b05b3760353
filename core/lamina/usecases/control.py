"""Controlling containers that exist: stop, kill, wait, pause, rename, remove, top."""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from lamina.api.drivers import StorageDriver
from lamina.errors import ConflictError, LaminaError, NotFoundError, PluginError, StateError, UsageError
from lamina.linux import process
from lamina.linux.fs import remove_tree
from lamina.model.container import Container, Status, check_name
from lamina.runtime import cgroups, processes
from lamina.runtime.attach import Relay, connect
from lamina.runtime.launch import Launch
from lamina.store.operations import Operation, locked
from lamina.usecases.context import Context
from lamina.usecases.start import LOST_EXIT_CODE, Starter
from lamina.usecases.volumes import Volume, Volumes

DEFAULT_STOP_TIMEOUT_S = 10
KILL_TIMEOUT_S = 30


class Control:
    """Controls containers."""

    def __init__(self, context: Context, starter: Starter, volumes: Volumes) -> None:
        self.context = context
        self.starter = starter
        self.volumes = volumes

    def start(self, container: Container, *, keeps: bool = False) -> None:
        """Start a container and leave it to itself; `keeps` as for `Starter.start`."""
        self.leave(*self.starter.start(container, keeps=keeps))

    def leave(self, container: Container, launched: Launch) -> None:
        """Let a started container run on by itself."""
        if launched.leave():
            self._settle(container)

    def kill(self, container: Container, signal_name: str = "KILL") -> None:
        """Send a signal to the container's first process; after SIGKILL, wait until it is gone."""
        number = parse_signal(signal_name)
        if not container.is_up:
            self._require_running(container)
        if number in {signal.SIGKILL, parse_signal(container.config.stop_signal or "TERM")}:
            container = self.starter.remember_stop(container, "user")
            if not container.is_active:
                return
        self._require_running(container)
        if number == signal.SIGKILL and container.status is Status.PAUSED:
            self.unpause(container)
        self._signal(container, number)
        if number == signal.SIGKILL:
            self._wait_ended(container, KILL_TIMEOUT_S)

    def stop(self, container: Container, timeout_s: int | None = None, *, signal_name: str = "") -> None:
        """Send the stop signal, wait, then kill; a negative time waits for ever. No error if it isn't running."""
        asked_at_s = self.ask_to_stop(container, signal_name=signal_name)
        self.finish_stop(container, timeout_s, asked_at_s=asked_at_s)

    def ask_to_stop(self, container: Container, *, signal_name: str = "", asked_by: str = "user") -> float:
        """Send the stop signal and don't wait; gives the moment, for `finish_stop`. So several are stopped side by side.

        Who asked, `user` or `shutdown`, is remembered: its restart policy doesn't start it again.
        """
        number = parse_signal(signal_name or container.config.stop_signal or "TERM")
        container = self.starter.remember_stop(container, asked_by)
        if container.status is Status.PAUSED:
            self.unpause(container)
        if container.is_active:
            self._signal(container, number)
        return time.monotonic()

    def finish_stop(self, container: Container, timeout_s: int | None = None, *, asked_at_s: float) -> None:
        """Wait for the end of what was asked to stop, and kill it when its time is over."""
        current = self.context.records.by_id(container.id)
        if current is None or not current.is_active:
            return
        if timeout_s is None:
            timeout_s = container.config.stop_timeout_s if container.config.stop_timeout_s is not None else DEFAULT_STOP_TIMEOUT_S
        left_s = -1 if timeout_s < 0 else max(asked_at_s + timeout_s - time.monotonic(), 0)
        if not self._wait_ended(current, left_s):
            self._signal(current, signal.SIGKILL)
            if not self._wait_ended(current, KILL_TIMEOUT_S):
                raise StateError(
                    f"container '{container.name}' can't be killed", hint="a process waits in the kernel; try again later"
                )
        self.context.container_event("stop", current)

    def begin_wait(self, container: Container) -> Callable[[], int]:
        """Begin to wait until the container isn't running; what is given waits, and gives its exit code.

        In between the container may end, and one that goes with its end be gone: its code is heard from the monitor, in a thread,
        as a client that doesn't read would hold the container up.
        """
        container = self.starter.refreshed(container)
        if not (container.is_up and container.config.auto_remove):
            return lambda: self._wait(container)
        code = LOST_EXIT_CODE

        def hear() -> None:
            nonlocal code
            code = self._hear_exit(container)

        listening = threading.Thread(target=hear, daemon=True)
        listening.start()

        def wait() -> int:
            listening.join()
            return self._wait(container, code)

        return wait

    def _wait(self, container: Container, code: int = LOST_EXIT_CODE) -> int:
        """Wait for the end; `code` is what is known of it should the container be gone then."""
        supervision = container.config.supervision
        while container.is_up:
            if container.status is Status.RESTARTING:
                self._wait_restarted(container)
            elif supervision is not None and supervision.restart != "no" and _has_monitor(container):
                return self._hear_exit(container)  # its record may soon be the next run's
            else:
                self._wait_ended(container, -1)
            current = self.context.records.by_id(container.id)
            if current is None:
                return code
            container = current
        return container.exit_code

    def _wait_restarted(self, container: Container) -> None:
        from lamina.usecases.restarts import Restarts

        Restarts(self.context, self.starter, self).put_right(container)
        _wait_for(container.monitor_pid, container.monitor_started, -1)

    def _hear_exit(self, container: Container) -> int:
        """Listen to the monitor until it says the exit code; gives `LOST_EXIT_CODE` if there is none to say it."""
        try:
            code = Relay(channel=connect(self.context.socket_path(container.id))).run()
        except StateError:
            return LOST_EXIT_CODE
        return LOST_EXIT_CODE if code is None else code

    def pause(self, container: Container) -> None:
        """Freeze every process of the container."""
        with locked(self.context.run_dir, f"container-{container.id}"):
            container = self.starter.refreshed(container)
            if container.status is Status.PAUSED:
                raise StateError(f"container '{container.name}' is paused already")
            self._require_running(container)
            cgroups.set_frozen(cgroups.own_cgroup(container), frozen=True)
            self._set_status(container, Status.PAUSED)
        self.context.container_event("pause", container)

    def unpause(self, container: Container) -> None:
        """Let them go on."""
        with locked(self.context.run_dir, f"container-{container.id}"):
            container = self.starter.refreshed(container)
            if container.status is not Status.PAUSED:
                raise StateError(f"container '{container.name}' is not paused")
            cgroups.set_frozen(cgroups.own_cgroup(container), frozen=False)
            self._set_status(container, Status.RUNNING)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._pause_note(container))
        self.context.container_event("unpause", container)

    @contextlib.contextmanager
    def paused(self, container: Container) -> Iterator[None]:
        """Pause the container while the block runs, one such block after another. Who is killed in it leaves a note of itself."""
        note = self._pause_note(container)
        with locked(self.context.run_dir, f"paused-{container.id}"):
            with open(note, "w", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {process.start_time(os.getpid())}")
            try:
                self.pause(container)
            except BaseException:
                os.unlink(note)
                raise
            try:
                yield
            finally:
                self.unpause(container)

    def unpause_if_abandoned(self, container: Container) -> None:
        """Let a container go on that a process which is gone had paused for a moment."""
        try:
            with open(self._pause_note(container), encoding="utf-8") as file:
                pid, started = file.read().split()
        except (FileNotFoundError, ValueError):
            return
        if not process.is_alive(int(pid), int(started)):
            self.unpause(container)

    def _pause_note(self, container: Container) -> str:
        return os.path.join(self.context.container_run_dir(container.id), "paused-by")

    def rename(self, container: Container, name: str) -> None:
        """Give a container another name."""
        check_name(name)
        with self.context.database.transaction(durable=True) as tx:
            taken = tx.execute("SELECT id FROM containers WHERE name = ?", (name,)).fetchone()
            if taken is not None:
                raise ConflictError(f"the container name '{name}' is already in use by container '{taken['id'][:12]}'")
            self.context.records.set_state(tx, container.id, name=name)
        self.context.container_event("rename", self.starter.refreshed(container), oldName=container.name)
        if self.context.records.has_endpoints(container.id):
            self.starter.networking.renamed(self.starter.refreshed(container))

    def remove(self, container: Container, *, force: bool = False, volumes: bool = False) -> None:
        """Delete a container: its layer, its log, its record; with `volumes` its anonymous volumes too.

        A running one only with `force`, which kills it. May be called again after a crash.
        """
        current = self.context.records.by_id(container.id)
        if current is None:
            return
        if current.is_up and not force:
            said = "restarting" if current.status is Status.RESTARTING else "running"
            raise ConflictError(f"container '{container.name}' is {said}", hint="stop it first, or use --force")
        if current.is_up:
            current = self.starter.remember_stop(current, "user")
        if current.is_active:
            if current.status is Status.PAUSED:
                self.unpause(current)
            self._signal(current, signal.SIGKILL)
            if not self._wait_ended(current, KILL_TIMEOUT_S):
                raise StateError(
                    f"container '{container.name}' can't be killed", hint="a process waits in the kernel; try again later"
                )
        with locked(self.context.run_dir, f"container-{container.id}"):
            current = self.context.records.by_id(container.id)
            if current is None:
                return
            if current.is_up:
                raise StateError(f"container '{container.name}' was started again meanwhile")
            storage = self._storage(current)  # a missing one is said before anything changes
            operation = Operation(name="rm")
            # The bytes must not go before the record does, but for those of `run --rm`: whatever a power cut leaves recorded of
            # such a container, be it running, be it being removed, tells the next command that it has to go.
            durable = not (current.config.auto_remove and current.started_ns)
            with self.context.database.transaction(durable=durable) as tx:
                self.context.records.set_state(tx, current.id, status=Status.REMOVING)
                doomed = self.volumes.begin_removal(tx, current, operation) if volumes else []
            self._remove(current, storage, doomed, operation)
        self.context.happened("removed", current)

    def finish_removal(self, container: Container) -> None:
        """Go on with a removal that was killed."""
        with locked(self.context.run_dir, f"container-{container.id}"):
            if self.context.records.by_id(container.id) is None:
                return
            operation = Operation(name="rm")
            with self.context.database.transaction() as tx:
                doomed = self.volumes.begin_removal(tx, container, operation) if container.config.auto_remove else []
            self._remove(container, self._storage(container), doomed, operation)
        self.context.happened("removed", container)

    def _storage(self, container: Container) -> StorageDriver:
        try:
            return self.context.layers.driver(container.driver)
        except NotFoundError as error:
            raise LaminaError(
                f"container '{container.name}' can't be removed: {error.message}", hint="install its driver again"
            ) from error

    def _remove(self, container: Container, storage: StorageDriver, doomed: Sequence[Volume], operation: Operation) -> None:
        context = self.context
        context.layers.unmount_if_mounted(storage, container.id, container.parents, is_going=True)
        context.layers.discard(storage, container.id)
        remove_tree(context.container_dir(container.id))
        remove_tree(context.container_run_dir(container.id))
        for volume in doomed:
            try:
                self.volumes.finish_removal(volume)
            except (NotFoundError, PluginError) as error:  # its driver has gone; it is called 'removing' until that is back
                context.warn(f"volume '{volume.name}' could not be removed: {error}")
        with context.database.transaction() as tx:
            context.records.delete(tx, container.id)
            operation.end(tx)

    def top(self, container: Container) -> list[tuple[str, ...]]:
        """List the container's processes in the columns of `processes.TITLES`."""
        self._require_running(container)
        return processes.table(self.pids(container))

    def pids(self, container: Container) -> list[int]:
        """List the host's pids of the container's processes."""
        self._require_running(container)
        return cgroups.own_cgroup(container).pids()

    def _require_running(self, container: Container) -> None:
        if container.status is Status.RESTARTING:
            raise StateError(f"container '{container.name}' is restarting", hint="wait until it runs")
        if not container.is_active:
            raise StateError(f"container '{container.name}' is not running", hint=f"`lamina start {container.name}`")

    def _signal(self, container: Container, number: int) -> None:
        """Send a signal, and write that down first: the monitor may tell of the end at once."""
        try:
            pidfd = os.pidfd_open(container.pid)
        except ProcessLookupError:
            return
        try:
            if process.is_alive(container.pid, container.pid_started):  # the number may be another process's by now
                self.context.container_event("kill", container, signal=str(int(number)))
                signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    def _wait_ended(self, container: Container, timeout_s: float) -> bool:
        """Wait for the first process and then the monitor to be gone, and settle; False if time is up first."""
        if not _wait_for(container.pid, container.pid_started, timeout_s):
            return False
        _wait_for(container.monitor_pid, container.monitor_started, KILL_TIMEOUT_S)
        self.context.reap()
        self._settle(container)
        return True

    def _settle(self, container: Container) -> None:
        settled = self.starter.settle(container)
        if settled is not None and settled.config.auto_remove and not settled.is_active:
            self.remove(settled, volumes=True)

    def _set_status(self, container: Container, status: Status) -> None:
        with self.context.database.transaction() as tx:
            self.context.records.set_state(tx, container.id, status=status)


def _has_monitor(container: Container) -> bool:
    return process.is_alive(container.monitor_pid, container.monitor_started)


def _wait_for(pid: int, started: int | None, timeout_s: float) -> bool:
    """Wait until a process is gone; a negative time waits for ever."""
    deadline = time.monotonic() + timeout_s
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        while process.is_alive(pid, started):
            left_ms = -1 if timeout_s < 0 else int((deadline - time.monotonic()) * 1000)
            if timeout_s >= 0 and left_ms <= 0:
                return False
            if poll.poll(left_ms):
                return True
        return True
    finally:
        os.close(pidfd)


def parse_signal(text: str) -> int:
    """Read a signal by name, with or without SIG, by its distance from RTMIN or RTMAX, or by number."""
    name = text.upper().removeprefix("SIG") if text.isascii() else ""
    number = int(signal.Signals.__members__.get(f"SIG{name}", 0))
    if name.isdigit():
        number = int(name[:4])
    elif name.startswith("RTMIN+") and name[6:].isdigit():
        number = int(signal.SIGRTMIN) + int(name[6:10])
    elif name.startswith("RTMAX-") and name[6:].isdigit():
        number = int(signal.SIGRTMAX) - int(name[6:10])
    if not 0 < number < signal.NSIG or (name.startswith("RT") and number < signal.SIGRTMIN):
        raise UsageError(f"invalid signal '{text}'", hint="write a name such as TERM, or a number")
    return number
