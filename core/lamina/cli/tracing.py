"""`--trace` and `--trace-file`: the options, and where the trace goes. What is in it is `lamina.usecases.trace`'s affair."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.options import OptionalValue

if TYPE_CHECKING:
    from lamina.engine import Engine

Decorated = Callable[..., Any]
Follow = Callable[["Engine"], None]


def trace_options(function: Decorated) -> Decorated:
    """Add the options."""
    function = click.option(
        "--trace-file", default="", metavar="FILE", help="Write the trace there, not to standard error; /dev/fd/N for a descriptor."
    )(function)
    return click.option(
        "--trace", cls=OptionalValue, bare="text", type=click.Choice(["text", "json"]), default=None, metavar="[=text|json]",
        help="Tell every step and system call as it is done.",
    )(function)  # fmt: skip


@contextlib.contextmanager
def traced(form: str | None, path: str) -> Iterator[Follow]:
    """Trace what the block does, if that is asked for; what is given makes the trace follow an engine."""
    if form is None and not path:
        yield lambda _engine: None
        return
    from lamina.cli.output import printable
    from lamina.usecases.trace import Tracing

    with contextlib.ExitStack() as stack:
        if path:
            file = stack.enter_context(open(path, "w", encoding="utf-8", errors="surrogateescape", buffering=1))
            tracing = Tracing(form=form or "text", write=lambda line: print(line, file=file))
        else:
            tracing = Tracing(form=form or "text", write=lambda line: click.echo(printable(line), err=True))
        stack.enter_context(tracing)
        yield tracing.follow
