"""`lamina attach`: join a running container's streams."""

import click

from lamina.cli.completion import complete_running
from lamina.cli.main import Settings
from lamina.cli.options import Command, detach_keys_option, signal_proxy_option
from lamina.cli.streams import check_terminal, joined
from lamina.errors import StateError
from lamina.model.container import Status


@click.command(cls=Command)
@click.option("--no-stdin", is_flag=True, help="Leave its standard input alone.")
@detach_keys_option
@signal_proxy_option
@click.argument("container", shell_complete=complete_running)
@click.pass_obj
def command(settings: Settings, *, container: str, no_stdin: bool, detach_keys: str | None, pass_signals: bool) -> int:
    """Join a running container's streams until it ends; the exit code is its command's."""
    with settings.engine() as engine:
        handle = engine.containers.get(container)
        record = handle.record
        if record.status is Status.PAUSED:
            raise StateError(f"container '{record.name}' is paused", hint=f"`lamina unpause {record.name}`")
        streams = joined(stdin=record.config.open_stdin and not no_stdin)
        check_terminal(streams, tty=record.config.tty)
        code = handle.attach(
            stdin_fd=streams.stdin_fd, stdout_fd=streams.stdout_fd, stderr_fd=streams.stderr_fd, detach_keys=detach_keys,
            pass_signals=pass_signals and not record.config.tty,
        )  # fmt: skip
    return code or 0
