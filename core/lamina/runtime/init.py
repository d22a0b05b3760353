"""The container's first process, from its fork to its execve. It reads from top to bottom as the kernel sees it.

It is the child of the monitor and the first process of a new PID namespace. It may import only os, sys, ctypes, `lamina.linux` and
the steps. What goes wrong it says to the monitor over a pipe: the step, errno, the message; the pipe closes by itself when execve
succeeds.
"""

import errno
import os
import signal
from collections.abc import Sequence

from lamina.linux import libc, process
from lamina.runtime.process_steps import Execute, FindProgram, LimitPrivileges, OpenTerminal
from lamina.runtime.steps import END_OF_REPORT, Place, Step

NOT_EXECUTABLE, NOT_FOUND = 126, 127


def run(
    steps: Sequence[Step],
    *,
    stdio: tuple[int, int, int],
    report_fd: int,
    go_fd: int,
    console_fd: int,
    terminal_size: tuple[int, int],
    is_born_inside: bool = False,
) -> None:
    """Carry the steps out and execute the command; never returns.

    `stdio` become descriptors 0, 1 and 2, the null device for a -1. From `go_fd` comes one byte when the steps may begin and one
    when the command may run, or nothing if the creator is gone. Over `report_fd` go "ready" and what was made, later perhaps an
    error.
    """
    step: Step | None = None
    listener = libc.listener
    try:
        if listener is not None:
            listener.enters("container")
        os.setsid()
        os.umask(0o022)
        os.chdir("/")
        null_fd = os.open("/dev/null", os.O_RDWR)
        for number, fd in enumerate(stdio):
            os.dup2(fd if fd >= 0 else null_fd, number)
        report_fd, go_fd, console_fd = _keep_only(report_fd, go_fd, console_fd)
        _wait_for_word(go_fd)
        place = Place()
        place.console_socket_fd = console_fd
        place.report_fd = report_fd
        place.terminal_size = terminal_size
        place.is_born_inside = is_born_inside
        waited = False
        for step in steps:
            if not waited and isinstance(step, (LimitPrivileges, Execute)):  # from there on as few system calls as can be
                _wait_for_go(report_fd, go_fd, place.made)
                waited = True
                if console_fd >= 0:
                    os.close(console_fd)
                _reset_signals()
            if isinstance(step, Execute) and step.init:
                _be_init(report_fd)
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
            if listener is not None:
                listener.begins(step.name, step.describe)
            step.apply(place)
            if listener is not None:
                listener.ends()
            if isinstance(step, OpenTerminal):
                place.console_socket_fd = -1
        if not waited:
            raise OSError(errno.EINVAL, "the plan executes nothing")
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        _report(report_fd, error, step)
    os._exit(NOT_FOUND)


def _keep_only(report_fd: int, go_fd: int, console_fd: int) -> tuple[int, int, int]:
    """Close every inherited descriptor but these (CVE-2024-21626)."""
    process.close_descriptors(frozenset({0, 1, 2, report_fd, go_fd, console_fd}))
    return report_fd, go_fd, console_fd


def _wait_for_go(report_fd: int, go_fd: int, made: list[str]) -> None:
    os.write(report_fd, b"\0".join([b"ready", *(os.fsencode(path) for path in made)]) + END_OF_REPORT)
    _wait_for_word(go_fd)
    os.close(go_fd)


def _wait_for_word(go_fd: int) -> None:
    if not os.read(go_fd, 1):
        os._exit(NOT_FOUND)  # the creator died before it could record this container: be as if never started


def _reset_signals() -> None:
    """Give every signal its default again: Python ignores two, the creator perhaps more, and execve leaves it at that."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _report(report_fd: int, error: BaseException, step: Step | None) -> None:
    number = getattr(error, "errno", None) or 0
    text = getattr(error, "strerror", None)
    message = text[:1].lower() + text[1:] if text else f"{type(error).__name__}: {error}"  # as all of our messages begin
    name = getattr(error, "filename", None)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    code = 125
    if isinstance(step, (FindProgram, Execute)):
        code = NOT_FOUND if number in {errno.ENOENT, errno.ENOTDIR} else NOT_EXECUTABLE
        name = step.name_of_program if isinstance(step, FindProgram) else step.arguments[0]
    report = "\0".join(
        ["error", str(code), str(number), step.name if step is not None else "begin", message + (f": '{name}'" if name else "")]
    )
    try:
        os.write(report_fd, report.replace("\n", " ").encode("utf-8", "surrogateescape") + END_OF_REPORT)
    finally:
        os._exit(code)


def _be_init(report_fd: int) -> None:
    """Fork the command and stay as the namespace's first process: reap orphans, pass signals on. Only the child returns.

    What `--init` asks for. Exits with the command's code, or 128 + its signal.
    """
    signals = set(signal.valid_signals()) - {
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
    }
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    if os.getpid() != 1:  # in another's PID namespace orphans come to whoever says that they shall
        process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        if libc.listener is not None:
            libc.listener.enters("command")
        os.setpgid(0, 0)
        if os.isatty(0):
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        return
    os.close(report_fd)
    process.forget_origin("lamina-init")
    while True:
        received = signal.sigwaitinfo(signals)
        if received.si_signo == signal.SIGCHLD:
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if pid == 0:
                    break
                if pid == child:
                    code = os.waitstatus_to_exitcode(status)
                    os._exit(code if code >= 0 else 128 - code)
        else:
            try:
                os.kill(child, received.si_signo)
            except ProcessLookupError:
                pass
