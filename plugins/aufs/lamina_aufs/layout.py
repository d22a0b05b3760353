"""Docker's aufs directory: how a layer comes to be, is listed, set aside and swept. Knows nothing of what a layer holds."""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence

from lamina.api import quota
from lamina.api.copytree import copy_root
from lamina.errors import ConflictError, LaminaError, NotFoundError, UsageError
from lamina.linux.fs import remove_tree
from lamina_aufs import form
from lamina_aufs.names import (
    MAX_DEPTH,
    REMOVING,
    Form,
    diff_dir,
    empty_dir,
    layers_path,
    mnt_dir,
    work_dir,
)

KEYED = ("diff", "mnt", "work", "companions")
"""The directories with one directory for each key."""


def make_folders(home: str) -> None:
    """Make the driver's directories; no error for those that are there."""
    if os.path.isdir(f"{home}/new"):  # made last
        return
    for name in ("diff", "layers", "mnt", "work", "companions", "empty", "new"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{home}/{name}", 0o710)
    os.chmod(empty_dir(home), 0o755)  # it is a lower layer, and its mode a container's to see


def prepare(home: str, key: str, parents: Sequence[str], size_bytes: int | None = None) -> None:
    """Make an empty layer, which may grow by `size_bytes`. A failure leaves nothing behind."""
    if key.endswith(REMOVING) or key in {".", ".."}:
        raise UsageError(f"a layer can't be named '{key}'", hint=f"names ending in {REMOVING} are those of deleted layers")
    if len(parents) >= MAX_DEPTH:
        raise LaminaError(
            f"the image has {len(parents)} layers, and aufs unites at most {MAX_DEPTH}, the container's own included",
            hint="choose another storage driver for it, such as overlay or vfs",
        )
    make_folders(home)
    if any(
        os.path.lexists(path) for path in (layers_path(home, key), diff_dir(home, key), mnt_dir(home, key), work_dir(home, key))
    ):
        raise ConflictError(f"the layer '{key}' is there already")
    if parents and not os.path.isdir(diff_dir(home, parents[0])):
        raise NotFoundError(f"the layer '{parents[0]}' below '{key}' is missing")
    with contextlib.ExitStack() as undo:
        for path, mode in ((work_dir(home, key), 0o700), (mnt_dir(home, key), 0o755), (diff_dir(home, key), 0o755)):
            os.mkdir(path)
            undo.callback(remove_tree, path)
            os.chmod(path, mode)  # whatever the umask says
        if parents:
            copy_root(diff_dir(home, parents[0]), diff_dir(home, key))
        if size_bytes is not None:
            undo.callback(quota.forget, home, key)
            quota.limit(home, key, limited(home, key), size_bytes)
        form.write(home, key, Form.PLAIN)
        _write_layers(home, key, parents)
        undo.pop_all()


def limited(home: str, key: str) -> list[str]:
    """Give the directories that a limit on a layer's size is about."""
    return [diff_dir(home, key), work_dir(home, key)]


def _write_layers(home: str, key: str, parents: Sequence[str]) -> None:
    with half_made(home, key) as temporary:
        with open(temporary, "w", encoding="ascii") as file:
            file.writelines(f"{parent}\n" for parent in parents)
        os.rename(temporary, layers_path(home, key))


def read_layers(home: str, key: str) -> list[str]:
    """Read which keys are below a layer, nearest first."""
    try:
        with open(layers_path(home, key), encoding="ascii") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def half_made(home: str, key: str) -> Iterator[str]:
    """Give a path for something that is made there and then renamed to its place.

    What a killed maker has left is removed by the next one for that key, or by `sweep`.
    """
    path = f"{home}/new/{os.getpid()}.{key}"
    for name in os.listdir(f"{home}/new"):
        if name.endswith(f".{key}") and (_is_abandoned(name) or f"{home}/new/{name}" == path):
            remove_tree(f"{home}/new/{name}")
    try:
        yield path
    finally:
        remove_tree(path)


def discard(home: str, key: str) -> None:
    """Set aside all that belongs to a layer."""
    quota.forget(home, key)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(layers_path(home, key))
    for folder in KEYED:
        set_aside(f"{home}/{folder}/{key}")


def set_aside(path: str) -> str | None:
    """Rename a directory to a name that `sweep` deletes, in no time, and return that; None if it isn't there."""
    number = 0
    while True:
        target = f"{path}{f'.{number}' if number else ''}{REMOVING}"
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            number += 1  # an earlier one of that name has not been swept yet
        else:
            return target


def sweep(home: str) -> None:
    """Delete what was set aside, and what makers who are no more left half made."""
    for folder in (*KEYED, "new"):
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(f"{home}/{folder}"):
                if name.endswith(REMOVING) or (folder == "new" and _is_abandoned(name)):
                    remove_tree(f"{home}/{folder}/{name}")


def _is_abandoned(name: str) -> bool:
    """Whether the maker of something half made is no more."""
    return not os.path.exists(f"/proc/{name.partition('.')[0]}")


def keys(home: str) -> list[str]:
    """List the layers, half-made ones too."""
    found: set[str] = set()
    for folder in ("layers", *KEYED):
        with contextlib.suppress(FileNotFoundError):
            found.update(name for name in os.listdir(f"{home}/{folder}") if not name.endswith(REMOVING))
    return sorted(found)
