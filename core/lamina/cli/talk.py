"""What several commands say in the same way: asking back, printing lists, and one document by a template. Not what is in them."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lamina.model.reference import Reference
    from lamina.registry.report import Report


def confirmed(warning: str, *, force: bool) -> bool:
    """Ask back before something is removed; only `y` is yes. With `force` nothing is asked."""
    if force:
        return True
    click.echo(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if not answer.endswith("\n"):
        click.echo("", err=True)
    return answer.strip().lower() == "y"


def json_text(document: object, *, indent: int | None = 4) -> str:
    """Write JSON as Docker's client does: indented by four, not sorted, nothing escaped that need not be."""
    from lamina import json

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


@contextmanager
def showing_pull(reference: "Reference", is_missing: bool) -> "Iterator[Report]":
    """Show the pull that `run` or `create` makes, all of it on standard error."""
    from lamina.cli.transfers import showing

    if is_missing:
        click.echo(f"Unable to find image '{reference.familiar}' locally", err=True)
    with showing() as report:
        yield report


FORMAT_HELP = "'table', 'table TEMPLATE', 'json', or a Go template for each line."
INSPECT_FORMAT_HELP = "'json', or a Go template."
