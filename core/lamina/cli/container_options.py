"""The options of `run` and `create`: what a container is made of, read into a `ContainerConfig`."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from lamina.cli.completion import complete_drivers
from lamina.cli.confinement_options import CONFINEMENT_OPTIONS, read_confinement
from lamina.cli.isolation_options import ISOLATION_OPTIONS, read_isolation
from lamina.cli.limits_options import LIMITS_OPTIONS, read_limits
from lamina.cli.network_options import NETWORK_OPTIONS, read_network_options
from lamina.cli.process_options import check_working_dir, process_options, read_env, read_text
from lamina.cli.supervision_options import SUPERVISION_OPTIONS, read_supervision
from lamina.errors import ConflictError, LaminaError, UsageError
from lamina.model.container import ContainerConfig, MountRequest, parse_mount, parse_tmpfs, parse_volume

Decorated = Callable[..., Any]

HOST_NAME_CHARACTERS = 64
"""What the kernel takes: __NEW_UTS_LEN, uname(2)."""

_OPTIONS = (
    click.option("--name", default="", metavar="NAME", help="Name the container."),
    click.option("--rm", "auto_remove", is_flag=True, help="Remove the container, and its anonymous volumes, when it has ended."),
    click.option("--volume", "-v", "volumes", multiple=True, metavar="[SOURCE:]TARGET[:ro]", help="Mount a host path or a volume."),
    click.option(
        "--mount", "mounts", multiple=True, metavar="type=bind|volume|tmpfs,…", help="Mount something, said in words."
    ),
    click.option("--tmpfs", "tmpfses", multiple=True, metavar="TARGET[:OPTIONS]", help="Mount an empty file system in memory."),
    *NETWORK_OPTIONS,
    *CONFINEMENT_OPTIONS,
    *ISOLATION_OPTIONS,
    *LIMITS_OPTIONS,
    *SUPERVISION_OPTIONS,
    click.option("--hostname", "-h", default="", metavar="NAME", help="The host name.  [the container's id]"),
    click.option("--domainname", default="", metavar="NAME", help="The domain name."),
    click.option("--entrypoint", default=None, metavar="PROGRAM", help='Run this instead of the image\'s entrypoint; "" for none.'),
    click.option("--read-only", is_flag=True, help="Mount the root read-only."),
    click.option("--label", "-l", "labels", multiple=True, metavar="NAME[=VALUE]", help="Set a label."),
    click.option("--label-file", "label_files", multiple=True, metavar="FILE", help="Read labels from a file."),
    click.option("--stop-signal", default="", metavar="SIGNAL", help="What `stop` sends.  [TERM]"),
    click.option("--stop-timeout", "stop_timeout_s", type=int, default=None, metavar="SECONDS", help="What `stop` waits.  [10]"),
    click.option("--init", is_flag=True, help="Run an init that passes signals on and reaps orphans."),
    click.option("--cidfile", default="", metavar="FILE", help="Write the container's id into a new file."),
    click.option("--storage-driver", "storage_driver", default="", metavar="NAME", shell_complete=complete_drivers,
        help="The storage driver of this container."),
    click.option("--storage-opt", "storage_options", multiple=True, metavar="NAME=VALUE", help="An option for the storage driver."),
    click.option(
        "--attach", "-a", type=click.Choice(["stdin", "stdout", "stderr"], case_sensitive=False), multiple=True,
        help="Join this stream alone.",
    ),
    click.option(
        "--pull", type=click.Choice(["missing", "always", "never"]), default=None,
        help="When to pull the image.  [missing, or what LAMINA_PULL says]",
    ),
)  # fmt: skip


def container_options(function: Decorated) -> Decorated:
    """Add the options."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return process_options(function)


def read_config(
    *, image: str, arguments: Sequence[str], env: Sequence[str], env_files: Sequence[str], working_dir: str, user: str, tty: bool,
    interactive: bool, auto_remove: bool, volumes: Sequence[str], mounts: Sequence[str], tmpfses: Sequence[str],
    hostname: str, domainname: str, entrypoint: str | None, read_only: bool, labels: Sequence[str], label_files: Sequence[str],
    stop_signal: str, stop_timeout_s: int | None, init: bool, storage_options: Sequence[str], **more: Any,
) -> ContainerConfig:  # fmt: skip
    """Read the options' texts; each of the modules takes its own out of `more`. Raises `UsageError` for one that can't be meant."""
    check_working_dir(working_dir)
    for value in (hostname, domainname):
        _check_host_name(value)
    if stop_signal:
        from lamina.usecases.control import parse_signal

        parse_signal(stop_signal)
    return ContainerConfig(
        image=image, command=tuple(arguments), entrypoint=() if entrypoint is None else (entrypoint,),
        env=read_env(env, env_files), working_dir=working_dir, user=user, hostname=hostname, domainname=domainname,
        labels=_read_labels(labels, label_files), tty=tty, open_stdin=interactive, stop_signal=stop_signal,
        stop_timeout_s=stop_timeout_s, mounts=_read_mounts(volumes, mounts, tmpfses), read_only=read_only,
        auto_remove=auto_remove, init=init, storage_options=dict(_read_storage_option(text) for text in storage_options),
        confinement=read_confinement(more), isolation=read_isolation(more), limits=read_limits(more),
        supervision=read_supervision(more, auto_remove=auto_remove),
        **read_network_options(hostname=hostname, **more),
    )  # fmt: skip


def _check_host_name(name: str) -> None:
    if len(name) > HOST_NAME_CHARACTERS or not all(char.isascii() and (char.isalnum() or char in "._-") for char in name):
        raise UsageError(f"invalid host name '{name}'", hint=f"use at most {HOST_NAME_CHARACTERS} of [a-zA-Z0-9._-]")


def _read_labels(labels: Sequence[str], label_files: Sequence[str]) -> dict[str, str]:
    lines = [line.strip() for path in label_files for line in read_text(path).splitlines()]
    read: dict[str, str] = {}
    for text in (*(line for line in lines if line and not line.startswith("#")), *labels):
        name, _, value = text.partition("=")
        if not name.strip():
            raise UsageError(f"invalid label '{text}'", hint="write NAME=VALUE")
        read[name] = value
    return read


def _read_mounts(volumes: Iterable[str], mounts: Iterable[str], tmpfses: Iterable[str]) -> tuple[MountRequest, ...]:
    return (*map(parse_volume, volumes), *map(parse_mount, mounts), *map(parse_tmpfs, tmpfses))


def _read_storage_option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"invalid storage option '{text}'", hint="write NAME=VALUE")
    return name, value


class IdFile:
    """The file of `--cidfile`: made before the container, so that no two commands have it, and deleted if none comes of it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._is_written = False

    def __enter__(self) -> "IdFile":
        if self._path:
            try:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileExistsError:
                raise ConflictError(
                    f"the container id file '{self._path}' exists", hint="make sure that its container doesn't run, and delete it"
                ) from None
            except OSError as error:
                raise LaminaError(f"the container id file '{self._path}' can't be made: {str(error.strerror).lower()}") from None
        return self

    def write(self, container_id: str) -> None:
        """Write the id."""
        if self._fd >= 0:
            os.write(self._fd, container_id.encode())
            self._is_written = True

    def __exit__(self, *_error: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            if not self._is_written:
                os.unlink(self._path)
