"""A container's two documents of a Docker data directory (config.v2.json, hostconfig.json) as a configuration of ours.

What has no counterpart here isn't dropped in silence: each such setting is said.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina.errors import ArchiveError, UsageError
from lamina.model.container import ContainerConfig, MountRequest, check_target, parse_tmpfs
from lamina.model.image import Fields
from lamina.model.image_config import Healthcheck
from lamina.model.supervision import RESTART_POLICIES, HealthCheck, Supervision, log_limits

_KNOWN_HOST_SETTINGS = frozenset(
    [
        "Binds",
        "NetworkMode",
        "AutoRemove",
        "ReadonlyRootfs",
        "Tmpfs",
        "Mounts",
        "Init",
        "LogConfig",
        "RestartPolicy",
        "ConsoleSize",
        "VolumeDriver",
    ]
)
_USUAL: Mapping[str, Collection[Any]] = {
    "CgroupnsMode": ("", "host", "private"),
    "IpcMode": ("", "private", "shareable"),
    "Runtime": ("", "runc"),
    "ShmSize": (0, 64 << 20),
    "Isolation": ("", "default"),
    "PidsLimit": (0, -1),
    "MemorySwappiness": (-1,),
    "CpuQuota": (0,),
}
"""Settings that every container has, with the values that mean nothing was asked for."""
_DEFAULT_PATHS = frozenset(["MaskedPaths", "ReadonlyPaths", "ContainerIDFile"])


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerConfig:
    """What the documents say. `volumes`: target to volume name; `lost`: what isn't the same here, in words."""

    config: ContainerConfig
    volumes: Mapping[str, str]
    lost: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _Mounts:
    requests: list[MountRequest] = field(default_factory=list)
    volumes: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def container_config(document: Mapping[str, Any], host: Mapping[str, Any], *, networks: Collection[str]) -> DockerConfig:
    """Read both documents. Raises `ArchiveError` for what isn't of its type."""
    config = Fields(document.get("Config") or {}, "config.v2.json: Config")
    mounts = _mounts(document, host)
    network, lost = _network(host, networks)
    entrypoint, command = config.texts("Entrypoint"), config.texts("Cmd")
    if not entrypoint and not command:
        command = (str(document.get("Path") or ""), *(str(each) for each in document.get("Args") or ()))
    timeout = config.take("StopTimeout")
    exposed, volumes = config.take("ExposedPorts"), config.take("Volumes")
    supervision, log_lost = _supervision(config, host)
    found = ContainerConfig(
        image=config.text("Image"),
        command=command,
        entrypoint=entrypoint,
        env=config.texts("Env"),
        working_dir=config.text("WorkingDir"),
        user=config.text("User"),
        hostname=config.text("Hostname"),
        domainname=config.text("Domainname"),
        labels=config.text_map("Labels"),
        tty=config.flag("Tty"),
        open_stdin=config.flag("OpenStdin"),
        stop_signal=config.text("StopSignal"),
        stop_timeout_s=timeout if isinstance(timeout, int) else None,
        exposed_ports=tuple(exposed) if isinstance(exposed, dict) else (),
        image_volumes=tuple(volumes) if isinstance(volumes, dict) else (),
        network=network,
        mounts=tuple(mounts.requests),
        read_only=bool(host.get("ReadonlyRootfs")),
        init=bool(host.get("Init")),
        supervision=supervision,
    )
    unknown = _unknown_settings(host)
    if unknown:
        lost = (*lost, f"what it was told of {', '.join(unknown)} isn't known here")
    return DockerConfig(config=found, volumes=mounts.volumes, lost=(*mounts.lost, *lost, *log_lost))


def _supervision(config: Fields, host: Mapping[str, Any]) -> tuple[Supervision | None, tuple[str, ...]]:
    """Read how it is looked after; a log that is kept in another way than here is said."""
    policy = Fields(host.get("RestartPolicy") or {}, "hostconfig.json: RestartPolicy")
    restart, most = policy.text("Name") or "no", policy.number("MaximumRetryCount", 0)
    if restart not in RESTART_POLICIES:
        raise ArchiveError(f"hostconfig.json: restart policy '{restart}' isn't known")
    shell, document = config.texts("Shell"), config.take("Healthcheck")
    health = None
    if document is not None:
        read = Healthcheck.from_json(document, "config.v2.json: Healthcheck")
        health = HealthCheck(**{name: getattr(read, name) for name in HealthCheck._fields if name != "shell"}, shell=shell)
    log = Fields(host.get("LogConfig") or {}, "hostconfig.json: LogConfig")
    driver, options = log.text("Type") or "json-file", log.text_map("Config")
    lost: tuple[str, ...] = ()
    try:
        log_limits(driver, options)
    except UsageError as error:
        driver, options, lost = "json-file", {}, (f"{error.message}, so its log is json-file without a limit",)
    found = Supervision(
        restart=restart, restart_most=most, health=health if health is not None and health.command else None,
        log_driver=driver if driver != "json-file" else "", log_options=options,
    )  # fmt: skip
    return (found if found != Supervision() else None), lost


def _network(host: Mapping[str, Any], networks: Collection[str]) -> tuple[str, tuple[str, ...]]:
    mode = str(host.get("NetworkMode") or "default")
    mode = "bridge" if mode == "default" else mode
    if mode in networks:
        return mode, ()
    return "none", (f"its network '{mode}' isn't here, so it gets 'none'",)


def _mounts(document: Mapping[str, Any], host: Mapping[str, Any]) -> _Mounts:
    found = _Mounts()
    points = document.get("MountPoints") or {}
    if not isinstance(points, dict):
        raise ArchiveError("config.v2.json: field 'MountPoints' is not a map")
    for target, point in sorted(points.items()):
        fields = Fields(point, f"config.v2.json: MountPoints['{target}']")
        kind, name, source = fields.text("Type"), fields.text("Name"), fields.text("Source")
        read_only = not fields.flag("RW")
        driver = fields.text("Driver") or "local"
        target = _checked(target)
        if kind == "volume" or (not kind and name):
            if driver != "local":
                raise ArchiveError(f"its volume '{name}' is of the driver '{driver}', which is Docker's")
            found.requests.append(MountRequest(type="volume", target=target, source=name, read_only=read_only))
            found.volumes[target] = name
        elif kind == "bind" or not kind:
            found.requests.append(MountRequest(type="bind", target=target, source=source, read_only=read_only))
        elif kind != "tmpfs":  # those are in the other document, with their options
            found.lost.append(f"its mount of the kind '{kind}' at '{target}' isn't known here")
    for target, options in sorted((host.get("Tmpfs") or {}).items()):
        found.requests.append(_tmpfs(f"{target}:{options}" if options else target, found))
    for mount in host.get("Mounts") or ():
        if isinstance(mount, dict) and mount.get("Type") == "tmpfs":
            wanted = mount.get("TmpfsOptions") or {}
            words = [f"size={wanted['SizeBytes']}"] if wanted.get("SizeBytes") else []
            words += [f"mode={wanted['Mode']:o}"] if wanted.get("Mode") else []
            found.requests.append(_tmpfs(f"{mount.get('Target')}:{','.join(words)}", found))
    return found


def _tmpfs(text: str, found: _Mounts) -> MountRequest:
    try:
        return parse_tmpfs(text)
    except UsageError as error:
        found.lost.append(f"{error.message}, so it has none")
        return parse_tmpfs(text.partition(":")[0])


def _checked(target: str) -> str:
    try:
        return check_target(target, target)
    except UsageError as error:
        raise ArchiveError(f"config.v2.json: {error.message}") from error


def _unknown_settings(host: Mapping[str, Any]) -> list[str]:
    """Name the settings that were given and that nothing here has."""
    unknown = []
    for name, value in host.items():
        if name in _KNOWN_HOST_SETTINGS | _DEFAULT_PATHS or not value:
            continue
        if name in _USUAL and value in _USUAL[name]:
            continue
        if isinstance(value, list) and not any(value):
            continue
        unknown.append(name)
    return sorted(unknown)
