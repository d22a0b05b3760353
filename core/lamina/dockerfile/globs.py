"""Patterns of files, as `.dockerignore`, `--exclude` and COPY's sources have them: Go's `filepath.Match`, and moby/patternmatcher's
`**`.

`*` and `?` match anything but a slash, `[a-z]` and `[^a-z]` a character of a set, a backslash makes the next character an ordinary
one, `**` matches any number of directories, none too. A pattern becomes a regular expression, which Python's `re` matches fast; one
with so many stars that this might take for ever is matched place by place instead, in time that grows with the path alone.

In a set and behind a backslash the documented meaning counts (`[*]` is a star, `\\d` the letter), where moby's translation to Go's
regular expressions lets another slip in.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from lamina.dockerfile.words import shown
from lamina.errors import UsageError

_MAX_STARS = 4


class Wild(Enum):
    """What stands for more than itself."""

    ANY = r"[^/]"
    MANY = r"[^/]*"
    DIRECTORIES = r"(?:[\s\S]*/)?"
    """`**` with something behind it, or `**/`: any text that ends with a slash, or nothing."""
    ALL = r"[\s\S]*"
    """`**` at the end: any text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CharacterSet:
    """`[…]`."""

    ranges: tuple[tuple[str, str], ...]
    is_negated: bool

    def holds(self, character: str) -> bool:
        return any(first <= character <= last for first, last in self.ranges) != self.is_negated

    def regex(self) -> str:
        ranges = [f"{re.escape(first)}-{re.escape(last)}" for first, last in self.ranges if first <= last]
        if not ranges:  # a range that is upside down holds nothing; `re` would refuse it
            return r"[\s\S]" if self.is_negated else r"(?!)"
        return f"[{'^' if self.is_negated else ''}{''.join(ranges)}]"


Token = str | Wild | CharacterSet
"""A literal character, or what stands for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glob:
    """A pattern that has been read."""

    tokens: tuple[Token, ...]
    _regex: re.Pattern[str] | None = field(repr=False, compare=False)

    @staticmethod
    def parse(text: str) -> "Glob":
        """Read a pattern. Raise UsageError for one that isn't valid."""
        tokens = tuple(_tokens(text))
        if text.startswith("**") and not text.startswith("**/") and not any(character in text[2:] for character in "*?[]\\"):
            tokens = (Wild.ALL, *tokens[1:])  # `**.go`: moby looks at the path's end alone here
        stars = sum(token in _STARS for token in tokens)
        return Glob(tokens=tokens, _regex=re.compile("".join(map(_regex, tokens))) if stars <= _MAX_STARS else None)

    @property
    def literal(self) -> str | None:
        """The text, if the pattern stands for nothing but itself."""
        return "".join(token for token in self.tokens if isinstance(token, str)) if self._is_literal else None

    @property
    def _is_literal(self) -> bool:
        return all(isinstance(token, str) for token in self.tokens)

    def matches(self, path: str) -> bool:
        """Tell whether the whole of a path matches."""
        return self._regex.fullmatch(path) is not None if self._regex else self.matches_by_places(path)

    def matches_by_places(self, path: str) -> bool:
        """Do the same with a set of places in the pattern that moves along the path."""
        places = self._closed([(0, False)])
        for character in path:
            places = self._closed(self._following(places, character))
        return (len(self.tokens), False) in places

    def _following(self, places: Iterable[tuple[int, bool]], character: str) -> Iterator[tuple[int, bool]]:
        """Give the places after a character. A place is the number of a token to come, and whether its beginning has been read."""
        for place, is_within in places:
            if place == len(self.tokens):
                continue
            token = self.tokens[place]
            if token is Wild.DIRECTORIES:
                yield place, True
                if character == "/":
                    yield place + 1, False
            elif token is Wild.ALL or (token is Wild.MANY and character != "/"):
                yield place, is_within
            elif token is Wild.ANY:
                if character != "/":
                    yield place + 1, False
            elif token == character or (isinstance(token, CharacterSet) and token.holds(character)):
                yield place + 1, False

    def _closed(self, places: Iterable[tuple[int, bool]]) -> set[tuple[int, bool]]:
        """Add the places that are reached without a character."""
        closed: set[tuple[int, bool]] = set()
        waiting = list(places)
        while waiting:
            place, is_within = waiting.pop()
            if (place, is_within) in closed:
                continue
            closed.add((place, is_within))
            if place < len(self.tokens) and self.tokens[place] in _STARS and not is_within:
                waiting.append((place + 1, False))
        return closed


_STARS = frozenset({Wild.MANY, Wild.DIRECTORIES, Wild.ALL})


@lru_cache(maxsize=256)
def _read(pattern: str) -> Glob:
    return Glob.parse(pattern)


def glob_match(pattern: str, path: str) -> bool:
    """Tell whether a pattern matches the whole of a path. Raise UsageError for a pattern that isn't valid."""
    return _read(pattern).matches(path)


def has_wildcards(text: str) -> bool:
    """Tell whether a text is a pattern rather than a path; a backslash makes it one, as in Go."""
    return any(character in text for character in "*?[\\")


def _regex(token: Token) -> str:
    if isinstance(token, str):
        return re.escape(token)
    return token.value if isinstance(token, Wild) else token.regex()


def _tokens(text: str) -> Iterator[Token]:
    at = 0
    previous: Token = ""
    while at < len(text):
        character = text[at]
        token: Token = character
        at += 1
        if character == "*" and text.startswith("*", at):
            at += 1
            if text.startswith("/", at):
                at += 1
            token = Wild.DIRECTORIES if at < len(text) else Wild.ALL
        elif character in "*?":
            token = Wild.MANY if character == "*" else Wild.ANY
        elif character == "\\":
            if at == len(text):
                raise UsageError(f"invalid pattern '{shown(text)}': a backslash at its end")
            token = text[at]
            at += 1
        elif character == "[":
            token, at = _set(text, at)
        if token is not previous or token not in _STARS:  # a star behind the same star says nothing new
            yield token
        previous = token


def _set(text: str, at: int) -> tuple[CharacterSet, int]:
    is_negated = text.startswith("^", at)
    at += is_negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and text.startswith("]", at)):
        first, at = _set_character(text, at)
        last = first
        if text.startswith("-", at):
            last, at = _set_character(text, at + 1)
        ranges.append((first, last))
    return CharacterSet(ranges=tuple(ranges), is_negated=is_negated), at + 1


def _set_character(text: str, at: int) -> tuple[str, int]:
    escaped = text.startswith("\\", at)
    at += escaped
    character = text[at : at + 1]
    if not character or (not escaped and character in "-]"):
        raise UsageError(
            f"invalid pattern '{shown(text)}': a '[' that isn't ended, or has a '-' or ']' without a backslash before it"
        )
    return character, at + 1
