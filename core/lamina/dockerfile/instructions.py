"""What a Dockerfile says, as values. `parse.py` makes them, `lamina.build` carries them out.

Words are kept as they were written, quotes, escapes and variables included: what a variable stands for is known only when the build
comes to the instruction. `expanded` gives the instruction with final words; which fields it expands is Docker's rule (Dockerfile
reference, "Environment replacement"). Fields that Docker never expands (a command of RUN, CMD and ENTRYPOINT) stay as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

Expand = Callable[[str], str]
"""Replaces variables and takes quotes and escapes away: one word in, one word out. See `expand.py`."""

ExpandWords = Callable[[str], list[str]]
"""The same, for a text that may become several words, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """A document written into the Dockerfile itself (`<<EOF`)."""

    name: str
    """The word behind `<<`, without quotes: a file's name for COPY and ADD."""
    content: str
    """The lines up to the end mark, tabs stripped already if it is `<<-`, each with its newline."""
    expands: bool
    """Variables in it are replaced; not if the word was quoted."""
    descriptor: int = 0
    """The file descriptor before `<<`, 0 unless it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What all have. `line` counts from 1; `text` is the instruction as written, continuation lines joined, without heredocs."""

    line: int
    last_line: int
    text: str

    @property
    def name(self) -> str:
        """The instruction's word, in capitals."""
        return type(self).__name__.upper()

    def expanded(self, expand: Expand, words: ExpandWords) -> Self:
        """Give the instruction with its variables replaced; the same one if there is nothing to replace."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What RUN, CMD, ENTRYPOINT, HEALTHCHECK and SHELL are given: a list of arguments, or a line for the shell."""

    arguments: tuple[str, ...]
    is_shell: bool
    """`arguments` is one text for the stage's shell (`/bin/sh -c` unless SHELL says otherwise)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """`FROM [--platform=…] IMAGE [AS NAME]`."""

    image: str
    stage_name: str = ""
    """In small letters, "" if it has none."""
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMount:
    """`RUN --mount=…`. Texts are unexpanded until `Run.expanded`."""

    type: str = "bind"
    """bind, cache, tmpfs, secret or ssh."""
    target: str = ""
    source: str = ""
    from_: str = ""
    """A stage, an image, or "" for the context."""
    id: str = ""
    read_only: bool = True
    """Writes to a bind mount that isn't read-only are thrown away; a cache isn't read-only unless it is asked for."""
    sharing: str = "shared"
    """Of a cache: shared, private or locked."""
    required: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size_bytes: int | None = None
    env: str = ""
    """Of a secret: the variable that holds it, instead of a file or beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """`RUN [--mount=…] [--network=…] [--security=…] COMMAND`.

    A heredoc that stands alone is the shell's script; one behind a command is what the command reads.
    """

    command: Command
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    """default, none or host."""
    security: str = "sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Instruction):
    """`COPY` and `ADD`: `sources` are what is named before the destination, heredocs are sources too."""

    is_add: bool
    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    from_: str = ""
    """COPY: a stage's name or number, or an image; "" for the context."""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    keep_git_dir: bool = False
    checksum: str = ""
    unpack: bool | None = None
    """ADD: whether archives are unpacked; None is local ones yes, downloaded ones no."""

    @property
    def name(self) -> str:
        return "ADD" if self.is_add else "COPY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    """`ENV NAME=VALUE …` or `ENV NAME VALUE`."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """`ARG NAME[=DEFAULT] …`. A default of None says that there is none."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    """`LABEL NAME=VALUE …`."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    """`WORKDIR PATH`."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    """`USER NAME[:GROUP]`."""

    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    """`EXPOSE PORT[-PORT][/PROTOCOL] …`. Expanded: every port by itself, `80/tcp`, sorted."""

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    """`VOLUME PATH …` or as a JSON list."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Instruction):
    """`CMD`: the entrypoint's arguments."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Instruction):
    """`ENTRYPOINT`; takes an inherited CMD away."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    """`SHELL ["…"]`: what a shell form runs under from here on."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopsignal(Instruction):
    """`STOPSIGNAL SIGNAL`."""

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Instruction):
    """`HEALTHCHECK [OPTIONS] CMD …`, or NONE: `command` is None. Times in nanoseconds, 0 if not given."""

    command: Command | None
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild(Instruction):
    """`ONBUILD INSTRUCTION`: kept in the image, carried out by who builds on it. It has been parsed to refuse nonsense early."""

    trigger: str
    """The instruction's text as the image keeps it."""
    instruction: Instruction


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    """`MAINTAINER TEXT`: the image's author."""

    author: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """FROM and what follows it."""

    index: int
    base: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """What messages call it: its name, or its number."""
        return self.base.stage_name or str(self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A whole file. `arguments` are the ARGs before the first FROM."""

    file_name: str
    stages: tuple[Stage, ...]
    arguments: tuple[Arg, ...] = ()
    escape: str = "\\"
    directives: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """What a careful person would want to know, a line each, with file and line."""
