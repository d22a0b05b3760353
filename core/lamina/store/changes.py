"""`--change` of import and commit: one Dockerfile instruction applied to an image's defaults. Not Dockerfiles (`build/`).

The instructions are those that change no files: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER,
VOLUME, WORKDIR. Their grammar is Docker's: a JSON list is taken as it is, any other text is a command for the shell.
"""

import json
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from lamina.errors import UsageError
from lamina.model.image_config import Defaults, Healthcheck

_DEFAULT_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)
_DURATION_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_SIGNAL = re.compile(r"(?:SIG)?[A-Z][A-Z0-9+-]*|\d{1,2}", re.IGNORECASE)


def apply_changes(defaults: Defaults, texts: Iterable[str]) -> Defaults:
    """Apply instructions in their order."""
    for text in texts:
        defaults = apply_change(defaults, text)
    return defaults


def apply_change(defaults: Defaults, text: str) -> Defaults:
    """Apply one instruction, such as `CMD ["sh"]`. Raise UsageError for one that isn't valid."""
    word, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    apply = _INSTRUCTIONS.get(word.upper())
    if apply is None:
        raise UsageError(f"'{word}' can't be used in --change", hint=f"use one of {', '.join(_INSTRUCTIONS)}")
    if not rest:
        raise _wrong(text, "has no value")
    return apply(defaults, rest)


def split_words(text: str) -> list[str]:
    """Split at blanks outside quotes and take the quotes away; a backslash takes the next character as it is.

    Within single quotes a backslash is itself, as in a shell.
    """
    words: list[str] = []
    word, quote, begun = "", "", False
    characters = iter(text)
    for character in characters:
        if quote and character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote, begun = character, True
        elif character == "\\" and quote != "'":
            following = next(characters, "\\")
            word += following if not quote or following in '"\\$' else character + following
            begun = True
        elif not quote and character.isspace():
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word, begun = word + character, True
    if quote:
        raise _wrong(text, f"has a quote {quote} that doesn't end")
    return [*words, word] if begun else words


def parse_duration(text: str) -> int:
    """Read a duration as Go writes it (`1m30s`) as nanoseconds."""
    position, total = 0, 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != position:
            break
        total += int(float(part[1]) * _DURATION_NS[part[2]])
        position = part.end()
    if position != len(text) or not text:
        raise UsageError(f"invalid duration '{text}'", hint="write it as 30s or 1m30s")
    return total


def _json_list(text: str) -> tuple[str, ...] | None:
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None  # as Docker does: `[ -f x ]` is a command of the shell
    return tuple(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else None


def _command(defaults: Defaults, text: str) -> tuple[str, ...]:
    listed = _json_list(text)
    return listed if listed is not None else (*(defaults.shell or _DEFAULT_SHELL), text)


def _words(text: str) -> tuple[str, ...]:
    listed = _json_list(text)
    return listed if listed is not None else tuple(text.split())


def _pairs(instruction: str, text: str) -> list[tuple[str, str]]:
    """Read `NAME=VALUE …`, or the old form `NAME VALUE` of which there is only one."""
    words = split_words(text)
    if words and "=" not in words[0]:
        name, _, value = text.partition(" ")
        if not value.strip():
            raise _wrong(f"{instruction} {text}", "has no value", f"write {instruction} NAME=VALUE")
        return [(name, value.strip())]
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise _wrong(f"{instruction} {text}", f"has '{word}', which isn't NAME=VALUE")
        pairs.append((name, value))
    return pairs


def _cmd(defaults: Defaults, text: str) -> Defaults:
    return replace(defaults, cmd=_command(defaults, text))


def _entrypoint(defaults: Defaults, text: str) -> Defaults:
    return replace(defaults, entrypoint=_command(defaults, text))


def _env(defaults: Defaults, text: str) -> Defaults:
    env = {entry.partition("=")[0]: entry for entry in defaults.env}
    env.update({name: f"{name}={value}" for name, value in _pairs("ENV", text)})
    return replace(defaults, env=tuple(env.values()))


def _label(defaults: Defaults, text: str) -> Defaults:
    return replace(defaults, labels={**defaults.labels, **dict(_pairs("LABEL", text))})


def _expose(defaults: Defaults, text: str) -> Defaults:
    ports = dict.fromkeys(defaults.exposed_ports)
    for word in split_words(text):
        match = _PORT.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not match or not 0 < first <= last <= 65535:
            raise _wrong(f"EXPOSE {text}", f"has '{word}', which isn't PORT[/tcp|/udp|/sctp]")
        ports.update({f"{port}/{(match[3] or 'tcp').lower()}": None for port in range(first, last + 1)})
    return replace(defaults, exposed_ports=tuple(ports))


def _user(defaults: Defaults, text: str) -> Defaults:
    return replace(defaults, user=text)


def _volume(defaults: Defaults, text: str) -> Defaults:
    paths = _words(text)
    if not paths or not all(path.strip() for path in paths):
        raise _wrong(f"VOLUME {text}", "has no path")
    return replace(defaults, volumes=tuple(dict.fromkeys((*defaults.volumes, *paths))))


def _workdir(defaults: Defaults, text: str) -> Defaults:
    path = posixpath.normpath(posixpath.join("/", defaults.working_dir, text))
    return replace(defaults, working_dir="/" + path.lstrip("/"))


def _stop_signal(defaults: Defaults, text: str) -> Defaults:
    if not _SIGNAL.fullmatch(text):
        raise _wrong(f"STOPSIGNAL {text}", "is no signal's name or number")
    return replace(defaults, stop_signal=text)


def _shell(defaults: Defaults, text: str) -> Defaults:
    words = _json_list(text)
    if not words:
        raise _wrong(f"SHELL {text}", "isn't a JSON list of texts")
    return replace(defaults, shell=words)


def _on_build(defaults: Defaults, text: str) -> Defaults:
    word = text.split(maxsplit=1)[0].upper()
    if word in {"ONBUILD", "FROM", "MAINTAINER"}:
        raise _wrong(f"ONBUILD {text}", f"can't have {word}")
    return replace(defaults, on_build=(*defaults.on_build, text))


def _healthcheck(defaults: Defaults, text: str) -> Defaults:
    options: dict[str, str] = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        name, equals, value = option[2:].partition("=")
        if not equals:
            raise _wrong(f"HEALTHCHECK {option}", "isn't --OPTION=VALUE")
        options[name], text = value, text.strip()
    word, _, command = text.partition(" ")
    command = command.strip()
    if word.upper() == "NONE" and not command and not options:
        return replace(defaults, healthcheck=Healthcheck(test=("NONE",)))
    if word.upper() != "CMD" or not command:
        raise _wrong(f"HEALTHCHECK {text}", "isn't NONE or CMD COMMAND")
    listed = _json_list(command)
    test = ("CMD-SHELL", command) if listed is None else ("CMD", *listed)
    times = {name: parse_duration(options.pop(name, "0s")) for name in ("interval", "timeout", "start-period", "start-interval")}
    retries = options.pop("retries", "0")
    if options or not retries.isdecimal():
        raise _wrong(f"HEALTHCHECK {text}", f"has an invalid option '--{next(iter(options), 'retries')}'")
    return replace(
        defaults,
        healthcheck=Healthcheck(
            test=test,
            interval_ns=times["interval"],
            timeout_ns=times["timeout"],
            start_period_ns=times["start-period"],
            start_interval_ns=times["start-interval"],
            retries=int(retries),
        ),
    )


def _wrong(text: str, why: str, hint: str = "") -> UsageError:
    return UsageError(f"invalid change '{text[:200]}': it {why}", hint=hint)


_INSTRUCTIONS: dict[str, Callable[[Defaults, str], Defaults]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
