"""What a whole build came to, for the next one of the same words: looked up before anything else of the engine is imported.

A build from the cache still reads the Dockerfile, understands it, and looks at every file. If nothing has been touched since, none
of that can come out otherwise: no inode that was looked at has another change time, and the images below have the same names. Then
the image is the one of last time. Whatever isn't just so, or can't be told by looking (a tree with symlinks on the way to a source,
a download, a file changed a moment ago), leads to the long way, which is always right.

Imports are few on purpose, and sqlite3 is used without `store.database`: this is what `lamina build` costs when there is nothing to
do.
"""

import os
import sqlite3
import stat
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lamina import json
from lamina.model.digest import Digest

VERSION = 1
USE_GRAIN_NS = 60 * 10**9
MARGIN_NS = 10**8
"""A file changed later than this before the build began might be changed again within the same tick of the file system's clock."""
COARSE_MARGIN_NS = 3 * 10**9
"""The same for a file system that counts in whole or, as FAT, in two seconds."""
MAX_PATHS = 200_000


class Remembered:
    """A build that need not be done again."""

    def __init__(self, *, image_id: str, names: Sequence[str], steps: Sequence[tuple[str, str]], warnings: Sequence[str]) -> None:
        self.image_id = image_id
        self.names = names
        self.steps = steps
        self.warnings = warnings


_KEPT: list[sqlite3.Connection] = []
"""Open until the process exits, which has nothing more to do: the last connection to a database deletes its log at its close, which
a full disk has no room for."""


def key_of_request(words: Mapping[str, Any]) -> str:
    """Name a request by everything that was typed and that the environment adds."""
    facts = {
        **words,
        "version": VERSION,
        "python": sys.version,
        "directory": os.getcwd(),
        "epoch": os.environ.get("SOURCE_DATE_EPOCH", ""),
        "machine": os.uname().machine,
    }
    return Digest.of(json.dumps(facts, sort_keys=True).encode("utf-8", "surrogateescape")).hex


def recall(root_dir: str, key: str, names: Sequence[str]) -> Remembered | None:
    """Give what the build of this key came to, if nothing that it depends on has changed and the image has the names; else None."""
    path = os.path.join(root_dir, "lamina.db")
    if os.geteuid() != 0 or not os.path.exists(path):
        return None
    try:
        connection = sqlite3.connect(path, timeout=5, isolation_level=None)
    except sqlite3.Error:
        return None
    try:
        found = _recall(connection, root_dir, key, names)
    except (sqlite3.Error, OSError, ValueError, KeyError):
        found = None  # an older database, a damaged row: the long way knows what to say
    if found is None:
        connection.close()
    else:
        _KEPT.append(connection)
    return found


def _recall(connection: sqlite3.Connection, root_dir: str, key: str, names: Sequence[str]) -> Remembered | None:
    row = connection.execute("SELECT content, used_ns FROM build_cache WHERE key = ? AND kind = 'build'", (key,)).fetchone()
    if row is None or connection.execute("SELECT 1 FROM operations LIMIT 1").fetchone() is not None:
        return None  # with an operation at work there may be something to put right first
    document = json.loads(row[0])
    wanted = [document["names"].get(name) for name in names]
    image_id = document["image"]
    has = {found[0] for found in connection.execute("SELECT reference FROM image_names WHERE image_id = ?", (image_id,))}
    if not has.issuperset(wanted):
        return None
    for reference, base_id in document["bases"]:
        found = connection.execute("SELECT image_id FROM image_names WHERE reference = ?", (reference,)).fetchone()
        if found is None or found[0] != base_id:
            return None
    if not _is_whole(connection, root_dir, image_id) or _stamp(document["paths"]) != document["stamp"]:
        return None
    now_ns = time.time_ns()
    if now_ns - row[1] > USE_GRAIN_NS:
        connection.execute("PRAGMA synchronous = NORMAL")
        keys = [key, *document["keys"]]
        connection.executemany("UPDATE build_cache SET used_ns = ? WHERE key = ?", [(now_ns, one) for one in keys])
    steps = [(title, state) for title, state in document["steps"]]
    return Remembered(image_id=image_id, names=wanted, steps=steps, warnings=document["warnings"])


def _is_whole(connection: sqlite3.Connection, root_dir: str, image_id: str) -> bool:
    blobs = [row[0] for row in connection.execute("SELECT digest FROM image_blobs WHERE image_id = ?", (image_id,))]
    return bool(blobs) and all(os.path.exists(os.path.join(root_dir, "image", "blobs", *blob.split(":", 1))) for blob in blobs)


def describe(
    *, image_id: str, names: Mapping[str, str], bases: Iterable[tuple[str, str]], paths: Iterable[str], keys: Iterable[str],
    steps: Iterable[tuple[str, str]], warnings: Iterable[str], begun_ns: int,
) -> str | None:  # fmt: skip
    """Write what is to be remembered of a build; None if one of its files could change without our seeing it."""
    listed = sorted(set(paths))
    if len(listed) > MAX_PATHS or not _is_settled(listed, begun_ns):
        return None
    document = {
        "image": image_id, "names": dict(names), "bases": list(bases), "paths": listed, "stamp": _stamp(listed), "keys": list(keys),
        "steps": list(steps), "warnings": list(warnings),
    }  # fmt: skip
    try:
        return json.dumps(document, ensure_ascii=True)
    except UnicodeError:
        return None


def _is_settled(paths: Iterable[str], begun_ns: int) -> bool:
    for path in paths:
        try:
            found = os.lstat(path)
        except OSError:
            continue
        margin_ns = COARSE_MARGIN_NS if found.st_ctime_ns % 10**9 == 0 else MARGIN_NS
        if found.st_ctime_ns > begun_ns - margin_ns:
            return False
    return True


def _stamp(paths: Iterable[str]) -> str:
    """Give a digest of all that would change if a file, or a directory's list of names, did. What isn't there counts as that."""
    lines = []
    for path in paths:
        try:
            one = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            lines.append(b"-\n")
            continue
        lines.append(
            b"%d %d %d %d %d %d %d %d\n"
            % (one.st_dev, one.st_ino, one.st_mode, one.st_uid, one.st_gid, one.st_size, one.st_mtime_ns, one.st_ctime_ns)
        )
    return Digest.of(b"".join(lines)).hex


def looked_at(directory: str, sources: Iterable[str], found: Iterable[str], *, with_patterns: bool) -> list[str] | None:
    """List the paths of a context that a COPY's outcome depends on; None if there are symlinks on the way to a source.

    `sources` are as they are written, `found` is what was found below them. Where patterns were matched, every directory counts.
    """
    listed = {directory}
    for source in sources:
        path = directory
        for part in source.split("/"):
            if part in {"", "."}:
                continue
            if part == ".." or any(one in part for one in "*?[\\"):
                break
            path = f"{path}/{part}"
            try:
                if stat.S_ISLNK(os.lstat(path).st_mode):
                    return None
            except OSError:
                break
            listed.add(path)
    listed.update(f"{directory}/{path}" if path not in {"", "."} else directory for path in found)
    if with_patterns:
        for folder, _directories, _files in os.walk(directory):
            listed.add(folder)
            if len(listed) > MAX_PATHS:
                return None
    return [*listed]


def looked_for(directory: str, dockerfile: str) -> list[str] | None:
    """List where the Dockerfile and what it ignores are looked for; None if one of them is a symlink."""
    candidates = [os.path.abspath(dockerfile)] if dockerfile else [f"{directory}/{name}" for name in ("Dockerfile", "dockerfile")]
    listed = [*candidates, *(f"{path}.dockerignore" for path in candidates), f"{directory}/.dockerignore"]
    return None if any(os.path.islink(path) for path in listed) else listed
