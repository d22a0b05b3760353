"""Names alone, for shells that complete them: read without opening the store, which puts things right first."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence

from lamina.model.reference import Reference


@contextlib.contextmanager
def _reading(root_dir: str) -> Iterator[sqlite3.Connection]:
    path = os.path.join(root_dir, "lamina.db")
    connection = sqlite3.connect(f"file:{_escaped(path)}?mode=ro", uri=True, timeout=0.5)
    try:
        yield connection
    finally:
        connection.close()


def _escaped(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def container_names(root_dir: str, *, states: Sequence[str] = (), with_ids: bool = False) -> list[str]:
    """List containers' names, of those in `states` if any are given, and their short ids if asked."""
    with _reading(root_dir) as database:
        rows = database.execute("SELECT name, id, status FROM containers WHERE status != 'creating' ORDER BY name").fetchall()
    chosen = [(name, identifier) for name, identifier, status in rows if not states or status in states]
    return [name for name, _ in chosen] + ([identifier[:12] for _, identifier in chosen] if with_ids else [])


def image_names(root_dir: str, *, with_ids: bool = False) -> list[str]:
    """List images' names as people see them, and their short ids if asked."""
    with _reading(root_dir) as database:
        names = [row[0] for row in database.execute("SELECT reference FROM image_names ORDER BY reference")]
        ids = [row[0] for row in database.execute("SELECT id FROM images ORDER BY id")] if with_ids else []
    return [Reference.parse(name).familiar for name in names] + [each.partition(":")[2][:12] for each in ids]


def volume_names(root_dir: str) -> list[str]:
    """List volumes' names."""
    with _reading(root_dir) as database:
        return [row[0] for row in database.execute("SELECT name FROM volumes WHERE state IN ('filling', 'ready') ORDER BY name")]


def network_names(root_dir: str) -> list[str]:
    """List the networks' names; drivers' own are among them once they have been used."""
    with _reading(root_dir) as database:
        return [row[0] for row in database.execute("SELECT name FROM networks ORDER BY name")]
