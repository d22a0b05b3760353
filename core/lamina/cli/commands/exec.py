"""`lamina exec`: run a command in a running container."""

from collections.abc import Sequence

import click

from lamina.cli.completion import complete_running
from lamina.cli.main import Settings
from lamina.cli.options import Command, detach_keys_option, trace_options, traced
from lamina.cli.process_options import check_working_dir, process_options, read_env
from lamina.cli.streams import check_terminal, joined, terminal_size
from lamina.errors import StartError

NOT_EXECUTED = 126


@click.command(cls=Command, context_settings={"allow_interspersed_args": False})
@click.option("--detach", "-d", is_flag=True, help="Leave it running.")
@click.option("--privileged", is_flag=True, help="Give the command every capability.")
@process_options
@detach_keys_option
@trace_options
@click.argument("container", shell_complete=complete_running)
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARG]...")
@click.pass_obj
def command(
    settings: Settings, *, container: str, arguments: Sequence[str], detach: bool, detach_keys: str | None, env: Sequence[str],
    env_files: Sequence[str], working_dir: str, user: str, tty: bool, interactive: bool, privileged: bool, trace: str | None,
    trace_file: str,
) -> int:  # fmt: skip
    """Run COMMAND in a running container. The exit code is the command's."""
    check_working_dir(working_dir)
    streams = joined(stdin=interactive and not detach)
    with traced(trace, trace_file) as follow, settings.engine() as engine:
        follow(engine)
        handle = engine.containers.get(container)
        if not detach:
            check_terminal(streams, tty=tty)
        try:
            code = handle.exec(
                arguments, env=read_env(env, env_files), user=user, working_dir=working_dir, tty=tty, detach=detach,
                privileged=privileged,
                stdin_fd=streams.stdin_fd, stdout_fd=streams.stdout_fd, stderr_fd=streams.stderr_fd, detach_keys=detach_keys,
                terminal_size=terminal_size() if tty else (0, 0),
            )  # fmt: skip
        except StartError as error:
            error.exit_code = max(error.exit_code, NOT_EXECUTED)  # Docker's `exec` has no 125
            raise
    return code or 0
