"""The lines of a Dockerfile around what failed, as BuildKit shows them."""

from lamina.build.sources import without_accounts
from lamina.dockerfile.instructions import Dockerfile

_AROUND = 3


def excerpt(content: bytes, dockerfile: Dockerfile, *, line: int, last_line: int) -> str:
    """Write the lines from a little before `line` to a little after `last_line`, those marked."""
    lines = content.decode("utf-8", "replace").splitlines()
    first = max(line - _AROUND, 1)
    shown = range(first, min(last_line + _AROUND, len(lines)) + 1)
    rule = "-" * 20
    rows = [
        f"{at:4} | {'>>>' if line <= at <= last_line else '   '} {_plain(without_accounts(lines[at - 1]))}".rstrip() for at in shown
    ]
    return "\n".join([f"{dockerfile.file_name}:{line}", rule, *rows, rule])


def _plain(text: str) -> str:
    return "".join(one if one.isprintable() or one == "\t" else "?" for one in text).expandtabs(4)
