"""The instructions that change no file: what each does to an image's defaults, and the line of history that BuildKit writes for it.

Instructions come expanded. Pure values.
"""

import json
import posixpath
from collections.abc import Sequence
from dataclasses import replace

from lamina.build.sources import without_accounts
from lamina.build.state import State
from lamina.dockerfile.instructions import (
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Shell,
    Stopsignal,
    User,
    Volume,
)
from lamina.model import image_config
from lamina.model.container import merge_env


def apply_setting(state: State, instruction: Instruction, *, cmd_is_set: bool) -> tuple[State, str]:
    """Give the state after the instruction and the text for its history.

    `cmd_is_set`: this stage has had a CMD of its own, which ENTRYPOINT then leaves alone.
    """
    defaults = state.defaults
    if isinstance(instruction, Env):
        pairs = [f"{name}={value}" for name, value in instruction.pairs]
        names = {name for name, _ in instruction.pairs}
        state = replace(state, args={name: value for name, value in state.args.items() if name not in names})
        return state.with_defaults(env=merge_env(list(defaults.env), pairs)), f"ENV {' '.join(pairs)}"
    if isinstance(instruction, Label):
        pairs = [f"{name}={value}" for name, value in instruction.pairs]
        return state.with_defaults(labels={**defaults.labels, **dict(instruction.pairs)}), f"LABEL {' '.join(pairs)}"
    if isinstance(instruction, User):
        return state.with_defaults(user=instruction.user), f"USER {instruction.user}"
    if isinstance(instruction, Expose):
        ports = tuple(sorted({*defaults.exposed_ports, *instruction.ports}))
        return state.with_defaults(exposed_ports=ports), f"EXPOSE {_go_set(instruction.ports)}"
    if isinstance(instruction, Volume):
        volumes = tuple(dict.fromkeys((*defaults.volumes, *instruction.paths)))
        return state.with_defaults(volumes=volumes), f"VOLUME [{' '.join(instruction.paths)}]"
    if isinstance(instruction, Cmd):
        words = in_shell(instruction.command, state)
        return state.with_defaults(cmd=words), f"CMD {_go_list(words)}"
    if isinstance(instruction, Entrypoint):
        words = in_shell(instruction.command, state)
        cmd = defaults.cmd if cmd_is_set else None
        return state.with_defaults(entrypoint=words, cmd=cmd), f"ENTRYPOINT {_go_list(words)}"
    if isinstance(instruction, Shell):
        words = instruction.command.arguments
        return state.with_defaults(shell=words), f"SHELL [{' '.join(words)}]"
    if isinstance(instruction, Stopsignal):
        return state.with_defaults(stop_signal=instruction.signal), f"STOPSIGNAL {instruction.signal}"
    if isinstance(instruction, Healthcheck):
        return state.with_defaults(healthcheck=_healthcheck(instruction)), instruction.text
    if isinstance(instruction, Onbuild):
        return state.with_defaults(on_build=(*defaults.on_build, instruction.trigger)), f"ONBUILD {instruction.trigger}"
    if isinstance(instruction, Maintainer):
        return replace(state, config=replace(state.config, author=instruction.author)), f"MAINTAINER {instruction.author}"
    raise TypeError(type(instruction).__name__)


def in_shell(command: Command, state: State) -> tuple[str, ...]:
    """Give a command's arguments, the shell's before them if it is one for the shell."""
    return (*state.shell, *command.arguments) if command.is_shell else command.arguments


def joined(working_dir: str, path: str) -> str:
    """Give the absolute path that a WORKDIR means; one that is absolute already stays as it is written, as with BuildKit."""
    return (
        path
        if path.startswith("/")
        else posixpath.join("/", posixpath.normpath(posixpath.join("/", working_dir, path)).lstrip("/"))
    )


def run_history(arguments: Sequence[str], args: dict[str, str]) -> str:
    """Write RUN's history: `RUN |1 NAME=VALUE /bin/sh -c …`, the ARGs that it saw before its words."""
    seen = [f"|{len(args)}", *(f"{name}={value}" for name, value in args.items())] if args else []
    return " ".join(["RUN", *seen, *arguments])


def copy_history(copy: Copy) -> str:
    """Write COPY's or ADD's history, which everybody can read who has the image."""
    return " ".join(
        [copy.name, *map(without_accounts, copy.sources), *(f"<<{heredoc.name}" for heredoc in copy.heredocs), copy.destination]
    )


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


def _go_list(words: Sequence[str]) -> str:
    return f"[{' '.join(json.dumps(word, ensure_ascii=False) for word in words)}]"


def _go_set(words: Sequence[str]) -> str:
    return f"map[{' '.join(f'{word}:{{}}' for word in sorted(words))}]"
