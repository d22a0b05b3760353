"""Ranges of the host's user and group ids: a container with users of its own has one from its creation to its removal.

Range N begins at 100,000 + 65,536 N. What /etc/subuid and /etc/subgid give to the machine's users is left to them (subuid(5)).
"""

import sqlite3

from lamina.errors import ConflictError
from lamina.linux.namespace import ID_COUNT

FIRST_ID = 100_000
_RANGES = ((1 << 32) - 1 - FIRST_ID) // ID_COUNT


def allocate(tx: sqlite3.Connection, container_id: str) -> int:
    """Give the container the lowest free range; returns the host's id of its root. Raises `ConflictError` if all are taken."""
    taken = {row[0] for row in tx.execute("SELECT number FROM id_ranges")}
    subordinate = [*_subordinate("/etc/subuid"), *_subordinate("/etc/subgid")]
    for number in range(_RANGES):
        first = FIRST_ID + number * ID_COUNT
        if number not in taken and not any(start < first + ID_COUNT and first < end for start, end in subordinate):
            tx.execute("INSERT INTO id_ranges (number, container_id) VALUES (?, ?)", (number, container_id))
            return first
    raise ConflictError("every range of user ids is taken", hint="remove containers with --userns private")


def in_use(connection: sqlite3.Connection) -> int:
    """How many ranges are somebody's."""
    return int(connection.execute("SELECT count(*) FROM id_ranges").fetchone()[0])


def first_id(connection: sqlite3.Connection, container_id: str) -> int:
    """The host's id of a container's root; 0 if it has no range."""
    row = connection.execute("SELECT number FROM id_ranges WHERE container_id = ?", (container_id,)).fetchone()
    return 0 if row is None else FIRST_ID + row[0] * ID_COUNT


def _subordinate(path: str) -> list[tuple[int, int]]:
    """The ranges in a file of lines NAME:FIRST:COUNT, each as its first id and the one after its last."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            fields = [line.strip().split(":") for line in lines]
    except OSError:
        return []
    return [(int(row[1]), int(row[1]) + int(row[2])) for row in fields if len(row) == 3 and row[1].isdigit() and row[2].isdigit()]
