"""`lamina build`: an image from a Dockerfile."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.errors import UsageError

if TYPE_CHECKING:
    from lamina.build.progress import Progress
    from lamina.build.request import BuildRequest


@click.command(cls=Command)
@click.option(
    "--file", "-f", "dockerfile", default="", metavar="FILE", help="The Dockerfile, - for standard input.  [PATH/Dockerfile]"
)
@click.option("--tag", "-t", "names", multiple=True, metavar="NAME[:TAG]", help="Name the image; may be given several times.")
@click.option("--target", default="", metavar="STAGE", help="Build this stage, by name or number.  [the last]")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="Give an ARG its value.")
@click.option(
    "--secret", "secrets", multiple=True, metavar="id=ID[,src=FILE|,env=NAME]", help="A secret for RUN --mount=type=secret."
)
@click.option("--ssh", "agents", multiple=True, metavar="ID[=SOCKET]", help="An SSH agent for RUN --mount=type=ssh.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Give the image a label.")
@click.option("--no-cache", is_flag=True, help="Carry every step out.")
@click.option("--pull", is_flag=True, help="Pull the images of FROM even if they are here.")
@click.option("--platform", default="", metavar="OS/ARCH", help="The platform of the images to build on.")
@click.option(
    "--network", "--net", "network", default="", metavar="NAME", help="The network of RUN: host, none, or a plugin's.  [host]"
)
@click.option("--add-host", "hosts", multiple=True, metavar="NAME:ADDRESS", help="Add a line to /etc/hosts for RUN.")
@click.option("--iidfile", default="", metavar="FILE", help="Write the image's id there.")
@click.option("--output", "-o", "outputs", multiple=True, metavar="DEST", help="Write what was built to a directory or an archive.")
@click.option(
    "--progress", "form", type=click.Choice(["auto", "plain", "tty", "quiet"]), default="auto", help="How to show it.  [auto]"
)
@click.option("--quiet", "-q", is_flag=True, help="Print the image's id and nothing else.")
@click.option("--rm/--no-rm", "remove", default=True, hidden=True)
@click.option("--force-rm", is_flag=True, hidden=True)
@click.option("--load", is_flag=True, hidden=True)
@click.option("--compress", is_flag=True, hidden=True)
@click.option("--disable-content-trust/--no-disable-content-trust", default=True, hidden=True)
@click.option("--provenance", default="false", hidden=True)
@click.option("--sbom", default="false", hidden=True)
@click.argument("source", metavar="PATH|-")
@click.pass_obj
def command(
    settings: Settings, /, *, names: Sequence[str], iidfile: str, outputs: Sequence[str], form: str, quiet: bool, remove: bool,
    force_rm: bool, load: bool, compress: bool, disable_content_trust: bool, provenance: str, sbom: str, **options: Any,
) -> None:  # fmt: skip
    """Build an image from a Dockerfile and the files in PATH; with - the context, or the Dockerfile alone, comes on standard input.

    A step whose command, files and surroundings are as before is taken from the cache.
    """
    del force_rm, load, compress  # what fails leaves nothing, the image always is in the store, and a context is sent nowhere
    if not disable_content_trust or provenance != "false" or sbom != "false":
        raise UsageError("images are neither signed nor attested here", hint="leave the option out")
    if not remove:
        raise UsageError("--rm=false is not possible", hint="a step leaves no container behind that could be kept")
    if iidfile:
        with contextlib.suppress(FileNotFoundError):  # a build that fails leaves no id of another
            os.unlink(iidfile)
    memo_key = _memo_key(**options)
    shown_as = "quiet" if quiet else form
    if memo_key and not outputs:
        image_id = _recall(settings, memo_key, names, shown_as)
        if image_id:
            _tell_id(image_id, iidfile=iidfile, printed=shown_as == "quiet")
            return
    request = _request(names=names, memo_key=memo_key, **options)
    wanted = _outputs(outputs)
    with _stopped_by_signals(), settings.engine() as engine:
        from lamina.build.builder import build

        progress = _progress(shown_as)
        try:
            built = build(engine.context, request, progress)
            for output in wanted:
                _write(engine, output, built)
        finally:
            progress.close()
    _tell_id(str(built.image.id), iidfile=iidfile, printed=shown_as == "quiet")


def _tell_id(image_id: str, *, iidfile: str, printed: bool) -> None:
    if iidfile:
        with open(iidfile, "w", encoding="ascii") as file:
            file.write(image_id)
    if printed:
        click.echo(image_id)


def _memo_key(*, source: str, dockerfile: str, no_cache: bool, pull: bool, **options: Any) -> str:
    """Name this build by what was typed; "" for one whose outcome can't be told by looking at files."""
    if no_cache or pull or source == "-" or dockerfile == "-" or not os.path.isdir(source):
        return ""
    from lamina.build.memo import key_of_request

    given = {**options, "build_args": sorted(_build_args(options["build_args"]).items())}
    return key_of_request({"source": os.path.realpath(source), "dockerfile": dockerfile, **given})


def _recall(settings: Settings, key: str, names: Sequence[str], shown_as: str) -> str:
    """Show a build that need not be done again, and give the image's id; "" if there is none."""
    from lamina.build.memo import recall
    from lamina.usecases.settings import read_settings

    found = recall(read_settings(root_dir=settings.root_dir, run_dir=settings.run_dir).root_dir, key, names)
    if found is None:
        return ""
    if shown_as != "quiet":
        progress = _progress(shown_as)
        for warning in found.warnings:
            progress.warn(warning)
        for title, state in found.steps:
            progress.step(title).end(state)
        last = progress.step("exporting to image")
        last.begin()
        for text in (f"writing image {found.image_id}", *(f"naming to {name}" for name in found.names)):
            last.say(text)
        last.end("done")
        progress.close()
    return found.image_id


def _request(
    *, source: str, dockerfile: str, names: Sequence[str], target: str, build_args: Sequence[str], secrets: Sequence[str],
    agents: Sequence[str], labels: Sequence[str], no_cache: bool, pull: bool, platform: str, network: str, hosts: Sequence[str],
    memo_key: str,
) -> "BuildRequest":  # fmt: skip
    from lamina.build.request import BuildRequest, parse_host, parse_secret, parse_ssh
    from lamina.model.reference import Reference

    references = {name: _name(Reference.parse(name)) for name in names}
    return BuildRequest(
        memo_key=memo_key,
        memo_names={name: reference.canonical for name, reference in references.items()},
        source=source,
        dockerfile=dockerfile,
        stdin=sys.stdin.buffer,
        names=tuple(dict.fromkeys(references.values())),
        target=target,
        build_args=_build_args(build_args),
        secrets=tuple(parse_secret(text) for text in secrets),
        ssh=dict(parse_ssh(text) for text in agents),
        labels=dict(_label(text) for text in labels),
        no_cache=no_cache,
        pull=pull,
        platform=platform,
        network=network,
        add_hosts=tuple(parse_host(text) for text in hosts),
    )


def _name(reference: Any) -> Any:
    if reference.digest is not None:
        raise UsageError(f"'{reference.familiar}' can't be given as a name: it has a digest", hint="use NAME:TAG")
    return reference


def _build_args(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise UsageError(f"invalid build argument '{text}'", hint="write NAME=VALUE, or NAME for a variable of the environment")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def _label(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name:
        raise UsageError(f"invalid label '{text}'", hint="write NAME=VALUE")
    return name, value


def _outputs(texts: Sequence[str]) -> list[Any]:
    if not texts:
        return []
    from lamina.build.outputs import parse_output

    return [parse_output(text) for text in texts]


def _write(engine: Any, output: Any, built: Any) -> None:
    from lamina.build.outputs import write_output

    write_output(output, engine=engine, image=built.image, names=built.names)


def _progress(form: str) -> "Progress":
    from lamina.build.progress_plain import OnlyFailures, Plain

    if form == "quiet":
        quiet: Progress = OnlyFailures()
        return quiet
    if form == "tty" or (form == "auto" and sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb"}):
        from lamina.build.progress_live import Live

        return Live(sys.stderr)
    return Plain()


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a hang-up undo the step at work; once that has begun, a second Ctrl-C doesn't disturb it."""

    def stop(number: int, _frame: object) -> None:
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
