"""Flags of an instruction: `--NAME`, `--NAME=VALUE`, between the instruction's word and what it is about."""

from collections.abc import Mapping
from enum import Enum

from lamina.dataclasses import dataclass, field
from lamina.dockerfile.words import is_space, shown, suggestion
from lamina.errors import UsageError


class FlagKind(Enum):
    """What a flag takes."""

    SWITCH = "true or false, true alone"
    TEXT = "a text"
    TEXTS = "a text, several times"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags that were given, each known to the instruction."""

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def text(self, name: str, default: str = "") -> str:
        return self.values.get(name, (default,))[0]

    def texts(self, name: str) -> tuple[str, ...]:
        return self.values.get(name, ())

    def switch(self, name: str) -> bool:
        return self.text(name) == "true"


def split_flags(text: str, *, escape: str) -> tuple[list[str], str]:
    """Split the flags off that a text begins with; `--` ends them. Quotes are taken away, an escaped character is itself."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(text) and is_space(text[at]):
            at += 1
        if not text.startswith("--", at):
            return flags, text[at:]
        word, at = _word(text, at, escape)
        if word == "--":
            return flags, text[at:]
        flags.append(word)


def _word(text: str, at: int, escape: str) -> tuple[str, int]:
    word: list[str] = []
    quote = ""
    while at < len(text):
        character = text[at]
        if not quote and is_space(character):
            break
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        else:
            if character == escape:  # within single quotes too: BuildKit makes no difference here
                at += 1
                character = text[at : at + 1]
            word.append(character)
        at += 1
    return "".join(word), at


def read_flags(texts: list[str], kinds: Mapping[str, FlagKind]) -> Flags:
    """Read flags of the given kinds. Raise UsageError."""
    values: dict[str, tuple[str, ...]] = {}
    for text in texts:
        flag, equals, value = text.partition("=")
        name = flag[2:]
        kind = kinds.get(name)
        if kind is None:
            near = suggestion(name, kinds)
            known = ", ".join(f"--{one}" for one in kinds)
            hint = f"did you mean --{near}?" if near else f"it has {known}" if known else "it has no flags"
            raise UsageError(f"unknown flag '{shown(flag)}'", hint=hint)
        if name in values and kind is not FlagKind.TEXTS:
            raise UsageError(f"'{shown(flag)}' is given twice")
        if kind is FlagKind.SWITCH:
            value = value.lower() if equals else "true"
            if value not in {"true", "false"}:
                raise UsageError(f"'{shown(text)}' is neither true nor false", hint=f"write --{name} or --{name}=false")
        elif not equals:
            raise UsageError(f"'--{name}' has no value", hint=f"write --{name}=VALUE")
        values[name] = (*values.get(name, ()), value)
    return Flags(values=values)
