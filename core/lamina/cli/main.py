"""The command `lamina`: finds a command by name, imports it alone, and turns errors into one line and an exit code.

Nothing of the engine is imported before a command is chosen; a command's module imports what that command needs.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from lamina.engine import Engine
    from lamina.errors import LaminaError

# Name: (module in cli/commands, what it does). A name with a blank is a command of a group.
CONTAINER_COMMANDS = {
    "attach": "join a running container's streams",
    "commit": "make an image of a container",
    "cp": "copy files between a container and the host",
    "create": "create a container",
    "diff": "list what a container has changed",
    "exec": "run a command in a running container",
    "explain": "tell where a container's files come from and what a write would copy",
    "export": "write a container's files as a tar archive",
    "inspect": "show all that is known of containers, images, volumes or networks",
    "kill": "send a signal to containers",
    "logs": "show what a container has written",
    "migrate": "move containers to another storage driver",
    "pause": "freeze containers",
    "port": "list a container's published ports",
    "ps": "list containers",
    "rename": "give a container another name",
    "restart": "stop and start containers",
    "rm": "remove containers",
    "run": "create and start a container",
    "start": "start containers",
    "stats": "show what containers use just now",
    "stop": "stop containers",
    "top": "list a container's processes",
    "unpause": "let frozen containers go on",
    "update": "change the limits and the restart policy of containers",
    "wait": "wait for containers to end",
}
IMAGE_COMMANDS = {
    "copy": "copy an image from one place to another",
    "build": "build an image from a Dockerfile",
    "history": "show how an image came to be",
    "images": "list images",
    "import": "make an image of a root file system's tar archive",
    "load": "take in the images of an archive",
    "pull": "bring an image from a registry or another place",
    "push": "send an image to a registry or another place",
    "rmi": "remove images",
    "save": "write images as an archive",
    "tag": "give an image one more name",
}
TOP_COMMANDS = {
    **CONTAINER_COMMANDS,
    **IMAGE_COMMANDS,
    "adopt": "take over the images and containers of a Docker data directory",
    "compare": "compare storage drivers: behaviour, disk, times",
    "completion": "write the shell's completion script",
    "events": "show what happens to containers, images, networks and volumes",
    "info": "show facts about this store and machine",
    "login": "prove an account at a registry, and keep it",
    "logout": "forget an account at a registry",
    "version": "show the version",
}
GROUPS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "builder": (
        "the build cache",
        {
            "build": ("build", "build an image from a Dockerfile"),
            "prune": ("builder_prune", "remove what builds have kept"),
        },
    ),
    "container": (
        "manage containers",
        {
            **{name: (name, text) for name, text in CONTAINER_COMMANDS.items()},
            "ls": ("ps", "list containers"),
            "prune": ("container_prune", "remove containers that don't run"),
        },
    ),
    "driver": (
        "storage drivers",
        {
            "ls": ("driver_ls", "list storage drivers"),
            "doctor": ("driver_doctor", "tell what each driver would give and lose on this machine"),
            "inspect": ("driver_inspect", "tell what a storage driver can do here"),
            "new": ("driver_new", "write the package of a new storage driver"),
            "test": ("driver_test", "hold a storage driver against the conformance kit"),
        },
    ),
    "image": (
        "manage images",
        {
            **{name: (name, text) for name, text in IMAGE_COMMANDS.items()},
            "ls": ("images", "list images"),
            "rm": ("rmi", "remove images"),
            "inspect": ("image_inspect", "show all that is known of images"),
            "prune": ("image_prune", "remove images without a name"),
            "bootstrap": ("image_bootstrap", "make a small base image of the host's own programs"),
        },
    ),
    "network": (
        "manage networks",
        {
            "connect": ("network_connect", "put a container into one more network"),
            "create": ("network_create", "create a network"),
            "disconnect": ("network_disconnect", "take a container out of a network"),
            "inspect": ("network_inspect", "show all that is known of networks"),
            "ls": ("network_ls", "list networks"),
            "prune": ("network_prune", "remove networks that no container has"),
            "repair": ("network_repair", "make again what networks must have on this host"),
            "rm": ("network_rm", "remove networks"),
        },
    ),
    "system": (
        "the whole",
        {
            "check": ("system_check", "find what is damaged, lost or left behind, and put it right"),
            "df": ("system_df", "show what takes space"),
            "info": ("info", "show facts about this store and machine"),
            "prune": ("system_prune", "remove what nothing uses"),
            "start": ("system_start", "start the containers that a boot has ended"),
            "stop": ("system_stop", "stop all containers, as before the machine's end"),
            "unit": ("system_unit", "write the systemd unit that does both"),
        },
    ),
    "volume": (
        "manage volumes",
        {
            "create": ("volume_create", "create a volume"),
            "inspect": ("volume_inspect", "show all that is known of volumes"),
            "ls": ("volume_ls", "list volumes"),
            "prune": ("volume_prune", "remove volumes that no container has"),
            "rm": ("volume_rm", "remove volumes"),
        },
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are named; their one-line help is in the table."""

    def __init__(self, *, lazy: dict[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List every name, imported or not."""
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        command: click.Command = import_module(f"lamina.cli.commands.{self.lazy[cmd_name][0]}").command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Offer the commands to a shell without importing them."""
        from click.shell_completion import CompletionItem

        texts = {**{name: text for name, (_, text) in self.lazy.items()}, **{name: GROUPS[name][0] for name in self.commands}}
        offered = [CompletionItem(name, help=texts[name]) for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return offered + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        rows = [(name, self.lazy[name][1]) for name in sorted(self.lazy)]
        groups = [(name, GROUPS[name][0]) for name in super().list_commands(ctx) if name in GROUPS]
        for title, listed in (("Commands", rows), ("Groups of commands", groups)):
            if listed:
                with formatter.section(title):
                    formatter.write_dl(listed)


OPEN_ENGINES: "list[Engine]" = []
"""Engines that stay open until the process exits, after an error too: the last connection to a database would delete its log,
which on a full disk can't be made again."""


class Settings:
    """The global options; `engine` opens the store with them."""

    def __init__(self, root_dir: str, run_dir: str, storage_driver: str) -> None:
        self.root_dir = root_dir
        self.run_dir = run_dir
        self.storage_driver = storage_driver

    @contextlib.contextmanager
    def engine(self, storage_driver: str = "") -> "Iterator[Engine]":
        """Open the engine for the rest of this process.

        It isn't closed: the last connection to close a database writes its log back and waits for the disk, which a later command
        may as well do. Whatever had to be durable was made so by its own transaction.
        """
        from lamina.engine import Engine

        engine = Engine(
            root_dir=self.root_dir, run_dir=self.run_dir, storage_driver=storage_driver or self.storage_driver, warn=print_warning
        )
        OPEN_ENGINES.append(engine)
        yield engine


def print_warning(text: str) -> None:
    """Tell a person something that stops nothing."""
    click.echo(f"warning: {text}", err=True)


@click.group(
    cls=LazyGroup,
    lazy={name: (name, text) for name, text in TOP_COMMANDS.items()},
    # with colour: click would else take what looks like it out of names and texts that go to a file or a pipe
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "color": True},
)
@click.option("--root", default="", metavar="DIR", help="Where images, containers and volumes are kept.  [/var/lib/lamina]")
@click.option("--run-dir", default="", metavar="DIR", help="Where sockets and locks are kept.  [/run/lamina]")
@click.option("--storage-driver", "-s", default="", metavar="NAME", help="The storage driver for containers made now.")
@click.version_option(None, "-v", "--version", package_name="lamina", message="lamina version %(version)s")
@click.pass_context
def cli(ctx: click.Context, root: str, run_dir: str, storage_driver: str) -> None:
    """Run images as containers, with storage drivers, networks and volumes that are plugins."""
    ctx.obj = Settings(root, run_dir, storage_driver)


for _name, (_text, _commands) in GROUPS.items():
    cli.add_command(LazyGroup(name=_name, lazy=_commands, help=_text[0].upper() + _text[1:] + "."))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line. An error is one line on standard error: what went wrong and, in brackets, what to do about it."""
    try:
        code = cli.main(arguments, standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        print_error(error.format_message(), f"`{context.command_path} --help` shows what it takes" if context is not None else "")
        # Docker's codes: 125 for an option that it doesn't know or can't read, 1 for an argument too few or too many
        is_of_option = isinstance(error, (click.BadParameter, click.NoSuchOption, click.BadOptionUsage))
        return 125 if is_of_option and not isinstance(error, click.MissingParameter) else 1
    except SystemExit:
        if not type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):  # private, and with two names in click's releases
            raise
        return 141  # click's way to end when whoever read our output has gone; a shell says so of SIGPIPE
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read our output has gone; nothing more can be said there
        return 141
    except Exception as error:  # noqa: BLE001 - this is the place where errors become text
        return _explain(error)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    told = as_lamina_error(error)
    if told is None:
        raise error
    print_error(told.message, told.hint, as_it_is=True)
    return told.exit_code


_DATABASE_HINTS = {
    "database or disk is full": "free some space: containers, images and volumes can still be removed",
    "attempt to write a readonly database": "mount the file system of the root directory read-write",
    "": "look for a full disk, and for damage with `lamina system check`",
}


def as_lamina_error(error: Exception) -> "LaminaError | None":
    """Give what a person is to be told; None for an error that is a bug of ours."""
    from lamina.errors import LaminaError

    if isinstance(error, LaminaError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        names = " -> ".join(f"'{name}'" for name in (error.filename, error.filename2) if name)
        hint = "free some space, or choose another place with --root" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
        return LaminaError(f"{(error.strerror or '').lower()}{': ' + names if names else ''}", hint=hint)
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map segment" in str(error)):
        return LaminaError("out of memory", hint="raise the limit of this process, or end others")
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return LaminaError("no thread can be started", hint="raise the limit of processes (ulimit -u, pids.max), or end some")
    if type(error).__module__ == "sqlite3":  # without importing it: not every command has
        return LaminaError(f"the database failed: {error}", hint=_DATABASE_HINTS.get(str(error), _DATABASE_HINTS[""]))
    return None


def print_error(message: str, hint: str = "", *, as_it_is: bool = False) -> None:
    """Say what went wrong and what to do about it, in one line whatever the message holds.

    Our own messages are taken `as_it_is`: a name may stand at their beginning.
    """
    if message[1:2].islower() and not as_it_is:  # click and the C library begin theirs with a capital letter
        message = message[0].lower() + message[1:]
    line = f"error: {message.rstrip('.')}" + (f" ({hint})" if hint else "")
    click.echo("".join(char if char.isprintable() else " " for char in " ".join(line.split())), err=True, color=True)


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed: else the next file opened, the store's, would be taken for it."""
    for fd, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, and so this one
            setattr(sys, name, open(fd, mode, encoding="utf-8"))  # noqa: SIM115 - for good; Python has None there


def run() -> None:
    """Exit with the command's code, at once: what an interpreter tidies up at its end, the kernel does as well and faster."""
    _open_standard_streams()
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    os._exit(code)
