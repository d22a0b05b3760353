"""Health: what checks of a container have found, kept in a file beside its log, and one check.

A check enters the container as `exec` does, with all that confines it, and ends it if it takes too long. Docker's rules: healthy
after a success, unhealthy after so many failures in a row, of which those of the start period don't count; the last five results
are kept. When checks are made is `runtime/probes.py`.
"""

import os
import signal
import time
from typing import Any, NamedTuple, Self

from lamina import json
from lamina.errors import LaminaError
from lamina.linux import process
from lamina.model.container import Container, Status
from lamina.model.durations import format_duration
from lamina.model.image_config import format_time
from lamina.model.supervision import HealthCheck
from lamina.runtime import frames
from lamina.runtime.launch import Launch
from lamina.usecases.context import Context
from lamina.usecases.enter import Entering

OUTPUT_BYTES = 4096
RESULTS = 5
GRACE_S = 60
"""How much longer than its command a check may take, for all that it does itself; then it is taken for stuck."""


class Health(NamedTuple):
    """The state of a container's health, as `inspect` shows it."""

    status: str = "starting"
    """`starting`, `healthy`, `unhealthy`."""
    failing_streak: int = 0
    log: tuple[dict[str, Any], ...] = ()
    """`Start`, `End`, `ExitCode`, `Output`; the newest last."""

    def after(self, result: dict[str, Any], *, retries: int, counts: bool) -> Self:
        """The state after one more result; a failure `counts` unless it belongs to the start."""
        log = (*self.log, result)[-RESULTS:]
        if result["ExitCode"] == 0:
            return self._replace(status="healthy", failing_streak=0, log=log)
        if self.status == "starting" and not counts:
            return self._replace(log=log)
        streak = self.failing_streak + 1
        return self._replace(status="unhealthy" if streak >= retries else self.status, failing_streak=streak, log=log)

    def document(self) -> dict[str, Any]:
        """Docker's form."""
        return {"Status": self.status, "FailingStreak": self.failing_streak, "Log": list(self.log)}


def read_health(context: Context, container: Container) -> Health | None:
    """Give what is known of a container's health; None if nothing is checked. One that has ended is not healthy, as with Docker."""
    if container.config.supervision is None or container.config.supervision.health is None:
        return None
    try:
        with open(context.health_path(container.id), encoding="utf-8") as file:
            found = json.load(file)
        health = Health(found["Status"], found["FailingStreak"], tuple(found["Log"]))
    except (OSError, ValueError, KeyError):
        health = Health()
    return health if container.is_active or not container.started_ns else health._replace(status="unhealthy")


def write_health(context: Context, container: Container, health: Health) -> None:
    """Keep it; the record is whole at any moment, but not worth an fsync."""
    path = context.health_path(container.id)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(health.document(), file)
    os.rename(f"{path}.new", path)


def begin(context: Context, container: Container) -> None:
    """Forget how a container was in its last run, but not the results."""
    health = read_health(context, container)
    if health is not None:
        write_health(context, container, Health(log=health.log))


def check(context: Context, entering: Entering, container: Container) -> str:
    """Check a container once and write down the result; gives the status that it has now."""
    supervision = container.config.supervision
    if supervision is None or supervision.health is None or container.status is not Status.RUNNING:
        return known.status if (known := read_health(context, container)) is not None else "starting"
    asked = supervision.health.with_defaults()
    signal.alarm(asked.timeout_ns // 10**9 + GRACE_S)
    begun_ns = time.time_ns()
    code, output = _run(entering, container, asked)
    result = {"Start": format_time(begun_ns), "End": format_time(time.time_ns()), "ExitCode": code, "Output": output}
    before = read_health(context, container) or Health()
    current = context.records.by_id(container.id)
    if current is None or current.pid != container.pid or not process.is_alive(container.pid, container.pid_started):
        return before.status  # it ended meanwhile, and with it the command
    after = before.after(result, retries=asked.retries, counts=begun_ns - container.started_ns >= asked.start_period_ns)
    write_health(context, container, after)
    if after.status != before.status:
        context.container_event(f"health_status: {after.status}", current)
    return after.status


def _run(entering: Entering, container: Container, asked: HealthCheck) -> tuple[int, str]:
    """Run the command; gives its exit code, -1 if it could not be run or took too long, and the beginning of its output."""
    try:
        launched = entering.launch(container, asked.command, ends_with_creator=True)
    except LaminaError as error:
        return -1, error.message
    output = bytearray()
    code = _hear(launched, output, deadline_s=time.monotonic() + asked.timeout_ns / 1e9)
    launched.channel.close()  # with it ends the command, if it runs on
    text = output[:OUTPUT_BYTES].decode("utf-8", "replace") + ("..." if len(output) > OUTPUT_BYTES else "")
    if code is None:
        said = f"Health check exceeded timeout ({format_duration(asked.timeout_ns)})"
        return -1, f"{said}: {text}" if text else said
    return code, text


def _hear(launched: Launch, output: bytearray, *, deadline_s: float) -> int | None:
    """Collect output until the command has ended, and give its exit code; None if the time is over first."""
    received = launched.early
    while True:
        for kind, payload in received:
            if kind == frames.EXIT:
                return int(payload)
            if kind in {frames.STDOUT, frames.STDERR} and len(output) <= OUTPUT_BYTES:
                output += payload
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return None
        launched.channel.settimeout(left_s)
        try:
            data = launched.channel.recv(1 << 16)
        except TimeoutError:
            return None
        if not data:
            return -1  # its monitor was killed
        received = launched.parser.feed(data)
