"""`lamina logs`: show what a container has written, its two streams on ours."""

import sys
import time

import click

from lamina.cli.completion import complete_containers
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.units import parse_time
from lamina.errors import StateError, UsageError
from lamina.usecases.follow import read_lines


@click.command(cls=Command)
@click.option("--follow", "-f", "follows", is_flag=True, help="Go on until the container ends.")
@click.option("--tail", "-n", default="all", metavar="NUMBER", help="Show the last lines alone.  [all]")
@click.option("--since", default=None, metavar="TIME", help="Show what was written since then: 2026-11-24T04:06:31Z, or 10m ago.")
@click.option("--until", default=None, metavar="TIME", help="Show what was written until then.")
@click.option("--timestamps", "-t", is_flag=True, help="Show when each line was written.")
@click.option("--details", is_flag=True, help="Show the log's attributes too; there are none yet.")
@click.argument("container", shell_complete=complete_containers)
@click.pass_obj
def command(
    settings: Settings, *, container: str, follows: bool, tail: str, since: str | None, until: str | None, timestamps: bool,
    details: bool,
) -> None:  # fmt: skip
    """Show what a container has written."""
    now_ns = time.time_ns()
    since_ns = None if since is None else parse_time(since, now_ns=now_ns)
    until_ns = None if until is None else parse_time(until, now_ns=now_ns)
    with settings.engine() as engine:
        handle = engine.containers.get(container)
        supervision = handle.record.config.supervision
        if supervision is not None and supervision.log_driver == "none":
            raise StateError(f"container '{container}' has log driver 'none', which keeps nothing to read")
        lines = read_lines(
            engine.context.log_path(handle.id), tail=_read_tail(tail), since_ns=since_ns, until_ns=until_ns,
            follow=(lambda: engine.context.records.by_id(handle.id)) if follows else None,
        )  # fmt: skip
        for line in lines:
            out = sys.stderr.buffer if line.stream == "stderr" else sys.stdout.buffer
            # as Docker: the stamp, then the attributes, then the line as it came
            lead = (f"{line.time} " if timestamps else "") + (" " if details else "")
            out.write((lead + line.text).encode("utf-8", "surrogateescape"))
            if follows:
                out.flush()
        sys.stdout.buffer.flush()
        sys.stderr.buffer.flush()


def _read_tail(text: str) -> int | None:
    if text == "all":
        return None
    try:
        lines = int(text)
    except ValueError:
        raise UsageError(f"invalid number of lines '{text}'", hint="give a number, or all") from None
    return None if lines < 0 else lines
