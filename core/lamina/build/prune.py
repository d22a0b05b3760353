"""Emptying the build cache: steps' layers, cache mounts, and the unpacked layers that nothing else holds.

A step whose layer an image has costs nothing, so it goes only with `all_steps`. What a running build stands on stays.
"""

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass

from lamina.build.mounts import cache_dir
from lamina.errors import ArchiveError, IntegrityError, NotFoundError
from lamina.linux.fs import remove_tree
from lamina.store.operations import Operation
from lamina.usecases.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What has gone: ids of steps and cache mounts, and the bytes of disk that it took."""

    ids: tuple[str, ...]
    freed_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    id: str
    used_ns: int
    size_bytes: int
    chain: str = ""
    directory: str = ""
    """Of a cache mount; a step has none."""


def prune(
    context: Context, *, all_steps: bool = False, unused_since_ns: int | None = None, keep_bytes: int | None = None
) -> Pruned:
    """Remove what builds have kept and nothing uses.

    Only what was last used before `unused_since_ns`; and of that, the longest unused first, until only `keep_bytes` are left.
    """
    items = sorted([*_steps(context, all_steps=all_steps), *_cache_mounts(context)], key=lambda item: item.used_ns)
    left_bytes = sum(item.size_bytes for item in items)
    going: list[_Item] = []
    for item in items:
        if keep_bytes is not None and left_bytes <= keep_bytes:
            break
        if unused_since_ns is None or item.used_ns < unused_since_ns:
            going.append(item)
            left_bytes -= item.size_bytes
    steps = [item for item in going if not item.directory]
    operation = Operation(name="prune the build cache")
    with context.database.transaction() as tx:
        tx.executemany("DELETE FROM build_cache WHERE key = ?", [(item.id,) for item in steps])
        context.layers.intend_to_discard(tx, [item.chain.partition(":")[2] for item in steps if item.chain], operation)
        if steps:
            context.images.content.note_garbage()
    freed = sum(_remove_mount(item) for item in going if item.directory)
    freed += context.images.delete_unreferenced_blobs()
    freed += context.layers.discard_intended(operation, lambda: _kept_layers(context), measured=True)
    return Pruned(ids=tuple(item.id for item in going), freed_bytes=freed)


def _steps(context: Context, *, all_steps: bool) -> Iterator[_Item]:
    """List the steps that may go. One without a layer goes with the state that it led to."""
    connection = context.database.connection
    used = {row[0] for row in connection.execute("SELECT digest FROM build_blobs")}
    shared = {row[0] for row in connection.execute("SELECT digest FROM image_blobs")}
    chains = set() if all_steps else _image_chains(context)
    for row in connection.execute("SELECT key, kind, layer, stored_bytes, chain, used_ns FROM build_cache").fetchall():
        layer = row["layer"]
        if layer in used or (not all_steps and (layer in shared if layer is not None else row["chain"] in chains)):
            continue
        size = 0 if layer is None or layer in shared else row["stored_bytes"]
        yield _Item(id=row["key"], used_ns=row["used_ns"], size_bytes=size, chain=row["chain"])


def _image_chains(context: Context) -> set[str]:
    """The chain IDs of all images' layers."""
    chains: set[str] = set()
    for image in context.images.images():
        try:
            chains.update(context.images.config(image).chain_ids)
        except (NotFoundError, IntegrityError, ArchiveError):
            continue  # a damaged image holds nothing
    return chains


def _cache_mounts(context: Context) -> Iterator[_Item]:
    from lamina.archive.fallback import tree_usage

    top = cache_dir(context.root_dir)
    for name in sorted(os.listdir(top)) if os.path.isdir(top) else []:
        folder = os.path.join(top, name)
        for entry in sorted(os.listdir(folder)):
            if not entry.isdigit():
                continue
            path = os.path.join(folder, entry)
            try:
                used_ns = os.stat(f"{path}.lock").st_mtime_ns
            except FileNotFoundError:
                used_ns = 0
            yield _Item(id=f"{name[:25]}.{entry}", used_ns=used_ns, size_bytes=tree_usage(path).size_bytes, directory=path)


def _remove_mount(item: _Item) -> int:
    """Remove a cache mount unless a build has it. Its lock stays, for who waits for it."""
    lock_fd = os.open(f"{item.directory}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    else:
        remove_tree(item.directory)
        return item.size_bytes
    finally:
        os.close(lock_fd)


def _kept_layers(context: Context) -> set[str]:
    """List the keys of the layers that an image or a step that is left has."""
    chains = _image_chains(context)
    chains.update(row[0] for row in context.database.connection.execute("SELECT DISTINCT chain FROM build_cache"))
    return {chain.partition(":")[2] for chain in chains}
