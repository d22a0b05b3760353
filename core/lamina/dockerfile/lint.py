"""Warnings: what a careful person wants to know of a valid Dockerfile. BuildKit's rules by its names, as far as the text tells.

`# check=skip=RULE,RULE` (or `skip=all`) at the file's top turns rules off, the same comment above an instruction for that one, and
`# check=error=true` makes an error of them. What needs variables' values, the base image or the context is the build's to say.
"""

import re
from collections.abc import Iterator, Sequence

from lamina.dataclasses import dataclass, replace
from lamina.dockerfile.commands import is_old_form
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.flags import split_flags
from lamina.dockerfile.instructions import (
    Arg,
    Cmd,
    Dockerfile,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Shell,
    Stage,
    Workdir,
)
from lamina.dockerfile.lines import InstructionLine
from lamina.dockerfile.ports import names_host
from lamina.dockerfile.words import SPACE, shown, split_blanks, split_first
from lamina.errors import UsageError

_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)",
    re.ASCII | re.IGNORECASE,
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.ASCII | re.IGNORECASE)
_RESERVED = frozenset({"context", "scratch"})
_CHECK = re.compile(r"check\s*=\s*(.+)", re.IGNORECASE)
_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})

_Found = tuple[int, str, str]
"""Line, rule, message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What `# check=…` says."""

    skipped: frozenset[str] = frozenset()
    """Rules; `all` is all."""
    is_error: bool = False

    @staticmethod
    def parse(text: str) -> "CheckOptions":
        """Read `skip=RULE,RULE;error=true`. Raise UsageError."""
        skipped: set[str] = set()
        is_error = False
        for option in filter(None, (part.strip() for part in text.split(";"))):
            key, equals, value = (part.strip() for part in option.partition("="))
            if key == "skip" and equals:
                skipped.update(rule.strip() for rule in value.split(","))
            elif key == "error" and value.lower() in _TRUE | _FALSE:
                is_error = value.lower() in _TRUE
            elif key != "experimental" or not equals:  # BuildKit's rules that are on trial: none of ours is
                raise UsageError(
                    f"the directive 'check' can't say '{shown(option)}'", hint="write # check=skip=RULE,RULE;error=true"
                )
        return CheckOptions(skipped=frozenset(skipped), is_error=is_error)

    def skips(self, rule: str) -> bool:
        return rule in self.skipped or "all" in self.skipped


def find_warnings(dockerfile: Dockerfile, lines: Sequence[InstructionLine]) -> Dockerfile:
    """Give the Dockerfile with its warnings. Raise DockerfileError if it says that they are errors, or says so wrongly."""
    name = dockerfile.file_name
    try:
        options = CheckOptions.parse(split_first(dockerfile.directives.get("check", ""))[0])
    except UsageError as error:
        line = list(dockerfile.directives).index("check") + 1  # directives stand at the top, one in each line
        raise DockerfileError(error.message, file_name=name, line=line, hint=error.hint) from None
    skipped_at = {line.line: _options_above(line) for line in lines if line.comments}
    found = [
        (line, rule, message)
        for line, rule, message in sorted(_found(dockerfile, lines))
        if not options.skips(rule) and not (line in skipped_at and skipped_at[line].skips(rule))
    ]
    if options.is_error and found:
        line, rule, message = found[0]
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise DockerfileError(
            f"{rule}: {message}{more}", file_name=name, line=line, hint="'# check=error=true' makes this an error"
        )
    return replace(dockerfile, warnings=tuple(f"{name}:{line}: {rule}: {message}" for line, rule, message in found))


def _options_above(line: InstructionLine) -> CheckOptions:
    for comment in line.comments:
        match = _CHECK.fullmatch(comment)
        if match:
            try:
                return CheckOptions.parse(split_first(match[1])[0])
            except UsageError:
                return CheckOptions()  # a comment is free to say anything
    return CheckOptions()


def _found(dockerfile: Dockerfile, lines: Sequence[InstructionLine]) -> Iterator[_Found]:
    for line in lines:
        if line.has_empty_part:
            yield line.line, "NoEmptyContinuation", "there is an empty line between the parts of this instruction"
    yield from _casing(lines)
    yield from _stage_names(dockerfile)
    for argument in dockerfile.arguments:
        yield from _of_instruction(argument, dockerfile.escape)
    has_absolute: dict[str, bool] = {}
    for stage in dockerfile.stages:
        yield from _from(stage.base)
        for instruction in stage.instructions:
            yield from _of_instruction(instruction, dockerfile.escape)
        yield from _only_last_counts(stage)
        yield from _shell_forms(stage)
        yield from _working_directories(stage, has_absolute)


def _casing(lines: Sequence[InstructionLine]) -> Iterator[_Found]:
    words = [(line.line, split_first(line.text.strip(SPACE))[0]) for line in lines]
    small = sum(word.islower() for _, word in words)
    capital = sum(word.isupper() for _, word in words)
    for line, word in words:
        wanted = word.lower() if small > capital else word.upper()
        if word != wanted:
            yield line, "ConsistentInstructionCasing", f"'{word}' isn't written as most instructions are, '{wanted}'"


def _stage_names(dockerfile: Dockerfile) -> Iterator[_Found]:
    seen: set[str] = set()
    for stage in dockerfile.stages:
        name = stage.base.stage_name
        if name in _RESERVED:
            yield stage.base.line, "ReservedStageName", f"'{name}' has a meaning of its own and shouldn't name a stage"
        if name and name in seen:
            yield stage.base.line, "DuplicateStageName", f"a stage before this one is named '{shown(name)}' too"
        seen.add(name)


def _from(base: From) -> Iterator[_Found]:
    word, rest = split_first(base.text)
    words = split_blanks(split_flags(rest, escape="")[1]) if base.stage_name else []
    if len(words) == 3:
        if words[2] != words[2].lower():
            yield base.line, "StageNameCasing", f"the stage's name '{shown(words[2])}' should be in small letters"
        if (word.islower() and not words[1].islower()) or (word.isupper() and not words[1].isupper()):
            yield base.line, "FromAsCasing", f"'{word}' and '{words[1]}' should both be in capitals or both in small letters"
    parts = base.platform.split("/")
    if base.platform and "$" not in base.platform and not any(part and part in base.stage_name for part in parts[:2]):
        message = f"--platform shouldn't be fixed to '{shown(base.platform)}': the build says what it builds for"
        yield base.line, "FromPlatformFlagConstDisallowed", message


def _of_instruction(instruction: Instruction, escape: str) -> Iterator[_Found]:
    if isinstance(instruction, Env | Label):
        rest = split_flags(split_first(instruction.text)[1], escape=escape)[1]
        if is_old_form(rest, escape=escape):
            message = f"'{instruction.name} NAME VALUE' is an old form; write {instruction.name} NAME=VALUE"
            yield instruction.line, "LegacyKeyValueFormat", message
    if isinstance(instruction, Env | Arg):
        for name, _ in instruction.pairs:
            if _SECRET.search(name) and not _NO_SECRET.search(name):
                message = f"'{shown(name)}' looks like a secret, and images keep {instruction.name}; use RUN --mount=type=secret"
                yield instruction.line, "SecretsUsedInArgOrEnv", message
    elif isinstance(instruction, Maintainer):
        yield instruction.line, "MaintainerDeprecated", 'MAINTAINER is old; write LABEL org.opencontainers.image.authors="…"'
    elif isinstance(instruction, Expose):
        for port in instruction.ports:
            if names_host(port):
                yield (
                    instruction.line,
                    "ExposeInvalidFormat",
                    f"'{shown(port)}' names the host's address or port, which EXPOSE ignores",
                )
            elif port != port.lower() and "$" not in port:
                yield instruction.line, "ExposeProtoCasing", f"the protocol in '{shown(port)}' should be in small letters"


def _only_last_counts(stage: Stage) -> Iterator[_Found]:
    for kind in (Cmd, Entrypoint, Healthcheck):
        for instruction in [one for one in stage.instructions if isinstance(one, kind)][:-1]:
            message = f"another {instruction.name} follows in this stage, and only the last one counts"
            yield instruction.line, "MultipleInstructionsDisallowed", message


def _shell_forms(stage: Stage) -> Iterator[_Found]:
    for instruction in stage.instructions:
        if isinstance(instruction, Shell):
            return  # whoever chose a shell wants one
        if isinstance(instruction, Cmd | Entrypoint) and instruction.command.is_shell:
            message = (
                f'{instruction.name} runs under a shell, which gets the signals; write {instruction.name} ["PROGRAM", "ARGUMENT"]'
            )
            yield instruction.line, "JSONArgsRecommended", message


def _working_directories(stage: Stage, has_absolute: dict[str, bool]) -> Iterator[_Found]:
    is_known = has_absolute.get(stage.base.image.lower(), False)
    for instruction in stage.instructions:
        if isinstance(instruction, Workdir):
            if instruction.path.startswith(("/", "$", '"/', "'/")):
                is_known = True
            elif not is_known:
                message = f"where '{shown(instruction.path)}' is depends on the base image; begin with an absolute WORKDIR"
                yield instruction.line, "WorkdirRelativePath", message
    has_absolute[stage.base.stage_name or str(stage.index)] = is_known
