"""`--change` of import and commit: one Dockerfile instruction applied to an image's defaults. Not Dockerfiles (`build/`).

The language is `lamina.dockerfile`'s. The instructions are those that change no files: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK,
LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR. Variables in them are the image's ENV, as in Docker.
"""

import posixpath
from collections.abc import Iterable

from lamina.dataclasses import replace
from lamina.dockerfile.effects import apply_to
from lamina.dockerfile.errors import DockerfileError, ExpandError
from lamina.dockerfile.expand import expand_instruction
from lamina.dockerfile.instructions import Expose, Instruction, Workdir
from lamina.dockerfile.parse import parse_instruction
from lamina.model.image_config import Defaults

_FILE_NAME = "--change"
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
    expanded = expand_instruction(instruction, variables)
    if isinstance(expanded, Workdir):
        path = posixpath.normpath(posixpath.join("/", defaults.working_dir, expanded.path))
        return replace(defaults, working_dir="/" + path.lstrip("/"))
    return apply_to(defaults, expanded)
