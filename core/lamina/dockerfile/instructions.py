"""What a Dockerfile says, as values. `parse.py` makes them, `lamina.build` carries them out.

Words are kept as they were written, quotes, escapes and variables included: what a variable stands for is known only when the build
comes to the instruction. `expanded` gives the instruction with final words; which fields it expands is Docker's rule (Dockerfile
reference, "Environment replacement", and what BuildKit does). Fields that Docker never expands (the commands of RUN, CMD,
ENTRYPOINT, HEALTHCHECK and SHELL, ONBUILD's trigger, MAINTAINER, --from, --exclude) stay as they are.
"""

import re
import signal
from collections.abc import Callable, Mapping
from typing import Self

from lamina.dataclasses import dataclass, field, replace
from lamina.dockerfile.errors import ExpandError
from lamina.dockerfile.mounts import RunMount as RunMount  # noqa: PLC0414  one of the values, given out from here
from lamina.dockerfile.mounts import parse_mount
from lamina.dockerfile.ports import parse_ports
from lamina.dockerfile.words import SPACE, shown

Expand = Callable[[str], str]
"""Replaces variables and takes quotes and escapes away: one word in, one word out. See `expand.py`."""

ExpandWords = Callable[[str], list[str]]
"""The same, for a text that may become several words, or none."""

ExpandDocument = Callable[[str], str]
"""The same for a heredoc's content, in which quotes have no meaning. See `expand_document`."""

_ARG_HINT = "give ARG a default before the first FROM, or --build-arg a value"
_REAL_TIME = re.compile(r"RTMIN\+(?:\d|1[0-5])|RTMAX-(?:\d|1[0-4])", re.ASCII)
"""signal(7): between SIGRTMIN, which is 34, and SIGRTMAX, which is 64, counted from the nearer end."""


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

    def expanded(self, expand: Expand, words: ExpandWords, document: ExpandDocument) -> Self:
        """Give the instruction with its variables replaced; the same one if there is nothing to replace.

        Which variables are seen is the caller's affair. FROM sees the ARGs before the first FROM; all others the stage's ENV and
        ARG as they were before their line: in `ENV a=1 b=$a` b has the a of before. ARG alone sees what its own line set
        (`Arg.apart`). `expand_instruction` has the three functions. Raises ExpandError, also for what turns out wrong then.
        """
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

    def expanded(self, expand: Expand, words: ExpandWords, document: ExpandDocument) -> Self:
        image, platform = expand(self.image), expand(self.platform)
        if not image:
            raise ExpandError(f"the image's name '{self.image}' is empty once its variables are replaced", hint=_ARG_HINT)
        if self.platform and not platform:
            raise ExpandError(f"the platform '{self.platform}' is empty once its variables are replaced", hint=_ARG_HINT)
        return replace(self, image=image, platform=platform)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """`RUN [--mount=…] [--network=…] [--security=…] COMMAND`."""

    command: Command
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    """default, none or host."""
    security: str = "sandbox"
    is_script: bool = False
    """The command is nothing but a heredoc's mark: its content is the script."""

    @property
    def shell_text(self) -> str:
        """What the shell is given, if the command is one for the shell.

        That is a heredoc's content where it stands alone (one that begins with `#!` is a program: it is put into a file and
        executed), or the command with its heredocs behind it, for the shell to read.
        """
        if self.is_script:
            return self.heredocs[0].content
        documents = (f"\n{heredoc.content}{heredoc.name}" for heredoc in self.heredocs)
        return "".join((self.command.arguments[0], *documents))

    def expanded(self, expand: Expand, words: ExpandWords, document: ExpandDocument) -> Self:
        if not self.mounts:
            return self
        return replace(self, mounts=tuple(parse_mount(mount.text, expand) for mount in self.mounts))


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

    def expanded(self, expand: Expand, words: ExpandWords, document: ExpandDocument) -> Self:
        return replace(
            self,
            sources=tuple(expand(source) for source in self.sources),
            destination=expand(self.destination),
            chown=expand(self.chown),
            chmod=expand(self.chmod),
            checksum=expand(self.checksum),
            heredocs=tuple(replace(one, content=document(one.content)) if one.expands else one for one in self.heredocs),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    """`ENV NAME=VALUE …` or `ENV NAME VALUE`."""

    pairs: tuple[tuple[str, str], ...]

    def expanded(self, expand: Expand, words: ExpandWords, document: ExpandDocument) -> Self:
        return replace(self, pairs=_expanded_pairs(self.pairs, expand))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """`ARG NAME[=DEFAULT] …`. A default of None says that there is none."""

    pairs: tuple[tuple[str, str | None], ...]

    def apart(self) -> "tuple[Arg, ...]":
        """Give one ARG for each name.

        Docker takes them so: in `ARG a=1 b=$a` b has a's value, and a default isn't expanded if the build was given a value.
        """
        return tuple(replace(self, pairs=(pair,)) for pair in self.pairs)

    def expanded(self, expand: Expand, words: ExpandWords, document: ExpandDocument) -> Self:
        return replace(self, pairs=tuple((name, value if value is None else expand(value)) for name, value in self.pairs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    """`LABEL NAME=VALUE …` or `LABEL NAME VALUE`."""

    pairs: tuple[tuple[str, str], ...]

    def expanded(self, expand: Expand, words: ExpandWords, document: ExpandDocument) -> Self:
        return replace(self, pairs=_expanded_pairs(self.pairs, expand))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    """`WORKDIR PATH`."""

    path: str

    def expanded(self, expand: Expand, words: ExpandWords, document: ExpandDocument) -> Self:
        return replace(self, path=expand(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    """`USER NAME[:GROUP]`."""

    user: str

    def expanded(self, expand: Expand, words: ExpandWords, document: ExpandDocument) -> Self:
        return replace(self, user=expand(self.user))


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    """`EXPOSE PORT[-PORT][/PROTOCOL] …`. Expanded: every port by itself, `80/tcp`, sorted."""

    ports: tuple[str, ...]

    def expanded(self, expand: Expand, words: ExpandWords, document: ExpandDocument) -> Self:
        ports = {port for text in self.ports for word in words(text) for port in parse_ports(word)}
        return replace(self, ports=tuple(f"{number}/{protocol}" for number, protocol in sorted(ports)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    """`VOLUME PATH …` or as a JSON list."""

    paths: tuple[str, ...]

    def expanded(self, expand: Expand, words: ExpandWords, document: ExpandDocument) -> Self:
        paths = tuple(expand(path) for path in self.paths)
        if "" in paths:
            raise ExpandError(f"the path '{self.paths[paths.index('')]}' is empty once its variables are replaced")
        return replace(self, paths=paths)


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


def _is_signal(text: str) -> bool:
    name = text.upper().removeprefix("SIG") if text.isascii() else ""
    if name.isdigit():
        return len(name) < 3 and 0 < int(name) <= signal.SIGRTMAX
    return f"SIG{name}" in signal.Signals.__members__ or _REAL_TIME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopsignal(Instruction):
    """`STOPSIGNAL SIGNAL`."""

    signal: str

    def expanded(self, expand: Expand, words: ExpandWords, document: ExpandDocument) -> Self:
        text = expand(self.signal)
        if not _is_signal(text):
            raise ExpandError(f"'{shown(text)}' is no signal's name or number", hint="write it as SIGTERM or 15")
        return replace(self, signal=text)


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


def _expanded_pairs(pairs: tuple[tuple[str, str], ...], expand: Expand) -> tuple[tuple[str, str], ...]:
    expanded = tuple((expand(name), expand(value)) for name, value in pairs)
    for (written, _), (name, _) in zip(pairs, expanded, strict=True):
        if not name.strip(SPACE):
            raise ExpandError(f"the name '{written}' is empty once its variables are replaced")
    return expanded


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
