"""`.dockerignore`: which files of a context don't exist for the build. moby/patternmatcher's rules, and of its ways of asking the
one that Docker's walk through a context has: a pattern that a directory matched counts for all that is below it.

A line is a pattern of `globs.py`, or `!` and a pattern that brings files back; the last one that matches decides. A line that
begins with `#` is a comment. Blanks around a pattern, a slash before and behind it, `./` and `..` in it have no meaning: a pattern
is a path from the context's top.
"""

import posixpath
from dataclasses import dataclass, field

from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.globs import Glob, glob_match, has_wildcards
from lamina.dockerfile.words import SPACE
from lamina.errors import UsageError

_MAX_LINE_BYTES = 65535
_CACHED = 4096

__all__ = ["Ignore", "Rule", "glob_match"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line."""

    text: str
    glob: Glob
    brings_back: bool
    """It was written with `!`."""

    def matches(self, path: str) -> bool:
        return self.glob.matches(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """The rules of one file, in their order."""

    rules: tuple[Rule, ...] = ()
    _matched: dict[str, tuple[bool, ...]] = field(default_factory=dict, repr=False, compare=False)
    """Of directories: which rules they, or what they are in, matched."""

    @staticmethod
    def parse(text: str, *, file_name: str = ".dockerignore") -> "Ignore":
        """Read a file. Raise DockerfileError with the line of a pattern that isn't valid."""
        rules = []
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            if line.startswith("#") or not line.strip(SPACE):
                continue
            try:
                rules.append(_rule(line.strip(SPACE)))
            except UsageError as error:
                raise DockerfileError(error.message, file_name=file_name, line=number, hint=error.hint) from None
        return Ignore(rules=tuple(rules))

    def hides(self, path: str) -> bool:
        """Tell whether a path, relative and without a slash before it, is hidden; what is below a hidden directory need not be."""
        matched = self._walk(path)
        hidden = False
        for rule, matches in zip(self.rules, matched, strict=True):
            if matches:
                hidden = not rule.brings_back
        return hidden

    def may_unhide_below(self, directory: str) -> bool:
        """Tell whether a `!` might bring something back below a hidden directory; when in doubt it might."""
        parts = directory.split("/")
        return any(rule.brings_back and _may_match_below(rule.text, parts) for rule in self.rules)

    def _walk(self, path: str) -> tuple[bool, ...]:
        """Tell which rules a path matches, itself or by a directory that it is in."""
        parent, slash, _ = path.rpartition("/")
        above = self._directory(parent) if slash else ()
        return self._match(path, above)

    def _directory(self, path: str) -> tuple[bool, ...]:
        found = self._matched.get(path)
        if found is None:
            found = self._walk(path)
            if len(self._matched) >= _CACHED:  # a walk comes back to the directories that it is in, and to no others
                self._matched.clear()
            self._matched[path] = found
        return found

    def _match(self, path: str, above: tuple[bool, ...]) -> tuple[bool, ...]:
        """Go through the rules. One that could change nothing as things stand isn't asked, nor remembered for what is below."""
        hidden = False
        matched = []
        for index, rule in enumerate(self.rules):
            matches = (bool(above) and above[index]) or (rule.brings_back == hidden and rule.matches(path))
            matched.append(matches)
            if matches:
                hidden = not rule.brings_back
        return tuple(matched)


def _rule(text: str) -> Rule:
    brings_back = text.startswith("!")
    pattern = text[1:].strip(SPACE) if brings_back else text
    if not pattern:
        raise UsageError("a '!' without a pattern", hint="write !PATTERN, or \\! for a name that begins so")
    if len(pattern.encode(errors="surrogatepass")) > _MAX_LINE_BYTES:
        raise UsageError(f"the pattern has more than {_MAX_LINE_BYTES} bytes")
    pattern = _clean(pattern)
    if len(pattern) > 1:
        pattern = pattern.removeprefix("/")
    return Rule(text=pattern, glob=Glob.parse(pattern), brings_back=brings_back)


def _clean(path: str) -> str:
    """Do what Go's `filepath.Clean` does; Python's keeps two slashes at the beginning."""
    return posixpath.normpath("/" + path.lstrip("/") if path.startswith("/") else path)


def _may_match_below(pattern: str, parts: list[str]) -> bool:
    if "**" in pattern or "[" in pattern:  # a set may match a slash
        return True
    wanted = pattern.split("/")
    if len(wanted) <= len(parts):
        return False
    return all(glob_match(one, part) if has_wildcards(one) else one == part for one, part in zip(wanted, parts, strict=False))
