"""A container as values: what was asked for, what it was made of, and the state that it is in. No I/O.

`to_json` and `from_json` are the form in which the database keeps a configuration; the form that `inspect` shows is Docker's and is
made by `lamina.engine`'s caller from these.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lamina.dataclasses import dataclass, field, fields
from lamina.errors import UsageError

if TYPE_CHECKING:
    from lamina.model.confinement import Confinement
    from lamina.model.isolation import Isolation
    from lamina.model.limits import Limits
    from lamina.model.network import EndpointRequest, PortMapping
    from lamina.model.supervision import Supervision

NAME_PATTERN = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"
SHM_BYTES = 64 << 20
"""The size of /dev/shm for which none is asked."""


def check_name(name: str, kind: str = "container") -> str:
    """Return a valid name or raise `UsageError`; Docker's rule, which also keeps control characters out of every listing."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(
            f"invalid {kind} name '{name}'", hint="use two or more of [a-zA-Z0-9_.-], beginning with a letter or a digit"
        )
    return name


class Status(StrEnum):
    """Where a container is in its life. The first and the last are seen only by recovery."""

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    REMOVING = "removing"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRequest:
    """One `-v`, `--mount` or `--tmpfs`: what is to be seen at `target` in the container.

    `source` is a host path for a bind, a volume's name (or "" for a new anonymous one) for a volume, "" for a tmpfs.
    """

    type: str
    target: str
    source: str = ""
    read_only: bool = False
    recursive: bool = True
    copy_image_content: bool = True
    volume_driver: str = "local"
    options: Mapping[str, str] = field(default_factory=dict)
    """For a tmpfs its mount options (`size`, `mode`, …), for a new volume its driver's."""
    relabel: str = ""
    """Whose label of SELinux the source gets, in Docker's words: `z` for every container's, `Z` for this one's, "" for none."""

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """What a container runs and how, the image's defaults already merged in."""

    image: str
    command: tuple[str, ...] = ()
    """The command's words, after the entrypoint's."""
    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    hostname: str = ""
    domainname: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    tty: bool = False
    open_stdin: bool = False
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    exposed_ports: tuple[str, ...] = ()
    image_volumes: tuple[str, ...] = ()
    network: str = ""
    """`none`, `host`, `container:NAME`, or the first network. "": the settings' default to create it; later, that none is left."""
    networks: "tuple[EndpointRequest, ...]" = ()
    """Every network and what was asked of it, `network` first; empty if that is the only one and nothing was asked."""
    ports: "tuple[PortMapping, ...]" = ()
    publish_all: bool = False
    """Publish every exposed port, too (`-P`)."""
    extra_hosts: tuple[str, ...] = ()
    """Lines of /etc/hosts, `NAME:IP`; the IP may be `host-gateway`."""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    mounts: tuple[MountRequest, ...] = ()
    read_only: bool = False
    auto_remove: bool = False
    init: bool = False
    storage_options: Mapping[str, str] = field(default_factory=dict)
    confinement: "Confinement | None" = None
    """None, as of the next three, for the defaults: what nobody asked for is neither imported nor stored."""
    isolation: "Isolation | None" = None
    limits: "Limits | None" = None
    supervision: "Supervision | None" = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """What is executed: CMD is ENTRYPOINT's arguments."""
        return self.entrypoint + self.command

    @property
    def requests(self) -> "tuple[EndpointRequest, ...]":
        """What is asked of each network; nothing for `container:NAME`, and when it has been disconnected from the last one."""
        from lamina.model.network import JOIN_PREFIX, EndpointRequest  # 2 ms, for those who have a network that needs it

        if not self.network or self.network.startswith(JOIN_PREFIX):
            return ()
        return self.networks or (EndpointRequest(network=self.network),)

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        document = {each.name: _plain(getattr(self, each.name)) for each in fields(self)}
        for name in ("mounts", "networks", "ports"):
            document[name] = [each.to_json() for each in getattr(self, name)]
        for name in _ASKED:
            asked = getattr(self, name)
            document[name] = None if asked is None else asked.to_json()
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ContainerConfig":
        """Read the stored form; keys of a newer release are left aside."""
        known = {each.name for each in fields(cls)}
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in document.items() if key in known
        }
        values["mounts"] = tuple(MountRequest(**mount) for mount in document.get("mounts", ()))
        if document.get("networks") or document.get("ports"):
            from lamina.model.network import EndpointRequest, PortMapping

            values["networks"] = tuple(EndpointRequest.from_json(each) for each in document.get("networks", ()))
            values["ports"] = tuple(PortMapping(**each) for each in document.get("ports", ()))
        for name in _ASKED:
            if document.get(name) is not None:
                values[name] = getattr(import_module(f"lamina.model.{name}"), name.capitalize()).from_json(document[name])
        return cls(**values)


_ASKED = ("confinement", "isolation", "limits", "supervision")
"""Fields that have a module of their own, by the same name."""


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as the database knows it."""

    id: str
    name: str
    image_id: str
    driver: str
    created_ns: int
    status: Status
    config: ContainerConfig
    parents: tuple[str, ...]
    """The image's layer keys, nearest first."""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """Which volume is at which target: target to volume name."""
    made_mountpoints: tuple[str, ...] = ()
    """Files and directories that the engine itself made in the root to mount on; not the container's doing."""
    pid: int = 0
    pid_started: int | None = None
    monitor_pid: int = 0
    monitor_started: int | None = None
    exit_code: int = 0
    oom_killed: bool = False
    """Whether a process of it was killed for want of memory, the last time that it ran."""
    error: str = ""
    started_ns: int = 0
    finished_ns: int = 0
    restart_count: int = 0
    """How often its restart policy has started it since a person did."""
    restart_delay_ms: int = 0
    """What the last restart waited."""
    stopped_by: str = ""
    """`user` or `shutdown` if its end was asked for, and so is no reason for a restart."""

    @property
    def is_active(self) -> bool:
        """Whether it has a process."""
        return self.status in {Status.RUNNING, Status.PAUSED}

    @property
    def is_up(self) -> bool:
        """What Docker calls running: it has a process, or will soon have one again."""
        return self.is_active or self.status is Status.RESTARTING

    @property
    def short_id(self) -> str:
        """The first twelve digits, as listings show it."""
        return self.id[:12]


def parse_env_file(text: str, environment: Mapping[str, str], *, name: str) -> list[str]:
    """Read an `--env-file`: NAME=VALUE lines, NAME alone for the caller's own value, # comments; `name` is for errors."""
    found = []
    for number, line in enumerate(
        text.removeprefix("\ufeff").split("\n"), 1
    ):  # splitlines() would cut values at a form feed or U+2028
        stripped = line.removesuffix("\r").lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        key, equals, _value = stripped.partition("=")
        if not key or any(char.isspace() for char in key):
            raise UsageError(f"'{name}' line {number}: '{line}' is not NAME=VALUE")
        if equals:
            found.append(stripped)
        elif key in environment:
            found.append(f"{key}={environment[key]}")
    return found


def merge_env(*layers: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Merge NAME=VALUE lists, the later ones winning, each name at its first place."""
    merged: dict[str, str] = {}
    for layer in layers:
        for item in layer:
            merged[item.partition("=")[0]] = item
    return tuple(merged.values())


_SWITCHES = frozenset({"readonly", "bind-nonrecursive", "volume-nocopy"})
"""Options of `--mount` that mean true when they stand alone."""


def parse_mount(text: str) -> MountRequest:
    """Parse `--mount type=bind,source=/host,target=/in,readonly`."""
    values: dict[str, str] = {}
    options: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if key.lower() == "volume-opt":  # the one that may be given several times
            name, _, value = value.partition("=")
            options[name] = value
            continue
        key = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}.get(key.lower(), key.lower())
        if not equals and key not in _SWITCHES:
            raise UsageError(f"invalid mount '{text}': '{part}' is not OPTION=VALUE")
        values[key] = value if equals else "true"
    kind = values.pop("type", "volume")
    if kind not in {"bind", "volume", "tmpfs"}:
        raise UsageError(f"invalid mount '{text}': type '{kind}' is not bind, volume or tmpfs")
    target, source = values.pop("target", ""), values.pop("source", "")
    read_only = _truth(values.pop("readonly", "false"), text)
    if options and kind != "volume":
        raise UsageError(f"invalid mount '{text}': volume-opt is for volumes")
    if kind == "tmpfs":
        for key, option in (("tmpfs-size", "size"), ("tmpfs-mode", "mode")):
            if key in values:
                options[option] = values.pop(key)
        if source:
            raise UsageError(f"invalid mount '{text}': a tmpfs has no source")
    recursive = not _truth(values.pop("bind-nonrecursive", "false"), text) if kind == "bind" else True
    if kind == "bind":
        values.pop("bind-propagation", "")
    copy = not _truth(values.pop("volume-nocopy", "false"), text) if kind == "volume" else True
    driver = values.pop("volume-driver", "local") if kind == "volume" else "local"
    if values:
        raise UsageError(f"invalid mount '{text}': unknown option '{next(iter(values))}'")
    if kind == "bind" and not source:
        raise UsageError(f"invalid mount '{text}': a bind mount needs source=")
    if kind == "bind" and not source.startswith("/"):
        raise UsageError(f"invalid mount '{text}': source '{source}' is not absolute", hint="a volume's name goes with type=volume")
    return MountRequest(
        type=kind,
        target=check_target(target, text),
        source=source,
        read_only=read_only,
        recursive=recursive,
        copy_image_content=copy,
        volume_driver=driver,
        options=options,
    )


def _truth(value: str, text: str) -> bool:
    if value.lower() in {"true", "1", "t"}:
        return True
    if value.lower() in {"false", "0", "f"}:
        return False
    raise UsageError(f"invalid mount '{text}': '{value}' is not true or false")


def parse_volume(text: str) -> MountRequest:
    """Parse `-v [SOURCE:]TARGET[:OPTIONS]`: a host path, a volume's name, or nothing for an anonymous volume."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise UsageError(
            f"invalid volume '{text}'", hint="write SOURCE:TARGET[:ro], with SOURCE an absolute path or a volume's name"
        )
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    words = parts[2].split(",") if len(parts) == 3 else []
    known = {"ro", "rw", "nocopy", "z", "Z", "rbind", "bind", "private", "rprivate", "slave", "rslave", "shared", "rshared"}
    for word in words:
        if word not in known:
            raise UsageError(f"invalid volume '{text}': unknown option '{word}'")
    is_bind = source.startswith("/")
    if source and not is_bind:
        if "/" in source or source.startswith("."):
            raise UsageError(
                f"invalid volume '{text}': source '{source}' is not absolute", hint="give the whole path of the directory"
            )
        check_name(source, "volume")
    return MountRequest(
        type="bind" if is_bind else "volume",
        target=check_target(target, text),
        source=source,
        read_only="ro" in words,
        recursive="bind" not in words,
        copy_image_content="nocopy" not in words,
        relabel=next((word for word in reversed(words) if word in {"z", "Z"}), ""),
    )


TMPFS_PARAMETERS = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"})
"""What of a tmpfs's options its file system takes (tmpfs(5))."""
TMPFS_FLAGS = frozenset({"ro", "rw", "noexec", "exec", "nosuid", "suid", "nodev", "dev", "noatime", "relatime", "strictatime"})
"""And what its mount takes; without a word it is noexec, nosuid, nodev, as Docker's."""


def parse_tmpfs(text: str) -> MountRequest:
    """Parse `--tmpfs TARGET[:OPTIONS]`."""
    target, _, words = text.partition(":")
    options = dict(word.partition("=")[::2] for word in words.split(",") if word)
    for word in options:
        if word not in TMPFS_PARAMETERS | TMPFS_FLAGS:
            raise UsageError(f"invalid tmpfs '{text}': unknown option '{word}'")
    return MountRequest(type="tmpfs", target=check_target(target, text), read_only="ro" in options, options=options)


def check_target(target: str, text: str) -> str:
    """Return a mount's target, normalised, or raise `UsageError`."""
    if not target.startswith("/"):
        raise UsageError(f"invalid mount '{text}': target '{target}' is not absolute")
    parts = [part for part in target.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise UsageError(f"invalid mount '{text}': target '{target}' contains '..'")
    if not parts:
        raise UsageError(f"invalid mount '{text}': the target can't be the root")
    return "/" + "/".join(parts)
