"""`--change` of import and commit: one Dockerfile instruction applied to an image's defaults. Not Dockerfiles (`build/`).

The language is `lamina.dockerfile`'s. The instructions are those that change no files: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK,
LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR. Variables in them are the image's ENV, as in Docker.
"""

import posixpath
from collections.abc import Iterable
from dataclasses import replace

from lamina.dockerfile.errors import DockerfileError, ExpandError
from lamina.dockerfile.expand import expand_instruction
from lamina.dockerfile.instructions import (
    Cmd,
    Command,
    Entrypoint,
    Env,
    Expose,
    Instruction,
    Label,
    Onbuild,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from lamina.dockerfile.instructions import Healthcheck as HealthcheckInstruction
from lamina.dockerfile.parse import parse_instruction
from lamina.model.image_config import Defaults, Healthcheck

_FILE_NAME = "--change"
_DEFAULT_SHELL = ("/bin/sh", "-c")
_ALLOWED = (
    *("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL"),
    *("ONBUILD", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
)


def apply_changes(defaults: Defaults, texts: Iterable[str]) -> Defaults:
    """Apply instructions in their order."""
    for text in texts:
        defaults = apply_change(defaults, text)
    return defaults


def apply_change(defaults: Defaults, text: str) -> Defaults:
    """Apply one instruction, such as `CMD ["sh"]`. Raise UsageError for one that isn't valid."""
    instruction = parse_instruction(text, file_name=_FILE_NAME, line=1)
    name = instruction.name
    if name not in _ALLOWED:
        hint = f"use one of {', '.join(_ALLOWED)}"
        raise DockerfileError("can't be used here", file_name=_FILE_NAME, line=1, instruction=name, hint=hint)
    try:
        return _apply(defaults, instruction)
    except ExpandError as error:
        raise DockerfileError(error.message, file_name=_FILE_NAME, line=1, instruction=name, hint=error.hint) from None


def _apply(defaults: Defaults, instruction: Instruction) -> Defaults:
    variables = {name: value for name, _, value in (entry.partition("=") for entry in defaults.env)}
    if isinstance(instruction, Expose):
        one_by_one = (replace(instruction, ports=(port,)) for port in instruction.ports)  # in the order in which they are written
        ports = [port for one in one_by_one for port in expand_instruction(one, variables).ports]
        return replace(defaults, exposed_ports=tuple(dict.fromkeys((*defaults.exposed_ports, *ports))))
    match expand_instruction(instruction, variables):
        case Cmd(command=command):
            return replace(defaults, cmd=_arguments(defaults, command))
        case Entrypoint(command=command):
            return replace(defaults, entrypoint=_arguments(defaults, command))
        case Env(pairs=pairs):
            env = {entry.partition("=")[0]: entry for entry in defaults.env}
            env.update({name: f"{name}={value}" for name, value in pairs})
            return replace(defaults, env=tuple(env.values()))
        case HealthcheckInstruction() as healthcheck:
            return replace(defaults, healthcheck=_healthcheck(healthcheck))
        case Label(pairs=pairs):
            return replace(defaults, labels={**defaults.labels, **dict(pairs)})
        case Onbuild(trigger=trigger):
            return replace(defaults, on_build=(*defaults.on_build, trigger))
        case Shell(command=command):
            return replace(defaults, shell=command.arguments)
        case Stopsignal(signal=signal):
            return replace(defaults, stop_signal=signal)
        case User(user=user):
            return replace(defaults, user=user)
        case Volume(paths=paths):
            return replace(defaults, volumes=tuple(dict.fromkeys((*defaults.volumes, *paths))))
        case Workdir(path=path):
            path = posixpath.normpath(posixpath.join("/", defaults.working_dir, path))
            return replace(defaults, working_dir="/" + path.lstrip("/"))
    return defaults


def _arguments(defaults: Defaults, command: Command) -> tuple[str, ...]:
    return (*(defaults.shell or _DEFAULT_SHELL), *command.arguments) if command.is_shell else command.arguments


def _healthcheck(instruction: HealthcheckInstruction) -> Healthcheck:
    command = instruction.command
    if command is None:
        return Healthcheck(test=("NONE",))
    return Healthcheck(
        test=("CMD-SHELL" if command.is_shell else "CMD", *command.arguments),
        interval_ns=instruction.interval_ns,
        timeout_ns=instruction.timeout_ns,
        start_period_ns=instruction.start_period_ns,
        start_interval_ns=instruction.start_interval_ns,
        retries=instruction.retries,
    )
