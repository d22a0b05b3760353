"""What `--chmod` says: octal digits, or chmod(1)'s words (`u=rwX,go=rX`). A value; nothing is changed here.

The words are read as BSD's setmode(3) does with no umask, which is what Docker's library for it was made after: `X` looks at the
mode that the file had, `s` and `t` mean nothing for others alone.
"""

import re
from dataclasses import dataclass

from lamina.errors import UsageError

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_ACTION = re.compile(r"([-+=])([rwxXst]+|[ugo])?")
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o0007, "a": 0o6777}
_EVERYBODY = 0o6777
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_ANY_EXECUTE = 0o111
_COPIED = {"u": 6, "g": 3, "o": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMode:
    """A mode to give: `octal`, or what to do with the mode that is there."""

    octal: int | None = None
    actions: tuple[tuple[int, str, str], ...] = ()
    """Whose bits (0 for everybody's), `+`, `-` or `=`, and the letters."""

    @classmethod
    def parse(cls, text: str) -> "FileMode":
        """Read what was written. Raises `UsageError`."""
        if re.fullmatch(r"[0-7]{1,12}", text) and int(text, 8) <= 0o7777:
            return cls(octal=int(text, 8))
        actions: list[tuple[int, str, str]] = []
        for clause in text.split(","):
            match = _CLAUSE.fullmatch(clause)
            if match is None:
                raise UsageError(
                    f"invalid mode '{text[:100]}'", hint="write octal digits up to 7777, or chmod's words such as u=rwX,go=rX"
                )
            who = 0
            for letter in match[1]:
                who |= _WHO[letter]
            actions += [(who, operator, letters) for operator, letters in _ACTION.findall(match[2])]
        return cls(actions=tuple(actions))

    def apply(self, mode: int, *, is_directory: bool) -> int:
        """Give the permission bits of a file that had `mode`."""
        if self.octal is not None:
            return self.octal
        new = mode & 0o7777
        for who, operator, letters in self.actions:
            mask, bits = who or _EVERYBODY, 0
            if letters in _COPIED:
                three = new >> _COPIED[letters] & 7
                bits = (three << 6 | three << 3 | three) & mask
            else:
                for letter in letters:
                    if letter == "X":
                        bits |= 0o111 & mask if is_directory or mode & _ANY_EXECUTE else 0
                    elif letter in {"s", "t"}:
                        if who == 0 or who & ~0o7:
                            mask |= 0o1000 if letter == "t" else 0
                            bits |= 0o1000 if letter == "t" else 0o6000 & mask
                    else:
                        bits |= _BITS[letter] & mask
            if operator == "=":
                new = new & ~mask | bits
            elif operator == "+":
                new |= bits
            else:
                new &= ~bits
        return new
