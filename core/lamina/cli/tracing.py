"""Where a trace goes: the file of `--trace-file`, or standard error. Imported when a trace is asked for, and only then."""

import contextlib
from collections.abc import Iterator

import click

from lamina.cli.options import Follow
from lamina.cli.output import printable
from lamina.usecases.trace import Tracing


@contextlib.contextmanager
def tracing(form: str, path: str) -> Iterator[Follow]:
    """Trace what the block does; gives what makes the trace follow an engine."""
    with contextlib.ExitStack() as stack:
        if path:
            file = stack.enter_context(open(path, "w", encoding="utf-8", errors="surrogateescape", buffering=1))
            trace = Tracing(form=form, write=lambda line: print(line, file=file))
        else:
            trace = Tracing(form=form, write=lambda line: click.echo(printable(line), err=True))
        stack.enter_context(trace)
        yield trace.follow
