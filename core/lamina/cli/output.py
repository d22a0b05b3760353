"""Lists as Docker prints them: a table, a table of the user's own columns, a template per row, JSON per line, or ids alone.

It decides how rows look, and nothing of what is in them: a row comes with its values written out (sizes, times, cut ids), by the
field names of `--format`. It doesn't print.

    columns = [Column(field="ID", header="CONTAINER ID"), Column(field="Names", header="NAMES")]
    for text in render_rows(rows, columns=columns, template=None): print(text)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lamina.dataclasses import dataclass

# The evaluator of templates costs 20 ms to import, so it is imported where a template was typed: a plain `ps` does without.
if TYPE_CHECKING:
    from lamina.cli.template import Template

Row = Mapping[str, str | Callable[..., str]]
"""Field to text. A callable is a method, as `{{.Label "com.example.x"}}`, and left out of JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A field that `--format` knows, with its title in a table's head; `in_table` says whether the plain table has it.

    The header of a method is a callable that gets the method's arguments, as `label_header`.
    """

    field: str
    header: str | Callable[..., str]
    in_table: bool = True


def render_rows(
    rows: Iterable[Row],
    *,
    columns: Sequence[Column],
    template: str | None = None,
    quiet_field: str | None = None,
    is_terminal: bool = False,
) -> Iterator[str]:
    """Yield the output's pieces, each to be printed with a line break after it.

    `template` is what `--format` was given, `quiet_field` the field that `-q` shows alone (it wins, as in Docker). On a terminal
    the values of a plain template are made `printable`; in a table always, because a tab or line break in a value would break it.
    Raises `TemplateError`, before the first piece if the template is malformed or a table's head asks for a field that isn't there.
    """
    if quiet_field is not None:
        for row in rows:
            yield str(row[quiet_field])
        return
    wanted = template or "table"
    if wanted.strip(" ") == "table":
        yield from _plain_table(rows, columns=[column for column in columns if column.in_table])
    elif wanted == "json":
        for row in rows:
            yield _json_line(row, is_terminal=is_terminal)
    else:
        yield from _templated(rows, columns=columns, template=wanted, is_terminal=is_terminal)


def _plain_table(rows: Iterable[Row], *, columns: Sequence[Column]) -> Iterator[str]:
    lines = [[str(column.header) for column in columns]]
    lines += [[printable(str(row[column.field])) for column in columns] for row in rows]
    yield from align("\n".join("\t".join(line) for line in lines)).split("\n")


def _templated(rows: Iterable[Row], *, columns: Sequence[Column], template: str, is_terminal: bool) -> Iterator[str]:
    from lamina.cli.template import Template, unescape
    from lamina.cli.template_functions import HEADING_FUNCTIONS

    wanted = unescape(template)
    if wanted.startswith("table"):
        wanted = wanted.removeprefix("table").strip(" ")
        head = _fill(Template(wanted, functions=HEADING_FUNCTIONS), {column.field: column.header for column in columns}, columns)
        layout = Template(wanted)
        yield from align("\n".join([head, *(_fill(layout, _clean(row), columns) for row in rows)])).split("\n")
    else:
        layout = Template(wanted.strip(" "))
        for row in rows:
            yield _fill(layout, _clean(row) if is_terminal else row, columns)


def _fill(layout: "Template", row: Row, columns: Sequence[Column]) -> str:
    from lamina.cli.template import TemplateError
    from lamina.cli.template_print import Record

    try:
        return layout.render(Record({field: row[field] for field in sorted(row)}))
    except TemplateError as error:
        if not error.hint:
            error.hint = "fields: " + ", ".join(column.field for column in columns)
        raise


def _clean(row: Row) -> Row:
    return {field: printable(value) if isinstance(value, str) else _clean_method(value) for field, value in row.items()}


def _clean_method(method: Callable[..., str]) -> Callable[..., str]:
    return lambda *arguments: printable(method(*arguments))


def _json_line(row: Row, *, is_terminal: bool) -> str:
    from lamina.cli.template_print import to_json

    text = to_json({field: row[field] for field in sorted(row)}, escape_html=True)
    return "".join(f"\\u{ord(c):04x}" if _is_unsafe(c) else c for c in text) if is_terminal else text


def align(text: str, *, min_width: int = 10, padding: int = 3) -> str:
    """Replace tabs by spaces so that cells stand in columns.

    A tab ends a cell; what follows a line's last tab belongs to no column. A column is as wide as its widest cell and the padding,
    and runs over neighbouring lines only: a line without it starts the column anew. (Docker uses Go's tabwriter like this.)
    """
    lines = [line.split("\t") for line in text.split("\n")]
    _align_block(lines, 0, len(lines), 0, min_width=min_width, padding=padding)
    return "\n".join("".join(cells) for cells in lines)


def _align_block(lines: list[list[str]], start: int, stop: int, column: int, *, min_width: int, padding: int) -> None:
    # a loop over columns with a stack of line ranges, because a template may have any number of tabs
    ranges = [(start, stop, column)]
    while ranges:
        start, stop, column = ranges.pop()
        at = start
        while at < stop:
            if len(lines[at]) - 1 <= column:
                at += 1
                continue
            end = at
            while end < stop and len(lines[end]) - 1 > column:
                end += 1
            width = max(min_width, *(display_width(lines[n][column]) + padding for n in range(at, end)))
            for n in range(at, end):
                cell = lines[n][column]
                lines[n][column] = cell + " " * (width - display_width(cell))
            ranges.append((at, end, column + 1))
            at = end


def display_width(text: str) -> int:
    """Count the terminal cells that a text takes: wide East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def ellipsis(text: str, max_width: int) -> str:
    """Cut a text to a width, the cut marked by `…` within it."""
    if display_width(text) <= max_width:
        return text
    used, kept = 1, 0
    while kept < len(text) and used + display_width(text[kept]) <= max_width:
        used += display_width(text[kept])
        kept += 1
    return text[:kept] + "…" if max_width > 0 else ""


def short_id(identifier: str) -> str:
    """Cut an id or a digest to the twelve characters that lists show; the algorithm's name is dropped."""
    return identifier.rpartition(":")[2][:12]


def label_header(name: str) -> str:
    """Title a label's column: the last part of its name, `com.example.build-date` as `build date`."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


# Format characters that reorder or hide what stands beside them.
_DECEIVING = frozenset("\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")


def _is_unsafe(character: str) -> bool:
    import unicodedata

    return character in _DECEIVING or unicodedata.category(character) in {"Cc", "Cs"}


def printable(text: str) -> str:
    r"""Write control characters as \x1b, \u202e and so on, so that metadata of an image can't drive or deceive a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if not _is_unsafe(c) else f"\\x{ord(c):02x}" if ord(c) < 0x100 else f"\\u{ord(c):04x}" for c in text)
