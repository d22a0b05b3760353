"""The patterns of `${NAME#PATTERN}` and its like: `*` and `?`, and a backslash before what is meant itself. No brackets, as in
BuildKit.

A pattern is matched as a set of places in it, one bit each, moved along the text: time grows with the text and never explodes,
however many stars there are. Not the patterns of files (`globs.py`): here a slash is a character as any other.
"""

from lamina.dockerfile.errors import ExpandError
from lamina.dockerfile.words import shown

_ANY = "any"
"""`?`. Literals are one character long, so that this can't be mistaken for one."""
_MANY = "many"
"""`*`."""


def remove_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """Take the shortest, or longest, beginning that matches away."""
    end = _Pattern(_tokens(pattern)).end(value, 0, longest=longest)
    return value if end is None else value[end:]


def remove_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """Take the shortest, or longest, end that matches away."""
    end = _Pattern(_tokens(pattern)[::-1]).end(value[::-1], 0, longest=longest)
    return value if end is None else value[: len(value) - end]


def replace(value: str, pattern: str, replacement: str, *, everywhere: bool, max_size: int) -> str:
    """Replace what matches: the leftmost place or all of them, each as long as can be. Raise ExpandError for too long a result."""
    tokens = _tokens(pattern)
    forward = _Pattern(tokens)
    starts = [len(value) - end for end in reversed(_Pattern(tokens[::-1]).all_ends(value[::-1]))]
    pieces, done, last_end, size = [], 0, -1, 0
    for start in starts:
        if start < done:
            continue
        end = forward.end(value, start, longest=True)
        if end is None or (end == start == last_end):  # an empty match right behind a match is none, as with Go's regexp
            continue
        pieces += [value[done:start], replacement]
        size += start - done + len(replacement)
        if size > max_size:
            raise ExpandError(f"a substitution gives more than {max_size} characters")
        done = last_end = end
        if not everywhere:
            break
    return "".join([*pieces, value[done:]])


def _tokens(pattern: str) -> list[str]:
    tokens: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            if tokens[-1:] != [_MANY]:
                tokens.append(_MANY)
        elif character == "?":
            tokens.append(_ANY)
        elif character == "\\":
            following = next(characters, "")
            if not following or following not in "*?\\}/":
                raise ExpandError(
                    f"invalid pattern '{shown(pattern)}': a backslash before '{following}'",
                    hint=r"only \*, \?, \\, \} and \/ can be written so",
                )
            tokens.append(following)
        else:
            tokens.append(character)
    return tokens


class _Pattern:
    """Bit i is set while the first i tokens match what was read. `*` and `?` match all but a line's end."""

    def __init__(self, tokens: list[str]) -> None:
        self._accepted = 1 << len(tokens)
        self._many = sum(1 << at for at, token in enumerate(tokens) if token is _MANY)
        any_mask = sum(1 << at for at, token in enumerate(tokens) if token is _ANY)
        self._any = any_mask
        self._steps: dict[str, int] = {"\n": 0}
        for at, token in enumerate(tokens):
            if len(token) == 1:
                self._steps[token] = self._steps.get(token, any_mask) | 1 << at

    def _closed(self, places: int) -> int:
        return places | (places & self._many) << 1

    def _read(self, places: int, character: str) -> int:
        stay = 0 if character == "\n" else places & self._many
        return self._closed(stay | (places & self._steps.get(character, self._any)) << 1)

    def end(self, text: str, start: int, *, longest: bool) -> int | None:
        """Tell where a match that begins at `start` ends."""
        places, found = self._closed(1), None
        for position in range(start, len(text) + 1):
            if places & self._accepted:
                found = position
                if not longest:
                    break
            if not places or position == len(text):
                break
            places = self._read(places, text[position])
        return found

    def all_ends(self, text: str) -> list[int]:
        """Tell every place where a match ends, wherever it begins."""
        begin = self._closed(1)
        places, ends = begin, []
        for position, character in enumerate(text):
            if places & self._accepted:
                ends.append(position)
            places = self._read(places, character) | begin
        return [*ends, len(text)] if places & self._accepted else ends
