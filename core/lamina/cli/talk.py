"""What several commands say in the same way: asking back, showing documents, printing lists. Not what is in them."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import click

from lamina.cli.several import try_each


def confirmed(warning: str, *, force: bool) -> bool:
    """Ask back before something is removed; only `y` is yes. With `force` nothing is asked."""
    if force:
        return True
    click.echo(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if not answer.endswith("\n"):
        click.echo("", err=True)
    return answer.strip().lower() == "y"


def show_documents(names: Iterable[str], find: Callable[[str], dict[str, Any]], *, template: str | None) -> int:
    """Do what `inspect` does: one JSON list of what was found, or the template once for each; gives the exit code.

    A name that isn't there is an error of one line, and the others are shown all the same.
    """
    lines: list[str] = []
    documents: list[dict[str, Any]] = []
    layout = None
    if template and template != "json":
        from lamina.cli.template import Template

        layout = Template(template)

    def take(name: str) -> None:
        document = find(name)
        if layout is not None:
            lines.append(layout.render(document))
        documents.append(document)

    code = try_each(names, take, shows_names=False)
    if layout is not None:
        for line in lines:
            click.echo(line)
    else:
        click.echo(json_text(documents, indent=None if template == "json" else 4))
    return code


def json_text(document: object, *, indent: int | None = 4) -> str:
    """Write JSON as Docker's client does: indented by four, not sorted, nothing escaped that need not be."""
    import json

    return json.dumps(document, indent=indent, ensure_ascii=False, separators=None if indent else (",", ":"))


def show_document(document: dict[str, Any], *, template: str) -> None:
    """Print one document by a template; `json` is the whole on one line."""
    if template == "json":
        click.echo(json_text(document, indent=None))
        return
    from lamina.cli.template import Template

    click.echo(Template(template).render(document))


def print_rows(rows: Iterable[Any], *, columns: Any, template: str | None, quiet_field: str | None = None) -> None:
    """Print a list; `lamina.cli.output.render_rows` says how."""
    from lamina.cli.output import render_rows

    for text in render_rows(rows, columns=columns, template=template, quiet_field=quiet_field, is_terminal=sys.stdout.isatty()):
        click.echo(text)


FORMAT_HELP = "'table', 'table TEMPLATE', 'json', or a Go template for each line."
INSPECT_FORMAT_HELP = "'json', or a Go template."
