"""From bytes to the lines of instructions: parser directives, comments, continuation lines. Heredocs take their lines here too.

A line goes on in the next one if its last character, blanks after it aside, is the escape character, and not two of them. Between
the parts comments are dropped, and blank lines, which Docker warns of. The blanks that a part begins with stay.
"""

import re

from lamina.dataclasses import dataclass, field
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.heredocs import HeredocMark
from lamina.dockerfile.words import SPACE, shown
from lamina.errors import UsageError

MAX_SIZE_BYTES = 1 << 22
"""Far above any that a person wrote; what is made of it takes a hundred times as much memory at worst."""
MAX_LINE_BYTES = 65535
"""Docker's limit for a line, its end included."""
_BOM = b"\xef\xbb\xbf"
_DIRECTIVE = re.compile(r"#[^\S\n]*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*", re.ASCII)
_DIRECTIVES = frozenset({"syntax", "escape", "check"})


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionLine:
    """One instruction's text, its parts joined. Lines count from 1."""

    text: str
    line: int
    last_line: int
    comments: tuple[str, ...] = ()
    """What stands directly above it, without `#`."""
    has_empty_part: bool = False
    """A blank line stands between its parts."""


def decode(content: bytes, *, file_name: str) -> list[str]:
    """Split a file into lines, each with its end. Refuse what isn't text."""

    def refuse(message: str, offset: int, hint: str = "") -> DockerfileError:
        return DockerfileError(message, file_name=file_name, line=content.count(b"\n", 0, offset) + 1, hint=hint)

    if len(content) > MAX_SIZE_BYTES:
        raise DockerfileError(f"the file has more than {MAX_SIZE_BYTES} bytes", file_name=file_name, line=1)
    if (offset := content.find(b"\0")) >= 0:
        raise refuse("a NUL byte, so this isn't a text", offset)
    try:
        text = content.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        offset = error.start + len(content) - len(content.removeprefix(_BOM))
        hint = "save it in UTF-8"
        raise refuse(f"byte 0x{content[offset]:02x} isn't UTF-8", offset, hint) from None
    lines = text.split("\n")
    lines = [f"{line}\n" for line in lines[:-1]] + lines[-1:]
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE_BYTES // 4 and len(line.encode()) > MAX_LINE_BYTES:
            raise DockerfileError(f"the line has more than {MAX_LINE_BYTES} bytes", file_name=file_name, line=number)
    return lines


@dataclass(slots=True, kw_only=True)
class Reader:
    """Hands out a file's instructions, one after the other."""

    lines: list[str]
    file_name: str
    escape: str = "\\"
    first_line: int = 1
    """What the first line's number is."""
    directives: dict[str, str] = field(default_factory=dict)
    _at: int = 0
    """How many lines are read."""

    @property
    def line(self) -> int:
        """The number of the line that was read last."""
        return max(self._at, 1) + self.first_line - 1

    def read_directives(self) -> None:
        """Read the directives that the file begins with. The first line that is none ends them; it may be a comment."""
        while self._at < len(self.lines):
            match = _DIRECTIVE.fullmatch(self.lines[self._at].strip(SPACE))
            name = match[1].lower() if match else ""
            if not match or name not in _DIRECTIVES:
                return
            self._at += 1
            if name in self.directives:
                raise self.error(f"the directive '{name}' is given twice")
            self.directives[name] = match[2]
            if name == "escape":
                if match[2] not in {"\\", "`"}:
                    raise self.error(f"the escape character can't be '{shown(match[2])}'", hint="it is \\ or `")
                self.escape = match[2]

    def instruction(self) -> InstructionLine | None:
        """Read the next instruction; None at the end of the file."""
        comments: list[str] = []
        while self._at < len(self.lines):
            text = self._take().lstrip(SPACE)
            if text.startswith("#"):
                comment = text[1:].strip(SPACE)
                comments = [*comments, comment] if comment else []
                continue
            text, goes_on = self._part(text)
            if not text and not goes_on:
                continue
            return self._rest(text, goes_on=goes_on, comments=tuple(comments))
        return None

    def _rest(self, text: str, *, goes_on: bool, comments: tuple[str, ...]) -> InstructionLine:
        first_line, parts, has_empty_part = self.line, [text], False
        while goes_on and self._at < len(self.lines):
            text = self._take()
            begin = text.lstrip(SPACE)
            if begin.startswith("#"):
                continue
            if not begin:
                has_empty_part = True
                continue
            text, goes_on = self._part(text)
            parts.append(text)
        return InstructionLine(
            text="".join(parts), line=first_line, last_line=self.line, comments=comments, has_empty_part=has_empty_part
        )

    def _part(self, text: str) -> tuple[str, bool]:
        """Take the mark away with which a line goes on."""
        end = text.rstrip(" \t")
        if end.endswith(self.escape) and not end.endswith(self.escape * 2):
            return end[:-1], True
        return text, False

    def _take(self) -> str:
        self._at += 1
        return self.lines[self._at - 1].rstrip("\r\n")

    def heredoc(self, mark: HeredocMark) -> str:
        """Read a heredoc's lines up to its end mark, each with its end. Raise UsageError if there is none."""
        content: list[str] = []
        while self._at < len(self.lines):
            self._at += 1
            text = self.lines[self._at - 1]
            if mark.strips_tabs:
                text = text.lstrip("\t")
            if text.rstrip("\r\n") == mark.name:
                return "".join(content)
            content.append(text)
        name = shown(mark.name)
        raise UsageError(f"the heredoc '{name}' doesn't end", hint=f"a line with nothing but {name} ends it")

    def error(self, message: str, *, hint: str = "") -> DockerfileError:
        """Make an error of the line that was read last."""
        return DockerfileError(message, file_name=self.file_name, line=self.line, hint=hint)
