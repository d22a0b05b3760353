"""The containers of an engine: making, running, finding and pruning them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lamina.container import ContainerHandle, captured
from lamina.errors import ConflictError, NotFoundError
from lamina.model.container import Container, ContainerConfig, MountRequest, Status
from lamina.store.operations import Operation

if TYPE_CHECKING:
    from lamina.engine import Engine
    from lamina.model.confinement import Confinement
    from lamina.model.isolation import Isolation
    from lamina.model.limits import Limits
    from lamina.model.network import EndpointRequest, PortMapping
    from lamina.model.supervision import Supervision
    from lamina.usecases.transfers import Pulling


class ContainersAPI:
    """The containers of an engine."""

    def __init__(self, engine: "Engine") -> None:
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
        network: str = "",
        networks: Sequence["EndpointRequest"] = (),
        ports: Sequence["PortMapping"] = (),
        publish_all: bool = False,
        extra_hosts: Sequence[str] = (),
        dns: Sequence[str] = (),
        dns_search: Sequence[str] = (),
        dns_options: Sequence[str] = (),
        mounts: Sequence[MountRequest] = (),
        read_only: bool = False,
        auto_remove: bool = False,
        init: bool = False,
        storage_options: Mapping[str, str] | None = None,
        isolation: "Isolation | None" = None,
        limits: "Limits | None" = None,
        supervision: "Supervision | None" = None,
        confinement: "Confinement | None" = None,
        pull: str = "",
    ) -> ContainerHandle:
        """Create a container; it is started with `start`.

        `image` is a name or an id, `command` the words after it, `driver` the storage driver's name; `pull` says when the image is
        pulled: `missing`, `always` or `never`, else as the settings say. `network` is a network's name, the settings' default if it
        is left out; `networks` are several, or one of which more is asked. The rest is what `create` on the command line takes.

        Raises `NotFoundError`, `ConflictError`, `UsageError`, `NotUsableError`; nothing is left behind.
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
            networks=tuple(networks),
            ports=tuple(ports),
            publish_all=publish_all,
            extra_hosts=tuple(extra_hosts),
            dns=tuple(dns),
            dns_search=tuple(dns_search),
            dns_options=tuple(dns_options),
            mounts=tuple(mounts),
            read_only=read_only,
            auto_remove=auto_remove,
            init=init,
            storage_options=dict(storage_options or {}),
            isolation=isolation,
            limits=limits,
            supervision=supervision,
            confinement=confinement,
        )
        return self.create_from(config, name=name, driver=driver, pull=pull)

    def create_from(
        self, config: ContainerConfig, *, name: str = "", driver: str = "", pull: str = "", pulling: "Pulling | None" = None
    ) -> ContainerHandle:
        """Create a container from a whole configuration. `pulling` shows a pull of its image, if there is one."""
        self._ensure_image(config.image, pull, pulling)
        operation = Operation(name="create")
        creation = self._engine.creation
        container = self._owning(operation, lambda: creation.create(config, name=name, driver=driver, operation=operation))
        creation.created(container, operation)
        return ContainerHandle(self._engine, container.id)

    def run(self, image: str, command: Sequence[str] = (), **options: Any) -> ContainerHandle:
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
            return captured(lambda out, err: container.start_attached(stdout_fd=out, stderr_fd=err))

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
        pull: str = "",
        pulling: "Pulling | None" = None,
    ) -> tuple[ContainerHandle, int | None]:
        """Create and start in one operation, what `run` on the command line does; gives the exit code, None if left running."""
        engine = self._engine
        self._ensure_image(config.image, pull, pulling)
        operation = Operation(name="run")
        container = self._owning(operation, lambda: engine.creation.create(config, name=name, driver=driver, operation=operation))
        handle = ContainerHandle(engine, container.id)
        try:
            engine.context.happened("created", container)
            created(container)
            if not config.auto_remove:
                engine.creation.sync(container)  # its record is made durable by the start
            container, launched = engine.starter.start(container, operation=operation, terminal_size=terminal_size)
        except BaseException:
            if config.auto_remove:
                handle.remove(force=True, volumes=True)
            raise
        control = engine.control  # imported while the command begins, so that its end needn't wait for it
        if detach:
            control.leave(container, launched)
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

    def _ensure_image(self, name: str, policy: str, pulling: "Pulling | None") -> None:
        """Pull the image if it isn't here, or as the policy says. Nothing of registries is imported when it is here."""
        context = self._engine.context
        policy = policy or context.pull_policy
        if policy == "never":
            return  # whoever looks it up says that it isn't there
        if policy != "always":
            try:
                context.images.resolve(name)
            except NotFoundError:
                pass
            else:
                return
        from lamina.usecases.transfers import ensure_image

        ensure_image(context, name, policy, pulling=pulling)

    def _owning(self, operation: Operation, make: Callable[[], Container]) -> Container:
        try:
            return make()
        except BaseException:
            with self._engine.context.database.transaction() as tx:
                operation.end_unless_owning(tx)
            raise

    def get(self, name: str) -> ContainerHandle:
        """Find a container by name, id, or the beginning of an id; raises `NotFoundError`."""
        return ContainerHandle(self._engine, self._engine.context.records.find(name).id)

    def all(self, *, running_only: bool = False) -> list[ContainerHandle]:
        """List the containers, the newest first."""
        found = self._engine.context.records.all()
        return [ContainerHandle(self._engine, each.id) for each in found if each.is_up or not running_only]

    def prune(self, *, matches: Callable[[Container], bool] = lambda _container: True) -> tuple[list[str], int]:
        """Remove every container that isn't running and that `matches` accepts; gives their ids and the bytes freed."""
        removed, freed = [], 0
        for container in self._engine.context.records.all():
            if not container.is_up and container.status is not Status.REMOVING and matches(container):
                handle = ContainerHandle(self._engine, container.id)
                size = handle.size_bytes()
                try:
                    handle.remove()
                except ConflictError:
                    continue
                removed.append(container.id)
                freed += size
        return removed, freed
