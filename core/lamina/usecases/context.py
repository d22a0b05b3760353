"""What every use case works with: the stores of one root directory, the plugin host, and where a container's files lie."""

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lamina.dataclasses import dataclass, field, fields
from lamina.errors import LaminaError
from lamina.linux.fs import syncfs
from lamina.model.container import Container, MountRequest
from lamina.store.containers import ContainerRecords
from lamina.store.content import ContentStore
from lamina.store.database import Database
from lamina.store.events import EventJournal
from lamina.store.images import ImageStore
from lamina.usecases.settings import choose_driver

if TYPE_CHECKING:  # a listing needs no plugin and no layer
    from lamina.api.drivers import NetworkDriver, VolumeDriver
    from lamina.api.host import PluginHost
    from lamina.store.layers import LayerStore

DIRECTORY_MODE = 0o710
DEFAULT_VOLUME_DRIVER = next(str(each.default) for each in fields(MountRequest) if each.name == "volume_driver")

_JOURNALED = {"created": "create", "started": "start", "removed": "destroy"}
"""In Docker's words; the end is written down by the monitor, which sees it."""


@dataclass(slots=True, kw_only=True)
class Context:
    """One root directory, opened. `warn` is told what a person should know, a line at a time."""

    root_dir: str
    run_dir: str
    chosen_driver: str
    """The driver asked for by flag, environment or file; "" for the store's own default."""
    warn: Callable[[str], None]
    database: Database
    images: ImageStore
    records: ContainerRecords
    pull_policy: str = "missing"
    """When `run` and `create` pull an image: `missing`, `always` or `never`."""
    default_network: str = "none"
    """The network of a container for which none is named."""
    log_driver: str = ""
    """Of a container for which none is named; "" for json-file."""
    log_options: Mapping[str, str] = field(default_factory=dict)
    labels_containers: bool = False
    """Whether a container has a label of SELinux unasked."""
    journal: EventJournal
    children: set[int] = field(default_factory=set)
    """Monitors that this process has forked and must reap."""
    _host: "PluginHost | None" = None
    _layers: "LayerStore | None" = None

    @classmethod
    def open(
        cls,
        *,
        root_dir: str,
        run_dir: str,
        chosen_driver: str,
        warn: Callable[[str], None],
        pull_policy: str = "missing",
        default_network: str = "none",
        log_driver: str = "",
        log_options: Mapping[str, str] | None = None,
        labels_containers: bool = False,
    ) -> "Context":
        """Open a root directory, made if it isn't there. Raises `LaminaError` if that can't be."""
        for path in (root_dir, run_dir):
            if not os.path.isabs(path):
                raise LaminaError(f"'{path}' is not an absolute path")
        try:
            for path, mode in (
                (root_dir, DIRECTORY_MODE),
                (os.path.join(root_dir, "containers"), DIRECTORY_MODE),
                (run_dir, 0o700),
                (os.path.join(run_dir, "locks"), 0o700),
                (os.path.join(run_dir, "containers"), 0o700),
            ):
                if not os.path.isdir(path):
                    os.makedirs(path, mode=mode, exist_ok=True)
        except OSError as error:
            raise LaminaError(
                f"'{error.filename}' can't be made: {(error.strerror or '').lower()}",
                hint="choose another place with --root or LAMINA_ROOT",
            ) from error
        database = Database(os.path.join(root_dir, "lamina.db"))
        return cls(
            root_dir=root_dir,
            run_dir=run_dir,
            chosen_driver=chosen_driver,
            warn=warn,
            database=database,
            images=ImageStore(ContentStore(root_dir), database),
            records=ContainerRecords(database=database),
            pull_policy=pull_policy,
            default_network=default_network,
            journal=EventJournal(root_dir, run_dir),
            log_driver=log_driver,
            log_options=log_options or {},
            labels_containers=labels_containers,
        )

    @property
    def host(self) -> "PluginHost":
        """All plugins."""
        if self._host is None:
            from lamina.api.host import PluginHost

            cache_path = os.path.join(self.root_dir, "plugins.json")
            self._host = PluginHost(cache_path=cache_path, warn=self.warn, load_fallbacks=_load_fallbacks)
        return self._host

    @property
    def layers(self) -> "LayerStore":
        """The layers of every storage driver."""
        if self._layers is None:
            from lamina.store.layers import LayerStore

            self._layers = LayerStore.open(root_dir=self.root_dir, run_dir=self.run_dir, database=self.database, host=self.host)
        return self._layers

    @property
    def default_driver(self) -> str:
        """The storage driver of containers that name none."""
        if not self.chosen_driver:
            self.chosen_driver = choose_driver(self.root_dir, self.host, self.layers)
        return self.chosen_driver

    def container_dir(self, container_id: str) -> str:
        """A container's log, hosts, hostname and resolv.conf."""
        return os.path.join(self.root_dir, "containers", container_id)

    def container_run_dir(self, container_id: str) -> str:
        """What of a container dies with the boot: its socket."""
        return os.path.join(self.run_dir, "containers", container_id)

    def log_path(self, container_id: str) -> str:
        """A container's log, by Docker's name for it."""
        return os.path.join(self.container_dir(container_id), f"{container_id}-json.log")

    def exit_path(self, container_id: str) -> str:
        """Where the monitor leaves the exit code and the time."""
        return os.path.join(self.container_dir(container_id), "exit")

    def health_path(self, container_id: str) -> str:
        """What checks of its health have found."""
        return os.path.join(self.container_dir(container_id), "health.json")

    def socket_path(self, container_id: str) -> str:
        """Where the monitor takes clients."""
        return os.path.join(self.container_run_dir(container_id), "attach")

    @property
    def filter_dir(self) -> str:
        """Where compiled seccomp filters are kept."""
        return os.path.join(self.root_dir, "seccomp")

    def build_dir(self, operation_id: int) -> str:
        """What a build needs while it runs; recovery removes that of one that was killed."""
        return os.path.join(self.root_dir, "tmp", f"build-{operation_id}")

    def network(self, name: str) -> "NetworkDriver":
        """Give the network driver of that name."""
        from lamina.api.drivers import NetworkDriver

        return NetworkDriver(host=self.host, asked_name=name)

    def plain_network(self, name: str) -> "NetworkDriver | None":
        """Give the driver whose own network has that name, if it is one that makes no networks (`none`, `host`)."""
        if name not in self.host.names("network"):
            return None
        driver = self.network(name)
        return None if driver.makes_networks else driver

    def volume_driver(self, name: str) -> "VolumeDriver":
        """Give the volume driver of that name, with its folder."""
        from lamina.api.drivers import VolumeDriver

        driver = VolumeDriver(host=self.host, asked_name=name, home="")
        folder = "volumes" if driver.name == DEFAULT_VOLUME_DRIVER else f"volumes-{driver.name}"
        driver.home = os.path.join(self.root_dir, folder)
        return driver

    def container_event(self, action: str, container: Container, *, time_ns: int = 0, **attributes: str) -> None:
        """Write down in the journal what happened to a container, in Docker's words."""
        self.journal.append("container", action, container.id, self.event_attributes(container, **attributes), time_ns=time_ns)

    def event_attributes(self, container: Container, **attributes: str) -> dict[str, str]:
        """What every event of a container tells: its labels, image and name."""
        config = container.config
        return {**config.labels, "image": config.image, "name": container.name, **attributes}

    def sync(self, *paths: str) -> None:
        """Make durable what was written at these places, before a record says that it is there: once for each file system."""
        for path in {os.stat(path).st_dev: path for path in paths}.values():
            syncfs(path)

    def happened(self, action: str, container: Container, **attributes: str) -> None:
        """Write down what happened and tell the plugins that watch.

        Each by itself: one that fails is a warning with its name, and the others still hear.
        """
        if action in _JOURNALED:
            self.container_event(_JOURNALED[action], container, time_ns=container.started_ns if action == "started" else 0)
        if not self.host.names("watch"):
            return
        from lamina.api.types import ContainerEvent

        event = ContainerEvent(
            action=action, container_id=container.id, name=container.name, time_ns=time.time_ns(), attributes=attributes
        )
        for name, tell in self.host.watchers("container_event"):
            try:
                tell(event=event)
            except Exception as error:  # noqa: BLE001 - a watcher must not stop what it watches
                self.warn(f"plugin '{name}' failed in 'container_event': {type(error).__name__}: {error}")

    def reap(self) -> None:
        """Let those monitors go that have ended."""
        for pid in list(self.children):
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self.children.discard(pid)
            except ChildProcessError:
                self.children.discard(pid)


def _load_fallbacks() -> object:
    from lamina.archive.fallback import fallback

    return fallback
