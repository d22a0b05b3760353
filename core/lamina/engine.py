"""The engine: everything that a front end calls, one method each.

    from lamina.engine import Engine

    with Engine() as engine:
        with engine.containers.run("busybox", ["sleep", "60"]) as container:
            container.exec(["touch", "/new"])
            print(container.diff())

The command line is one front end; a Python program is another. Errors are those of `lamina.errors`; nothing here prints or exits.
All state is on disk: two engines on one root directory, in one process or in several, see the same.

    engine.containers   `ContainersAPI`: create, run, get, all, prune
    engine.images       `ImagesAPI`: bootstrap, load, save, import, tag, remove, all, history, prune
    engine.volumes      `lamina.usecases.volumes.Volumes`: create, find, all, remove, prune
    engine.system       `lamina.usecases.system.System`: info, disk usage, drivers
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lamina.api.types import Change
from lamina.errors import ConflictError, LaminaError, NotFoundError
from lamina.model.container import Container, ContainerConfig, MountRequest, Status
from lamina.model.reference import Reference
from lamina.store.images import HistoryRow, Image, ImageUser, Removal
from lamina.store.operations import Operation
from lamina.usecases.content import Content
from lamina.usecases.context import Context
from lamina.usecases.control import Control
from lamina.usecases.create import Creation
from lamina.usecases.enter import Entering
from lamina.usecases.recovery import Recovery
from lamina.usecases.settings import read_settings
from lamina.usecases.start import Starter
from lamina.usecases.system import System
from lamina.usecases.volumes import Volumes

if TYPE_CHECKING:  # what reads and writes archives is imported by the method that does it
    from lamina.archive.compression import Readable, Writable
    from lamina.store.image_archive import LoadedImage
    from lamina.usecases.adopt import Adopted, Wishes
    from lamina.usecases.copy import Copying
    from lamina.usecases.migrate import Migrated

Progress = Callable[[int], None]


class Engine:
    """One root directory of images, containers and volumes.

    Arguments left out come from the environment, the configuration file, or are built in (`usecases/settings.py`). `warn` is
    told what a person should know, a line at a time. Opening puts right what killed commands left behind.
    """

    def __init__(
        self, *, root_dir: str = "", run_dir: str = "", storage_driver: str = "", warn: Callable[[str], None] = warnings.warn
    ) -> None:
        if os.geteuid() != 0:
            raise LaminaError("lamina must be run as root", hint="use sudo")
        settings = read_settings(root_dir=root_dir, run_dir=run_dir, storage_driver=storage_driver)
        self.context = Context.open(
            root_dir=settings.root_dir, run_dir=settings.run_dir, chosen_driver=settings.storage_driver, warn=warn
        )
        self.volumes = Volumes(self.context)
        self.creation = Creation(self.context, self.volumes)
        self.starter = Starter(self.context, self.volumes)
        self.control = Control(self.context, self.starter, self.volumes)
        self.entering = Entering(self.context, self.starter)
        self.content = Content(self.context, self.control)
        self.containers = ContainersAPI(self)
        self.images = ImagesAPI(self)
        self.system = System(self.context, self.volumes, self.content)
        self.recovery = Recovery(self.context, self.creation, self.starter, self.control, self.volumes)
        self.recovery.recover()

    def close(self) -> None:
        """Let go of the database; the engine can't be used any more."""
        self.context.reap()
        self.context.database.close()

    def adopt(
        self,
        path: str,
        wishes: "Wishes | None" = None,
        *,
        step: Callable[[str], None] = lambda _text: None,
        progress: Progress | None = None,
    ) -> "Adopted":
        """Take over the images and containers of a Docker data directory, which is only read."""
        from lamina.usecases.adopt import Adoption, Wishes

        adoption = Adoption(self.context, self.creation, self.volumes)
        return adoption.adopt(path, wishes or Wishes(), step=step, progress=progress or (lambda _bytes: None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class ContainersAPI:
    """The containers of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self,
        image: str,
        command: Sequence[str] = (),
        *,
        name: str = "",
        driver: str = "",
        entrypoint: Sequence[str] = (),
        env: Sequence[str] = (),
        working_dir: str = "",
        user: str = "",
        hostname: str = "",
        domainname: str = "",
        labels: Mapping[str, str] | None = None,
        tty: bool = False,
        open_stdin: bool = False,
        stop_signal: str = "",
        stop_timeout_s: int | None = None,
        network: str = "none",
        mounts: Sequence[MountRequest] = (),
        read_only: bool = False,
        auto_remove: bool = False,
        init: bool = False,
        storage_options: Mapping[str, str] | None = None,
    ) -> "ContainerHandle":
        """Create a container; it is started with `start`.

        `image` is a name or an id, `command` the words after it, `driver` the storage driver's name. The rest is what `create` on
        the command line takes. Raises `NotFoundError`, `ConflictError`, `UsageError`, `NotUsableError`; nothing is left behind.
        """
        config = ContainerConfig(
            image=image,
            command=tuple(command),
            entrypoint=tuple(entrypoint),
            env=tuple(env),
            working_dir=working_dir,
            user=user,
            hostname=hostname,
            domainname=domainname,
            labels=dict(labels or {}),
            tty=tty,
            open_stdin=open_stdin,
            stop_signal=stop_signal,
            stop_timeout_s=stop_timeout_s,
            network=network,
            mounts=tuple(mounts),
            read_only=read_only,
            auto_remove=auto_remove,
            init=init,
            storage_options=dict(storage_options or {}),
        )
        return self.create_from(config, name=name, driver=driver)

    def create_from(self, config: ContainerConfig, *, name: str = "", driver: str = "") -> "ContainerHandle":
        """Create a container from a whole configuration."""
        operation = Operation(name="create")
        creation = self._engine.creation
        container = self._owning(operation, lambda: creation.create(config, name=name, driver=driver, operation=operation))
        creation.created(container, operation)
        return ContainerHandle(self._engine, container.id)

    def run(self, image: str, command: Sequence[str] = (), **options: Any) -> "ContainerHandle":
        """Create a container and start it in the background; takes what `create` takes.

        Used as a context manager it is stopped and removed at the end.
        """
        container = self.create(image, command, **options)
        try:
            container.start()
        except BaseException:
            container.remove(force=True, volumes=True)
            raise
        return container

    def output(self, image: str, command: Sequence[str] = (), **options: Any) -> str:
        """Run a command to its end in a new container, remove that, and give what the command wrote to standard output.

        Raises `LaminaError` with what it wrote to standard error if it fails.
        """
        with self.create(image, command, **{**options, "auto_remove": True}) as container:  # gone even if it can't be started
            return _captured(lambda out, err: container.start_attached(stdout_fd=out, stderr_fd=err))

    def run_attached(
        self,
        config: ContainerConfig,
        *,
        name: str = "",
        driver: str = "",
        stdin_fd: int = -1,
        stdout_fd: int = -1,
        stderr_fd: int = -1,
        detach: bool = False,
        detach_keys: str | None = None,
        pass_signals: bool = True,
        terminal_size: tuple[int, int] = (0, 0),
        created: Callable[[Container], None] = lambda _container: None,
    ) -> tuple["ContainerHandle", int | None]:
        """Create and start in one operation, what `run` on the command line does; gives the exit code, None if left running."""
        engine = self._engine
        operation = Operation(name="run")
        container = self._owning(operation, lambda: engine.creation.create(config, name=name, driver=driver, operation=operation))
        handle = ContainerHandle(engine, container.id)
        try:
            created(container)
            container, launched = engine.starter.start(container, operation=operation, terminal_size=terminal_size)
        except BaseException:
            if config.auto_remove:
                handle.remove(force=True, volumes=True)
            raise
        if detach:
            launched.channel.close()
            return handle, None
        code = engine.starter.relay(
            container,
            launched,
            stdin_fd=stdin_fd,
            stdout_fd=stdout_fd,
            stderr_fd=stderr_fd,
            pass_signals=pass_signals,
            **({} if detach_keys is None else {"detach_keys": detach_keys}),
        )
        if code is not None and config.auto_remove:
            handle.remove(volumes=True)
        return handle, code

    def _owning(self, operation: Operation, make: Callable[[], Container]) -> Container:
        try:
            return make()
        except BaseException:
            with self._engine.context.database.transaction() as tx:
                operation.end_unless_owning(tx)
            raise

    def get(self, name: str) -> "ContainerHandle":
        """Find a container by name, id, or the beginning of an id; raises `NotFoundError`."""
        return ContainerHandle(self._engine, self._engine.context.records.find(name).id)

    def all(self, *, running_only: bool = False) -> list["ContainerHandle"]:
        """List the containers, the newest first."""
        found = self._engine.context.records.all()
        return [ContainerHandle(self._engine, each.id) for each in found if each.is_active or not running_only]

    def prune(self, *, matches: Callable[[Container], bool] = lambda _container: True) -> tuple[list[str], int]:
        """Remove every container that isn't running and that `matches` accepts; gives their ids and the bytes freed."""
        removed, freed = [], 0
        for container in self._engine.context.records.all():
            if not container.is_active and container.status is not Status.REMOVING and matches(container):
                handle = ContainerHandle(self._engine, container.id)
                size = handle.size_bytes()
                try:
                    handle.remove()
                except ConflictError:
                    continue
                removed.append(container.id)
                freed += size
        return removed, freed


class ContainerHandle:
    """One container. What is asked is read anew each time."""

    def __init__(self, engine: Engine, container_id: str) -> None:
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
        _container, launched = self._engine.starter.start(self.record)
        launched.channel.close()

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

    def wait(self) -> int:
        """Wait until it has ended; gives its exit code."""
        return self._engine.control.wait(self.record)

    def pause(self) -> None:
        """Freeze its processes."""
        self._engine.control.pause(self.record)

    def unpause(self) -> None:
        """Let them go on."""
        self._engine.control.unpause(self.record)

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
            detach=detach,
            stdin_fd=stdin_fd,
            stdout_fd=stdout_fd,
            stderr_fd=stderr_fd,
            terminal_size=terminal_size,
            **({} if detach_keys is None else {"detach_keys": detach_keys}),
        )

    def exec_output(self, command: Sequence[str], **options: Any) -> str:
        """Run a command in it and give what that wrote to standard output. Raises `LaminaError` if it fails."""
        return _captured(lambda out, err: self.exec(command, stdout_fd=out, stderr_fd=err, **options))

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

    def diff(self) -> list[Change]:
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
        from lamina.runtime.logs import read_log

        try:
            with open(self._engine.context.log_path(self.id), encoding="utf-8") as file:
                return "".join(text for _time, _stream, text in read_log(file))
        except FileNotFoundError:
            return ""

    def inspect(self) -> dict[str, Any]:
        """Give the document that `inspect` shows: Docker's names."""
        from lamina.usecases.inspect import container_document

        return container_document(self._engine.context, self._engine.volumes, self.record)


class ImagesAPI:
    """The images of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.store = engine.context.images

    def bootstrap(self, name: str = "busybox") -> Image:
        """Make a small base image out of the host's own busybox, or its shell and core tools."""
        from lamina.store.bootstrap import bootstrap

        return bootstrap(self.store, names=[Reference.parse(name)])

    def get(self, name: str) -> Image:
        """Find an image by name, id or an id's beginning; raises `NotFoundError`."""
        return self.store.resolve(name)

    def all(self) -> list[Image]:
        """List every image, the newest first."""
        return self.store.images()

    def tag(self, image: str, name: str) -> None:
        """Give an image one more name."""
        self.store.tag(self.store.resolve(image), Reference.parse(name))

    def remove(self, name: str, *, force: bool = False) -> Removal:
        """Take a name away, and with the last one the image and its unpacked layers."""
        removal = self.store.remove(name, users=self._users, force=force)
        self._discard_layers(removal)
        return removal

    def prune(
        self, *, all_images: bool = False, matches: Callable[[Image], bool] = lambda _image: True
    ) -> tuple[list[Removal], int]:
        """Remove images without a name, or with `all_images` all that no container was made from; gives the bytes freed too.

        Only those that `matches` accepts. The bytes are those of the blobs and of the unpacked layers.
        """
        removals: list[Removal] = []
        freed = 0
        for image in self.store.images():
            if (self.store.names(image) and not all_images) or self._users(str(image.id)) or not matches(image):
                continue
            try:
                removal = self.store.remove(str(image.id), users=self._users, force=True, collect=False)
            except (ConflictError, NotFoundError):  # a container was made from it meanwhile, or somebody else has removed it
                continue
            freed += self._discard_layers(removal, measured=True)
            removals.append(removal)
        return removals, freed + self.store.delete_unreferenced_blobs()

    def history(self, name: str) -> list[HistoryRow]:
        """Tell how an image came to be, the newest step first."""
        return self.store.history(self.store.resolve(name))

    def load(self, source: "Readable", *, max_bytes: int | None = None, progress: Progress | None = None) -> "list[LoadedImage]":
        """Take in every image of an archive, Docker's or OCI's, packed or not, from a file or a pipe.

        `max_bytes` limits what it may unpack to. Raises `ArchiveError`, `IntegrityError`; then nothing of the archive is left.
        """
        from lamina.store.image_archive import load
        from lamina.store.layer_ingest import DEFAULT_MAX_BYTES

        return load(self.store, source, max_bytes=DEFAULT_MAX_BYTES if max_bytes is None else max_bytes, progress=progress)

    def saved_bytes(self, names: Sequence[str], *, form: str = "docker") -> int:
        """About how long the archive of `save` becomes: its layers, packed or not."""
        from lamina.usecases.images import selected_images

        selected = selected_images(self.store, names)
        return sum(one.image.stored_bytes if form == "oci" else one.image.size_bytes for one in selected)

    def save(self, names: Sequence[str], out: "Writable", *, form: str = "docker", progress: Progress | None = None) -> None:
        """Write images as one archive: `docker`, or `oci`, with the blobs as they lie.

        A name without a tag means all tags of that repository; what is named by id is saved without a name.
        """
        from lamina.store.image_archive import save
        from lamina.usecases.images import selected_images

        save(self.store, selected_images(self.store, names), out, form=form, progress=progress)

    def import_rootfs(
        self,
        source: "Readable",
        name: str = "",
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
        max_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Make an image of one layer out of a root file system's tar, packed or not. `changes` are Dockerfile instructions."""
        from lamina.store.image_build import import_rootfs
        from lamina.store.layer_ingest import DEFAULT_MAX_BYTES

        return import_rootfs(
            self.store,
            source,
            changes=changes,
            message=message,
            platform=platform,
            progress=progress,
            names=[Reference.parse(name)] if name else [],
            max_bytes=DEFAULT_MAX_BYTES if max_bytes is None else max_bytes,
        )

    def inspect(self, name: str) -> dict[str, Any]:
        """Give the document that `image inspect` shows: Docker's names."""
        from lamina.usecases.inspect import image_document

        return image_document(self._engine.context, self.store.resolve(name))

    def _users(self, image_id: str) -> list[ImageUser]:
        return [
            ImageUser(container_id=each.id, is_running=each.is_active) for each in self._engine.context.records.of_image(image_id)
        ]

    def _discard_layers(self, removal: Removal, *, measured: bool = False) -> int:
        if not removal.chain_ids:
            return 0
        tops = {self.store.config(image).chain_ids[-1].hex for image in self.store.images() if self.store.config(image).chain_ids}
        keys = [chain.hex for chain in reversed(removal.chain_ids)]
        return self._engine.context.layers.discard_unused(keys, lambda key: key in tops, measured=measured)


def _captured(run: Callable[[int, int], int | None]) -> str:
    """Run a command with its output going into memory; gives what it wrote, or raises with its complaint."""
    out, err = os.fdopen(os.memfd_create("stdout"), "rb"), os.fdopen(os.memfd_create("stderr"), "rb")
    with out, err:
        code = run(out.fileno(), err.fileno())
        out.seek(0)
        err.seek(0)
        if code:
            raise LaminaError(f"the command ended with {code}: {err.read().decode(errors='replace').strip()}")
        return out.read().decode(errors="replace")


__all__ = ["ContainerHandle", "ContainersAPI", "Engine", "ImagesAPI"]
