"""The system as a whole: drivers and what they can do, disk usage, facts about this machine and store."""

import os
from dataclasses import dataclass

from lamina.api.types import Probe, Usage
from lamina.errors import LaminaError
from lamina.model.container import Status
from lamina.model.digest import Digest
from lamina.usecases.content import Content
from lamina.usecases.context import Context
from lamina.usecases.volumes import Volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverStatus:
    """An installed storage driver. `probe` is None if the plugin is broken; then `problem` says how."""

    name: str
    aliases: tuple[str, ...]
    home: str
    target: str
    """The entry point, "module:attribute"."""
    probe: Probe | None
    problem: str = ""
    is_default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerUsage:
    """What one driver holds: `unpacked` for image layers, `written` for the containers' own."""

    driver: str
    layers: int
    unpacked: Usage
    containers: int
    written: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """What takes space, apart: packed blobs, unpacked layers by driver, volumes. Bytes as du(1) counts them."""

    images: int
    images_in_use: int
    blobs_bytes: int
    unpacked: tuple[LayerUsage, ...]
    volumes: int
    volumes_in_use: int
    volumes_bytes: int
    volumes_reclaimable_bytes: int
    images_reclaimable_bytes: int
    containers: int
    containers_running: int
    containers_bytes: int
    containers_reclaimable_bytes: int


class System:
    """Asks about the whole."""

    def __init__(self, context: Context, volumes: Volumes, content: Content) -> None:
        self.context = context
        self.volumes = volumes
        self.content = content

    def drivers(self) -> list[DriverStatus]:
        """List the installed storage drivers, broken ones too."""
        by_target: dict[str, list[str]] = {}
        for name in self.context.host.names("storage"):
            by_target.setdefault(self.context.host.entries()[f"storage.{name}"] or name, []).append(name)
        return sorted((self._driver(names) for names in by_target.values()), key=lambda status: status.name)

    def driver(self, name: str) -> DriverStatus:
        """Tell about one driver; raises `NotFoundError`."""
        found = next((status for status in self.drivers() if name == status.name or name in status.aliases), None)
        if found is None:
            self.context.layers.driver(name)  # raises, naming what is installed
            raise LaminaError(f"storage driver '{name}' can't be asked")
        return found

    def _driver(self, names: list[str]) -> DriverStatus:
        target = self.context.host.entries()[f"storage.{names[0]}"]
        try:
            driver = self.context.layers.driver(names[0])
            probe = driver.probe()
        except (LaminaError, OSError) as error:
            return DriverStatus(name=names[0], aliases=tuple(names[1:]), home="", target=target, probe=None, problem=str(error))
        return DriverStatus(
            name=driver.name,
            aliases=tuple(name for name in names if name != driver.name),
            home=driver.home,
            target=target,
            probe=probe,
            is_default=driver.name == self._default_name(),
        )

    def _default_name(self) -> str:
        try:
            return self.context.layers.driver(self.context.default_driver).name
        except LaminaError:
            return ""

    def disk_usage(self) -> DiskUsage:
        """Count what everything takes; the sums equal du(1)'s."""
        context = self.context
        containers = {container.id: container for container in context.records.all()}
        layers: dict[str, LayerUsage] = {}
        container_bytes: dict[str, int] = {}
        children: dict[tuple[str, str], str | None] = {}
        records = context.layers.records()
        for name, key, parent, _state in records:
            children[name, key] = parent
        for name, key, _parent, state in records:
            if state not in {"sealed", "writable"}:
                continue
            driver = context.layers.driver(name)
            usage = driver.usage(key, _chain(children, name, key))
            before = layers.get(name) or LayerUsage(
                driver=name, layers=0, unpacked=Usage(size_bytes=0, inodes=0), containers=0, written=Usage(size_bytes=0, inodes=0)
            )
            own = key in containers
            if own:
                container_bytes[key] = usage.size_bytes
            layers[name] = LayerUsage(
                driver=name,
                layers=before.layers + (not own),
                unpacked=before.unpacked if own else _sum(before.unpacked, usage),
                containers=before.containers + own,
                written=_sum(before.written, usage) if own else before.written,
            )
        used_images = {container.image_id for container in containers.values()}
        images = context.images.images()
        volumes = self.volumes.all()
        sizes = {volume.name: self.volumes.size_bytes(volume) for volume in volumes}
        in_use = {volume.name for volume in volumes if self.volumes.users(volume.name)}
        idle = [container.id for container in containers.values() if not container.is_active]
        return DiskUsage(
            images=len(images),
            images_in_use=sum(str(image.id) in used_images for image in images),
            blobs_bytes=self._blobs_bytes(),
            unpacked=tuple(layers[name] for name in sorted(layers)),
            volumes=len(volumes),
            volumes_in_use=len(in_use),
            volumes_bytes=sum(sizes.values()),
            volumes_reclaimable_bytes=sum(sizes[name] for name in sizes if name not in in_use),
            images_reclaimable_bytes=self._reclaimable_bytes(used_images),
            containers=len(containers),
            containers_running=sum(container.status is Status.RUNNING for container in containers.values()),
            containers_bytes=sum(container_bytes.values()),
            containers_reclaimable_bytes=sum(container_bytes.get(each, 0) for each in idle),
        )

    def _blobs_bytes(self) -> int:
        total = 0
        for digest in self.context.images.content.walk():
            try:
                total += os.stat(self.context.images.content.blob_path(digest)).st_blocks * 512
            except FileNotFoundError:
                continue
        return total

    def _reclaimable_bytes(self, used_images: set[str]) -> int:
        """What would be free if every image without a container were removed."""
        rows = self.context.database.connection.execute("SELECT image_id, digest FROM image_blobs").fetchall()
        kept = {digest for image_id, digest in rows if image_id in used_images}
        content = self.context.images.content
        return sum(content.size_bytes(Digest(digest)) for digest in {digest for _image, digest in rows} - kept)

    def info(self) -> dict[str, object]:
        """Facts about this store and machine, under Docker's names where Docker has them."""
        containers = self.context.records.all()
        name = self.context.default_driver
        driver = self.context.layers.driver(name)
        return {
            "Containers": len(containers),
            "ContainersRunning": sum(container.status is Status.RUNNING for container in containers),
            "ContainersPaused": sum(container.status is Status.PAUSED for container in containers),
            "ContainersStopped": sum(not container.is_active for container in containers),
            "Images": len(self.context.images.images()),
            "Driver": driver.name,
            "DriverStatus": [["Method", driver.probe().method], ["Home", driver.home]],
            "Plugins": {
                "Storage": self.context.host.names("storage"),
                "Network": self.context.host.names("network"),
                "Volume": self.context.host.names("volume"),
                "Watch": self.context.host.names("watch"),
            },
            "RootDir": self.context.root_dir,
            "RunDir": self.context.run_dir,
            "KernelVersion": os.uname().release,
            "OperatingSystem": _os_name(),
            "OSType": "linux",
            "Architecture": os.uname().machine,
            "NCPU": os.cpu_count() or 1,
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "Name": os.uname().nodename,
            "DefaultRuntime": "lamina",
        }


def _chain(parents: dict[tuple[str, str], str | None], driver: str, key: str) -> tuple[str, ...]:
    chain = []
    parent = parents.get((driver, key))
    while parent is not None:
        chain.append(parent)
        parent = parents.get((driver, parent))
    return tuple(chain)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(size_bytes=one.size_bytes + other.size_bytes, inodes=one.inodes + other.inodes)


def _os_name() -> str:
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            for line in file:
                if line.startswith("PRETTY_NAME="):
                    return line.partition("=")[2].strip().strip('"')
    except OSError:
        pass
    return os.uname().sysname
