"""Entering a running container: a second process in its namespaces (`exec`), or its own streams (`attach`)."""

import os
from collections.abc import Sequence
from typing import Any

from lamina.errors import StateError
from lamina.linux import process
from lamina.model.container import Container, Status
from lamina.runtime.attach import DEFAULT_DETACH_KEYS, Relay, connect, parse_detach_keys
from lamina.runtime.cgroups import own_cgroup, planned
from lamina.runtime.confinement import confine
from lamina.runtime.launch import Launch, launch
from lamina.runtime.monitor import MonitorPlan
from lamina.runtime.plan import plan_entering
from lamina.runtime.steps import Step
from lamina.runtime.watch import EndEvent, WatchPlan
from lamina.usecases.context import Context
from lamina.usecases.start import LOST_EXIT_CODE, Starter


class Entering:
    """Enters containers."""

    def __init__(self, context: Context, starter: Starter) -> None:
        self.context = context
        self.starter = starter

    def plan(
        self,
        container: Container,
        arguments: Sequence[str],
        *,
        environment: Sequence[str] = (),
        user: str = "",
        working_dir: str = "",
        tty: bool = False,
        privileged: bool = False,
    ) -> list[Step]:
        """Say every step of an `exec` in its process, confined as the container is; `privileged` gives it all capabilities."""
        return plan_entering(
            pid=container.pid,
            container_id=container.id,
            config=container.config,
            arguments=arguments,
            environment=environment,
            user=user,
            working_dir=working_dir,
            tty=tty,
            cgroup=planned(own_cgroup(container), container.config.limits),
            confined=confine(container.config.confinement, filter_dir=self.context.filter_dir, extended=privileged),
        )

    def execute(
        self,
        container: Container,
        arguments: Sequence[str],
        *,
        environment: Sequence[str] = (),
        user: str = "",
        working_dir: str = "",
        tty: bool = False,
        privileged: bool = False,
        detach: bool = False,
        stdin_fd: int = -1,
        stdout_fd: int = -1,
        stderr_fd: int = -1,
        detach_keys: str = DEFAULT_DETACH_KEYS,
        terminal_size: tuple[int, int] = (0, 0),
    ) -> int | None:
        """Run a command in a running container; gives its exit code, None if it was left running. Raises `StartError`."""
        launched = self.launch(
            container, arguments, environment=environment, user=user, working_dir=working_dir, tty=tty, privileged=privileged,
            open_stdin=stdin_fd >= 0, terminal_size=terminal_size, is_told=True,
        )  # fmt: skip
        if detach:
            launched.channel.close()
            return None
        relay = Relay(
            channel=launched.channel,
            stdin_fd=stdin_fd,
            stdout_fd=stdout_fd,
            stderr_fd=stderr_fd,
            tty=tty,
            detach_keys=parse_detach_keys(detach_keys),
            early=launched.early,
            parser=launched.parser,
        )
        code = relay.run()
        self.context.reap()
        return code if code is not None or relay.detached else LOST_EXIT_CODE

    def launch(
        self, container: Container, arguments: Sequence[str], *, environment: Sequence[str] = (), user: str = "",
        working_dir: str = "", tty: bool = False, privileged: bool = False, open_stdin: bool = False,
        terminal_size: tuple[int, int] = (0, 0), ends_with_creator: bool = False, is_told: bool = False,
    ) -> Launch:  # fmt: skip
        """Start a command in a running container; gives the channel to it. With `is_told` the journal of events has it.

        Raises `StateError`, `StartError`.
        """
        if container.status is Status.PAUSED:
            raise StateError(f"container '{container.name}' is paused", hint=f"`lamina unpause {container.name}`")
        if container.status is Status.RESTARTING:
            raise StateError(f"container '{container.name}' is restarting", hint="wait until it runs")
        if not _runs(container):
            raise StateError(f"container '{container.name}' is not running", hint=f"`lamina start {container.name}`")
        steps = self.plan(
            container, arguments, environment=environment, user=user, working_dir=working_dir, tty=tty, privileged=privileged
        )
        exec_id, words = os.urandom(32).hex(), " ".join(arguments)

        def tell(action: str, **attributes: Any) -> None:
            if is_told:
                self.context.container_event(action, container, execID=exec_id, **attributes)

        tell(f"exec_create: {words}")
        end_event = None
        if is_told:
            attributes = self.context.event_attributes(container, execID=exec_id)
            end_event = EndEvent(path=self.context.journal.path, action="exec_die", actor=container.id, attributes=attributes)
        launched = launch(
            MonitorPlan(
                steps=steps,
                open_stdin=open_stdin,
                watch=WatchPlan(tty=tty, title=container.id, end_event=end_event, ends_with_creator=ends_with_creator),
                terminal_size=terminal_size,
                pid_namespace=f"/proc/{container.pid}/ns/pid",
            )
        )
        self.context.children.add(launched.monitor_pid)
        launched.wait_ready()
        if not _runs(container):  # then the namespaces that were entered may be of whoever got its pid
            launched.abandon()
            self.context.children.discard(launched.monitor_pid)
            raise StateError(f"container '{container.name}' has just ended", hint=f"`lamina start {container.name}`")
        tell(f"exec_start: {words}")
        launched.go()
        return launched

    def attach(
        self,
        container: Container,
        *,
        stdin_fd: int = -1,
        stdout_fd: int = -1,
        stderr_fd: int = -1,
        detach_keys: str = DEFAULT_DETACH_KEYS,
        pass_signals: bool = True,
    ) -> int | None:
        """Join a running container's streams; gives its exit code, the end then recorded, or None if detached."""
        if not container.is_active:
            raise StateError(f"container '{container.name}' is not running", hint=f"`lamina start {container.name}`")
        relay = Relay(
            channel=connect(self.context.socket_path(container.id)),
            stdin_fd=stdin_fd if container.config.open_stdin else -1,
            stdout_fd=stdout_fd,
            stderr_fd=stderr_fd,
            tty=container.config.tty,
            detach_keys=parse_detach_keys(detach_keys),
            pid=container.pid if pass_signals else 0,
            passing=self.starter.stop_remembered(container),
        )
        self.context.container_event("attach", container)
        code = relay.run()
        if not relay.detached:
            self.starter.settle(container)  # so that the next call finds it ended
        return code if code is not None or relay.detached else LOST_EXIT_CODE


def _runs(container: Container) -> bool:
    return container.is_active and process.is_alive(container.pid, container.pid_started)
