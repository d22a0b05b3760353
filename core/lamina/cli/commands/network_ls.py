"""`lamina network ls`: list networks."""

from collections.abc import Sequence

import click

from lamina.cli.filters import parse_filters
from lamina.cli.main import Settings
from lamina.cli.options import Command, filter_option
from lamina.cli.output import Column
from lamina.cli.talk import FORMAT_HELP, print_rows

COLUMNS = (
    Column(field="ID", header="NETWORK ID"),
    Column(field="Name", header="NAME"),
    Column(field="Driver", header="DRIVER"),
    Column(field="Scope", header="SCOPE"),
    Column(field="IPv4", header="IPV4", in_table=False),
    Column(field="IPv6", header="IPV6", in_table=False),
    Column(field="Internal", header="INTERNAL", in_table=False),
    Column(field="Labels", header="LABELS", in_table=False),
)


@click.command(cls=Command)
@filter_option
@click.option("--format", "template", default=None, metavar="FORMAT", help=FORMAT_HELP)
@click.option("--no-trunc", is_flag=True, help="Don't cut ids.")
@click.option("--quiet", "-q", is_flag=True, help="Show ids alone.")
@click.pass_obj
def command(settings: Settings, /, *, filters: Sequence[str], template: str | None, no_trunc: bool, quiet: bool) -> None:
    """List the networks that containers may have. Filters: name=PART, id=BEGINNING, driver=NAME, scope=local."""
    wanted = parse_filters(filters, known=("name", "id", "driver", "scope"))
    with settings.engine() as engine:
        networks = engine.system.networks()
    rows = [
        {
            "ID": network.id if no_trunc else network.id[:12],
            "Name": network.name,
            "Driver": network.driver,
            "Scope": "local",
            "IPv4": "false",
            "IPv6": "false",
            "Internal": "false",
            "Labels": "",
        }
        for network in networks
        if ("name" not in wanted or any(part in network.name for part in wanted["name"]))
        and ("id" not in wanted or any(network.id.startswith(start) for start in wanted["id"]))
        and ("driver" not in wanted or network.driver in wanted["driver"])
        and ("scope" not in wanted or "local" in wanted["scope"])
    ]
    print_rows(rows, columns=COLUMNS, template=template, quiet_field="ID" if quiet else None)
