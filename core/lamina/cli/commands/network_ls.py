"""`lamina network ls`: list networks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from lamina.cli.filters import Filters, flag_filter, labels_match, parse_filters
from lamina.cli.main import Settings
from lamina.cli.options import Command, filter_option
from lamina.cli.output import Column, Row, label_header
from lamina.cli.talk import FORMAT_HELP, print_rows
from lamina.cli.units import format_list_time
from lamina.errors import UsageError

if TYPE_CHECKING:
    from lamina.engine import Engine
    from lamina.model.network import Network

COLUMNS = (
    Column(field="ID", header="NETWORK ID"),
    Column(field="Name", header="NAME"),
    Column(field="Driver", header="DRIVER"),
    Column(field="Scope", header="SCOPE"),
    Column(field="CreatedAt", header="CREATED AT", in_table=False),
    Column(field="IPv4", header="IPV4", in_table=False),
    Column(field="IPv6", header="IPV6", in_table=False),
    Column(field="Internal", header="INTERNAL", in_table=False),
    Column(field="Labels", header="LABELS", in_table=False),
    Column(field="Label", header=label_header, in_table=False),
)


@click.command(cls=Command)
@filter_option
@click.option("--format", "template", default=None, metavar="FORMAT", help=FORMAT_HELP)
@click.option("--no-trunc", is_flag=True, help="Don't cut ids.")
@click.option("--quiet", "-q", is_flag=True, help="Show ids alone.")
@click.pass_obj
def command(settings: Settings, /, *, filters: Sequence[str], template: str | None, no_trunc: bool, quiet: bool) -> None:
    """List the networks that containers may have.

    Filters: name=PART, id=BEGINNING, driver=NAME, label=KEY[=VALUE], type=custom|builtin, dangling=true|false, scope=local.
    """
    wanted = parse_filters(filters, known=("name", "id", "driver", "scope", "label", "type", "dangling"))
    for kind in wanted.get("type", ()):
        if kind not in {"custom", "builtin"}:
            raise UsageError(f"invalid filter 'type={kind}'", hint="give custom or builtin")
    dangling = flag_filter(wanted, "dangling")
    with settings.engine() as engine:
        used = _used(engine) if dangling is not None else set()
        rows = [
            _row(network, cuts=not no_trunc)
            for network in engine.networks.all()
            if _fits(network, wanted) and (dangling is None or dangling is not (network.is_predefined or network.name in used))
        ]
    print_rows(rows, columns=COLUMNS, template=template, quiet_field="ID" if quiet else None)


def _fits(network: "Network", wanted: Filters) -> bool:
    return (
        ("name" not in wanted or any(part in network.name for part in wanted["name"]))
        and ("id" not in wanted or any(network.id.startswith(start) for start in wanted["id"]))
        and ("driver" not in wanted or network.driver in wanted["driver"])
        and ("type" not in wanted or ("builtin" if network.is_predefined else "custom") in wanted["type"])
        and ("scope" not in wanted or "local" in wanted["scope"])
        and labels_match(network.labels, wanted)
    )


def _used(engine: "Engine") -> set[str]:
    """The names of the networks that a container has, running or not."""
    asked = {request.network for container in engine.context.records.all() for request in container.config.requests}
    return {network.name for network in engine.networks.all() if network.name in asked or network.id in asked}


def _row(network: "Network", *, cuts: bool) -> Row:
    return {
        "ID": network.id[:12] if cuts else network.id,
        "Name": network.name,
        "Driver": network.driver,
        "Scope": "local",
        "CreatedAt": format_list_time(network.created_ns) if network.created_ns else "N/A",
        "IPv4": str(any(not each.is_ipv6 for each in network.subnets)).lower(),
        "IPv6": str(network.ipv6).lower(),
        "Internal": str(network.internal).lower(),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(network.labels.items())),
        "Label": lambda name: network.labels.get(name, ""),
    }
