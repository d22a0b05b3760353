"""The options of `run`, `create` and `exec` that say what a command's process is told: environment, user, directory, terminal."""

import os
from collections.abc import Sequence

import click

from lamina.cli.options import Decorated
from lamina.errors import UsageError
from lamina.model.container import parse_env_file


def process_options(function: Decorated) -> Decorated:
    """Add what a command's process is told, the same for `run`, `create` and `exec`."""
    for option in (
        click.option("--workdir", "-w", "working_dir", default="", metavar="DIR", help="The working directory in the container."),
        click.option("--user", "-u", default="", metavar="USER[:GROUP]", help="The user, by name or number."),
        click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Read environment variables from a file."),
        click.option("--env", "-e", "env", multiple=True, metavar="NAME[=VALUE]", help="Set an environment variable."),
        click.option("--tty", "-t", is_flag=True, help="Give it a terminal."),
        click.option("--interactive", "-i", is_flag=True, help="Pass standard input on."),
    ):
        function = option(function)
    return function


def check_working_dir(path: str) -> None:
    """Refuse a relative working directory."""
    if path and not path.startswith("/"):
        raise UsageError(f"the working directory '{path}' is not absolute", hint="begin it with /")


def read_env(env: Sequence[str], env_files: Sequence[str]) -> tuple[str, ...]:
    """Read `--env-file` and `--env`, the latter last so that it wins; a name alone takes our own value, if we have one."""
    found: list[str] = []
    for path in env_files:
        found += parse_env_file(read_text(path), os.environ, name=path)
    for text in env:
        name, equals, _value = text.partition("=")
        if not name:
            raise UsageError(f"invalid environment variable '{text}'", hint="write NAME=VALUE, or NAME for your own value")
        if equals:
            found.append(text)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return tuple(found)


def read_text(path: str) -> str:
    """Read a file that an option names. Raises `UsageError`."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"'{path}' can't be read: {str(error.strerror).lower()}") from error
    except UnicodeDecodeError:
        raise UsageError(f"'{path}' can't be read: it is not UTF-8 text") from None
