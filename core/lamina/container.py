"""One container as an object: what can be asked of it and done to it. `lamina.engine` gives these out."""

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lamina.errors import LaminaError
from lamina.model.container import Container
from lamina.model.reference import Reference
from lamina.store.images import Image

if TYPE_CHECKING:  # what reads and writes archives is imported by the method that does it
    from lamina.api.entries import Change
    from lamina.archive.compression import Readable, Writable
    from lamina.engine import Engine
    from lamina.usecases.copy import Copying
    from lamina.usecases.explain import ExplainedPath, Stack
    from lamina.usecases.migrate import Migrated
    from lamina.usecases.stats import Sample

Progress = Callable[[int], None]


class ContainerHandle:
    """One container. What is asked is read anew each time."""

    def __init__(self, engine: "Engine", container_id: str) -> None:
        self._engine = engine
        self.id = container_id

    def __repr__(self) -> str:
        return f"ContainerHandle({self.id[:12]!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.remove(force=True, volumes=True)

    @property
    def record(self) -> Container:
        """The whole record; raises `NotFoundError` once it is removed."""
        return self._engine.context.records.find(self.id)

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def status(self) -> str:
        """created, running, paused or exited."""
        return self.record.status.value

    @property
    def pid(self) -> int:
        """The host's pid of its first process; 0 if it has none."""
        return self.record.pid

    @property
    def root(self) -> str:
        """Where the host sees its root while it runs."""
        record = self.record
        storage = self._engine.context.layers.driver(record.driver)
        return storage.mounts(record.id, record.parents, readonly=False).root

    def start(self) -> None:
        """Start it in the background. Raises `StartError`, `StateError`."""
        self._engine.control.start(self.record)

    def start_attached(
        self,
        *,
        stdin_fd: int = -1,
        stdout_fd: int = -1,
        stderr_fd: int = -1,
        detach_keys: str | None = None,
        pass_signals: bool = False,
        terminal_size: tuple[int, int] = (0, 0),
    ) -> int | None:
        """Start it and carry its streams until it ends; gives the exit code, None if detached."""
        container, launched = self._engine.starter.start(self.record, terminal_size=terminal_size)
        code = self._engine.starter.relay(
            container,
            launched,
            stdin_fd=stdin_fd,
            stdout_fd=stdout_fd,
            stderr_fd=stderr_fd,
            pass_signals=pass_signals,
            **({} if detach_keys is None else {"detach_keys": detach_keys}),
        )
        if code is not None and container.config.auto_remove:
            self.remove(volumes=True)
        return code

    def stop(self, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Ask it to end by its stop signal or the one given, wait, then kill it."""
        self._engine.control.stop(self.record, timeout_s, signal_name=signal)

    def ask_to_stop(self, *, signal: str = "") -> float:
        """Ask it to end and don't wait; gives the moment, for `finish_stop`."""
        return self._engine.control.ask_to_stop(self.record, signal_name=signal)

    def finish_stop(self, *, timeout_s: int | None = None, asked_at_s: float) -> None:
        """Wait for the end of what was asked, and kill it when its time is over; no error if it has gone."""
        container = self._engine.context.records.by_id(self.id)
        if container is not None:
            self._engine.control.finish_stop(container, timeout_s, asked_at_s=asked_at_s)

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal."""
        self._engine.control.kill(self.record, signal)

    def restart(self, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Stop and start it."""
        self.stop(timeout_s=timeout_s, signal=signal)
        self.start()
        self._engine.context.container_event("restart", self.record)

    def wait(self) -> int:
        """Wait until it has ended; gives its exit code."""
        return self.begin_wait()()

    def begin_wait(self) -> Callable[[], int]:
        """Begin to wait for its end, which may come, and take it away, before what is given is called: that gives the exit code."""
        return self._engine.control.begin_wait(self.record)

    def pause(self) -> None:
        """Freeze its processes."""
        self._engine.control.pause(self.record)

    def unpause(self) -> None:
        """Let them go on."""
        self._engine.control.unpause(self.record)

    def update(self, **limits: Any) -> None:
        """Change limits, by their names in `lamina.model.limits.Limits`; they hold when this returns, or from its next start."""
        from lamina.usecases.limiting import update

        update(self._engine.context, self.record, limits)

    def set_restart(self, policy: str) -> None:
        """Give it another restart policy, as `--restart` writes it; it holds for its next end. Raises `UsageError`."""
        self._engine.restarts.set_policy(self.record, policy)

    def stats(self) -> "Sample | None":
        """Count what it has used so far; None if it doesn't run."""
        from lamina.usecases.stats import sample

        return sample(self.record)

    def rename(self, name: str) -> None:
        """Give it another name."""
        self._engine.control.rename(self.record, name)

    def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Delete it; a running one only with `force`. No error if it has gone."""
        container = self._engine.context.records.by_id(self.id)
        if container is not None:
            self._engine.control.remove(container, force=force, volumes=volumes)

    def exec(
        self,
        command: Sequence[str],
        *,
        env: Sequence[str] = (),
        user: str = "",
        working_dir: str = "",
        tty: bool = False,
        privileged: bool = False,
        detach: bool = False,
        stdin_fd: int = -1,
        stdout_fd: int = -1,
        stderr_fd: int = -1,
        detach_keys: str | None = None,
        terminal_size: tuple[int, int] = (0, 0),
    ) -> int | None:
        """Run one more command in it; gives the exit code, None if it was left running. Raises `StartError`, `StateError`."""
        return self._engine.entering.execute(
            self.record,
            command,
            environment=env,
            user=user,
            working_dir=working_dir,
            tty=tty,
            privileged=privileged,
            detach=detach,
            stdin_fd=stdin_fd,
            stdout_fd=stdout_fd,
            stderr_fd=stderr_fd,
            terminal_size=terminal_size,
            **({} if detach_keys is None else {"detach_keys": detach_keys}),
        )

    def exec_output(self, command: Sequence[str], **options: Any) -> str:
        """Run a command in it and give what that wrote to standard output. Raises `LaminaError` if it fails."""
        return captured(lambda out, err: self.exec(command, stdout_fd=out, stderr_fd=err, **options))

    def attach(
        self,
        *,
        stdin_fd: int = -1,
        stdout_fd: int = -1,
        stderr_fd: int = -1,
        detach_keys: str | None = None,
        pass_signals: bool = False,
    ) -> int | None:
        """Join its streams until it ends; gives the exit code, None if detached."""
        return self._engine.entering.attach(
            self.record,
            stdin_fd=stdin_fd,
            stdout_fd=stdout_fd,
            stderr_fd=stderr_fd,
            pass_signals=pass_signals,
            **({} if detach_keys is None else {"detach_keys": detach_keys}),
        )

    def diff(self) -> "list[Change]":
        """List what it has added, changed and deleted."""
        return self._engine.content.changes(self.record)

    def commit(
        self,
        name: str = "",
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        progress: Progress = lambda _bytes: None,
    ) -> Image:
        """Make an image of it: its image's layers and one more. `changes` are Dockerfile instructions."""
        return self._engine.content.commit(
            self.record,
            Reference.parse(name) if name else None,
            author=author,
            message=message,
            edits=changes,
            pause=pause,
            progress=progress,
        )

    def export(self, out: "Writable") -> None:
        """Write its whole tree as a tar archive."""
        self._engine.content.export(self.record, out)

    def copy_in(self, source: "str | Readable", path: str, *, archive: bool = False, follow: bool = False) -> int:
        """Copy a host's file or directory, or a tar archive's contents, to a path in it; gives the files' bytes.

        `docker cp`'s rules: into an existing directory, else to that name; a directory's contents alone from `DIR/.`. What is
        copied belongs to root, with `archive` to its owner; in a tar archive to whom that says. `follow` copies what a symlink
        leads to. Running or not, its volumes are seen. Raises `NotFoundError`, `ConflictError`, `ArchiveError`.
        """
        if isinstance(source, str):
            return self._copying().copy_in(self.record, source, path, keep_owner=archive, follow=follow)
        return self._copying().copy_in_archive(self.record, source, path)

    def copy_out(self, path: str, destination: "str | Writable", *, archive: bool = False, follow: bool = False) -> int:
        """Copy a file or directory of it to a path on the host, or write it as a tar archive; the rules are `copy_in`'s.

        What is copied to the host belongs to the caller, with `archive` to its owner. Gives the files' bytes, for an archive 0.
        """
        if isinstance(destination, str):
            return self._copying().copy_out(self.record, path, destination, keep_owner=archive, follow=follow)
        self._copying().copy_out_archive(self.record, path, destination, follow=follow)
        return 0

    def _copying(self) -> "Copying":
        from lamina.usecases.containerroot import ContainerRoots
        from lamina.usecases.copy import Copying

        return Copying(ContainerRoots(self._engine.context, self._engine.starter))

    def explain(self) -> "Stack":
        """Tell its layers, the mounts that unite them with the reason of each option, and what is mounted over them."""
        from lamina.usecases.explain import Explaining

        return Explaining(self._engine.context).stack(self.record)

    def explain_path(self, path: str) -> "ExplainedPath":
        """Tell what each layer has at a path, which is seen, what hides it, and what a write to it would copy."""
        from lamina.usecases.explain import Explaining

        return Explaining(self._engine.context).path(self.record, path)

    def size_bytes(self) -> int:
        """What its own layer takes on disk."""
        record = self.record
        context = self._engine.context
        return context.layers.usage(context.layers.driver(record.driver), record.id, record.parents).size_bytes

    def migrate(self, driver: str, *, restart: bool = False, step: Callable[[str], None] = lambda _text: None) -> "Migrated":
        """Move it to another storage driver, proved equal before the old layer goes; `restart` stops it for that if it runs."""
        from lamina.usecases.migrate import Migration

        engine = self._engine
        return Migration(engine.context, engine.creation, engine.control).migrate(self.record, driver, restart=restart, step=step)

    def top(self) -> list[tuple[str, ...]]:
        """List its processes; columns as `lamina.runtime.processes.TITLES`."""
        return self._engine.control.top(self.record)

    def process_table(self, ps_options: Sequence[str] = ()) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """List its processes: the columns' titles and the rows; with options, those of the host's ps(1)."""
        if not ps_options:
            from lamina.runtime.processes import TITLES

            return TITLES, self.top()
        from lamina.usecases.host_ps import host_ps  # subprocess is 10 ms

        return host_ps(ps_options, set(self._engine.control.pids(self.record)))

    def logs(self) -> str:
        """Give all that it has written so far, both streams in the order of their coming."""
        from lamina.usecases.follow import read_lines

        return "".join(line.text for line in read_lines(self._engine.context.log_path(self.id)))

    def inspect(self) -> dict[str, Any]:
        """Give the document that `inspect` shows: Docker's names."""
        from lamina.usecases.inspect import container_document

        return container_document(self._engine.context, self._engine.volumes, self.record)


def captured(run: Callable[[int, int], int | None]) -> str:
    """Run a command with its output going into memory; gives what it wrote, or raises with its complaint."""
    out, err = os.fdopen(os.memfd_create("stdout"), "rb"), os.fdopen(os.memfd_create("stderr"), "rb")
    with out, err:
        code = run(out.fileno(), err.fileno())
        out.seek(0)
        err.seek(0)
        if code:
            raise LaminaError(f"the command ended with {code}: {err.read().decode(errors='replace').strip()}")
        return out.read().decode(errors="replace")
