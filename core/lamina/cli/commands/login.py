"""`lamina login`: prove an account at a registry, and keep it."""

import sys

import click

from lamina.cli.main import Settings, print_warning
from lamina.cli.options import Command
from lamina.errors import UsageError


@click.command(cls=Command)
@click.option("--username", "-u", default="", metavar="NAME", help="The account's name.")
@click.option("--password", "-p", default="", metavar="TEXT", help="Its password; others can see it in the list of processes.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.argument("server", required=False, default="", metavar="[SERVER]")
@click.pass_obj
def command(settings: Settings, /, *, username: str, password: str, password_stdin: bool, server: str) -> None:
    """Log in to a registry, Docker Hub if none is named. The account is kept where Docker and other tools find it, too."""
    del settings
    from lamina.registry.credentials import Credential, Credentials
    from lamina.registry.opening import check_login

    registry = registry_meant(server)
    if password and password_stdin:
        raise UsageError("--password and --password-stdin contradict each other")
    if password:
        print_warning("a password on the command line can be seen by others; use --password-stdin")
    if password_stdin:
        if not username:
            raise UsageError("--password-stdin needs --username")
        password = sys.stdin.buffer.read(1 << 20).decode(errors="surrogateescape").rstrip("\r\n")
    if not (username and password) and not sys.stdin.isatty():
        raise UsageError("standard input is no terminal to ask at", hint="use --username and --password-stdin")
    if not username:
        click.echo("Username: ", nl=False, err=True)
        username = sys.stdin.readline().strip()
    if not password:
        from getpass import getpass

        password = getpass("Password: ", sys.stderr)
    if not username or not password or ":" in username:
        raise UsageError("the user name or the password is empty" if ":" not in username else "a user name has no ':' in it")
    credential = Credential(username=username, password=password)
    check_login(registry, credential)
    stored = Credentials(warn=print_warning).store(registry, credential)
    if not stored.is_encrypted:
        print_warning(
            f"the password is stored unencrypted in '{stored.place}'; a credential helper, named there as credsStore, encrypts it"
        )
    click.echo("Login Succeeded")


def registry_meant(server: str) -> str:
    """Give the registry that a person means by a host's name or an address. Raises `UsageError`."""
    from urllib.parse import urlsplit

    from lamina.model.reference import HUB, Reference

    text = server.strip()
    if not text:
        return HUB
    if "://" in text:
        text = urlsplit(text).netloc
    text = text.partition("/")[0]
    if text in {"index.docker.io", "registry-1.docker.io", HUB}:
        return HUB
    try:
        found = Reference.parse(f"{text}/x")
    except UsageError:
        found = None
    if found is None or found.domain != text:
        if "@" in text or not text.replace("-", "").isalnum():
            raise UsageError("that is not a registry's name", hint="write HOST[:PORT]")
        return text
    return text
