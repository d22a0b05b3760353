"""The documents that `inspect` shows: Docker's names and shapes, made from our values."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lamina.model.container import SHM_BYTES, Container, MountRequest, Status
from lamina.model.image_config import format_time
from lamina.model.limits import Limits
from lamina.model.reference import Reference
from lamina.runtime.cgroups import counts_swap, oom_kills, own_cgroup
from lamina.store.images import Image
from lamina.usecases.context import Context
from lamina.usecases.volumes import Volume, Volumes

if TYPE_CHECKING:
    from lamina.model.isolation import Isolation

NEVER = "0001-01-01T00:00:00Z"


def container_document(context: Context, volumes: Volumes, container: Container) -> dict[str, Any]:
    """A container's document."""
    from lamina.usecases.confinement import confinement_document, label_document
    from lamina.usecases.network_documents import network_settings, port_bindings  # images and volumes have none of it

    config = container.config
    driver = context.layers.driver(container.driver)
    folder = context.container_dir(container.id)
    running = container.is_active
    supervision = config.supervision
    return {
        "Id": container.id,
        "Created": format_time(container.created_ns),
        "Path": config.arguments[0],
        "Args": list(config.arguments[1:]),
        "State": {
            "Status": container.status.value,
            "Running": container.is_up,  # Docker's meaning
            "Paused": container.status is Status.PAUSED,
            "Restarting": container.status is Status.RESTARTING,
            "OOMKilled": oom_kills(own_cgroup(container)) > 0 if running else container.oom_killed,
            "Dead": False,
            "Pid": container.pid if running else 0,
            "ExitCode": container.exit_code,
            "Error": container.error,
            "StartedAt": format_time(container.started_ns) if container.started_ns else NEVER,
            "FinishedAt": format_time(container.finished_ns) if container.finished_ns else NEVER,
            **_health(context, container),
        },
        "Image": container.image_id,
        "ResolvConfPath": os.path.join(folder, "resolv.conf"),
        "HostnamePath": os.path.join(folder, "hostname"),
        "HostsPath": os.path.join(folder, "hosts"),
        "LogPath": "" if supervision is not None and supervision.log_driver == "none" else context.log_path(container.id),
        "Name": "/" + container.name,
        "RestartCount": container.restart_count,
        "Driver": driver.name,
        "Platform": "linux",
        **label_document(config.confinement),
        "ExecIDs": None,
        "HostConfig": {
            "Binds": [_bind(request) for request in config.mounts if request.type != "tmpfs" and request.source] or None,
            "ContainerIDFile": "",
            "LogConfig": {
                "Type": (supervision.log_driver if supervision is not None else "") or "json-file",
                "Config": dict(supervision.log_options) if supervision is not None else {},
            },
            "NetworkMode": config.network,
            "PortBindings": port_bindings(config),
            "RestartPolicy": {
                "Name": supervision.restart if supervision is not None else "no",
                "MaximumRetryCount": supervision.restart_most if supervision is not None else 0,
            },
            "AutoRemove": config.auto_remove,
            "VolumeDriver": "",
            **_isolation(config.isolation),
            **confinement_document(config.confinement),
            "ReadonlyRootfs": config.read_only,
            "Init": config.init,
            "StorageOpt": dict(config.storage_options) or None,
            "PublishAllPorts": config.publish_all,
            "Dns": list(config.dns),
            "DnsOptions": list(config.dns_options),
            "DnsSearch": list(config.dns_search),
            "ExtraHosts": list(config.extra_hosts) or None,
            "Tmpfs": {
                request.target: ",".join(f"{key}={value}" if value else key for key, value in request.options.items())
                for request in config.mounts
                if request.type == "tmpfs"
            }
            or None,
            **_limits(config.limits),
        },
        "GraphDriver": {"Name": driver.name, "Data": driver.describe(container.id, container.parents)},
        "Mounts": [_mount(context, volumes, container, request) for request in config.mounts],
        "Config": {
            "Hostname": config.hostname or container.short_id,
            "Domainname": config.domainname,
            "User": config.user,
            "AttachStdin": False,
            "AttachStdout": False,
            "AttachStderr": False,
            "ExposedPorts": {port: {} for port in config.exposed_ports} or None,
            "Tty": config.tty,
            "OpenStdin": config.open_stdin,
            "StdinOnce": config.open_stdin,
            "Env": list(config.env),
            "Cmd": list(config.command) or None,
            "Image": config.image,
            "Volumes": {target: {} for target in config.image_volumes} or None,
            "WorkingDir": config.working_dir,
            "Entrypoint": list(config.entrypoint) or None,
            "OnBuild": None,
            "Labels": dict(config.labels),
            "StopSignal": config.stop_signal or "SIGTERM",
            **({"Healthcheck": supervision.health.to_json()} if supervision is not None and supervision.health else {}),
            **({"StopTimeout": config.stop_timeout_s} if config.stop_timeout_s is not None else {}),
        },
        "NetworkSettings": network_settings(context, container),
    }


def _health(context: Context, container: Container) -> dict[str, Any]:
    supervision = container.config.supervision
    if supervision is None or supervision.health is None:
        return {}
    from lamina.usecases.health import read_health

    health = read_health(context, container)
    return {"Health": health.document()} if health is not None else {}


def _limits(asked: Limits | None) -> dict[str, Any]:
    limits = asked or Limits()
    both = limits.memory_swap_bytes
    if limits.memory_bytes and not both:
        both = limits.memory_bytes * 2 if counts_swap() else -1
    return {
        "CgroupParent": limits.cgroup_parent,
        "Memory": limits.memory_bytes,
        "MemorySwap": both,
        "MemoryReservation": limits.memory_reservation_bytes,
        "MemorySwappiness": None if limits.memory_swappiness < 0 else limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disabled,
        "NanoCpus": limits.nano_cpus,
        "CpuPeriod": limits.cpu_period_us,
        "CpuQuota": limits.cpu_quota_us,
        "CpuShares": limits.cpu_shares,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "PidsLimit": limits.pids or None,
        "BlkioWeight": limits.blkio_weight,
        **{
            f"BlkioDevice{direction.capitalize()}{name}": [
                {"Path": each.device, "Rate": each.per_second}
                for each in limits.device_rates
                if (each.direction, each.unit) == (direction, unit)
            ]
            for unit, name in (("bps", "Bps"), ("iops", "IOps"))
            for direction in ("read", "write")
        },
        "Devices": [
            {"PathOnHost": each.source, "PathInContainer": each.target, "CgroupPermissions": each.permissions}
            for each in limits.devices
        ],
        "DeviceCgroupRules": list(limits.device_rules) or None,
    }


def _isolation(asked: "Isolation | None") -> dict[str, Any]:
    from lamina.model.isolation import Isolation, sysctl_name  # images and volumes have none of it

    asked = asked or Isolation()
    return {
        "IpcMode": asked.ipc or "private",
        "PidMode": asked.pid,
        "UTSMode": asked.uts,
        "CgroupnsMode": asked.cgroup_namespace or "private",
        "UsernsMode": asked.user_namespace or "host",
        "Ulimits": [{"Name": name, "Hard": hard, "Soft": soft} for name, soft, hard in asked.ulimits],
        "Sysctls": {sysctl_name(path): value for path, value in asked.sysctls.items()},
        "ShmSize": (asked.shm_bytes or SHM_BYTES) if asked.ipc in {"", "private", "shareable"} else 0,
        "GroupAdd": list(asked.groups) or None,
        "OomScoreAdj": asked.oom_score_adj or 0,
    }


def _bind(request: MountRequest) -> str:
    return ":".join([request.source, request.target, *([mode] if (mode := _mode(request)) else [])])


def _mode(request: MountRequest) -> str:
    return ",".join((["ro"] if request.read_only else []) + ([request.relabel] if request.relabel else []))


def _mount(context: Context, volumes: Volumes, container: Container, request: MountRequest) -> dict[str, Any]:
    del context
    document: dict[str, Any] = {"Type": request.type}
    if request.type == "volume":
        name = container.volumes[request.target]
        document["Name"] = name
        volume = next((each for each in volumes.all() if each.name == name), None)
        document["Source"] = volumes.mountpoint(volume) if volume is not None else ""
    else:
        document["Source"] = request.source
    document["Destination"] = request.target
    if request.type == "volume":
        document["Driver"] = request.volume_driver
    return {
        **document,
        "Mode": _mode(request),
        "RW": not request.read_only,
        "Propagation": "rprivate" if request.type == "bind" else "",
    }


def image_document(context: Context, image: Image) -> dict[str, Any]:
    """An image's document. `GraphDriver` isn't in it: images know no driver."""
    config = context.images.config(image)
    names = context.images.names(image)
    defaults = config.config
    return {
        "Id": str(image.id),
        "RepoTags": [name.familiar for name in names if name.digest is None],
        "RepoDigests": repo_digests(context, image, names),
        "Parent": "",
        "Comment": config.history[-1].comment if config.history else "",
        "Created": config.created,
        "DockerVersion": "",
        "Author": config.author,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": image.size_bytes,
        "VirtualSize": image.size_bytes,
        "Config": {
            "User": defaults.user,
            "ExposedPorts": {port: {} for port in defaults.exposed_ports} or None,
            "Env": list(defaults.env),
            "Cmd": list(defaults.cmd) if defaults.cmd is not None else None,
            "Volumes": {target: {} for target in defaults.volumes} or None,
            "WorkingDir": defaults.working_dir,
            "Entrypoint": list(defaults.entrypoint) if defaults.entrypoint is not None else None,
            "OnBuild": list(defaults.on_build) or None,
            "Labels": dict(defaults.labels) or None,
            **({"StopSignal": defaults.stop_signal} if defaults.stop_signal else {}),
            **({"Healthcheck": defaults.healthcheck.to_json()} if defaults.healthcheck else {}),
            **({"Shell": list(defaults.shell)} if defaults.shell else {}),
        },
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in config.diff_ids]},
        "Metadata": {"LastTagTime": NEVER},
        "Descriptor": {"mediaType": image.manifest_type, "digest": str(image.manifest), "size": image.manifest_bytes},
    }


def repo_digests(context: Context, image: Image, names: Sequence[Reference]) -> list[str]:
    """By what digests an image can be named: those that registries know, and for names that none knows its manifest's."""
    known = context.images.known_as(image)
    repositories = {name for name, _ in known}
    own = [(name.name, image.manifest) for name in names if name.name not in repositories]
    return list(dict.fromkeys(f"{Reference.parse(name).familiar_name}@{digest}" for name, digest in (*known, *own)))


def volume_document(volumes: Volumes, volume: Volume) -> dict[str, Any]:
    """A volume's document."""
    return {
        "CreatedAt": format_time(volume.created_ns),
        "Driver": volume.driver,
        "Labels": dict(volume.labels) or None,
        "Mountpoint": volumes.mountpoint(volume),
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": "local",
    }
