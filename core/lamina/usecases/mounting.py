"""What a container sees of the host besides its layers: the mounts that were asked for, and the engine's three files in /etc."""

import os
from collections.abc import Callable, Mapping, Sequence

from lamina.linux.fs import read_bytes
from lamina.model.container import TMPFS_PARAMETERS, Container
from lamina.model.mount import Mount, MountFlag
from lamina.runtime.frames import write_all
from lamina.runtime.plan import PlannedMount
from lamina.usecases.context import Context
from lamina.usecases.volumes import Volumes

_TMPFS_FLAGS = {
    "noexec": MountFlag.NOEXEC,
    "nosuid": MountFlag.NOSUID,
    "nodev": MountFlag.NODEV,
    "noatime": MountFlag.NOATIME,
    "strictatime": MountFlag.STRICTATIME,
}


def planned_mounts(context: Context, volumes: Volumes, container: Container) -> list[PlannedMount]:
    """List a container's binds, tmpfs and volumes as they are just now, each volume as its driver says."""
    planned = []
    for request in container.config.mounts:
        if request.type == "bind":
            mounts = [Mount(type="bind", source=request.source, target="")]
        elif request.type == "tmpfs":
            mounts = [tmpfs_mount(request.options)]
        else:
            volume = volumes.find(container.volumes[request.target])
            mounts = context.volume_driver(volume.driver).mounts(volume.spec)
        planned += [
            PlannedMount(target=request.target, mount=mount, read_only=request.read_only, recursive=request.recursive)
            for mount in mounts
        ]
    return planned


def tmpfs_mount(options: Mapping[str, str]) -> Mount:
    """Make a user's tmpfs of its options: mode 1777 and noexec, nosuid, nodev unless they say otherwise, Docker's rule."""
    parameters = {"mode": "1777", **{key: value for key, value in options.items() if key in TMPFS_PARAMETERS}}
    flags = MountFlag.NONE
    for word, flag in _TMPFS_FLAGS.items():
        if word in options or (word in {"noexec", "nosuid", "nodev"} and word.removeprefix("no") not in options):
            flags |= flag
    return Mount(type="tmpfs", target="", flags=flags, options=tuple(parameters.items()))


def own_files(context: Context, container: Container) -> Sequence[tuple[str, str]]:
    """List the engine's files of a container: the path on the host, and where each is seen."""
    folder = context.container_dir(container.id)
    return [(os.path.join(folder, name), f"/etc/{name}") for name in ("hostname", "hosts", "resolv.conf")]


def write_own_files(context: Context, container: Container) -> None:
    """Write those of a container whose network the engine has no part in, those that aren't there yet."""
    config = container.config
    hosts = resolv_conf = ""
    if config.extra_hosts or config.dns or config.dns_search or config.dns_options:
        from lamina.network.names import extra_lines, resolvers

        hosts = "".join(f"{line}\n" for line in extra_lines(config.extra_hosts, ()))
        if config.dns or config.dns_search or config.dns_options:
            resolv_conf, _ = resolvers(config, has_ipv6=True, is_apart=False)
    write_files(
        context.container_dir(container.id),
        hostname=config.hostname or container.short_id,
        domainname=config.domainname,
        more_hosts=hosts,
        resolv_conf=resolv_conf,
    )


def write_files(folder: str, *, hostname: str, domainname: str = "", more_hosts: str = "", resolv_conf: str = "") -> None:
    """Write a container's hosts, hostname and resolv.conf, those that aren't there yet; the last is the host's if none is given."""
    hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    for name, text in (("hostname", hostname + "\n"), ("hosts", f"{hosts}127.0.1.1\t{names}\n{more_hosts}")):
        _write_new(os.path.join(folder, name), lambda text=text: text.encode())  # type: ignore[misc]
    _write_new(os.path.join(folder, "resolv.conf"), lambda: resolv_conf.encode("utf-8", "surrogateescape") or _hosts_resolv_conf())


def _write_new(path: str, content: Callable[[], bytes]) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return
    try:
        write_all(fd, content())
    finally:
        os.close(fd)


def _hosts_resolv_conf() -> bytes:
    try:
        return read_bytes("/etc/resolv.conf")
    except OSError:
        return b""  # the host has none
