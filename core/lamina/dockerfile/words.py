"""How an instruction's text is split before anything is expanded: blanks, quoted words, JSON lists. All texts stay as written."""

import re
from collections.abc import Iterable
from typing import Any

from lamina import json

_SPACE = frozenset(
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's blanks, as Go's `unicode.IsSpace` has them; Python's `str.isspace` takes four control characters more."""
SPACE = "".join(_SPACE)
"""The same, for `strip`."""

_BLANKS = re.compile(r"[\t\v\f\r ]+")


def is_space(character: str) -> bool:
    """Tell whether a character separates words."""
    return character in _SPACE


def shown(text: str) -> str:
    """Make a text fit for a message's one line: cut short, control characters as escapes."""
    cut = text if len(text) <= 100 else text[:100] + "…"
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in cut)


def split_first(text: str) -> tuple[str, str]:
    """Split a text into its first word and the rest, which begins with its first character that isn't blank."""
    for at, character in enumerate(text):
        if is_space(character):
            return text[:at], text[at:].lstrip(SPACE)
    return text, ""


def split_blanks(text: str) -> list[str]:
    """Split at blanks and nothing else: quotes have no meaning in FROM, EXPOSE, COPY, ADD and VOLUME."""
    return _BLANKS.split(text) if text else []


def split_quoted(text: str, *, escape: str) -> list[str]:
    """Split at blanks outside quotes; quotes and escapes stay in the words (ENV, LABEL, ARG)."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    characters = iter(text)
    for character in characters:
        if not quote and is_space(character):
            if word:
                words.append("".join(word))
                word.clear()
            continue
        if character == escape and quote != "'":
            following = next(characters, "")
            if following:  # an escape character at the very end is dropped
                word += (character, following)
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        word.append(character)
    return [*words, "".join(word)] if word else words


def json_list(text: str) -> tuple[str, ...] | None:
    """Read a JSON list of texts; None if it is no JSON list, which Docker takes for a shell's command then (`[ -f x ] && …`).

    Raise ValueError for a list of something else than texts.
    """
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(one, str) for one in value):
        raise ValueError("a JSON list may hold nothing but texts")
    return tuple(one.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for one in value)


def suggestion(word: str, options: Iterable[str]) -> str:
    """Give the option that differs least from a word, "" if none is near: at most two letters wrong."""
    best, nearest = "", 3
    for option in options:
        distance = _distance(word.lower()[:40], option.lower())
        if distance < nearest:
            best, nearest = option, distance
    return best


def _distance(one: str, other: str) -> int:
    """How many letters are to be put in, left out, changed, or swapped with the next one (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        before, last, row = row, before, [i + 1]
        for j, another in enumerate(other):
            least = min(before[j + 1] + 1, row[j] + 1, before[j] + (letter != another))
            if i and j and letter == other[j - 1] and one[i - 1] == another:
                least = min(least, last[j - 1] + 1)
            row.append(least)
    return row[-1]


def _number(text: str) -> int:
    return 0  # which number doesn't matter, and a long one would take long


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} isn't JSON")
