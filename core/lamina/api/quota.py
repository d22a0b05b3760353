"""Limits on the size of layers that are directories, by project quotas of the file system below (XFS, ext4): for any driver.

A limited layer has a project of its own. Its number is drawn by lot among those that the file system has no limit and no file of,
so that neither another layer nor another store on the same file system has it, and is written down beside the layers:

    quota/<key>     "PROJECT LIMIT": the layer's project and what it may take, in bytes

A driver calls `limit` when it has made the layer's directories, `check` before they are mounted and `forget` when it discards the
layer; what it keeps of its own in those directories it writes with the limit `lifted`. Who never asks for a limit pays for one look
at `quota/<key>` (`is_limited`).

Not here: quotas of another kind, such as btrfs's. The system calls are in `lamina.linux.quota`, imported only where one is made.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lamina.errors import NotUsableError

HINT = "put the store on XFS mounted with pquota, or on an ext4 made with -O quota,project and mounted with prjquota"
_TRIES = 64


def missing(directory: str) -> tuple[str, str]:
    """Say why no layer in the file system of `directory` can be limited, and what would help; empty texts if one can."""
    from lamina.linux.fs import filesystem_type
    from lamina.linux.quota import enforces_projects

    with _opened(directory) as fd:
        if enforces_projects(fd):
            return "", ""
    return f"'{directory}' is on {filesystem_type(directory)} without project quotas", HINT


def is_limited(home: str, key: str) -> bool:
    """Whether the layer has a limit."""
    return os.path.exists(f"{home}/quota/{key}")


def limit(home: str, key: str, directories: Sequence[str], size_bytes: int) -> None:
    """Let a layer's directories, made just now, take `size_bytes` more than they take.

    They must be in one project already (`begin`), or empty. A failure leaves nothing behind. Raises `OSError`.
    """
    from lamina.linux import quota

    try:
        project = _read(home, key)[0] or begin(home, key, directories)
        with _opened(home) as fd:
            limit_bytes = quota.project_usage(fd, project)[0] + size_bytes
            _write(home, key, project, limit_bytes)
            quota.limit_project(fd, project, limit_bytes)
    except BaseException:
        forget(home, key)
        raise


def begin(home: str, key: str, directories: Sequence[str]) -> int:
    """Give a layer a project, and its empty directories to it, for a layer that is filled before it is limited."""
    from lamina.linux import quota

    with _opened(home) as fd:
        for _ in range(_TRIES):
            project = int.from_bytes(os.urandom(4), "little") >> 1 or 1
            if quota.project_usage(fd, project) == (0, 0):
                break
        else:
            raise OSError(errno.EBUSY, "the file system has no free project number", home)
    _write(home, key, project, 0)
    for directory in directories:
        _join(directory, project)
    return project


def check(home: str, key: str, directories: Sequence[str]) -> None:
    """Make sure that a limited layer's directories are kept within its limit, before something is written into them.

    The first is what the layer was made with; others, which a driver makes anew, join its project. Raises `NotUsableError` where
    the limit isn't in force: the file system is mounted without quotas now, or the store was copied to another one.
    """
    from lamina.linux import quota

    project, limit_bytes = _read(home, key)
    with _opened(home) as fd, _opened(directories[0]) as first_fd:
        if not quota.enforces_projects(fd):
            raise NotUsableError(f"the container's size can't be limited any more: {missing(home)[0]}", hint=HINT)
        if not project or quota.project_of(first_fd) != project:
            raise NotUsableError(
                f"the container's size can't be limited any more: '{directories[0]}' is not in the project that it was made in",
                hint="a copied store has lost its limits: commit the container and create it anew",
            )
        if quota.project_usage(fd, project)[1] != limit_bytes:
            quota.limit_project(fd, project, limit_bytes)
    for directory in directories[1:]:
        _join(directory, project)


@contextmanager
def lifted(home: str, key: str) -> Iterator[None]:
    """Let a driver write what it must into a layer that may be full, while the block runs. Killed in it, `check` limits again."""
    project, limit_bytes = _read(home, key)
    if not project:
        yield
        return
    from lamina.linux import quota

    with _opened(home) as fd:
        if not quota.enforces_projects(fd):
            yield
            return
        quota.limit_project(fd, project, 0)
        try:
            yield
        finally:
            quota.limit_project(fd, project, limit_bytes)


def describe(home: str, key: str) -> dict[str, str]:
    """Give what `storage_describe` shows of a limited layer: its project, and what that may take, in bytes."""
    project, limit_bytes = _read(home, key)
    return {"Project": str(project), "ProjectLimit": str(limit_bytes)} if project else {}


def forget(home: str, key: str) -> None:
    """Take the layer's limit away, so that its project is free once its files are gone. May be repeated; no error without one."""
    if not is_limited(home, key):
        return
    from lamina.linux import quota

    project = _read(home, key)[0]
    with _opened(home) as fd:
        if project and quota.enforces_projects(fd):
            quota.limit_project(fd, project, 0)
    try:
        os.unlink(f"{home}/quota/{key}")
    except FileNotFoundError:
        pass


def _join(directory: str, project: int) -> None:
    from lamina.linux import quota

    with _opened(directory) as fd:
        if quota.project_of(fd) != project:
            quota.set_project(fd, project)


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _write(home: str, key: str, project: int, limit_bytes: int) -> None:
    os.makedirs(f"{home}/quota", mode=0o700, exist_ok=True)
    path = f"{home}/quota/{key}"
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(f"{project} {limit_bytes}\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)


def _read(home: str, key: str) -> tuple[int, int]:
    """Give a layer's project and its limit; zeros if it has none, or is not finished."""
    try:
        with open(f"{home}/quota/{key}", encoding="ascii") as file:
            project, limit_bytes = file.read().split()
    except (FileNotFoundError, ValueError):
        return 0, 0
    return int(project), int(limit_bytes)
