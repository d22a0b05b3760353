"""The nodes of a read template, and the errors of reading and evaluating one. They hold no logic but how a message quotes them.

A node's `str` is the source normalised as Go's messages have it: one space between words, parentheses kept. Positions are in
characters; `locate` turns them into Go's line:byte.
"""

from dataclasses import dataclass

from lamina.errors import LaminaError


class TemplateError(LaminaError, ValueError):
    """A `--format` template can't be read, or asks for something that the data doesn't have."""


class TemplateSyntaxError(TemplateError):
    """The template itself is malformed, whatever the data."""

    exit_code = 64  # docker inspect's, so that a script can tell a bad template from a missing object


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    pos: int

    def __str__(self) -> str:
        return "."


@dataclass(frozen=True, slots=True, kw_only=True)
class Nil:
    pos: int

    def __str__(self) -> str:
        return "nil"


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """A string, number, character or boolean; `source` is how it was typed."""

    pos: int
    source: str
    value: str | int | float | bool

    def __str__(self) -> str:
        return self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A function's name."""

    pos: int
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """`.A.B`, looked up in dot."""

    pos: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """`$x`, or `$x.A.B`; the bare `$` is the data that the template was given."""

    pos: int
    name: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name + "".join(f".{name}" for name in self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    pos: int
    words: "tuple[Operand, ...]"

    def __str__(self) -> str:
        return " ".join(f"({word})" if isinstance(word, Pipe) else str(word) for word in self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipe:
    """`$a, $b := first | second`; `assigns` is true for `=`, which sets variables that exist."""

    pos: int
    commands: tuple[Command, ...]
    declares: tuple[str, ...] = ()
    assigns: bool = False

    def __str__(self) -> str:
        declared = ", ".join(self.declares) + (" = " if self.assigns else " := ") if self.declares else ""
        return declared + " | ".join(map(str, self.commands))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """`(pipeline).A.B`."""

    pos: int
    pipe: Pipe
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"({self.pipe})" + "".join(f".{name}" for name in self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    pipe: Pipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """`if`, `with` or `range`, told apart by `keyword`; they are read alike and differ in what they do with the value."""

    keyword: str
    pipe: Pipe
    body: "tuple[Node, ...]"
    otherwise: "tuple[Node, ...] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """`break` or `continue`."""

    keyword: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoke:
    """`template "name" pipeline`, also what `block` leaves behind."""

    pos: int
    name: str
    pipe: Pipe | None

    def __str__(self) -> str:
        return f"{{{{template {quote(self.name)}{f' {self.pipe}' if self.pipe else ''}}}}}"


Operand = Dot | Nil | Literal | Name | Field | Variable | Pipe | Chain
Node = Text | Action | Branch | Jump | Invoke


def quote(text: str) -> str:
    """Quote a string as messages do."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def one_line(text: str) -> str:
    """Escape what would break a message's line or drive the terminal: the text quotes the template and the data."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def locate(text: str, pos: int) -> str:
    """Say where a character is as Go does: line from 1, and bytes from 0 into the line."""
    before = text[:pos]
    return f"{before.count(chr(10)) + 1}:{len(before[before.rfind(chr(10)) + 1 :].encode('utf-8', 'replace'))}"
