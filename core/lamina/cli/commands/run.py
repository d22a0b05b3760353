"""`lamina run`: create and start a container."""

from typing import Any

import click

from lamina.cli.completion import complete_images
from lamina.cli.container_options import IdFile, container_options, read_config
from lamina.cli.main import Settings, as_lamina_error
from lamina.cli.options import Command, detach_keys_option, signal_proxy_option, trace_options, traced
from lamina.cli.streams import NotATerminalError, check_terminal, joined, terminal_size
from lamina.cli.talk import showing_pull
from lamina.errors import UsageError


@click.command(cls=Command, context_settings={"allow_interspersed_args": False})
@click.option("--detach", "-d", is_flag=True, help="Leave it running and print its id.")
@container_options
@detach_keys_option
@signal_proxy_option
@trace_options
@click.argument("image", shell_complete=complete_images)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [ARG]...")
@click.pass_obj
def command(settings: Settings, /, **options: Any) -> int:
    """Create a container from IMAGE and run COMMAND in it.

    The exit code is the command's; 128 and the signal's number if a signal ended it; 127 if the command isn't there, 126 if it
    can't be executed, 125 if lamina failed.
    """
    try:
        return _run(settings, **options)
    except (NotATerminalError, BrokenPipeError):
        raise
    except Exception as error:
        told = as_lamina_error(error)
        if told is None:
            raise
        if told.exit_code == 1:
            told.exit_code = 125
        raise told from error


def _run(
    settings: Settings, *, detach: bool, detach_keys: str | None, pass_signals: bool, name: str, cidfile: str, storage_driver: str,
    attach: tuple[str, ...], trace: str | None, trace_file: str, pull: str | None, **options: Any,
) -> int:  # fmt: skip
    if detach and attach:
        raise UsageError("--attach and --detach contradict each other")
    config = read_config(**options)
    streams = joined(stdin=config.open_stdin, attach=attach)
    if not detach:
        check_terminal(streams, tty=config.tty)
    with IdFile(cidfile) as id_file, traced(trace, trace_file) as follow, settings.engine(storage_driver) as engine:
        follow(engine)
        container, code = engine.containers.run_attached(
            config, name=name, stdin_fd=streams.stdin_fd, stdout_fd=streams.stdout_fd, stderr_fd=streams.stderr_fd,
            detach=detach, detach_keys=detach_keys, pass_signals=pass_signals,
            terminal_size=terminal_size() if config.tty else (0, 0), created=lambda made: id_file.write(made.id),
            pull=pull or "", pulling=showing_pull,
        )  # fmt: skip
        if detach or not streams.shows_output:
            click.echo(container.id)
    return code or 0
