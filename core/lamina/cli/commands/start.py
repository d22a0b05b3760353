"""`lamina start`: start containers that were created, or have ended."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_stopped
from lamina.cli.main import Settings
from lamina.cli.options import Command, detach_keys_option, signal_proxy_option
from lamina.cli.several import try_each
from lamina.cli.streams import check_terminal, joined, terminal_size
from lamina.container import ContainerHandle
from lamina.errors import LaminaError, UsageError
from lamina.model.container import Status


@click.command(cls=Command)
@click.option("--attach", "-a", is_flag=True, help="Join its output and wait for its end.")
@click.option("--interactive", "-i", is_flag=True, help="Join its standard input.")
@detach_keys_option
@signal_proxy_option
@click.argument("containers", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_stopped)
@click.pass_obj
def command(
    settings: Settings, *, containers: Sequence[str], attach: bool, interactive: bool, detach_keys: str | None, pass_signals: bool
) -> int:
    """Start containers; with --attach the exit code is the command's."""
    if attach or interactive:
        if len(containers) > 1:
            raise UsageError("only one container can be started and joined", hint="leave out --attach and --interactive")
        with settings.engine() as engine:
            handle = engine.containers.get(containers[0])
            return _start_joined(handle, stdin=interactive, detach_keys=detach_keys, pass_signals=pass_signals)
    with settings.engine() as engine:
        return try_each(containers, lambda name: _start(engine.containers.get(name)))


def _start(handle: ContainerHandle) -> None:
    if handle.record.status is not Status.RUNNING:  # Docker's: to start what runs is no error
        handle.start()


def _start_joined(handle: ContainerHandle, *, stdin: bool, detach_keys: str | None, pass_signals: bool) -> int:
    record = handle.record
    tty = record.config.tty
    streams = joined(stdin=stdin and record.config.open_stdin)
    check_terminal(streams, tty=tty)
    try:
        if record.status is Status.RUNNING:
            code = handle.attach(
                stdin_fd=streams.stdin_fd, stdout_fd=streams.stdout_fd, stderr_fd=streams.stderr_fd, detach_keys=detach_keys,
                pass_signals=pass_signals and not tty,
            )  # fmt: skip
        else:
            code = handle.start_attached(
                stdin_fd=streams.stdin_fd, stdout_fd=streams.stdout_fd, stderr_fd=streams.stderr_fd, detach_keys=detach_keys,
                pass_signals=pass_signals and not tty, terminal_size=terminal_size() if tty else (0, 0),
            )  # fmt: skip
    except LaminaError as error:
        error.exit_code = 1  # Docker's: 126 and 127 are for `run` and `exec`
        raise
    return code or 0
