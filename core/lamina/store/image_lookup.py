"""Which image a person means: by name, by digest, by id or by an id's beginning, in Docker's order. Only reading."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lamina.errors import ConflictError, NotFoundError, UsageError
from lamina.model.digest import is_hex
from lamina.model.reference import Reference

if TYPE_CHECKING:
    import sqlite3

_JOINED = "SELECT images.* FROM images JOIN image_names ON image_id = id"


def find_row(connection: "sqlite3.Connection", text: str) -> "sqlite3.Row":
    """Give the row of `images` that `text` means. A name wins over the beginning of an id.

    Raise NotFoundError, ConflictError for a beginning that several ids have, UsageError for what can't be a name.
    """
    digits = text.removeprefix("sha256:")
    prefix = digits if len(digits) <= 64 and is_hex(digits) else ""
    rows: list[sqlite3.Row]
    if len(prefix) == 64:
        digest = f"sha256:{prefix}"
        query = "SELECT * FROM images WHERE id = ? OR manifest = ? ORDER BY id = ? DESC LIMIT 1"
        rows = connection.execute(query, (digest,) * 3).fetchall()
    elif text.startswith("sha256:"):
        rows = _by_prefix(connection, text, prefix)
    else:
        rows = _by_name(connection, text, may_be_id=bool(prefix)) or _by_prefix(connection, text, prefix)
    if not rows:
        raise no_such_image(text)
    return rows[0]


def _by_name(connection: "sqlite3.Connection", text: str, *, may_be_id: bool) -> "list[sqlite3.Row]":
    try:
        reference = Reference.parse(text)
    except UsageError:
        if may_be_id:
            return []
        raise
    rows = connection.execute(f"{_JOINED} WHERE reference = ?", (reference.canonical,)).fetchall()
    if not rows and reference.digest is not None:  # any name of the repository will do: the digest says which image
        query = f"{_JOINED} WHERE manifest = ? AND substr(reference, 1, ?) IN (?, ?)"
        names = (len(reference.name) + 1, f"{reference.name}:", f"{reference.name}@")
        rows = connection.execute(query, (reference.digest, *names)).fetchall()
        if not rows:  # or the digest by which the repository knows it: an index's
            query = "SELECT images.* FROM images JOIN image_digests ON image_id = id WHERE name = ? AND digest = ?"
            rows = connection.execute(query, (reference.name, reference.digest)).fetchall()
    return rows


def _by_prefix(connection: "sqlite3.Connection", text: str, prefix: str) -> "list[sqlite3.Row]":
    if not prefix:
        return []
    first = f"sha256:{prefix}"
    rows = connection.execute("SELECT * FROM images WHERE id >= ? AND id < ? LIMIT 2", (first, f"{first}g")).fetchall()
    if len(rows) > 1:
        raise ConflictError(f"image id '{text}' is ambiguous", hint="give more of its digits")
    return rows


def name_meant(text: str, names: Sequence[Reference]) -> Reference | None:
    """Which of an image's names `text` is; None if it is an id. `text` must have been found to mean this image."""
    try:
        reference = Reference.parse(text)
    except UsageError:
        return None
    return reference if reference in names else None


def no_such_image(text: str) -> NotFoundError:
    return NotFoundError(f"no such image: '{text}'", hint="`lamina images` lists those that are here")
