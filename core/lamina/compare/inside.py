"""Run a function of ours in a running container: its namespaces, its root, its capabilities; no program of the image is needed.

As `exec` does it (`runtime/plan.py`), but without the execve at the end: what Python has imported already goes on working when the
host's files are out of sight. What the function may not do is import. The answer comes back over a pipe, as JSON.
"""

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lamina import json
from lamina.errors import LaminaError
from lamina.linux import namespace, process
from lamina.runtime.process_steps import Execute, FindProgram
from lamina.runtime.steps import JoinNamespaces, Place, Step

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came back: a value, or the name of the errno, or what else went wrong."""

    value: Any = None
    errno: str = ""
    problem: str = ""


def run_inside(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    *,
    pid: int,
    steps: Sequence[Step],
    working_dir: str,
    privileged: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Result:
    """Run `function(*arguments)` in the container whose first process is `pid`; `steps` are those of an `exec` there.

    With `privileged` only the namespaces are entered and no capability is dropped. Raises `LaminaError` if nothing comes back in
    time; the process is dead then.
    """
    kinds = (JoinNamespaces,) if privileged else (Step,)
    wanted = [step for step in steps if isinstance(step, kinds) and not isinstance(step, (FindProgram, Execute))]
    reading_fd, writing_fd = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading_fd)
            code = _enter(pid, lambda: _answer(function, arguments, wanted, working_dir), writing_fd)
        finally:
            os._exit(code)
    os.close(writing_fd)
    try:
        said = _read(reading_fd, time.monotonic() + timeout_s)
    finally:
        os.close(reading_fd)
        if _is_running(child):
            os.kill(child, signal.SIGKILL)  # the process in the container dies with it (PR_SET_PDEATHSIG)
            os.waitpid(child, 0)
    if said is None:
        raise LaminaError(f"'{function.__name__}' gave no answer within {timeout_s:g} s")
    if not said:
        return Result(problem="its process died")
    return Result(**json.loads(said))


def _is_running(pid: int) -> bool:
    """Whether a child still runs; one that has ended, or ends within a moment, is reaped."""
    for _ in range(100):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    return True


def _read(fd: int, deadline_s: float) -> bytes | None:
    said = bytearray()
    while True:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([fd], [], [], left_s)[0]:
            return None
        piece = os.read(fd, 65536)
        if not piece:
            return bytes(said)
        said += piece


def _enter(pid: int, answer: Callable[[], dict[str, Any]], writing_fd: int) -> int:
    process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
    fd = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    namespace.setns(fd, namespace.CLONE_NEWPID)  # holds for children, so one more is made
    os.close(fd)
    child = os.fork()
    if child:
        os.close(writing_fd)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(writing_fd, "wb") as out:
        out.write(json.dumps(answer()).encode())
    os._exit(0)


def _answer(function: Callable[..., Any], arguments: Sequence[Any], steps: Sequence[Step], working_dir: str) -> dict[str, Any]:
    """Become a process of the container and run the function; whatever it raises is told."""
    try:
        place = Place()
        for step in steps:
            step.apply(place)
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of credentials, which clears it
        os.umask(0o022)
        os.chdir(working_dir)
        return {"value": function(*arguments)}
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error))
        return {"errno": "EOPNOTSUPP" if name == "ENOTSUP" else name}  # one number, two names
    except BaseException as error:  # noqa: BLE001 - a child must not go on as its parent
        return {"problem": f"{type(error).__name__}: {error}"}
