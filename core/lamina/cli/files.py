"""Files that commands read and write: `-` is standard input or output, and a file that is written appears whole or not at all."""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO

from lamina.errors import ArchiveError, IntegrityError, LaminaError, NotFoundError


@contextlib.contextmanager
def open_input(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading. Raises `NotFoundError` or `LaminaError`, naming it, and what is wrong with the archive in it too."""
    if path == "-":
        with _telling("standard input"):
            yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115  closed below; only the opening is to be explained
    except FileNotFoundError:
        raise NotFoundError(f"the file '{path}' doesn't exist") from None
    except OSError as error:
        raise LaminaError(f"'{path}' can't be read: {_why(error)}") from error
    with file, _telling(f"'{path}'"):
        yield file


@contextlib.contextmanager
def _telling(shown: str) -> Iterator[None]:
    """Say of which archive it is that something is wrong with it."""
    try:
        yield
    except (ArchiveError, IntegrityError) as error:
        error.message = f"{shown}: {error.message}"
        raise


class Output:
    """A file being written, whose errors name it."""

    def __init__(self, file: BinaryIO, shown: str) -> None:
        self._file = file
        self._shown = shown

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Write all of it. Raises `LaminaError`; `BrokenPipeError` stays what it is, for the command to end quietly."""
        with naming(self._shown):
            return self._file.write(data)


@contextlib.contextmanager
def naming(shown: str) -> Iterator[None]:
    """Turn an error of the system into one that names what was written."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise LaminaError(f"{shown} can't be written: {_why(error)}", hint="free some space, or choose another place") from error


@contextlib.contextmanager
def open_output(path: str) -> Iterator[Output]:
    """Open a file for writing. A regular file gets its name when all of it is written, and after an error there is none."""
    if path == "-":
        yield Output(sys.stdout.buffer, "standard output")
        with naming("standard output"):
            sys.stdout.buffer.flush()
        return
    shown = f"'{path}'"
    if os.path.isdir(path):
        raise LaminaError(f"{shown} is a directory", hint="give the name of a file")
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):  # a device or a pipe: written as it is
        with naming(shown), open(path, "wb") as file:
            yield Output(file, shown)
        return
    path = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:200]}.{os.getpid()}")
    with naming(shown):
        file = open(temporary, "xb")  # noqa: SIM115  closed below
    try:
        with file:
            yield Output(file, shown)
            with naming(shown):
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
