"""Commands that take several names: all of them are tried, each error is one line, and the exit code says whether any failed."""

from collections.abc import Callable, Iterable

import click

from lamina.cli.main import print_error
from lamina.errors import LaminaError


def try_each(names: Iterable[str], act: Callable[[str], object], *, shows_names: bool = True) -> int:
    """Act on each name and print it, as Docker does; gives 1 if one failed."""
    code = 0
    for name in names:
        try:
            act(name)
        except LaminaError as error:
            print_error(error.message, error.hint)
            code = 1
        except OSError as error:
            print_error(f"'{name}': {(error.strerror or str(error)).lower()}")
            code = 1
        else:
            if shows_names:
                click.echo(name)
    return code
