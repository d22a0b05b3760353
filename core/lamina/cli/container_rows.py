"""Containers as rows of `ps`: each field written out in Docker's words. It reads records, image names and /proc; no documents."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from lamina.cli.output import Column, Row, ellipsis, label_header, printable, short_id
from lamina.cli.units import format_list_time, human_ago, human_duration, human_size
from lamina.errors import UsageError
from lamina.linux import process
from lamina.model.container import Container, Status
from lamina.model.reference import Reference

if TYPE_CHECKING:
    from lamina.engine import Engine

COLUMNS = (
    Column(field="ID", header="CONTAINER ID"),
    Column(field="Image", header="IMAGE"),
    Column(field="Command", header="COMMAND"),
    Column(field="RunningFor", header="CREATED"),
    Column(field="Status", header="STATUS"),
    Column(field="Ports", header="PORTS"),
    Column(field="Names", header="NAMES"),
    Column(field="CreatedAt", header="CREATED AT", in_table=False),
    Column(field="State", header="STATE", in_table=False),
    Column(field="HealthStatus", header="HEALTH", in_table=False),
    Column(field="Mounts", header="MOUNTS", in_table=False),
    Column(field="LocalVolumes", header="LOCAL VOLUMES", in_table=False),
    Column(field="Networks", header="NETWORKS", in_table=False),
    Column(field="Labels", header="LABELS", in_table=False),
    Column(field="Label", header=label_header, in_table=False),
    Column(field="Driver", header="DRIVER", in_table=False),
)
"""`Driver` is ours: Docker has one storage driver for all."""

_COMMAND_WIDTH, _MOUNT_WIDTH = 20, 15


def container_rows(
    engine: "Engine", containers: Iterable[Container], *, cuts: bool, size_of: Callable[[Container], tuple[int, int]] | None
) -> Iterator[Row]:
    """Give a row for each container; `size_of` gives its own bytes and those with its image's."""
    now_ns = time.time_ns()
    image_names = _image_names(engine)
    in_networks = engine.context.records.in_networks()
    for container in containers:
        labels = container.config.labels
        yield {
            "ID": container.short_id if cuts else container.id,
            "Image": _image(container, image_names, cuts=cuts),
            "Command": _command(container, cuts=cuts),
            "CreatedAt": format_list_time(container.created_ns),
            "RunningFor": human_ago(container.created_ns, now_ns=now_ns),
            "Status": status_text(container, now_ns=now_ns, health=health_of(engine, container)),
            "HealthStatus": health_of(engine, container),
            "State": container.status.value,
            "Names": container.name,
            "Ports": _ports(engine, container) if container.id in in_networks else "",
            "Mounts": _mounts(container, cuts=cuts),
            "LocalVolumes": str(len(container.volumes)),
            "Labels": ",".join(f"{name}={labels[name]}" for name in sorted(labels)),
            "Label": lambda name, labels=labels: labels.get(name, ""),
            "Networks": ",".join(each.network for each in container.config.networks) or container.config.network,
            "Driver": container.driver,
            "Size": _size(*size_of(container)) if size_of is not None else "0B",
        }


def health_of(engine: "Engine", container: Container) -> str:
    """Give `starting`, `healthy` or `unhealthy`, "" if nothing is checked."""
    if container.config.supervision is None or container.config.supervision.health is None:
        return ""
    from lamina.usecases.health import read_health

    health = read_health(engine.context, container)
    return health.status if health is not None else ""


def status_text(container: Container, *, now_ns: int, health: str = "") -> str:
    """Say how a container is: "Up 5 minutes (healthy)", "Exited (0) 3 seconds ago", "Created"."""
    match container.status:
        case Status.RUNNING | Status.PAUSED:
            text = f"Up {human_duration(now_ns - container.started_ns)}"
            if container.status is Status.PAUSED:
                text += " (Paused)"
            elif health:
                text += " (health: starting)" if health == "starting" else f" ({health})"
            if not process.is_alive(container.monitor_pid, container.monitor_started):
                text += " (monitor lost)"  # it runs, but nobody logs it, and nobody will see how it ends
            return text
        case Status.RESTARTING:
            return f"Restarting ({container.exit_code}) {human_ago(container.finished_ns, now_ns=now_ns)}"
        case Status.EXITED:
            return f"Exited ({container.exit_code}) {human_ago(container.finished_ns, now_ns=now_ns)}"
        case Status.REMOVING:
            return "Removal In Progress"
        case _:
            return "Created"


def _image_names(engine: "Engine") -> dict[str, str]:
    return {reference.canonical: str(image_id) for reference, image_id in engine.images.store.all_names()}


def _image(container: Container, image_names: dict[str, str], *, cuts: bool) -> str:
    """The name as it was typed while it still means the container's image, else the image's id; as in Docker."""
    typed = container.config.image
    digits = typed.removeprefix("sha256:")
    if container.image_id.removeprefix("sha256:").startswith(digits):
        return short_id(container.image_id) if cuts and len(digits) > 12 else typed
    try:
        if image_names.get(Reference.parse(typed).canonical) == container.image_id:
            return typed
    except UsageError:
        pass  # it was an id's beginning, and the image is another one's by now
    return short_id(container.image_id) if cuts else container.image_id


def _command(container: Container, *, cuts: bool) -> str:
    first, *rest = container.config.arguments
    text = " ".join([first, *(f"'{word}'" if " " in word else word for word in rest)])  # Docker's quoting, and its limits
    text = ellipsis(text, _COMMAND_WIDTH) if cuts else text
    return '"' + "".join(_ESCAPES.get(char) or printable(char) for char in text) + '"'


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _mounts(container: Container, *, cuts: bool) -> str:
    names = [
        container.volumes[request.target] if request.type == "volume" else request.source
        for request in container.config.mounts
        if request.type != "tmpfs"
    ]
    return ",".join(ellipsis(name, _MOUNT_WIDTH) if cuts else name for name in names)


def _ports(engine: "Engine", container: Container) -> str:
    from lamina.cli.port_texts import ports_text  # with the networks, which a container without them has no need of

    return ports_text(container.config.exposed_ports, engine.networks.ports(container))


def _size(own_bytes: int, all_bytes: int) -> str:
    return f"{human_size(own_bytes)} (virtual {human_size(all_bytes)})"
