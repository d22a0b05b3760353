"""`lamina stop`: ask containers to end, wait, then kill them."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_running
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.several import try_each
from lamina.container import ContainerHandle


@click.command(cls=Command)
@click.option("--signal", "-s", "signal_name", default="", metavar="SIGNAL", help="What to send.  [the container's stop signal]")
@click.option(
    "--timeout", "--time", "-t", "timeout_s", type=int, default=None, metavar="SECONDS",
    help="How long to wait before killing; -1 for ever.  [the container's, or 10]",
)  # fmt: skip
@click.argument("containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_running)
@click.pass_obj
def command(settings: Settings, *, containers: Sequence[str], signal_name: str, timeout_s: int | None) -> int:
    """Stop containers."""
    with settings.engine() as engine:
        asked: dict[str, tuple[ContainerHandle, float]] = {}

        def ask(name: str) -> None:
            handle = engine.containers.get(name)
            asked[name] = handle, handle.ask_to_stop(signal=signal_name)

        def finish(name: str) -> None:
            handle, asked_at_s = asked[name]
            handle.finish_stop(timeout_s=timeout_s, asked_at_s=asked_at_s)

        # all are asked before the first is waited for, so that the time that they take is the slowest one's
        code = try_each(containers, ask, shows_names=False)
        return try_each([name for name in containers if name in asked], finish) or code
