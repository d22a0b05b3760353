"""`lamina completion`: the script that makes a shell complete lamina's command lines."""

import click

from lamina.cli.options import Command

VARIABLE = "_LAMINA_COMPLETE"


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, /, *, shell: str) -> None:
    """Write the completion script of bash, zsh or fish.

    \b
    bash:  source <(lamina completion bash)
    zsh:   source <(lamina completion zsh)
    fish:  lamina completion fish | source
    """
    from click.shell_completion import get_completion_class

    writer = get_completion_class(shell)
    if writer is None:
        raise click.UsageError(f"no completion for the shell '{shell}'", ctx=ctx)
    # The class for bash would run bash to see its version; what it would say then, the script says anyway.
    text = writer.source_template % writer(ctx.find_root().command, {}, "lamina", VARIABLE).source_vars()
    click.echo(text)
