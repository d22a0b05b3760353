"""From a Dockerfile's bytes to its stages; the whole language meets here. Nothing is expanded: see `Instruction.expanded`."""

from lamina.dataclasses import dataclass, field
from lamina.dockerfile.commands import WORDS, Request, read_request
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.flags import read_flags, split_flags
from lamina.dockerfile.heredocs import find_marks
from lamina.dockerfile.instructions import Arg, Dockerfile, From, Heredoc, Instruction, Onbuild, Stage
from lamina.dockerfile.lines import InstructionLine, Reader, decode
from lamina.dockerfile.lint import find_warnings
from lamina.dockerfile.words import SPACE, json_list, shown, split_first, suggestion
from lamina.errors import UsageError

_WITH_HEREDOCS = frozenset({"ADD", "COPY", "RUN"})
_NO_TRIGGERS = frozenset({"FROM", "MAINTAINER", "ONBUILD"})


def parse(content: bytes, *, file_name: str = "Dockerfile") -> Dockerfile:
    """Read a whole Dockerfile. Raise DockerfileError with the first thing that is wrong."""
    reader = Reader(lines=decode(content, file_name=file_name), file_name=file_name)
    reader.read_directives()
    arguments: list[Arg] = []
    stages: list[_OpenStage] = []
    lines: list[InstructionLine] = []
    while line := reader.instruction():
        instruction = _read(line, reader)
        lines.append(line)
        if isinstance(instruction, From):
            stages.append(_OpenStage(base=instruction))
        elif stages:
            stages[-1].instructions.append(instruction)
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            hint = "begin with FROM IMAGE; only ARG may stand before it"
            raise DockerfileError(
                "stands before the first FROM", file_name=file_name, line=line.line, instruction=instruction.name, hint=hint
            )
    if not stages:
        raise reader.error("no FROM in the file" if arguments else "the file has no instructions", hint="begin with FROM IMAGE")
    dockerfile = Dockerfile(
        file_name=file_name,
        stages=tuple(
            Stage(index=index, base=stage.base, instructions=tuple(stage.instructions)) for index, stage in enumerate(stages)
        ),
        arguments=tuple(arguments),
        escape=reader.escape,
        directives=reader.directives,
    )
    return find_warnings(dockerfile, lines)


def parse_instruction(text: str, *, file_name: str, line: int, escape: str = "\\") -> Instruction:
    """Read one instruction with its heredocs: a trigger of ONBUILD, a `--change`. `line` is what its first line is called.

    Raises DockerfileError.
    """
    try:
        lines = decode(text.encode(), file_name=file_name)
    except UnicodeEncodeError:
        raise DockerfileError("the text isn't UTF-8", file_name=file_name, line=line) from None
    reader = Reader(lines=lines, file_name=file_name, escape=escape, first_line=line)
    first = reader.instruction()
    if first is None:
        raise DockerfileError("there is no instruction", file_name=file_name, line=line)
    instruction = _read(first, reader)
    more = reader.instruction()
    if more:
        raise DockerfileError(
            f"'{shown(more.text)}' follows where only one instruction can stand", file_name=file_name, line=more.line
        )
    return instruction


@dataclass(slots=True, kw_only=True)
class _OpenStage:
    base: From
    instructions: list[Instruction] = field(default_factory=list)


def _read(line: InstructionLine, reader: Reader) -> Instruction:
    """Read one instruction, and its heredocs' lines from the reader."""
    word, rest = split_first(line.text.strip(SPACE))
    try:
        if word.upper() != "ONBUILD":
            request = _request(word, rest, line, reader)
            return read_request(request)
        flags, rest = split_flags(rest, escape=reader.escape)
        read_flags(flags, {})
        if not rest:
            raise UsageError("nothing follows", hint="write ONBUILD INSTRUCTION")
        inner, inner_rest = split_first(rest)
        if inner.upper() in _NO_TRIGGERS:
            raise UsageError(f"{inner.upper()} can't be a trigger")
        request = _request(inner, inner_rest, line, reader)
        documents = (f"\n{heredoc.content}{heredoc.name}" for heredoc in request.heredocs)
        return Onbuild(
            line=line.line,
            last_line=reader.line,
            text=line.text,
            trigger="".join((rest, *documents)),
            instruction=read_request(request),
        )
    except DockerfileError:
        raise
    except UsageError as error:
        raise DockerfileError(
            error.message, file_name=reader.file_name, line=line.line, instruction=word.upper()[:100], hint=error.hint
        ) from None


def _request(word: str, rest: str, line: InstructionLine, reader: Reader) -> Request:
    capitals = word.upper()
    if capitals not in WORDS:
        near = suggestion(word, (*WORDS, "ONBUILD"))
        hint = f"did you mean {near}?" if near else "a line that belongs to the one before must follow a \\ at that one's end"
        raise DockerfileError(f"unknown instruction '{shown(word)}'", file_name=reader.file_name, line=line.line, hint=hint)
    flags, rest = split_flags(rest, escape=reader.escape)
    rest = rest.strip(SPACE)
    heredocs: list[Heredoc] = []
    if capitals in _WITH_HEREDOCS and "<<" in line.text and not _is_list(rest):
        for mark in find_marks(line.text):
            content = reader.heredoc(mark)
            heredocs.append(Heredoc(name=mark.name, content=content, expands=mark.expands, descriptor=mark.descriptor))
    return Request(
        word=capitals,
        flags=flags,
        rest=rest,
        text=line.text.strip(SPACE),
        line=line.line,
        last_line=reader.line,
        escape=reader.escape,
        heredocs=tuple(heredocs),
    )


def _is_list(text: str) -> bool:
    try:
        return json_list(text) is not None
    except ValueError:
        return True
