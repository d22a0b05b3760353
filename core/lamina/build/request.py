"""What a person asks a build for, as a value. `lamina.cli` and `lamina.images` make it, `builder.py` carries it out."""

from collections.abc import Mapping
from typing import Any

from lamina.dataclasses import dataclass, field
from lamina.errors import UsageError
from lamina.model.reference import Reference

DEFAULT_NETWORK = "host"
"""What a RUN without `--network` gets: a build wants to fetch things, and the engine has no network of its own that leads out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSource:
    """`--secret id=ID[,src=PATH|,env=NAME]`: where a secret is read when a RUN wants it. One of `path` and `variable` is set."""

    id: str
    path: str = ""
    variable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One build."""

    source: str = "."
    """The context: a directory, a tar's path, or `-` for standard input."""
    dockerfile: str = ""
    """Its path; "" for `Dockerfile` in the context, `-` for standard input."""
    stdin: Any = None
    """Where `-` is read: a binary file."""
    names: tuple[Reference, ...] = ()
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[SecretSource, ...] = ()
    ssh: Mapping[str, str] = field(default_factory=dict)
    """Agents' sockets by id."""
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    pull: bool = False
    platform: str = ""
    network: str = ""
    """What a RUN gets that names none; "" for the engine's default."""
    add_hosts: tuple[tuple[str, str], ...] = ()
    """More lines of /etc/hosts: name and address."""
    storage_driver: str = ""
    memo_key: str = ""
    """Under which the whole build is remembered, "" if it isn't: see `memo.py`."""
    memo_names: Mapping[str, str] = field(default_factory=dict)
    """The names as they were typed, each with what it stands for."""
    source_date_epoch: int | None = None
    """Seconds since 1970: no time in the image is later, and what the build makes has this one."""


def parse_secret(text: str) -> SecretSource:
    """Read `--secret`. An id alone is a variable of that name if there is one, as with Docker, else a file."""
    import os

    values = _fields(text, "secret", {"id", "src", "source", "env", "type"})
    secret_id = values.get("id", "")
    kind = values.get("type", "")
    path = values.get("src", values.get("source", ""))
    variable = values.get("env", "")
    if not secret_id:
        raise UsageError(f"invalid secret '{text}': it has no id", hint="write id=ID,src=PATH or id=ID,env=NAME")
    if kind not in {"", "file", "env"} or (path and variable):
        raise UsageError(f"invalid secret '{text}': it is either a file or a variable")
    if kind == "env" and path:
        path, variable = "", path
    if not path and not variable:
        if kind != "file" and secret_id in os.environ:
            variable = secret_id
        else:
            path = secret_id
    return SecretSource(id=secret_id, path=path, variable=variable)


def parse_ssh(text: str) -> tuple[str, str]:
    """Read `--ssh ID[=SOCKET]`; without a socket it is the agent of this session. Raises UsageError if there is none."""
    import os

    agent_id, _, path = text.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise UsageError(
            f"there is no SSH agent to forward for '--ssh {agent_id}'", hint="start ssh-agent, or write --ssh ID=PATH of its socket"
        )
    import stat

    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        raise UsageError(f"the SSH agent's socket '{path}' doesn't exist") from None
    if not is_socket:
        raise UsageError(f"'{path}' is not an SSH agent's socket", hint="keys are given to the agent, with ssh-add")
    return agent_id or "default", os.path.abspath(path)


def parse_host(text: str) -> tuple[str, str]:
    """Read `--add-host NAME:ADDRESS`."""
    import socket

    name, separator, address = text.partition("=") if "=" in text else text.partition(":")
    address = address.removeprefix("[").removesuffix("]")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address)
        except (OSError, ValueError):
            continue
        if name and separator and not any(one.isspace() for one in name):
            return name, address
    raise UsageError(f"invalid host '{text}'", hint="write NAME:ADDRESS, such as db:10.0.0.1")


def _fields(text: str, what: str, known: set[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name.lower() not in known:
            raise UsageError(f"invalid {what} '{text}': '{part}' is not {', '.join(f'{one}=' for one in sorted(known))}")
        values[name.lower()] = value
    return values
