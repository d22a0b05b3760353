"""One function for each instruction: from its text to its value. The grammar is BuildKit's, and so are the forms that look alike
and aren't.

Stricter than BuildKit in what can only be a mistake: an instruction without what it is about (it runs an empty shell for `RUN`), a
flag that an instruction doesn't have (ARG, STOPSIGNAL and HEALTHCHECK NONE overlook it), a heredoc in COPY that isn't one word.
"""

import re
from collections.abc import Callable, Mapping

from lamina.dataclasses import dataclass
from lamina.dockerfile.errors import ExpandError
from lamina.dockerfile.expand import expand_word
from lamina.dockerfile.flags import FlagKind, Flags, read_flags
from lamina.dockerfile.heredocs import HeredocMark, read_mark
from lamina.dockerfile.instructions import (
    Arg,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from lamina.dockerfile.mounts import parse_mount
from lamina.dockerfile.words import SPACE, json_list, shown, split_blanks, split_first, split_quoted
from lamina.errors import UsageError
from lamina.model.durations import parse_duration

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*", re.ASCII)
_MILLISECOND_NS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An instruction whose word and flags are split off."""

    word: str
    """In capitals."""
    flags: list[str]
    rest: str
    """What it is about, without blanks at its ends."""
    text: str
    line: int
    last_line: int
    escape: str
    heredocs: tuple[Heredoc, ...] = ()


def read_request(request: Request) -> Instruction:
    """Read an instruction; its word must be one of `WORDS`. Raise UsageError."""
    if not request.rest:
        raise UsageError("nothing follows", hint=f"write {_USAGE[request.word]}")
    return WORDS[request.word](request, read_flags(request.flags, FLAGS.get(request.word, {})))


def _from(request: Request, flags: Flags) -> From:
    words = split_blanks(request.rest)
    name = ""
    if len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            hint = "a name begins with a letter and has letters, digits, '-', '_' and '.'"
            raise UsageError(f"a stage can't be named '{shown(words[2])}'", hint=hint)
    elif len(words) != 1:
        raise UsageError(f"'{shown(request.rest)}' is neither IMAGE nor IMAGE AS NAME", hint=f"write {_USAGE['FROM']}")
    return From(
        line=request.line,
        last_line=request.last_line,
        text=request.text,
        image=words[0],
        stage_name=name,
        platform=flags.text("platform"),
    )


def _run(request: Request, flags: Flags) -> Run:
    network, security = flags.text("network", "default"), flags.text("security", "sandbox")
    if network not in {"default", "none", "host"}:
        raise UsageError(f"unknown network '{shown(network)}'", hint="it is default, none or host")
    if security not in {"sandbox", "insecure"}:
        raise UsageError(f"unknown security '{shown(security)}'", hint="it is sandbox or insecure")
    command = _command(request)
    mark = read_mark(request.rest) if request.heredocs else None
    return Run(
        line=request.line,
        last_line=request.last_line,
        text=request.text,
        command=command,
        heredocs=request.heredocs,
        mounts=tuple(parse_mount(text) for text in flags.texts("mount")),
        network=network,
        security=security,
        is_script=mark is not None,
    )


def _copy(request: Request, flags: Flags) -> Copy:
    listed = _list(request)
    words = list(listed) if listed is not None else split_blanks(request.rest)
    if len(words) < 2:
        raise UsageError("needs a source and a destination", hint=f"write {_USAGE[request.word]}")
    if listed is None:
        words = _paths(words, request.heredocs)
    from_ = flags.text("from")
    try:
        is_plain = expand_word(from_, {}, escape=request.escape) == from_
    except ExpandError:
        is_plain = False
    if not is_plain:
        raise UsageError(
            f"--from can't have variables, '{shown(from_)}'",
            hint="name a stage made with FROM $VARIABLE AS NAME and copy from that",
        )
    return Copy(
        line=request.line,
        last_line=request.last_line,
        text=request.text,
        is_add=request.word == "ADD",
        sources=tuple(words[:-1]),
        destination=words[-1],
        heredocs=request.heredocs,
        from_=from_,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.switch("link"),
        parents=flags.switch("parents"),
        exclude=flags.texts("exclude"),
        keep_git_dir=flags.switch("keep-git-dir"),
        checksum=flags.text("checksum"),
        unpack=flags.switch("unpack") if flags.texts("unpack") else None,
    )


def _paths(words: list[str], heredocs: tuple[Heredoc, ...]) -> list[str]:
    """Give the words that name no heredoc."""
    marks = {word: mark for word in words if "<<" in word and (mark := _mark(word))}
    if words[-1] in marks:
        raise UsageError(f"the destination '{shown(words[-1])}' can't be a heredoc")
    if [mark.name for word in words if (mark := marks.get(word))] != [heredoc.name for heredoc in heredocs]:
        raise UsageError("a heredoc's mark isn't one word", hint="write <<NAME or <<'NAME', without blanks")
    for heredoc in heredocs:
        if "/" in heredoc.name or heredoc.name in {".", ".."}:
            raise UsageError(f"a heredoc named '{shown(heredoc.name)}' can't be a file", hint="put the path into the destination")
    return [word for word in words if word not in marks]


def _mark(word: str) -> HeredocMark | None:
    try:
        return read_mark(word)
    except ExpandError:
        return None  # a part of a quoted name, cut at its blank


def _env(request: Request, flags: Flags) -> Env:
    return Env(line=request.line, last_line=request.last_line, text=request.text, pairs=_pairs(request))


def _label(request: Request, flags: Flags) -> Label:
    return Label(line=request.line, last_line=request.last_line, text=request.text, pairs=_pairs(request))


def _pairs(request: Request) -> tuple[tuple[str, str], ...]:
    """Read `NAME=VALUE …`, or the old `NAME VALUE` whose value goes to the end of the line. The first word says which it is."""
    words = split_quoted(request.rest, escape=request.escape)
    if is_old_form(request.rest, escape=request.escape):
        name, value = split_first(request.rest)
        if not value:
            raise UsageError(f"'{shown(name)}' has no value", hint=f"write {request.word} {shown(name)}=VALUE")
        return ((name, value),)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            hint = "put a value with blanks into quotes"
            raise UsageError(f"'{shown(word)}' isn't NAME=VALUE", hint=hint)
        if not name:
            raise UsageError(f"'{shown(word)}' has no name")
        pairs.append((name, value))
    return tuple(pairs)


def is_old_form(rest: str, *, escape: str) -> bool:
    """Tell whether ENV or LABEL is written `NAME VALUE`."""
    words = split_quoted(rest, escape=escape)
    return bool(words) and "=" not in words[0]


def _arg(request: Request, flags: Flags) -> Arg:
    pairs: list[tuple[str, str | None]] = []
    for word in split_quoted(request.rest, escape=request.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise UsageError(f"'{shown(word)}' has no name")
        pairs.append((name, value if equals else None))
    return Arg(line=request.line, last_line=request.last_line, text=request.text, pairs=tuple(pairs))


def _workdir(request: Request, flags: Flags) -> Workdir:
    return Workdir(line=request.line, last_line=request.last_line, text=request.text, path=request.rest)


def _user(request: Request, flags: Flags) -> User:
    return User(line=request.line, last_line=request.last_line, text=request.text, user=request.rest)


def _expose(request: Request, flags: Flags) -> Expose:
    ports = tuple(split_blanks(request.rest))
    return Expose(line=request.line, last_line=request.last_line, text=request.text, ports=ports)


def _volume(request: Request, flags: Flags) -> Volume:
    listed = _list(request)
    paths = tuple(path.strip(SPACE) for path in (split_blanks(request.rest) if listed is None else listed))
    if not paths or "" in paths:
        raise UsageError("has no path" if not paths else "has an empty path")
    return Volume(line=request.line, last_line=request.last_line, text=request.text, paths=paths)


def _cmd(request: Request, flags: Flags) -> Cmd:
    return Cmd(line=request.line, last_line=request.last_line, text=request.text, command=_command(request, empty=True))


def _entrypoint(request: Request, flags: Flags) -> Entrypoint:
    return Entrypoint(line=request.line, last_line=request.last_line, text=request.text, command=_command(request, empty=True))


def _shell(request: Request, flags: Flags) -> Shell:
    listed = _list(request)
    if not listed:
        raise UsageError(f"'{shown(request.rest)}' isn't a JSON list of texts", hint=f"write {_USAGE['SHELL']}")
    command = Command(arguments=listed, is_shell=False)
    return Shell(line=request.line, last_line=request.last_line, text=request.text, command=command)


def _stop_signal(request: Request, flags: Flags) -> Stopsignal:
    return Stopsignal(line=request.line, last_line=request.last_line, text=request.text, signal=request.rest)


def _maintainer(request: Request, flags: Flags) -> Maintainer:
    return Maintainer(line=request.line, last_line=request.last_line, text=request.text, author=request.rest)


def _healthcheck(request: Request, flags: Flags) -> Healthcheck:
    kind, rest = split_first(request.rest)
    if kind.upper() == "NONE":
        if rest:
            raise UsageError(f"NONE can't have '{shown(rest)}' behind it")
        return Healthcheck(line=request.line, last_line=request.last_line, text=request.text, command=None)
    if kind.upper() != "CMD":
        raise UsageError(f"'{shown(kind)}' is neither NONE nor CMD", hint=f"write {_USAGE['HEALTHCHECK']}")
    command = _command_of(rest)
    if not command.arguments or not rest:
        raise UsageError("CMD has no command", hint=f"write {_USAGE['HEALTHCHECK']}")
    retries = flags.text("retries", "0").removeprefix("+")
    if not retries.isascii() or not retries.isdecimal() or len(retries) > 40 or int(retries) >= 1 << 31:
        raise UsageError(f"--retries can't be '{shown(retries)}'", hint="it is a number from 0")
    return Healthcheck(
        line=request.line,
        last_line=request.last_line,
        text=request.text,
        command=command,
        interval_ns=_interval(flags, "interval"),
        timeout_ns=_interval(flags, "timeout"),
        start_period_ns=_interval(flags, "start-period"),
        start_interval_ns=_interval(flags, "start-interval"),
        retries=int(retries),
    )


def _interval(flags: Flags, name: str) -> int:
    text = flags.text(name)
    interval_ns = parse_duration(text) if text else 0
    if interval_ns and interval_ns < _MILLISECOND_NS:
        raise UsageError(f"--{name} can't be '{shown(text)}'", hint="it is 0 or at least 1ms")
    return interval_ns


def _command(request: Request, *, empty: bool = False) -> Command:
    command = _command_of(request.rest)
    if not command.arguments and not empty:
        raise UsageError("has an empty list for a command", hint=f"write {_USAGE[request.word]}")
    return command


def _command_of(text: str) -> Command:
    try:
        listed = json_list(text)
    except ValueError as error:
        raise UsageError(f"'{shown(text)}': {error}") from None
    return Command(arguments=(text,), is_shell=True) if listed is None else Command(arguments=listed, is_shell=False)


def _list(request: Request) -> tuple[str, ...] | None:
    try:
        return json_list(request.rest)
    except ValueError as error:
        raise UsageError(f"'{shown(request.rest)}': {error}") from None


_COPY_FLAGS = {
    "chown": FlagKind.TEXT,
    "chmod": FlagKind.TEXT,
    "link": FlagKind.SWITCH,
    "exclude": FlagKind.TEXTS,
}

FLAGS: Mapping[str, Mapping[str, FlagKind]] = {
    "FROM": {"platform": FlagKind.TEXT},
    "RUN": {"mount": FlagKind.TEXTS, "network": FlagKind.TEXT, "security": FlagKind.TEXT},
    "COPY": {"from": FlagKind.TEXT, **_COPY_FLAGS, "parents": FlagKind.SWITCH},
    "ADD": {**_COPY_FLAGS, "keep-git-dir": FlagKind.SWITCH, "checksum": FlagKind.TEXT, "unpack": FlagKind.SWITCH},
    "HEALTHCHECK": dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), FlagKind.TEXT),
}
"""The flags of those that have any."""

WORDS: Mapping[str, Callable[[Request, Flags], Instruction]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
"""All instructions but ONBUILD, which holds one of them (`parse.py`)."""

_USAGE = {
    "ADD": "ADD SOURCE … DESTINATION",
    "ARG": "ARG NAME or ARG NAME=DEFAULT",
    "CMD": 'CMD ["PROGRAM", "ARGUMENT"] or CMD COMMAND',
    "COPY": "COPY SOURCE … DESTINATION",
    "ENTRYPOINT": 'ENTRYPOINT ["PROGRAM", "ARGUMENT"] or ENTRYPOINT COMMAND',
    "ENV": "ENV NAME=VALUE …",
    "EXPOSE": "EXPOSE PORT …",
    "FROM": "FROM IMAGE or FROM IMAGE AS NAME",
    "HEALTHCHECK": "HEALTHCHECK CMD COMMAND or HEALTHCHECK NONE",
    "LABEL": "LABEL NAME=VALUE …",
    "MAINTAINER": "MAINTAINER NAME",
    "RUN": "RUN COMMAND",
    "SHELL": 'SHELL ["PROGRAM", "ARGUMENT"]',
    "STOPSIGNAL": "STOPSIGNAL SIGNAL",
    "USER": "USER NAME or USER NAME:GROUP",
    "VOLUME": "VOLUME PATH …",
    "WORKDIR": "WORKDIR PATH",
}
