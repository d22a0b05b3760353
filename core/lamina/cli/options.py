"""Command lines as Docker's users type them, where click's own rules differ. Nothing of the engine.

Docker's switches take a value after `=` (`--sig-proxy=false`); its errors about the command line itself end with 125.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lamina.engine import Engine

Decorated = Callable[..., Any]
Follow = Callable[["Engine"], None]

_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})


class OptionalValue(click.Option):
    """An option that stands for a value of its own when it has none: `--trace` is `--trace=text`. Never takes the next word."""

    def __init__(self, *arguments: Any, bare: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.bare = bare


class Command(click.Command):
    """A click command whose switches may be given a value. `--` and, where options end there, the first argument are respected."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Turn `--switch=false` into what click knows, then let click read."""
        return super().parse_args(ctx, list(self._without_values(ctx, args)))

    def _without_values(self, ctx: click.Context, args: Sequence[str]) -> Iterator[str]:
        options = {name: option for option in self.get_params(ctx) if isinstance(option, click.Option) for name in option.opts}
        words = iter(args)
        for word in words:
            name, equals, value = word.partition("=")
            if word == "--" or (not ctx.allow_interspersed_args and (word == "-" or not word.startswith("-"))):
                yield word
                break
            if isinstance(optional := options.get(name), OptionalValue):
                yield word if equals else f"{name}={optional.bare}"
                continue
            if equals and name in options and options[name].is_flag:
                yield from _switch(ctx, options[name], name, value)
                continue
            yield from _spelled_out(word, options)
            if _takes_next(word, options):
                yield from [following for following in [next(words, None)] if following is not None]
        yield from words


def _switch(ctx: click.Context, option: click.Option, name: str, value: str) -> list[str]:
    lowered = value.lower()
    if lowered not in _TRUE | _FALSE:
        raise click.BadParameter(f"'{value}' is not true or false", ctx=ctx, param=option)
    if lowered in _TRUE:
        return [name]
    return option.secondary_opts[:1]  # without one the switch is off unless given


def _spelled_out(word: str, options: Mapping[str, click.Option]) -> list[str]:
    """Write `-itv/a:/b` as `--interactive --tty --volume=/a:/b`; a word in which a letter is unknown or has no long name stays.

    For a short name click first looks which of the long ones is most like it, in case there is no short one: 1 ms with `difflib`.
    """
    found: list[str] = []
    for at in range(1, len(word)) if word.startswith("-") and not word.startswith("--") else ():
        option = options.get(f"-{word[at]}")
        long = next((name for name in option.opts if name.startswith("--")), "") if option is not None else ""
        if option is None or not long:
            return [word]
        if not option.is_flag and not option.count:
            return [*found, f"{long}={word[at + 1 :]}" if word[at + 1 :] else long]
        found.append(long)
    return found or [word]


def _takes_next(word: str, options: Mapping[str, click.Option]) -> bool:
    """Whether the next word is this one's value, as in `--name x` and `-itv /a:/b`."""
    if word.startswith("--"):
        return word in options and not options[word].is_flag and not options[word].count
    for at in range(1, len(word)):
        option = options.get(f"-{word[at]}")
        if option is None:
            return False
        if not option.is_flag:
            return at == len(word) - 1
    return False


def filter_option(function: Decorated) -> Decorated:
    """Add `-f/--filter NAME=VALUE`."""
    return click.option("--filter", "-f", "filters", multiple=True, metavar="NAME=VALUE", help="Show only what fits.")(function)


def detach_keys_option(function: Decorated) -> Decorated:
    """Add `--detach-keys`."""
    return click.option(
        "--detach-keys", metavar="KEYS", default=None, help="The keys that leave the container running.  [ctrl-p,ctrl-q]"
    )(function)


def signal_proxy_option(function: Decorated) -> Decorated:
    """Add `--sig-proxy`."""
    return click.option(
        "--sig-proxy/--no-sig-proxy", "pass_signals", default=True, help="Send the signals that lamina gets on to the command."
    )(function)


def trace_options(function: Decorated) -> Decorated:
    """Add `--trace` and `--trace-file`."""
    function = click.option(
        "--trace-file", default="", metavar="FILE", help="Write the trace there, not to standard error; /dev/fd/N for a descriptor."
    )(function)
    return click.option(
        "--trace", cls=OptionalValue, bare="text", type=click.Choice(["text", "json"]), default=None, metavar="[=text|json]",
        help="Tell every step and system call as it is done.",
    )(function)  # fmt: skip


def traced(form: str | None, path: str) -> contextlib.AbstractContextManager[Follow]:
    """Trace what the block does, if that is asked for; what is given makes the trace follow an engine.

    It is here and not in a module of its own, because a run without a trace loads nothing more than it did before.
    """
    if form is None and not path:
        return contextlib.nullcontext(lambda _engine: None)
    from lamina.cli.tracing import tracing

    return tracing(form or "text", path)
