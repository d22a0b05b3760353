"""Who reads a container's layer, and who brings it to rest, where a driver then changes what a view shows (`View.until_rest`).

Readers hold the layer's lock together. Who brings the layer to rest waits for them, but not for ever: what an `export` writes may
go to a program that takes its time. So after `PATIENCE_S` it is done all the same, and the reader says that it can't be relied on.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence

from lamina.api.drivers import StorageDriver
from lamina.api.types import View
from lamina.errors import StateError
from lamina.store.operations import locked

PATIENCE_S = 5.0


@contextlib.contextmanager
def reading(run_dir: str, driver: StorageDriver, key: str, parents: Sequence[str]) -> Iterator[View]:
    """Give a layer's read-only view, which stays right while the block runs. Raises `StateError` if that couldn't be kept up."""
    view = driver.mounts(key, parents, readonly=True)
    if not view.until_rest:
        yield view
        return
    with locked(run_dir, _name(key), shared=True):
        file = _file(run_dir, key)
        try:
            yield driver.mounts(key, parents, readonly=True)  # it may have changed its form just before
        except OSError as error:
            if file == _file(run_dir, key):
                raise
            raise _overtaken(key) from error
        if file != _file(run_dir, key):
            raise _overtaken(key)


def bring_to_rest(run_dir: str, driver: StorageDriver, key: str, *, patience_s: float = PATIENCE_S) -> None:
    """Have a driver bring a layer to rest while nobody reads it; or let those who go on reading know that they were overtaken."""
    end = time.monotonic() + patience_s

    def pause() -> None:
        if time.monotonic() >= end:
            raise _TooLongError
        time.sleep(0.01)

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(run_dir, _name(key), pause=pause))
        except _TooLongError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_path(run_dir, key))
        driver.after_unmount(key)


class _TooLongError(Exception):
    """Somebody reads, and reads."""


def _name(key: str) -> str:
    return f"reading-{key}"


def _path(run_dir: str, key: str) -> str:
    return os.path.join(run_dir, "locks", _name(key))


def _file(run_dir: str, key: str) -> int:
    """The lock's inode: while somebody has the lock, only who doesn't wait any longer takes the file away."""
    try:
        return os.stat(_path(run_dir, key)).st_ino
    except FileNotFoundError:
        return 0


def _overtaken(key: str) -> StateError:
    return StateError(
        f"container {key[:12]} ended, or was written to, while it was read: what was read may be wrong",
        hint="run the command again",
    )
