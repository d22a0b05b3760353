"""Compiled filters as files, so that a start opens one small file and imports no profile, no table and no compiler.

A filter's name says all that it was made of; there is no other way to make it stale. It is written whole or not at all, and whoever
can write here, in the engine's root directory, can do anything to its containers anyway.
"""

import os

REVISION = "3108f418f126"
"""Of the compiler and its data: the beginning of their digest (`tests/unit/test_seccomp.py` says what it must be)."""


def load(directory: str, capabilities: int, profile: str = "") -> bytes:
    """Give the filter of a profile's JSON text, "" for the default one, for capabilities as a bit mask; compile it if it is new.

    Raises `UsageError` for a text that is no profile, and where no filter can be made for this machine.
    """
    system = os.uname()
    version = ".".join(system.release.split("-")[0].split(".")[:2])
    path = f"{directory}/{_digest(profile)}-{REVISION}-{capabilities:x}-{system.machine}-{version}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return _make(path, system.machine, version, capabilities, profile)
    try:
        return os.read(fd, 1 << 16)  # more than the kernel takes: 4096 instructions of 8 bytes
    finally:
        os.close(fd)


def _digest(profile: str) -> str:
    if not profile:
        return "default"
    from hashlib import sha256  # for those who have a profile of their own

    return sha256(profile.encode()).hexdigest()[:32]


def _make(path: str, machine: str, version: str, capabilities: int, profile: str) -> bytes:
    from lamina.linux.process import CAPABILITIES  # all of this is for the first start with these capabilities
    from lamina.seccomp.compiler import compile_filter
    from lamina.seccomp.profile import parse, select

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
