"""Other network namespaces: a call made in one, and the settings under /proc/sys/net of one.

A thread enters the namespace, calls, and ends; no other thread of this process, and nobody's file or socket, is ever elsewhere than
before. What the call opens (a socket, a file below /proc/sys/net) goes on belonging to the namespace it was opened in.
Not here: making namespaces and whose they are (`namespace`). Sources: setns(2), network_namespaces(7).
"""

import _thread
import os
from collections.abc import Callable, Iterable
from typing import TypeVar

from lamina.linux.namespace import CLONE_NEWNET, setns

Result = TypeVar("Result")


def within(namespace: str, call: Callable[[], Result]) -> Result:
    """Return what `call` returns in the network namespace of this path: `/proc/PID/ns/net`, or where one is bound.

    Needs CAP_SYS_ADMIN; raises OSError with the path, and whatever `call` raises.
    When this returns the thread is gone: with a second one setns(2) into a mount namespace would fail, and fork(2) would warn.
    """
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    results: list[Result] = []
    failures: list[BaseException] = []
    threads: list[int] = []
    over = _thread.allocate_lock()
    over.acquire()

    def run() -> None:
        try:
            threads.append(_thread.get_native_id())
            setns(fd, CLONE_NEWNET)
            results.append(call())
        except BaseException as error:  # noqa: BLE001 (raised again below, in the thread that asked)
            failures.append(error)
        finally:
            over.release()

    try:
        _thread.start_new_thread(run, ())
        over.acquire()
    finally:
        os.close(fd)
    while os.path.exists(f"/proc/self/task/{threads[0]}"):  # for some microseconds, while it ends
        os.sched_yield()
    if failures:
        error = failures[0]
        if isinstance(error, OSError) and error.filename == f"/proc/self/fd/{fd}":
            error.filename = namespace
        raise error
    return results[0]


def sysctl(name: str, *, namespace: str | None = None) -> str:
    """Read a setting by its path below /proc/sys, as `net/ipv4/ip_forward`; a name of a link in it may contain dots."""

    def read() -> str:
        with open(f"/proc/sys/{name}", encoding="utf-8") as file:
            return file.read().strip()

    return read() if namespace is None else within(namespace, read)


def set_sysctls(settings: Iterable[tuple[str, str]], *, namespace: str | None = None) -> None:
    """Write settings, given as path below /proc/sys and value, in their order."""

    def write() -> None:
        for name, value in settings:
            fd = os.open(f"/proc/sys/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, value.encode())
            except OSError as error:
                error.filename = f"/proc/sys/{name}"
                raise
            finally:
                os.close(fd)

    if namespace is None:
        write()
    else:
        within(namespace, write)
