"""Restarts: a container that has ended runs again as its policy says, and so do those that a boot has ended.

There is no daemon. Whoever settles a container decides (`ending`); is it to run again, then its record says *restarting* and names
a keeper, a process that waits for Docker's delay and starts it (`keep`). Most often that is what the monitor has become,
`lamina.finish`; else one is started for it. The record alone decides: whoever stops or starts the container meanwhile takes its
lock, changes the record and ends the keeper; a keeper that isn't the record's any more does nothing. If a keeper is killed, the
next command, which begins with `recover`, starts another.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lamina.dataclasses import replace
from lamina.errors import ConflictError, LaminaError
from lamina.linux import process
from lamina.model.container import Container, Status
from lamina.model.supervision import Supervision, next_delay_ms, parse_restart
from lamina.store.operations import locked
from lamina.usecases.context import Context

if TYPE_CHECKING:
    from lamina.usecases.control import Control
    from lamina.usecases.start import Starter


def ending(context: Context, container: Container, *, exit_code: int, finished_ns: int) -> dict[str, Any]:
    """Say what becomes of the record of a container that has just ended; the caller holds its lock and writes it down."""
    supervision = container.config.supervision
    if (
        supervision is None
        or container.stopped_by
        or not supervision.wants_restart(exit_code=exit_code, restart_count=container.restart_count)
        or context.records.boot_of(container.id) != process.boot_id()  # what a boot has ended, `system start` starts
    ):
        return {}
    return {
        "status": Status.RESTARTING,
        "restart_count": container.restart_count + 1,
        "restart_delay_ms": next_delay_ms(container.restart_delay_ms, ran_ns=finished_ns - container.started_ns),
        **keeper_of(context, container),
    }


def keeper_of(context: Context, container: Container) -> dict[str, Any]:
    """Give a container a keeper: this process if it has been its monitor, else a new one, which first waits for our lock."""
    pid = os.getpid()
    if pid != container.monitor_pid:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            pid = os.posix_spawn(
                sys.executable,
                (sys.executable, "-P", "-m", "lamina.finish", context.root_dir, context.run_dir, container.id),
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)],
                setsid=True,
                setsigdef=(signal.SIGPIPE, signal.SIGINT),
            )
        finally:
            os.close(null)
        context.children.add(pid)
    return {"monitor_pid": pid, "monitor_started": process.start_time(pid)}


def is_kept(container: Container) -> bool:
    """Whether a restarting container's keeper lives."""
    return process.is_alive(container.monitor_pid, container.monitor_started)


def dismiss(container: Container) -> None:
    """End the keeper of a restarting container, under its lock: so it is waiting, for the delay or for the lock."""
    try:
        pidfd = os.pidfd_open(container.monitor_pid)
    except OSError:
        return
    try:
        if is_kept(container):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


class Restarts:
    """Keeps containers, and starts and stops all of them at a machine's start and end."""

    def __init__(self, context: Context, starter: "Starter", control: "Control") -> None:
        self.context = context
        self.starter = starter
        self.control = control

    def keep(self, container: Container) -> None:
        """Be the keeper of a restarting container: wait and start it. A start that fails is recorded, and is not tried again."""
        left_s = (container.finished_ns - time.time_ns()) / 1e9 + container.restart_delay_ms / 1000
        if container.monitor_pid != os.getpid():
            return
        time.sleep(min(max(left_s, 0), container.restart_delay_ms / 1000))  # a clock that was set back makes it no longer
        self.control.start(container, keeps=True)

    def put_right(self, container: Container) -> None:
        """Give a restarting container a new keeper if its own was killed; what another boot has left is ended."""
        context = self.context
        with locked(context.run_dir, f"container-{container.id}"):
            current = context.records.by_id(container.id)
            if current is None or current.status is not Status.RESTARTING:
                return
            if context.records.boot_of(current.id) != process.boot_id():
                changed: dict[str, Any] = {"status": Status.EXITED, "monitor_pid": 0}
            elif is_kept(current):
                return
            else:
                changed = keeper_of(context, current)
            with context.database.transaction() as tx:
                context.records.set_state(tx, current.id, **changed)

    def set_policy(self, container: Container, text: str) -> None:
        """Give a container another policy; a restart that it waits for doesn't come if that is `no`.

        Raises `UsageError`, and `ConflictError` for one that is removed when it has ended.
        """
        policy, most = parse_restart(text)
        context = self.context
        with locked(context.run_dir, f"container-{container.id}"):
            current = self.starter.refreshed(container)
            if current.config.auto_remove and policy != "no":
                raise ConflictError(f"container '{container.name}' is removed when it has ended, so it can't be restarted")
            supervision = (current.config.supervision or Supervision())._replace(restart=policy, restart_most=most)
            with context.database.transaction(durable=True) as tx:
                context.records.update_document(tx, replace(current, config=replace(current.config, supervision=supervision)))
            if policy == "no" and current.status is Status.RESTARTING:
                self.starter.end_restarting(current)

    def start_all(self, *, report: Callable[[Container, LaminaError | None], None]) -> None:
        """Start every container whose policy says so after a boot, the oldest first; each is told, with what went wrong.

        They are those that have been started before: with `always`; with `unless-stopped`, if no person has stopped them; with
        `on-failure`, if besides they ended with a failure, which being killed by the boot is, and may be restarted once more.
        """
        for container in reversed(self.context.records.all()):
            if not _starts_at_boot(container):
                continue
            try:
                self.control.start(container)
            except LaminaError as error:
                report(container, error)
            else:
                report(container, None)

    def stop_all(self, *, timeout_s: int | None = None) -> list[Container]:
        """Stop all containers side by side, as before a machine's end; that is no reason for `start_all` not to start them."""
        asked = []
        for container in self.context.records.all():
            if container.is_up:
                asked.append((container, self.control.ask_to_stop(container, asked_by="shutdown")))
        for container, asked_at_s in asked:
            self.control.finish_stop(container, timeout_s, asked_at_s=asked_at_s)
        return [container for container, _ in asked]


def _starts_at_boot(container: Container) -> bool:
    supervision = container.config.supervision
    if supervision is None or container.status is not Status.EXITED or not container.started_ns:
        return False
    if supervision.restart != "always" and container.stopped_by == "user":
        return False
    return supervision.wants_restart(exit_code=container.exit_code, restart_count=container.restart_count)
