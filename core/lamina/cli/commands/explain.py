"""`lamina explain`: where a container's files come from, what a write would copy, which mount options are in force and why."""

from collections.abc import Iterator, Sequence

import click

from lamina.cli.completion import complete_containers
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.output import align, printable, short_id
from lamina.cli.units import human_size
from lamina.usecases.explain import Covering, ExplainedPath, Stack

_STEP_WIDTH = 60


@click.command(cls=Command)
@click.option("--format", "-f", "template", default=None, metavar="FORMAT", help="'json', or a Go template; text without it.")
@click.argument("container", shell_complete=complete_containers)
@click.argument("path", required=False)
@click.pass_obj
def command(settings: Settings, *, container: str, path: str | None, template: str | None) -> None:
    """Explain where a container's files come from.

    With PATH: what each layer has there, which one is seen, what hides it, and what a write to it would copy. Without: the
    layers, the mounts with the reason of each option, and what is mounted over them.
    """
    with settings.engine() as engine:
        from lamina.usecases.explain import path_document, stack_document

        handle = engine.containers.get(container)
        if path is None:
            stack = handle.explain()
            document, lines = stack_document(stack), stack_lines(stack)
        else:
            explained = handle.explain_path(path)
            document, lines = path_document(explained), path_lines(explained)
    if template is not None:
        from lamina.cli.talk import show_document

        show_document(document, template=template)
        return
    for line in lines:
        click.echo(printable(line))


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    text = align("\n".join("\t".join(printable(cell) for cell in row) for row in rows), min_width=0)
    yield from (line.rstrip() for line in text.splitlines())


def _step(text: str) -> str:
    return text if len(text) <= _STEP_WIDTH else text[:_STEP_WIDTH] + "…"


def stack_lines(stack: Stack) -> Iterator[str]:
    """Write the whole for people."""
    yield f"Container:  {stack.container.name} ({short_id(stack.container.id)})"
    yield f"Driver:     {stack.driver} ({stack.method})"
    yield f"Root:       {stack.root}"
    yield ""
    yield "Layers, the topmost first:"
    rows = [("NUMBER", "LAYER", "SIZE", "FILES", "MADE BY")]
    for layer in stack.layers:
        rows.append(
            (str(layer.number), short_id(layer.key), human_size(layer.usage.size_bytes), str(layer.usage.inodes), _step(layer.step))
        )
    yield from _table(rows)
    yield ""
    if not stack.mounts:
        yield "No mount: the tree lies at the root as it is."
    for mount in stack.mounts:
        yield f"Mount, {'in force' if mount.kernel_options else 'made when the container starts'}:"
        yield f"  {mount.mount.type} at {mount.mount.target}"
        for option in mount.options:
            yield f"  {option.name}{'' if option.value is None else f'={option.value}'}"
            if option.means:
                yield f"      means: {option.means}"
            if option.why:
                yield f"      why:   {option.why}"
        if mount.kernel_options:
            yield f"  the kernel says: {mount.kernel_options}"
    yield ""
    yield "Mounted over it, so that the layers' own files there aren't seen:"
    yield from _table(
        [("TARGET", "TYPE", "SOURCE", "WHY"), *(_covering_row(each) for each in stack.covered if each.type != "mask")]
    )


def _covering_row(each: Covering) -> tuple[str, ...]:
    return each.target, each.type + (" (read-only)" if each.read_only else ""), each.source or "-", each.why


def path_lines(explained: ExplainedPath) -> Iterator[str]:
    """Write one path's story for people."""
    lookup, write = explained.lookup, explained.write
    if lookup.path != explained.asked.rstrip("/") and lookup.path != explained.asked:
        yield f"{explained.asked} is {lookup.path}"
    seen = lookup.seen
    if seen is None:
        yield f"{lookup.path}: no layer lets anything be seen there"
    else:
        layer = next(each for each in explained.layers if each.key == seen.key)
        leads = f" to {seen.link}" if seen.link else ""
        yield f"{lookup.path}: a {seen.has}{leads}, from layer {layer.number} ({short_id(layer.key)}): {_step(layer.step) or '-'}"
    if (covering := explained.covered_by) is not None:
        yield (
            f"Hidden in the container by what is mounted at {covering.target}: {covering.type}"
            f"{f' {covering.source}' if covering.source and covering.source != covering.type else ''} ({covering.why})"
        )
    yield ""
    rows = [("NUMBER", "LAYER", "HAS", "", "SIZE", "MADE BY")]
    for layer, found in zip(explained.layers, lookup.layers, strict=True):
        size = human_size(found.found.st_size) if found.found is not None and found.has in {"file", "same as below"} else "-"
        note = found.role.value + (f" (at {found.by})" if found.by else "")
        rows.append((str(layer.number), short_id(layer.key), found.has.value, note, size, _step(layer.step)))
    yield from _table(rows)
    yield ""
    where = "A write there goes into what is mounted. Without that mount a write" if explained.covered_by else "A write"
    copies = f"copies {human_size(write.copied_bytes)} ({write.copied_bytes} bytes)" if write.copied_bytes else "copies nothing"
    yield f"{where} {copies}: {write.why}."
    if write.made_directories:
        yield f"It makes in the container's own layer: {', '.join(write.made_directories)}"
    if write.broken_links:
        yield f"It breaks the hard links with: {', '.join(write.broken_links)}"
