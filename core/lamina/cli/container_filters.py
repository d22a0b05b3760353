"""The filters of `ps`, applied to containers' records. They read nothing else but the image that `ancestor` names."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lamina.cli.filters import Filters, labels_match
from lamina.errors import NotFoundError, UsageError
from lamina.model.container import Container

if TYPE_CHECKING:
    from lamina.engine import Engine

Test = Callable[[Container], bool]

STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
HEALTHS = ("starting", "healthy", "unhealthy", "none")


CONTAINER_FILTERS = (
    "ancestor", "before", "exited", "expose", "health", "id", "label", "name", "network", "publish", "since", "status", "volume",
)  # fmt: skip


def select(engine: "Engine", containers: Iterable[Container], filters: Filters) -> list[Container]:
    """Give the containers that fit, in their order."""
    tests = [_TESTS[name](engine, values) for name, values in filters.items() if name not in {"expose", "publish"}]
    if "expose" in filters or "publish" in filters:
        tests.append(_by_port(engine, published=filters.get("publish", ()), exposed=filters.get("expose", ())))
    return [container for container in containers if all(test(container) for test in tests)]


def _by_id(_engine: "Engine", values: Sequence[str]) -> Test:
    return lambda container: any(container.id.startswith(value) for value in values)


def _by_name(_engine: "Engine", values: Sequence[str]) -> Test:
    patterns = []
    for value in values:
        try:
            patterns.append(re.compile(value))
        except re.error:
            patterns.append(re.compile(re.escape(value)))
    # Docker's names begin with a slash, and a pattern may have it or not
    return lambda container: any(each.search(container.name) or each.search(f"/{container.name}") for each in patterns)


def _by_label(_engine: "Engine", values: Sequence[str]) -> Test:
    return lambda container: labels_match(container.config.labels, {"label": tuple(values)})


def _by_status(_engine: "Engine", values: Sequence[str]) -> Test:
    for value in values:
        if value not in STATUSES:
            raise UsageError(f"invalid filter 'status={value}'", hint=f"known are {', '.join(STATUSES)}")
    return lambda container: container.status.value in values


def _by_health(engine: "Engine", values: Sequence[str]) -> Test:
    from lamina.cli.container_rows import health_of

    for value in values:
        if value not in HEALTHS:
            raise UsageError(f"invalid filter 'health={value}'", hint=f"known are {', '.join(HEALTHS)}")
    return lambda container: (health_of(engine, container) or "none") in values


def _by_exit_code(_engine: "Engine", values: Sequence[str]) -> Test:
    try:
        codes = {int(value) for value in values}
    except ValueError:
        raise UsageError(f"invalid filter 'exited={values[-1]}'", hint="give an exit code") from None
    return lambda container: container.exit_code in codes and not container.is_up and bool(container.started_ns)


def _before(engine: "Engine", values: Sequence[str]) -> Test:
    limit = engine.context.records.find(values[-1]).created_ns
    return lambda container: container.created_ns < limit


def _since(engine: "Engine", values: Sequence[str]) -> Test:
    limit = engine.context.records.find(values[-1]).created_ns
    return lambda container: container.created_ns > limit


def _by_volume(_engine: "Engine", values: Sequence[str]) -> Test:
    wanted = set(values)

    def fits(container: Container) -> bool:
        places = {place for request in container.config.mounts for place in (request.source, request.target)}
        return bool(wanted & {*places, *container.volumes.values()})

    return fits


def _by_network(engine: "Engine", values: Sequence[str]) -> Test:
    """By a network's name, id or an id's beginning; what isn't the name of one, such as `container:NAME`, by itself."""
    wanted = set(values)
    for value in values:
        try:
            wanted.add(engine.networks.get(value).name)
        except (NotFoundError, UsageError):
            continue  # Docker: an unknown network has no containers
    return lambda container: (
        not wanted.isdisjoint({container.config.network, *(each.network for each in container.config.networks)})
    )


def _by_port(engine: "Engine", *, published: Sequence[str], exposed: Sequence[str]) -> Test:
    """Running ones that have one of these ports on the host, or one of those of their own: `80`, `53/udp`, `8000-8010`.

    Docker's rule: either will do.
    """
    from lamina.model.network import parse_port  # 2 ms, for those who ask for it

    def keys(texts: Sequence[str], key: str) -> set[str]:
        for text in texts:
            if ":" in text:
                raise UsageError(f"invalid filter '{key}={text}'", hint="give PORT, or FIRST-LAST, and perhaps /tcp or /udp")
        return {port.key for text in texts for port in parse_port(text)}

    on_host, own = keys(published, "publish"), keys(exposed, "expose")
    in_networks = engine.context.records.in_networks()

    def fits(container: Container) -> bool:
        if not container.is_active or container.id not in in_networks:
            return False
        ports = engine.networks.ports(container)
        return not on_host.isdisjoint(f"{port.host_port}/{port.protocol}" for port in ports) or not own.isdisjoint(
            {*container.config.exposed_ports, *(port.key for port in ports)}
        )

    return fits


def _by_ancestor(engine: "Engine", values: Sequence[str]) -> Test:
    """From this image, or from one that has its layers and more: what was committed on top of it."""
    ids: set[str] = set()
    chains: set[tuple[str, ...]] = set()
    for value in values:
        try:
            image = engine.images.get(value)
        except (NotFoundError, UsageError):
            continue  # Docker: an unknown image has no descendants
        ids.add(str(image.id))
        chains.add(tuple(chain.hex for chain in reversed(engine.images.store.config(image).chain_ids)))

    def fits(container: Container) -> bool:
        return container.image_id in ids or any(
            chain and len(container.parents) > len(chain) and container.parents[-len(chain) :] == chain for chain in chains
        )

    return fits


_TESTS: Mapping[str, Callable[["Engine", Sequence[str]], Test]] = {
    "ancestor": _by_ancestor,
    "before": _before,
    "exited": _by_exit_code,
    "health": _by_health,
    "id": _by_id,
    "label": _by_label,
    "name": _by_name,
    "network": _by_network,
    "since": _since,
    "status": _by_status,
    "volume": _by_volume,
}
