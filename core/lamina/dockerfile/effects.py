"""What an instruction does to an image's defaults. Pure; instructions come expanded.

Left out is where a build and `--change` are told apart: the order of EXPOSE's ports, how WORKDIR's path is joined, and that in a
build ENTRYPOINT takes an inherited CMD away.
"""

from lamina.dataclasses import replace
from lamina.dockerfile.instructions import (
    Cmd,
    Command,
    Entrypoint,
    Env,
    Healthcheck,
    Instruction,
    Label,
    Onbuild,
    Shell,
    Stopsignal,
    User,
    Volume,
)
from lamina.model import image_config
from lamina.model.container import merge_env
from lamina.model.image_config import Defaults

DEFAULT_SHELL = ("/bin/sh", "-c")


def apply_to(defaults: Defaults, instruction: Instruction) -> Defaults:
    """Give the defaults after an instruction; the same for one that changes none of them."""
    match instruction:
        case Cmd(command=command):
            return replace(defaults, cmd=in_shell(command, defaults))
        case Entrypoint(command=command):
            return replace(defaults, entrypoint=in_shell(command, defaults))
        case Env(pairs=pairs):
            return replace(defaults, env=merge_env(defaults.env, [f"{name}={value}" for name, value in pairs]))
        case Healthcheck():
            return replace(defaults, healthcheck=_healthcheck(instruction))
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
    return defaults


def in_shell(command: Command, defaults: Defaults) -> tuple[str, ...]:
    """Give a command's arguments, the image's shell before them if it is one for the shell."""
    return (*(defaults.shell or DEFAULT_SHELL), *command.arguments) if command.is_shell else command.arguments


def _healthcheck(instruction: Healthcheck) -> image_config.Healthcheck:
    command = instruction.command
    if command is None:
        return image_config.Healthcheck(test=("NONE",))
    return image_config.Healthcheck(
        test=("CMD-SHELL" if command.is_shell else "CMD", *command.arguments),
        interval_ns=instruction.interval_ns,
        timeout_ns=instruction.timeout_ns,
        start_period_ns=instruction.start_period_ns,
        start_interval_ns=instruction.start_interval_ns,
        retries=instruction.retries,
    )
