"""`lamina stats`: show what containers use just now."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from lamina.cli.completion import complete_running
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.output import Column, Row, render_rows
from lamina.cli.units import human_binary_size, human_size

if TYPE_CHECKING:
    from lamina.engine import Engine
    from lamina.model.container import Container
    from lamina.usecases.stats import Sample

COLUMNS = (
    Column(field="ID", header="CONTAINER ID"),
    Column(field="Name", header="NAME"),
    Column(field="CPUPerc", header="CPU %"),
    Column(field="MemUsage", header="MEM USAGE / LIMIT"),
    Column(field="MemPerc", header="MEM %"),
    Column(field="NetIO", header="NET I/O"),
    Column(field="BlockIO", header="BLOCK I/O"),
    Column(field="PIDs", header="PIDS"),
    Column(field="Container", header="CONTAINER", in_table=False),
)
INTERVAL_S = 1.0
_HOME, _CLEAR = "\x1b[H", "\x1b[J"
"""ECMA-48: to the first place of the screen; erase from here to its end."""


@click.command(cls=Command)
@click.option("--all", "-a", "shows_all", is_flag=True, help="Show those that don't run, too.")
@click.option("--format", "template", default=None, metavar="FORMAT", help="table, 'table TEMPLATE', json, or a Go template.")
@click.option("--no-stream", is_flag=True, help="Look once, over one second, and end.")
@click.option("--no-trunc", is_flag=True, help="Cut nothing off.")
@click.argument("containers", nargs=-1, metavar="[CONTAINER]...", shell_complete=complete_running)
@click.pass_obj
def command(
    settings: Settings, *, shows_all: bool, template: str | None, no_stream: bool, no_trunc: bool, containers: Sequence[str]
) -> None:
    """Show what containers use just now: processor, memory, network, disk, processes. On a terminal it goes on until ^C."""
    is_terminal = sys.stdout.isatty()
    before: Mapping[str, Sample] = {}
    with settings.engine() as engine:
        while True:
            found = _containers(engine, containers, shows_all=shows_all)
            samples = _samples(found)
            if before or not samples:
                rows = [_row(each, samples.get(each.id), before.get(each.id), cuts=not no_trunc) for each in found]
                lines = list(render_rows(rows, columns=COLUMNS, template=template, is_terminal=is_terminal))
                if is_terminal and not no_stream:
                    click.echo(_HOME + _CLEAR, nl=False)
                for line in lines:
                    click.echo(line)
                sys.stdout.flush()
                if no_stream:
                    return
            before = samples
            time.sleep(INTERVAL_S)


def _containers(engine: "Engine", names: Sequence[str], *, shows_all: bool) -> "list[Container]":
    if names:
        return [engine.containers.get(name).record for name in names]
    return [each for each in engine.context.records.all() if each.is_active or shows_all]


def _samples(containers: "Sequence[Container]") -> "Mapping[str, Sample]":
    from lamina.usecases.stats import sample

    found = {each.id: sample(each) for each in containers}
    return {key: value for key, value in found.items() if value is not None}


def _row(container: "Container", now: "Sample | None", before: "Sample | None", *, cuts: bool) -> Row:
    from lamina.usecases.stats import Sample

    seen = now or Sample(time_ns=0)
    return {
        "ID": container.short_id if cuts else container.id,
        "Container": container.short_id if cuts else container.id,
        "Name": container.name,
        "CPUPerc": f"{seen.cpu_percent(before):.2f}%",
        "MemUsage": f"{human_binary_size(seen.memory_bytes)} / {human_binary_size(seen.memory_limit_bytes)}",
        "MemPerc": f"{seen.memory_percent:.2f}%",
        "NetIO": f"{human_size(seen.received_bytes)} / {human_size(seen.sent_bytes)}",
        "BlockIO": f"{human_size(seen.read_bytes)} / {human_size(seen.written_bytes)}",
        "PIDs": str(seen.pids),
    }
