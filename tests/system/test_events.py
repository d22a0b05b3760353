"""`lamina events`: what commands, other processes and the ends of containers that nobody waits for leave in the journal."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cases import FOREVER, Lamina, driver_of, is_gone, wait_until


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


HEEDING_INTERRUPTS = ("env", "--default-signal=INT")
"""A shell's background has SIGINT ignored, and so would have all that tests start there."""


def test_a_follower_hears_of_all_in_dockers_words(lamina: Lamina, tmp_path: Path):
    heard = tmp_path / "heard"

    def found() -> list[dict[str, Any]]:
        return [json.loads(line) for line in heard.read_text(encoding="utf-8").splitlines()]

    with (
        heard.open("w") as out,
        subprocess.Popen([*HEEDING_INTERRUPTS, *lamina.command("events", "--format", "json")], stdout=out) as events,
        contextlib.ExitStack() as at_the_end,
    ):
        at_the_end.callback(events.kill)  # else a failure here would wait for it for ever
        begun = time.time_ns()
        with lamina.library() as engine:
            engine.volumes.create("first")  # until one is heard, the follower isn't there yet
            wait_until(lambda: engine.volumes.create(f"v{time.time_ns()}") and found(), "the first event")
            box = engine.containers.run("busybox", FOREVER, name="box", labels={"a": "b"})
            box.exec(["sh", "-c", "exit 3"])
            box.pause()
            box.unpause()
            box.commit("made")
            engine.images.tag("made", "more")
            engine.images.remove("more")
            box.rename("other")
            box.stop(timeout_s=0)
            box.start()
            os.kill(box.pid, signal.SIGKILL)  # nobody waits: the monitor tells
            monitor = box.record.monitor_pid
            wait_until(lambda: is_gone(monitor), "the finisher's end")
            box.remove()
            engine.volumes.remove("first")
        wait_until(lambda: (found()[-1]["Action"], found()[-1]["Actor"]["ID"]) == ("destroy", "first"), "the last event")
        events.send_signal(signal.SIGINT)
        assert events.wait() == 0
    mine = [each for each in found() if each.get("id") == box.id]
    assert [each["Action"] for each in mine] == [
        "create", "start", "exec_create: sh -c exit 3", "exec_start: sh -c exit 3", "exec_die", "pause", "unpause", "pause",
        "commit", "unpause", "rename", "kill", "kill", "die", "stop", "start", "die", "destroy",
    ]  # fmt: skip
    assert all(each["Actor"]["Attributes"]["a"] == "b" and begun <= each["timeNano"] <= time.time_ns() for each in mine)
    codes = [each["Actor"]["Attributes"].get("exitCode") for each in mine if each["Action"] in {"exec_die", "die"}]
    assert codes == ["3", "137", "137"]
    assert [each["Action"] for each in found() if each["Type"] == "image"] == ["tag", "untag"]
    said = lamina("events", "--since", "1h", "--until", "0s", "--filter", "container=other", "--filter", "event=die")
    assert said.count("\n") == 0
    assert "exitCode=137" in said


def test_the_end_of_a_container_whose_monitor_was_killed_is_told_by_who_finds_it(lamina: Lamina):
    with lamina.library() as engine:
        box = engine.containers.run("busybox", FOREVER)
        record = box.record
        os.kill(record.monitor_pid, signal.SIGKILL)
        os.kill(record.pid, signal.SIGKILL)
        wait_until(lambda: is_gone(record.pid) and is_gone(record.monitor_pid), "both ends")
    lamina("ps")
    said = lamina("events", "--since", "1h", "--until", "0s", "--filter", "event=die")
    assert f"container die {box.id} (exitCode=255, " in said
