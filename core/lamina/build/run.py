"""One RUN: a process in a container of its own, on a writable layer that becomes an image's layer if it ends well.

The container has no record: the builder is its only client, and it dies with the builder (`WatchPlan.ends_with_creator`).
"""

import contextlib
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from lamina.build.layers import Writing
from lamina.build.mounts import Bound, Mounts
from lamina.build.progress import Step
from lamina.build.scheduler import Readable, Wait
from lamina.build.session import Session
from lamina.build.state import State
from lamina.errors import LaminaError
from lamina.linux.fs import remove_tree
from lamina.model.container import ContainerConfig
from lamina.runtime import frames
from lamina.runtime.cgroups import cgroup_of, device_rules, planned, prepare
from lamina.runtime.confinement import confine
from lamina.runtime.launch import Launch, launch
from lamina.runtime.monitor import MonitorPlan
from lamina.runtime.mount_steps import MaskPaths
from lamina.runtime.plan import plan
from lamina.runtime.watch import WatchPlan
from lamina.usecases.mounting import write_files

HOSTNAME = "lamina-build"
"""The same for every build: a command that writes it down must not make its layer another one."""


class CommandFailedError(LaminaError):
    """A RUN's command ended with another exit code than 0."""

    def __init__(self, arguments: Sequence[str], code: int) -> None:
        text = " ".join(arguments)
        shown = text if len(text) <= 200 else text[:199] + "…"
        how = f"ended with exit code {code}" if code <= 128 else f"ended with exit code {code}{_signal_name(code - 128)}"
        super().__init__(f"the command '{shown}' {how}")
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a RUN executes, everything decided."""

    arguments: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    working_dir: str
    network: str
    script: str = ""
    """A heredoc with a `#!` line, which is executed itself."""


def run(
    command: Command, state: State, bounds: Sequence[Bound], *, session: Session, step: Step
) -> Generator[Wait, None, "Finished"]:
    """Run a command on a state; gives the layer's contents, for as long as `Finished.stack` isn't closed.

    Raises `CommandFailedError`; `LaminaError` if it can't be started. Nothing is left behind then.
    """
    layers, request = session.layers, session.request
    with contextlib.ExitStack() as stack:
        layers.protect(state)
        place_dir = os.path.join(layers.dir, os.urandom(8).hex())
        os.mkdir(place_dir, 0o700)
        stack.callback(remove_tree, place_dir)
        writing = stack.enter_context(layers.writable(state))
        mounts = Mounts(session, stack=stack, place_dir=place_dir)
        prepared = yield from mounts.prepare(bounds)
        hosts = "".join(f"{address}\t{name}\n" for name, address in request.add_hosts)
        write_files(place_dir, hostname=HOSTNAME, more_hosts=hosts)
        files = [(os.path.join(place_dir, name), f"/etc/{name}") for name in ("hostname", "hosts", "resolv.conf")]
        if command.script:
            files.append((_write_script(place_dir, command.script), command.arguments[0]))
        if layers.file_label:
            from lamina.linux.selinux import relabel

            relabel(place_dir, layers.file_label)
        network = layers.context.network(command.network)
        attachment = network.attach(writing.key, {})
        stack.callback(network.detach, writing.key, {})
        cgroup = cgroup_of(writing.key, None)
        config = ContainerConfig(
            image="",
            entrypoint=command.arguments,
            env=(*command.env, *prepared.env),
            working_dir=command.working_dir,
            user=command.user,
            hostname=HOSTNAME,
            network=command.network,
        )
        steps = plan(
            root=writing.root, config=config, container_id=writing.key, attachment=attachment, mounts=(), files=files,
            cgroup=planned(cgroup, None),
            confined=confine(layers.confinement, filter_dir=layers.context.filter_dir),
        )  # fmt: skip
        at = next(index for index, one in enumerate(steps) if isinstance(one, MaskPaths))
        steps[at:at] = prepared.steps
        prepare(cgroup, limits=None, rules=device_rules(config))
        stack.callback(cgroup.remove)
        with _launched(MonitorPlan(steps=steps, open_stdin=False, watch=WatchPlan(tty=False, ends_with_creator=True))) as launched:
            code = yield from _relay(launched, step)
        if code != 0:
            raise CommandFailedError(command.arguments, code)
        return Finished(writing=writing, made=frozenset(launched.made_mountpoints), stack=stack.pop_all())


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A command that has ended well: its layer is still mounted until the stack is closed."""

    writing: Writing
    made: frozenset[str]
    stack: contextlib.ExitStack


def _write_script(place_dir: str, content: str) -> str:
    path = os.path.join(place_dir, "script")
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(content)
    os.chmod(path, 0o755)
    return path


@contextlib.contextmanager
def _launched(monitor_plan: MonitorPlan) -> Iterator[Launch]:
    """Start the container; it has ended, and its monitor is reaped, when the block ends, whatever happens."""
    launched = launch(monitor_plan)
    try:
        launched.wait_ready()
        launched.go()
        yield launched
    finally:
        launched.abandon()


def _relay(launched: Launch, step: Step) -> Generator[Wait, None, int]:
    """Hand the command's output on until it has ended; gives its exit code."""
    pending = list(launched.early)
    launched.channel.setblocking(False)
    while True:
        for kind, payload in pending:
            if kind == frames.EXIT:
                return int(payload)
            if kind in {frames.STDOUT, frames.STDERR}:
                step.output(payload)
        yield Readable(launched.channel.fileno())
        try:
            data = launched.channel.recv(1 << 16)
        except BlockingIOError:
            pending = []
            continue
        except ConnectionResetError:
            data = b""
        if not data:
            raise LaminaError("the command's monitor was killed")
        pending = launched.parser.feed(data)


def _signal_name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
