"""`lamina events`: what happens to containers, images, networks and volumes, as it happens and since a moment."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.filters import Filters, labels_match, parse_filters
from lamina.cli.main import Settings
from lamina.cli.options import Command, filter_option
from lamina.cli.output import printable
from lamina.cli.units import parse_time

if TYPE_CHECKING:
    from lamina.usecases.events import Event

FILTERS = ("container", "daemon", "event", "image", "label", "network", "scope", "type", "volume")


@click.command(cls=Command)
@click.option("--since", default=None, metavar="TIME", help="Show those since then: 2026-11-24T04:06:31Z, or 10m ago.")
@click.option("--until", default=None, metavar="TIME", help="Show those until then, and end.")
@filter_option
@click.option("--format", "template", default=None, metavar="FORMAT", help="json, or a Go template for each.")
@click.pass_obj
def command(settings: Settings, *, since: str | None, until: str | None, filters: Sequence[str], template: str | None) -> None:
    """Show what happens, a line each, without end or until a moment."""
    now_ns = time.time_ns()
    since_ns = None if since is None else parse_time(since, now_ns=now_ns)
    until_ns = None if until is None else parse_time(until, now_ns=now_ns)
    matches = matcher(parse_filters(filters, known=FILTERS))
    show = shower(template)
    with settings.engine() as engine:
        from lamina.usecases.events import read_events

        path, is_terminal = engine.context.journal.path, sys.stdout.isatty()
        engine.context.database.close()  # it may be followed for days
        try:
            for event in read_events(path, since_ns=since_ns, until_ns=until_ns, matches=matches):
                click.echo(show(clean(event) if is_terminal else event))
                sys.stdout.flush()
        except KeyboardInterrupt:
            pass  # the usual end of it


def matcher(filters: Filters) -> "Callable[[Event], bool]":
    """Make a test of filters, by Docker's rules: an id by its beginning, an image also without its tag."""

    def means(key: str, identifier: str, *names: str) -> bool:
        wanted = filters[key]
        return any(identifier.startswith(each) for each in wanted if each) or not {*names}.isdisjoint(wanted)

    def fits(event: "Event") -> bool:
        name = event.attributes.get("name", "")
        container = event.id if event.type == "container" else event.attributes.get("container", "")
        container_name = name if event.type == "container" else ""
        return (
            _among(filters, "type", event.type)
            and _among(filters, "event", event.action, event.action.partition(":")[0])
            and _among(filters, "scope", "local")
            and _among(filters, "daemon")
            and ("container" not in filters or (bool(container) and means("container", container, container_name)))
            and ("network" not in filters or (event.type == "network" and means("network", event.id, name)))
            and ("volume" not in filters or (event.type == "volume" and means("volume", event.id)))
            and ("image" not in filters or means("image", *_image_names(event)))
            and labels_match(event.attributes, filters)
        )

    return fits


def _among(filters: Filters, key: str, *values: str) -> bool:
    return key not in filters or not {*filters[key]}.isdisjoint(values)


def _image_names(event: "Event") -> tuple[str, ...]:
    name = event.attributes.get("name" if event.type == "image" else "image", "")
    slash, colon = name.rfind("/"), name.rfind(":")
    return event.id if event.type == "image" else "", name, name[:colon] if colon > slash else name


def shower(template: str | None) -> "Callable[[Event], str]":
    """Make what writes an event: Docker's line, its JSON, or a template."""
    if not template:
        return line
    from lamina.cli.template_print import to_json

    if template in {"json", "{{json .}}"}:
        return lambda event: to_json(event.document(), escape_html=True)
    from lamina.cli.template import Template, unescape
    from lamina.cli.template_print import Record

    layout = Template(unescape(template))

    def filled(event: "Event") -> str:
        document = event.document()
        fields: Mapping[str, Any] = {
            "Action": event.action, "Actor": Record({"ID": event.id, "Attributes": event.attributes}),
            "From": document.get("from", ""), "ID": document.get("id", ""), "Scope": "local", "Status": document.get("status", ""),
            "Time": document["time"], "TimeNano": event.time_ns, "Type": event.type,
        }  # fmt: skip
        return layout.render(Record(fields))

    return filled


def clean(event: "Event") -> "Event":
    """Write control characters of labels and commands out, which could drive a terminal."""
    attributes = {printable(name): printable(value) for name, value in event.attributes.items()}
    return event._replace(action=printable(event.action), id=printable(event.id), attributes=attributes)


def line(event: "Event") -> str:
    """Write an event as `docker events` does: local time, type, action, id and, in brackets, the attributes by name."""
    seconds, rest = divmod(event.time_ns, 10**9)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{rest:09d}{'Z' if zone == '+0000' else f'{zone[:3]}:{zone[3:]}'}"
    attributes = ", ".join(f"{name}={event.attributes[name]}" for name in sorted(event.attributes))
    return printable(f"{stamp} {event.type} {event.action} {event.id}" + (f" ({attributes})" if attributes else ""))
