"""Labels of SELinux: which a container has, and which its files get. Docker's rules, but that labels that are asked for are given.

A container's processes and files have a pair of categories of their own, so that they are apart from another container's though
the types are the same (MCS). A host without SELinux imports none of this.
"""

import os
import random
from collections.abc import Sequence

from lamina.dataclasses import replace
from lamina.errors import NotUsableError, UsageError
from lamina.linux import selinux
from lamina.model.confinement import LABEL_PARTS, Confinement
from lamina.model.container import Container, ContainerConfig
from lamina.model.isolation import JOIN_PREFIX
from lamina.usecases.context import DEFAULT_VOLUME_DRIVER, Context
from lamina.usecases.volumes import Volumes

PROCESS, FILE = "system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"
"""What a policy that says nothing of containers is asked for: the names that Fedora's and Red Hat's have."""
CATEGORIES = 1024
NEVER_RELABELLED = frozenset({
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/sbin",
    "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log",
})  # fmt: skip
"""The machine itself, which would come to a stop."""


def labelled(context: Context, config: ContainerConfig) -> ContainerConfig:
    """Settle a new container's labels, if any. Raises `UsageError`; `NotUsableError` for one that the policy doesn't know."""
    asked = config.confinement or Confinement()
    if "disable" in asked.labels or not selinux.is_enabled():
        return config
    process, file = _asked_for(context, asked) if asked.labels else _by_default(context, config, asked)
    for label in (process, file):
        if label and not selinux.is_known(label):
            raise NotUsableError(
                f"this machine's SELinux policy doesn't know the label '{label}'",
                hint="--security-opt label=type:NAME and label=filetype:NAME name other types, label=disable asks for no label",
            )
    if process:
        for request in config.mounts:
            if request.type == "bind" and request.relabel and os.path.realpath(request.source) in NEVER_RELABELLED:
                raise UsageError(f"'{request.source}' is not relabelled: the machine needs its labels", hint="leave the z or Z out")
    return replace(config, confinement=asked._replace(process_label=process, file_label=file))


def label_of_a_build(context: Context) -> Confinement | None:
    """Settle the label that a build's commands have, as that of a container of which nothing is asked; None without SELinux."""
    return labelled(context, ContainerConfig(image="")).confinement


def _asked_for(context: Context, asked: Confinement) -> tuple[str, str]:
    parts = dict(label.split(":", 1) for label in asked.labels)
    process, file = _defaults()
    if "level" not in parts:
        parts["level"] = _own_level(context, process.split(":", 3)[3])
    of_process = [parts.get(name, value) for name, value in zip(LABEL_PARTS, process.split(":", 3), strict=False)]
    user, role, type_, _ = file.split(":", 3)
    return ":".join(of_process), ":".join((parts.get("user", user), role, parts.get("filetype", type_), parts["level"]))


def _by_default(context: Context, config: ContainerConfig, asked: Confinement) -> tuple[str, str]:
    """Give what nobody asked for: none to who shares the host's processes, and another container's to who shares its."""
    isolation = config.isolation
    shared = [isolation.pid, isolation.ipc] if isolation is not None else []
    if asked.privileged or "host" in shared:
        return "", ""
    for mode in shared:
        if mode.startswith(JOIN_PREFIX):
            of_other = context.records.find(mode.removeprefix(JOIN_PREFIX)).config.confinement or Confinement()
            return of_other.process_label, of_other.file_label
    return _asked_for(context, asked)


def _defaults() -> tuple[str, str]:
    """The policy's own labels for containers' processes and files."""
    lines = [line.partition("=") for line in selinux.policy_file("lxc_contexts").splitlines()]
    named = {key.strip(): value.strip().strip('"') for key, _, value in lines}
    return named.get("process", PROCESS), named.get("file", FILE)


def _own_level(context: Context, level: str) -> str:
    """Add a pair of categories that no other container has."""
    others = {each.config.confinement.file_label for each in context.records.all() if each.config.confinement is not None}
    taken = {label.rpartition(":")[2] for label in others}
    while True:
        first, second = sorted(random.sample(range(CATEGORIES), 2))  # told to everybody
        pair = f"c{first},c{second}"
        if pair not in taken:
            return f"{level}:{pair}"


def label_files(container: Container, label: str, files: Sequence[str], volumes: Volumes) -> None:
    """Label what a start shows a container: the engine's own files, what `z` and `Z` ask for, and the engine's own volumes."""
    shared = selinux.shared(label)
    for path in files:
        selinux.relabel(path, label)
    for request in container.config.mounts:
        if request.type == "bind" and request.relabel:
            selinux.relabel(os.path.realpath(request.source), label if request.relabel == "Z" else shared)
        elif request.type == "volume":
            volume = volumes.find(container.volumes[request.target])
            if volume.driver == DEFAULT_VOLUME_DRIVER and not volume.options:
                selinux.relabel(volumes.mountpoint(volume), label if request.relabel == "Z" else shared)
