"""The marks of heredocs in an instruction's text: `<<NAME`, `<<-NAME`, `<<"NAME"`, `3<<NAME`. Their lines: `lines.py`."""

import re

from lamina.dataclasses import dataclass
from lamina.dockerfile.expand import ExpandError, Lexer

_MARK = re.compile(r"(\d*)<<(-?)\s*([^<]*)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeredocMark:
    """What stands where a heredoc is named."""

    name: str
    expands: bool
    """No part of the name was quoted."""
    strips_tabs: bool
    """`<<-`: the tabs that lines begin with are taken away, the end mark's too."""
    descriptor: int = 0


def find_marks(text: str) -> list[HeredocMark]:
    """Find the heredocs of an instruction: words that begin with `<<`, outside quotes."""
    if "<<" not in text:
        return []
    try:
        _, words = Lexer(text, {}, keep_quotes=True, keep_escapes=True, keep_unset=True).run()
    except ExpandError:
        return []  # a shell's text that isn't words as Dockerfiles have them: what it means is the shell's affair
    return [mark for word in words if (mark := read_mark(word))]


def read_mark(word: str) -> HeredocMark | None:
    """Read one word; None if it names no heredoc. Raise ExpandError for a quote that doesn't end."""
    match = _MARK.fullmatch(word)
    if not match or not match[3]:
        return None
    # The same read with and without its quotes: where they differ in the number of quotes, some are quoting.
    _, names = Lexer(match[3], {}, keep_unset=True).run()
    if len(names) != 1:
        return None
    _, written = Lexer(match[3], {}, keep_unset=True, keep_quotes=True).run()
    return HeredocMark(
        name=names[0],
        expands=_quotes(names[0]) == _quotes("".join(written)),
        strips_tabs=bool(match[2]),
        descriptor=int(match[1][:9] or 0),
    )


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')
