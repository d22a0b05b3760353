"""`--output`: what was built, written to a directory or an archive besides the image store.

A directory is written beside its place and renamed, unless there are files in it: those stay, and what was built comes over them,
after a look whether it can. Archives appear whole or not at all.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lamina.errors import ConflictError, LaminaError, UsageError
from lamina.linux.fs import nearest_directory, removed_on_error
from lamina.model.reference import Reference

if TYPE_CHECKING:
    from lamina.store.images import Image
    from lamina.usecases.context import Context

_TYPES = ("local", "tar", "oci", "docker")
_HINT = "write type=local, tar, oci or docker with dest=PATH, or a directory, or - for a tar archive on standard output"


class HasContext(Protocol):
    """An engine, so far as it is needed here."""

    @property
    def context(self) -> "Context": ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where to, and in which form."""

    type: str
    """local: files in a directory; tar: the same in an archive; oci and docker: the image in an archive."""
    destination: str
    """A path, `-` for standard output, or "" for docker's own meaning: the image store, where it is anyway."""


def parse_output(text: str) -> Output:
    """Read what was given with `--output`. Raises `UsageError`, also for an archive that would go to a terminal."""
    if text == "-":
        return _checked(Output(type="tar", destination="-"))
    if "=" not in text:
        if not text:
            raise UsageError("an output is empty", hint=_HINT)
        return _checked(Output(type="local", destination=text))
    given: dict[str, str] = {}
    for part in _parts(text):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals or key not in {"type", "dest"}:
            raise UsageError(f"unknown part '{part}' of the output '{text}'", hint=_HINT)
        if key in given:
            raise UsageError(f"the output '{text}' has {key} twice")
        given[key] = value
    kind = given.get("type", "")
    if not kind:
        raise UsageError(f"the output '{text}' has no type", hint=_HINT)
    if kind not in _TYPES:
        raise UsageError(f"unknown type '{kind}' of the output '{text}'", hint=_HINT)
    destination = given.get("dest", "-" if kind in {"tar", "oci"} else "")
    if "dest" in given and not destination:
        raise UsageError(f"the output '{text}' has an empty dest", hint=_HINT)
    if kind == "local" and destination in {"", "-"}:
        raise UsageError(f"the output '{text}' names no directory", hint="write dest=DIRECTORY")
    return _checked(Output(type=kind, destination=destination))


def write_output(output: Output, *, engine: HasContext, image: "Image", names: Sequence[Reference]) -> None:
    """Write an image to its output. `names` are those that an archive of it has."""
    if not output.destination:
        return
    context = engine.context
    if output.type == "local":
        with _tree(context, image) as root:
            _write_directory(root, output.destination)
        return
    from lamina.registry.writing import naming, new_archive

    shown = "standard output" if output.destination == "-" else f"'{output.destination}'"
    with naming(shown), new_archive(output.destination) as out:
        if output.type == "tar":
            from lamina.archive.writer import write_tree

            with _tree(context, image) as root:
                write_tree(out, root)
        else:
            from lamina.store.image_archive import SavedImage, save

            save(context.images, [SavedImage(image=image, names=tuple(names))], out, form=output.type)


def _parts(text: str) -> list[str]:
    """Split at commas; a part in quotes may have some."""
    import csv

    try:
        return next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration):
        raise UsageError(f"the output '{text}' is malformed", hint=_HINT) from None


def _checked(output: Output) -> Output:
    """Refuse early what can't be written, before a build has taken its time."""
    path = output.destination
    if output.type == "local":
        if os.path.lexists(path) and not os.path.isdir(path):
            raise ConflictError(f"the output '{path}' is there and is no directory")
        above = os.path.abspath(path)
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        if not os.path.isdir(above) or not os.access(above, os.W_OK):
            raise ConflictError(f"the output '{path}' can't be made: '{above}' is no directory that can be written")
    elif path:
        from lamina.registry.writing import check_archive_path

        check_archive_path(path)
    return output


@contextlib.contextmanager
def _tree(context: "Context", image: "Image") -> Iterator[str]:
    """Give a path where the image's files can be read."""
    from lamina.build.layers import Layers
    from lamina.build.state import of_image

    state = of_image(context.images.config(image), tuple(context.images.layers(image)), image.id)
    layers = Layers(context, driver="", mtime_limit_ns=None)
    try:
        with layers.seen(state) as root:
            if root is not None:
                yield root
                return
            empty = os.path.join(layers.dir, "empty")
            os.makedirs(empty, mode=0o755)
            yield empty
    finally:
        layers.close()


def _write_directory(root: str, path: str) -> None:
    from tempfile import mkdtemp

    path = os.path.abspath(path)
    is_there = os.path.isdir(path)
    try:
        if is_there and os.listdir(path):
            _check_merge(root, path)
            _extract(root, path)
            return
        head, name = os.path.split(os.path.realpath(path))
        with _made_directories(head):
            temporary = mkdtemp(prefix=f".{name[:200]}.", dir=head)
            _fill(root, temporary, os.path.join(head, name), mode=stat.S_IMODE(os.stat(path).st_mode) if is_there else 0o755)
    except OSError as error:
        raise LaminaError(f"the output '{path}' can't be written: {(error.strerror or str(error)).lower()}") from error


def _fill(root: str, temporary: str, path: str, *, mode: int) -> None:
    """Write the tree under a temporary name, and give it its own when it is whole."""
    with removed_on_error(temporary):
        os.chmod(temporary, mode)
        _extract(root, temporary)
        os.rename(temporary, path)


@contextlib.contextmanager
def _made_directories(path: str) -> Iterator[None]:
    """Make a directory and those above it, as Docker does for an output; those that were made are gone after an error."""
    above = nearest_directory(path)
    os.makedirs(path, exist_ok=True)
    try:
        yield
    except BaseException:
        while path != above:
            with contextlib.suppress(OSError):
                os.rmdir(path)
            path = os.path.dirname(path)
        raise


def _check_merge(root: str, path: str) -> None:
    """Refuse a directory in a file's place and the other way round, before anything is written."""
    for inner, directories, files in os.walk(root):
        at = os.path.join(path, os.path.relpath(inner, root))
        if os.path.lexists(at) and not stat.S_ISDIR(os.lstat(at).st_mode):
            raise ConflictError(f"can't write the directory '{os.path.normpath(at)}': there is something else of that name")
        links = [name for name in directories if os.path.islink(os.path.join(inner, name))]
        for name in files + links:
            there = os.path.join(at, name)
            if os.path.isdir(there) and not os.path.islink(there):
                raise ConflictError(f"can't write the file '{os.path.normpath(there)}': there is a directory of that name")


def _extract(root: str, path: str) -> None:
    from lamina.archive.extract import Place, extract
    from lamina.archive.treereader import TreeReader

    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        target_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            extract(TreeReader(root_fd, ""), Place(fd=target_fd, shown=path))
        finally:
            os.close(target_fd)
    finally:
        os.close(root_fd)
