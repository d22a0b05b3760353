"""Health checks: commands in the container that its monitor has run, and what is told of their results."""

import os
import signal
from pathlib import Path

import pytest
from cases import FOREVER, Lamina, driver_of, is_gone, wait_until

from lamina.model.supervision import HealthCheck, Supervision

MS = 10**6


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def test_a_container_becomes_healthy_and_unhealthy_and_its_image_checks_the_next_one(lamina: Lamina):
    lamina(
        "run", "-d", "--name", "box", "--health-cmd", "echo $((6*7)) $USER_; test -e /well", "--health-interval", "100ms",
        "--health-retries", "2", "--env", "USER_=me", "busybox", *FOREVER,
    )  # fmt: skip
    with lamina.library() as engine:
        box = engine.containers.get("box")
        assert box.inspect()["State"]["Health"]["Status"] == "starting"
        wait_until(lambda: box.inspect()["State"]["Health"]["Status"] == "unhealthy", "the second failure", 20)
        log = box.inspect()["State"]["Health"]["Log"]
        assert (log[0]["ExitCode"], log[0]["Output"]) == (1, "42 me\n")
        Path(box.root, "well").touch()
        wait_until(lambda: box.inspect()["State"]["Health"]["Status"] == "healthy", "a success", 20)
        assert "(healthy)" in lamina("ps", "--filter", "health=healthy")
        assert lamina("ps", "--quiet", "--filter", "health=none", "--filter", "health=starting") == ""
        assert box.inspect()["State"]["Health"]["FailingStreak"] == 0
        box.commit("checked")
        child = engine.containers.create("checked", FOREVER)
        assert child.inspect()["Config"]["Healthcheck"] == box.inspect()["Config"]["Healthcheck"]
        unchecked = engine.containers.create("checked", FOREVER, supervision=Supervision(health=HealthCheck(test=("NONE",))))
        assert "Healthcheck" not in unchecked.inspect()["Config"]
        box.stop(timeout_s=0)
        assert box.inspect()["State"]["Health"]["Status"] == "unhealthy"  # as Docker has it
    said = lamina("events", "--since", "1h", "--until", "0s", "--filter", "event=health_status", "--format", "{{.Action}}")
    assert said.splitlines() == ["health_status: unhealthy", "health_status: healthy"]


def test_a_check_that_takes_too_long_is_ended_with_all_that_it_started(lamina: Lamina):
    health = HealthCheck(test=("CMD-SHELL", "seq 3000; sleep 4242; true"), interval_ns=100 * MS, timeout_ns=500 * MS, retries=1)
    with lamina.library() as engine:
        box = engine.containers.run("busybox", FOREVER, init=True, supervision=Supervision(health=health))
        wait_until(lambda: box.inspect()["State"]["Health"]["Status"] == "unhealthy", "the failure", 20)
        (result, *_) = box.inspect()["State"]["Health"]["Log"]
        assert result["ExitCode"] == -1
        assert result["Output"].startswith("Health check exceeded timeout (500ms): 1\n2\n")
        assert len(result["Output"]) < 4200
        wait_until(lambda: box.inspect()["State"]["Health"]["FailingStreak"] >= 3, "the third failure", 30)
        assert sum("sleep 4242" in row[-1] for row in box.top()) <= 2  # of the one that runs now
        monitor = box.record.monitor_pid
        box.kill()
        wait_until(lambda: is_gone(monitor), "the monitor's end")


def test_a_container_without_a_check_has_none_and_a_check_that_cannot_run_fails(lamina: Lamina):
    health = HealthCheck(test=("CMD", "/no/such/program"), interval_ns=50 * MS, retries=1)
    with lamina.library() as engine:
        plain = engine.containers.run("busybox", FOREVER)
        assert "Health" not in plain.inspect()["State"]
        box = engine.containers.run("busybox", FOREVER, supervision=Supervision(health=health))
        wait_until(lambda: box.inspect()["State"]["Health"]["Status"] == "unhealthy", "the failure", 20)
        assert "/no/such/program" in box.inspect()["State"]["Health"]["Log"][0]["Output"]
        os.kill(box.record.monitor_pid, signal.SIGKILL)  # nobody checks any more; what is known stays
        assert box.inspect()["State"]["Health"]["Status"] == "unhealthy"
