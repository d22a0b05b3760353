"""`lamina driver doctor`: what each storage driver would give and lose on this machine, and what would make it work."""

from collections.abc import Iterator, Sequence

import click

from lamina.cli.completion import complete_drivers
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.output import printable
from lamina.cli.units import human_size
from lamina.usecases.doctor import Diagnosis, Machine


@click.command(cls=Command)
@click.option("--format", "-f", "template", default=None, metavar="FORMAT", help="'json', or a Go template; text without it.")
@click.argument("drivers", nargs=-1, metavar="[NAME...]", shell_complete=complete_drivers)
@click.pass_obj
def command(settings: Settings, /, *, template: str | None, drivers: Sequence[str]) -> int:
    """Examine this machine and tell of each driver, or those named, what it gives, what it loses, and how to make it work.

    The exit code is 1 if none of them can work here.
    """
    with settings.engine() as engine:
        from lamina.usecases.doctor import doctor_document

        machine, diagnoses = engine.system.examine(drivers)
    if template is not None:
        from lamina.cli.talk import show_document

        show_document(doctor_document(machine, diagnoses), template=template)
    else:
        for line in (*machine_lines(machine), *(line for each in diagnoses for line in driver_lines(each))):
            click.echo(printable(line))
    return 0 if any(each.status.probe is not None and each.status.probe.usable for each in diagnoses) else 1


def machine_lines(machine: Machine) -> Iterator[str]:
    """Write the facts for people."""
    there = [f"{name} ({how})" for name, how in machine.file_systems.items() if how]
    missing = [name for name, how in machine.file_systems.items() if not how]
    programs = [f"{name} ({path})" for name, path in machine.programs.items() if path]
    yield "This machine"
    yield f"  kernel:         {machine.kernel}; " + ", ".join(
        f"{name}: {_yes(there_is)}" for name, there_is in machine.features.items()
    )
    yield f"  file systems:   {', '.join(there) or '-'}" + (f"; not there: {', '.join(missing)}" if missing else "")
    yield f"  programs:       {', '.join(programs) or '-'}; /dev/fuse: {_yes(machine.fuse_device)}"
    yield f"  the store:      {machine.place}, on {machine.fstype}" + ("" if machine.writable else ", which can't be written")
    yield f"  free space:     {human_size(machine.free_bytes)} of {human_size(machine.total_bytes)}, {machine.free_inodes} inodes"
    yield (
        f"  it can do:      reflink: {_yes(machine.reflink)}, d_type: {_yes(machine.entry_types)}, "
        f"project quota: {_yes(machine.project_quota)}"
    )
    yield f"  it keeps:       {', '.join(sorted(each.value for each in machine.keeps)) or '-'}"


def driver_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Write a driver's diagnosis for people."""
    status = diagnosis.status
    usable = status.probe is not None and status.probe.usable
    yield ""
    yield f"{status.name}{' (the default here)' if status.is_default else ''}: " + (
        f"works here, by {status.probe.method}" if usable and status.probe is not None else "can't work here"
    )
    if diagnosis.reason:
        yield f"  why not:  {diagnosis.reason}"
    for remedy in diagnosis.remedies:
        yield f"  {'better: ' if usable else 'to do:  '}  {remedy}"
    would = "" if usable else "would "
    for word, sentences in (
        (f"{would}give{'' if would else 's'}", diagnosis.gives),
        (f"{would}lose{'' if would else 's'}", diagnosis.loses),
    ):
        for number, sentence in enumerate(sentences):
            yield f"  {word + ':' if number == 0 else '':<12}{sentence}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
