"""The instructions that change no file: what each does to an image's defaults, and the line of history that BuildKit writes for it.

Instructions come expanded. Pure values.
"""

import posixpath
from collections.abc import Sequence

from lamina import json
from lamina.build.sources import without_accounts
from lamina.build.state import State
from lamina.dataclasses import replace
from lamina.dockerfile.effects import apply_to
from lamina.dockerfile.instructions import (
    Cmd,
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
from lamina.model.image_config import Defaults


def apply_setting(state: State, instruction: Instruction, *, cmd_is_set: bool) -> tuple[State, str]:
    """Give the state after the instruction and the text for its history.

    `cmd_is_set`: this stage has had a CMD of its own, which ENTRYPOINT then leaves alone.
    """
    defaults = apply_to(state.defaults, instruction)
    match instruction:
        case Env(pairs=pairs):
            state = replace(state, args={name: value for name, value in state.args.items() if name not in dict(pairs)})
            text = _pairs(pairs)
        case Label(pairs=pairs):
            text = _pairs(pairs)
        case User(user=user):
            text = user
        case Expose(ports=ports):
            defaults = replace(defaults, exposed_ports=tuple(sorted({*defaults.exposed_ports, *ports})))
            text = _go_set(ports)
        case Volume(paths=paths):
            text = f"[{' '.join(paths)}]"
        case Cmd():
            text = _go_list(defaults.cmd or ())
        case Entrypoint():
            defaults = defaults if cmd_is_set else replace(defaults, cmd=None)
            text = _go_list(defaults.entrypoint or ())
        case Shell(command=command):
            text = f"[{' '.join(command.arguments)}]"
        case Stopsignal(signal=signal):
            text = signal
        case Onbuild(trigger=trigger):
            text = trigger
        case Maintainer(author=author):
            state = replace(state, config=replace(state.config, author=author))
            text = author
        case Healthcheck():
            return _with(state, defaults), instruction.text
        case _:
            raise TypeError(type(instruction).__name__)
    return _with(state, defaults), f"{instruction.name} {text}"


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


def _with(state: State, defaults: Defaults) -> State:
    return replace(state, config=replace(state.config, config=defaults), image_id=None)


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{name}={value}" for name, value in pairs)


def _go_list(words: Sequence[str]) -> str:
    return f"[{' '.join(json.dumps(word, ensure_ascii=False) for word in words)}]"


def _go_set(words: Sequence[str]) -> str:
    return f"map[{' '.join(f'{word}:{{}}' for word in sorted(words))}]"
