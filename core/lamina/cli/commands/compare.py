"""`lamina compare`: the same questions and the same work in containers on several storage drivers, side by side."""

import os
import sys

import click

from lamina.cli.main import Settings, print_warning
from lamina.cli.options import Command
from lamina.errors import LaminaError, UsageError


@click.command(cls=Command)
@click.argument("drivers", metavar="[DRIVER]...", nargs=-1)
@click.option("--only", "parts", metavar="PART[,PART]", default="", help="Do these parts alone: probes, disk, timings.")
@click.option("--quick", is_flag=True, help="Fewer rounds and smaller files: times say less.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=None, metavar="N", help="How often each work is timed.  [3]")
@click.option("--all", "everything", is_flag=True, help="Show the answers that are the same everywhere too.")
@click.option("--format", "form", default="table", metavar="FORMAT", help="'table' or 'json'.")
@click.option("--html", "html_path", default="", metavar="FILE", help="Write a page with charts as well.")
@click.option("--dir", "place", default="", metavar="DIR", help="Work in a new directory there.  [where the store is]")
@click.pass_obj
def command(
    settings: Settings, /, *, drivers: tuple[str, ...], parts: str, quick: bool, rounds: int | None, everything: bool, form: str,
    html_path: str, place: str,
) -> None:  # fmt: skip
    """Compare storage drivers, all that are installed if none is named: how they behave, what they take, how fast they are.

    Times are ratios to the first one. Everything happens in a store of its own, of which nothing is left.
    """
    if form not in {"table", "json"}:
        raise UsageError(f"invalid format '{form}'", hint="write table or json")
    if os.geteuid() != 0:
        raise LaminaError("lamina must be run as root", hint="use sudo")
    from dataclasses import replace

    from lamina.cli.output import printable
    from lamina.cli.talk import json_text
    from lamina.compare.page import page
    from lamina.compare.report import document
    from lamina.compare.run import PARTS, Scale, compare
    from lamina.compare.text import lines
    from lamina.linux import mount, namespace
    from lamina.usecases.settings import read_settings

    wanted = [each.strip() for each in parts.split(",") if each.strip()] or list(PARTS)
    for each in wanted:
        if each not in PARTS:
            raise UsageError(f"there is no part '{each}'", hint=f"parts are {', '.join(PARTS)}")
    scale = Scale.quick() if quick else Scale()
    if rounds is not None:
        scale = replace(scale, rounds=rounds)
    if html_path:
        _check_writable(html_path)
    place = place or read_settings(root_dir=settings.root_dir).root_dir
    namespace.unshare(namespace.CLONE_NEWNS)  # what is mounted here nobody else sees, and it ends with us, however we end
    mount.make_private()
    told = _Teller()
    try:
        found = compare(drivers, place=place, scale=scale, parts=wanted, told=told.tell, warn=print_warning)
    finally:
        told.clear()
    if html_path:
        with open(html_path, "w", encoding="utf-8") as file:
            file.write(page(found))
    if form == "json":
        click.echo(json_text(document(found)))
        return
    for line in lines(found, everything=everything):
        click.echo(printable(line))


def _check_writable(path: str) -> None:
    """Learn before minutes of work that their result can't be kept."""
    directory = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else directory, os.W_OK):
        raise UsageError(f"'{path}' can't be written", hint="name a file in a directory that is there")


class _Teller:
    """Says on a terminal what is being done, in one line that goes away."""

    def __init__(self) -> None:
        self._is_shown = False

    def tell(self, text: str) -> None:
        if sys.stderr.isatty():
            self._is_shown = True
            sys.stderr.write(f"\r\x1b[K{text[:100]}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
