"""What WORKDIR finds or makes in a stage's tree."""

import os
import stat
from collections.abc import Iterator
from typing import IO

from lamina.api.types import Entry, EntryKind
from lamina.errors import UsageError
from lamina.linux.fs import open_in_root


def missing_directories(root: str | None, path: str) -> list[str]:
    """List the directories that must be made so that `path` is one, parents first, by their real paths; none if it is one already.

    Raises `UsageError` if something else is in the way.
    """
    parts = [part for part in path.split("/") if part]
    if root is None:
        return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        top = os.readlink(f"/proc/self/fd/{root_fd}").rstrip("/")
        for depth in range(len(parts), -1, -1):
            try:
                fd = open_in_root(root_fd, "/".join(parts[:depth]) or ".", os.O_PATH)
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                raise UsageError(f"'{path}' can't be made: a part of it is a file") from None
            try:
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    raise UsageError(f"'/{'/'.join(parts[:depth])}' is a file, not a directory")
                real = os.readlink(f"/proc/self/fd/{fd}")[len(top) :].strip("/")
            finally:
                os.close(fd)
            return ["/".join(filter(None, [real, *parts[depth : end + 1]])) for end in range(depth, len(parts))]
        raise UsageError(f"'{path}' can't be made")
    finally:
        os.close(root_fd)


class NewDirectories:
    """A layer of nothing but new directories."""

    def __init__(self, paths: list[str], *, uid: int, gid: int, mtime_ns: int) -> None:
        self._entries = [
            Entry(path=path, kind=EntryKind.DIRECTORY, mode=0o755, uid=uid, gid=gid, mtime_ns=mtime_ns) for path in paths
        ]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def copy_to(self, fd: int) -> None:
        raise NotImplementedError("there are no files")

    def open(self) -> IO[bytes]:
        raise NotImplementedError("there are no files")
