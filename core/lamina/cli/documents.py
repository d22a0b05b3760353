"""The documents of `inspect` commands: found by name, printed as JSON or by a template, what is missing told at the end."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import click

from lamina import json
from lamina.cli.main import print_error
from lamina.cli.output import printable
from lamina.errors import LaminaError


def print_documents(names: Iterable[str], find: Callable[[str], dict[str, Any]], *, template: str | None = None) -> int:
    """Print the document of each name; gives 1 if one wasn't found, which is said after the others are printed."""
    documents: list[dict[str, Any]] = []
    errors: list[LaminaError] = []
    for name in names:
        try:
            documents.append(find(name))
        except LaminaError as error:
            errors.append(error)
    is_terminal = sys.stdout.isatty()
    if template and template != "json":
        from lamina.cli.template import Template, unescape

        layout = Template(unescape(template))
        for document in documents:
            text = layout.render(document)
            click.echo(_safe_lines(text) if is_terminal else text)
    elif template:
        for document in documents:
            click.echo(json.dumps(document, ensure_ascii=is_terminal, separators=(",", ":")))
    else:
        text = json.dumps(documents, ensure_ascii=is_terminal, indent=4)
        click.echo(text)
    for missing in errors:
        print_error(missing.message, missing.hint)
    return 1 if errors else 0


def _safe_lines(text: str) -> str:
    """What a template printed may have line breaks and tabs of its own; nothing else drives the terminal."""
    return "".join(char if char in "\n\t" else printable(char) for char in text)
