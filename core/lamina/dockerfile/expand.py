"""Variables, quotes and escapes in the words of a Dockerfile: the small shell language that BuildKit's frontend has, no more.

`$NAME`, `${NAME}`, and `${NAME…}` with `-x` `:-x` `+x` `:+x` `?x` `:?x` (default, alternative, error; the colon counts an empty
value as unset), `#p` `##p` `%p` `%%p` (a matching beginning or end taken away), `/p/r` `//p/r` (replaced). A name is letters,
digits and `_`, or digits alone, or one of `@*#?-$!0`, which are never set. An unset variable is empty. Single quotes keep all; in
double quotes variables are replaced, and the escape character is one before `"`, `$` and itself only; outside quotes it makes the
next character an ordinary one. No commands, no arithmetic, no splitting but in `expand_words`. Not for what a shell runs later:
RUN's text stays as it is.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

from lamina.dockerfile.errors import ExpandError
from lamina.dockerfile.instructions import Instruction
from lamina.dockerfile.patterns import remove_prefix, remove_suffix, replace
from lamina.dockerfile.words import is_space, shown

__all__ = ["ExpandError", "expand_document", "expand_instruction", "expand_word", "expand_words"]

AnInstruction = TypeVar("AnInstruction", bound=Instruction)

MAX_SIZE = 1 << 20
"""How long a word may become: lines that double a variable must end somewhere. The kernel takes no word over 128 KiB."""
MAX_DOCUMENT_SIZE = 1 << 24
_MAX_DEPTH = 100
_SPECIAL = frozenset("@*#?-$!0")
_PLAIN = re.compile(r"[^$<'\"\\`/}]+")


def expand_word(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> str:
    """Give one word out of a text; blanks in it stay. Raise ExpandError.

    A variable is looked up with `variables[NAME]` wherever it is written, so that a mapping may watch which are missing.
    """
    if not any(character in text for character in ("$", "'", '"', escape)):
        return text
    return Lexer(text, variables, escape=escape).run()[0]


def expand_words(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> list[str]:
    """Give words out of a text: it is split at blanks outside quotes after variables are replaced. An empty word is none."""
    return Lexer(text, variables, escape=escape).run()[1]


def expand_document(text: str, variables: Mapping[str, str]) -> str:
    """Expand a heredoc's content: quotes stay, a backslash is taken away and makes the next character an ordinary one.

    The escape character is a backslash whatever the file's is, as in BuildKit.
    """
    if "$" not in text and "\\" not in text:
        return text
    return Lexer(text, variables, quotes=False, max_size=MAX_DOCUMENT_SIZE).run()[0]


def expand_instruction(instruction: AnInstruction, variables: Mapping[str, str], *, escape: str = "\\") -> AnInstruction:
    """Give an instruction with its variables replaced, as its `expanded` says. Raise ExpandError."""
    return instruction.expanded(
        lambda text: expand_word(text, variables, escape=escape),
        lambda text: expand_words(text, variables, escape=escape),
        lambda text: expand_document(text, variables),
    )


class _Words:
    """Collects what a text becomes as words: blanks outside quotes end one."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._word: list[str] = []

    def add(self, text: str) -> None:
        """Add what may hold blanks that separate words."""
        start = 0
        for at, character in enumerate(text):
            if is_space(character):
                self._word.append(text[start:at])
                self._end()
                start = at + 1
        self._word.append(text[start:])

    def add_raw(self, text: str) -> None:
        self._word.append(text)

    def _end(self) -> None:
        word = "".join(self._word)
        if word:
            self._words.append(word)
        self._word.clear()

    def all(self) -> list[str]:
        self._end()
        return self._words


class Lexer:
    """Reads one text. `keep_quotes`, `keep_escapes` and `keep_unset` leave these as they were written: heredocs are found so."""

    def __init__(
        self,
        text: str,
        variables: Mapping[str, str],
        *,
        escape: str = "\\",
        quotes: bool = True,
        keep_quotes: bool = False,
        keep_escapes: bool = False,
        keep_unset: bool = False,
        max_size: int = MAX_SIZE,
    ) -> None:
        self._text = text
        self._at = 0
        self._variables = variables
        self._escape = escape
        self._quotes = quotes
        self._keep_quotes = keep_quotes
        self._keep_escapes = keep_escapes
        self._keep_unset = keep_unset
        self._max_size = max_size
        self._room = max_size
        self._depth = 0

    def run(self) -> tuple[str, list[str]]:
        """Read the text to its end: the word, and the words, that it becomes."""
        return self._read_to("", keep_escapes=self._keep_escapes)

    @property
    def _next(self) -> str:
        """The character to come, "" at the end."""
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._text[self._at : self._at + 1]
        self._at += 1
        return character

    def _read_to(self, stop: str, *, keep_escapes: bool) -> tuple[str, list[str]]:
        """Read to the character `stop`, or to the end if it is ""."""
        before, self._keep_escapes = self._keep_escapes, keep_escapes
        result: list[str] = []
        words = _Words()
        while self._at < len(self._text):
            plain = _PLAIN.match(self._text, self._at)
            if plain:
                result.append(plain[0])
                words.add(plain[0])
                self._at = plain.end()
                continue
            character = self._next
            if character == stop:
                self._at += 1
                self._keep_escapes = before
                return "".join(result), words.all()
            if character == "$":
                value = self._variable()
                result.append(value)
                words.add(value)
            elif self._quotes and character in "'\"":
                value = self._single_quoted() if character == "'" else self._double_quoted()
                result.append(value)
                words.add_raw(value)
            elif character == "<":
                value = self._heredoc_mark()
                result.append(value)
                words.add_raw(value)
            elif character == self._escape:
                self._at += 1
                value = (character if keep_escapes else "") + self._take()
                result.append(value)
                words.add_raw(value)
            else:
                self._at += 1
                result.append(character)
                words.add(character)
        if stop:
            raise ExpandError(f"'{shown(self._text)}' has a '${{' without its '{stop}'")
        self._keep_escapes = before
        return "".join(result), words.all()

    def _heredoc_mark(self) -> str:
        start = self._at
        self._at += 1
        if self._next == "<":
            self._at += 1
            while self._next and self._next in "\t\r ":  # blanks may stand between << and the word
                self._at += 1
        return self._text[start : self._at]

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise self._unended("'")
        value = self._text[self._at + 1 : end]
        self._at = end + 1
        return f"'{value}'" if self._keep_quotes else value

    def _double_quoted(self) -> str:
        result: list[str] = []
        self._at += 1
        while self._next != '"':
            character = self._next
            if not character:
                raise self._unended('"')
            if character == "$":
                result.append(self._variable())
                continue
            self._at += 1
            if character == self._escape:
                if self._keep_escapes:
                    result.append(character)
                if self._next and self._next in f'"${self._escape}':
                    character = self._take()
            result.append(character)
        self._at += 1
        value = "".join(result)
        return f'"{value}"' if self._keep_quotes else value

    def _unended(self, quote: str) -> ExpandError:
        hint = f"end it, or write {self._escape}{quote} for the character itself"
        return ExpandError(f"'{shown(self._text)}' has a quote {quote} that doesn't end", hint=hint)

    def _name(self) -> str:
        start = self._at
        if self._next.isdecimal():
            while self._next.isdecimal():
                self._at += 1
        elif self._next in _SPECIAL:
            self._at += 1
        else:
            while self._next.isalpha() or self._next.isdecimal() or self._next == "_":
                self._at += 1
        return self._text[start : self._at]

    def _value(self, name: str) -> str | None:
        try:
            value = self._variables[name]
        except KeyError:
            return None
        return self._bounded(value)

    def _bounded(self, value: str) -> str:
        self._room -= len(value)
        if self._room < 0:
            raise ExpandError(f"'{shown(self._text)}' becomes longer than {self._max_size} characters")
        return value

    def _variable(self) -> str:
        self._at += 1
        if self._next != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._value(name)
            return f"${name}" if value is None and self._keep_unset else value or ""
        self._at += 1
        if self._next in "{}:":  # "" too: the text ends here
            raise self._bad("isn't a variable" if self._next else "has no '}'")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ExpandError(f"'{shown(self._text)}' has more than {_MAX_DEPTH} '${{' within each other")
        value = self._braced(self._name())
        self._depth -= 1
        return value

    def _braced(self, name: str) -> str:
        operator = self._take()
        if operator == "}":
            value = self._value(name)
            return f"${{{name}}}" if value is None and self._keep_unset else value or ""
        if operator == "/":
            return self._replaced(name)
        empty_is_unset = operator == ":"
        written = operator
        if empty_is_unset:
            operator = self._take()
            written += operator
        if not operator:
            raise self._bad("has no '}'")
        if operator not in ("-+?" if empty_is_unset else "-+?#%"):
            raise self._bad(f"has '{shown(written)}' behind '{shown(name)}', which stands for nothing")
        word, _ = self._read_to("}", keep_escapes=operator in "#%")
        value = self._value(name)
        if value is None and self._keep_unset:
            return f"${{{name}{written}{word}}}"
        missing = value is None or (empty_is_unset and not value)
        if operator == "-":
            return word if missing else value or ""
        if operator == "+":
            return "" if missing else word
        if operator == "?":
            if missing:
                raise ExpandError(f"{shown(name)}: " + (shown(word) or f"must not be {'unset' if value is None else 'empty'}"))
            return value or ""
        longest = word[:1] == operator
        remove = remove_prefix if operator == "#" else remove_suffix
        return remove(value or "", word[1:] if longest else word, longest=longest)

    def _replaced(self, name: str) -> str:
        everywhere = self._next == "/"
        if everywhere:
            self._at += 1
        pattern, _ = self._read_to("/", keep_escapes=True)
        replacement, _ = self._read_to("}", keep_escapes=True)
        value = self._value(name)
        if value is None and self._keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        return self._bounded(replace(value or "", pattern, replacement, everywhere=everywhere, max_size=self._max_size))

    def _bad(self, what: str) -> ExpandError:
        return ExpandError(
            f"'{shown(self._text)}': the '${{' that begins here {what}", hint="write ${NAME}, ${NAME:-DEFAULT} or the like"
        )
