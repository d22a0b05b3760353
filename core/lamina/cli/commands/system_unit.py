"""`lamina system unit`: write the systemd unit that starts containers after a boot and stops them before the machine's end."""

import os
import shutil
import sys
from importlib import resources

import click

from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.errors import UsageError


@click.command(cls=Command)
@click.pass_obj
def command(settings: Settings) -> None:
    """Write a systemd unit for this program and these --root and --run-dir; keep it as /etc/systemd/system/lamina.service."""
    program = shutil.which(sys.argv[0]) or os.path.abspath(sys.argv[0])
    words = [os.path.abspath(program)]
    for option, path in (("--root", settings.root_dir), ("--run-dir", settings.run_dir)):
        if path:
            words += [option, os.path.abspath(path)]
    unit = resources.files("lamina.templates").joinpath("lamina.service").read_text(encoding="utf-8")
    click.echo(unit.replace("@LAMINA@", " ".join(_quoted(word) for word in words)), nl=False)


def _quoted(word: str) -> str:
    """Write a word as systemd.service(5) reads it: `%` and `$` are its own signs."""
    if not word.isprintable():
        raise UsageError(f"{word!r} can't be written into a unit")
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return text if text == word and " " not in word and "'" not in word else f'"{text}"'
