"""The system as a whole: drivers and what they can do, disk usage, facts about this machine and store."""

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lamina import __version__
from lamina.api.types import Probe
from lamina.dataclasses import dataclass
from lamina.errors import LaminaError, NotUsableError, PluginError
from lamina.linux import namespace
from lamina.model.container import Status
from lamina.model.image_config import format_time
from lamina.store import id_ranges
from lamina.usecases.content import Content
from lamina.usecases.context import Context
from lamina.usecases.disk import DiskUsage, discard_unused_layers, disk_usage
from lamina.usecases.limiting import cgroup_abilities
from lamina.usecases.volumes import Volumes

if TYPE_CHECKING:
    from lamina.usecases.check import Finding
    from lamina.usecases.doctor import Diagnosis, Machine


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

    def examine(self, names: Sequence[str] = ()) -> "tuple[Machine, list[Diagnosis]]":
        """Examine this machine and the drivers of those names, or all: what each gives, loses, and needs to work."""
        from lamina.usecases.doctor import diagnose, examine_machine

        statuses = [self.driver(name) for name in names] if names else self.drivers()
        return examine_machine(self.context.root_dir), [diagnose(status) for status in statuses]

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
        return disk_usage(self.context, self.volumes)

    def discard_unused_layers(self) -> tuple[list[tuple[str, str]], int]:
        """Discard the unpacked image layers that no container stands on; gives driver and key of each, and the bytes freed."""
        return discard_unused_layers(self.context)

    def check(
        self, *, repair: bool = False, reads_bytes: bool = True, told: "Callable[[Finding], None]" = lambda _finding: None
    ) -> "list[Finding]":
        """Hold everything on disk against the database and against its digests; with `repair`, put right what can be.

        `told` hears of each finding at once. Without `reads_bytes` no blob and no layer is read. Other commands may run meanwhile.
        """
        from lamina.usecases.check import check

        return check(self.context, self.volumes, repair=repair, reads_bytes=reads_bytes, told=told)

    def info(self) -> dict[str, Any]:
        """Facts about this store and machine, under Docker's names where Docker has them."""
        from lamina.usecases.confinement import security_options

        context = self.context
        containers = context.records.all()
        machine = os.uname()
        driver, status, warnings = self._default_driver()
        abilities = cgroup_abilities()
        warnings += [f"no {what} support" for name, what in _LIMITS.items() if abilities[name] is False]
        return {
            "Containers": len(containers),
            "ContainersRunning": sum(container.status in {Status.RUNNING, Status.RESTARTING} for container in containers),
            "ContainersPaused": sum(container.status is Status.PAUSED for container in containers),
            "ContainersStopped": sum(not container.is_up for container in containers),
            "Images": len(context.images.images()),
            "Driver": driver,
            "DriverStatus": status,
            "Plugins": {
                "Storage": context.host.names("storage"),
                "Network": context.host.names("network"),
                "Volume": context.host.names("volume"),
                "Watch": context.host.names("watch"),
                "Log": ["json-file", "none"],
            },
            "SystemTime": format_time(time.time_ns()),
            "LoggingDriver": self.context.log_driver or "json-file",
            **abilities,
            "SecurityOptions": [*security_options(), "name=cgroupns"],
            "UserNamespaces": {"Available": namespace.has_users(), "InUse": id_ranges.in_use(context.database.connection)},
            "KernelVersion": machine.release,
            "OperatingSystem": _os_name(),
            "OSType": "linux",
            "Architecture": machine.machine,
            "NCPU": os.cpu_count() or 1,
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "Name": machine.nodename,
            "ServerVersion": __version__,
            "DefaultRuntime": "lamina",
            "DockerRootDir": context.root_dir,
            "RootDir": context.root_dir,
            "RunDir": context.run_dir,
            "Warnings": warnings,
        }

    def _default_driver(self) -> tuple[str, list[list[str]], list[str]]:
        """The default storage driver for `info`, which tells as well when there is none that works."""
        try:
            driver = self.context.layers.driver(self.context.default_driver)
            probe = driver.probe()
        except (NotUsableError, PluginError, OSError) as error:
            return "", [], [f"no usable storage driver: {error}"]
        status = [["Method", probe.method], ["Usable", str(probe.usable).lower()], ["Home", driver.home]]
        return driver.name, status, [] if probe.usable else [f"storage driver '{driver.name}' can't work here: {probe.reason}"]


_LIMITS = {
    "MemoryLimit": "memory limit", "SwapLimit": "swap limit", "CpuCfsQuota": "cpu cfs quota", "CPUShares": "cpu shares",
    "CPUSet": "cpuset", "PidsLimit": "pids limit",
}  # fmt: skip
"""What Docker warns of where it is missing, in its words."""


def driver_document(status: DriverStatus) -> dict[str, Any]:
    """What `driver inspect` shows."""
    document: dict[str, Any] = {
        "Name": status.name,
        "Aliases": list(status.aliases),
        "Default": status.is_default,
        "Usable": status.probe is not None and status.probe.usable,
        "Method": status.probe.method if status.probe is not None else "",
        "Reason": status.probe.reason if status.probe is not None else status.problem,
        "Hint": status.probe.hint if status.probe is not None else "",
        "Home": status.home,
        "EntryPoint": status.target,
        "Capabilities": None,
    }
    if status.probe is not None:
        able = status.probe.capabilities
        document["Capabilities"] = {
            "Whiteouts": able.whiteouts.value,
            "NativeDiff": able.native_diff,
            "MaxDepth": able.max_depth,
            "Quota": able.quota,
            "Preserves": sorted(each.value for each in able.preserves),
            "Behaves": sorted(each.value for each in able.behaves),
            "ForbiddenPrefix": able.forbidden_prefix,
            "MaxNameBytes": able.max_name_bytes,
        }
    return document


def _os_name() -> str:
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            for line in file:
                if line.startswith("PRETTY_NAME="):
                    return line.partition("=")[2].strip().strip('"')
    except OSError:
        pass
    return os.uname().sysname
