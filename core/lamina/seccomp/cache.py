"""Compiling a filter into the file from which every later start reads it (`lamina.runtime.confinement`).

It is written whole or not at all. Whoever can write there, in the engine's root directory, can do anything to containers anyway.
"""

import os

from lamina.linux.process import CAPABILITIES
from lamina.seccomp.compiler import compile_filter
from lamina.seccomp.profile import parse, select


def make(path: str, *, machine: str, version: str, capabilities: int, profile: str) -> bytes:
    """Compile a profile's JSON text, "" for the default one, for a machine, a kernel's "MAJOR.MINOR" and capabilities as bits.

    Gives the filter, written or not. Raises `UsageError` for a text that is no profile, and where no filter can be made.
    """
    major, minor = version.split(".")
    selection = select(
        parse(profile or default_profile()),
        machine=machine,
        capabilities=frozenset(name for number, name in enumerate(CAPABILITIES) if capabilities >> number & 1),
        kernel=(int(major), int(minor)),
    )
    program = compile_filter(selection)
    try:
        _write(path, program)
    except OSError:
        pass  # a full or read-only disk: the next start compiles it again
    return program


def _write(path: str, program: bytes) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, program)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)


def default_profile() -> str:
    """The default profile's JSON text."""
    with open(os.path.join(os.path.dirname(__file__), "data", "default.json"), encoding="utf-8") as file:
        return file.read()
