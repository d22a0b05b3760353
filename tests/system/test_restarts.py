"""Restart policies without a daemon: who starts a container again, who may not, and what is left when its keeper is killed."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from cases import FOREVER, PROGRAM, Lamina, driver_of, each_driver, is_gone, wait_until

from lamina.container import ContainerHandle
from lamina.engine import Engine
from lamina.linux import mount, mountinfo, process
from lamina.model.container import MountRequest
from lamina.model.supervision import Supervision


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def run(engine: Engine, policy: str, *command: str, most: int = 0, name: str = "") -> ContainerHandle:
    """Run a container in the background, with the engine's end soon, as a command leaves it."""
    asked = Supervision(restart=policy, restart_most=most)
    return engine.containers.run("busybox", command, name=name, supervision=asked)


def end(container: ContainerHandle) -> None:
    """Kill its process as something that goes wrong does: nobody has asked for it."""
    os.kill(container.pid, signal.SIGKILL)


def end_for_long(engine: Engine, container: ContainerHandle) -> None:
    """The same, as after many restarts: the next one waits for a minute."""
    with engine.context.database.transaction() as tx:
        engine.context.records.set_state(tx, container.id, restart_delay_ms=30_000)
    end(container)
    wait_until(lambda: container.status == "restarting", "the wait before the restart")
    assert container.record.restart_delay_ms == 60_000


def runs_again(container: ContainerHandle, pid: int) -> bool:
    new = container.pid
    return new not in {0, pid} and Path(f"/proc/{new}/cmdline").read_bytes().startswith(b"sleep")


def stopped_by(lamina: Lamina, name: str) -> str:
    with lamina.library() as engine:
        return engine.containers.get(name).record.stopped_by


def test_a_failing_container_is_started_as_often_as_it_may_be(lamina: Lamina):
    lamina("run", "-d", "--name", "box", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo begun; exit 3")
    with lamina.library() as engine:
        box = engine.containers.get("box")
        wait_until(lambda: box.record.restart_count == 2 and not box.record.is_up, "the third end")
        document = box.inspect()
        assert document["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
        assert (document["RestartCount"], document["State"]["ExitCode"], document["State"]["Status"]) == (2, 3, "exited")
        assert box.logs() == "begun\n" * 3
        box.start()  # a person's start counts anew
        wait_until(lambda: box.record.restart_count == 2 and not box.record.is_up, "the third end once more")


def test_who_waits_or_is_attached_hears_the_first_end(lamina: Lamina):
    done = lamina.result("run", "--name", "box", "--restart", "always", "busybox", "sh", "-c", "cat /proc/uptime; sleep 1; exit 5")
    assert (done.returncode, done.stdout.count("\n")) == (5, 1)
    assert lamina("wait", "box") == "5"
    with subprocess.Popen(lamina.command("run", "--name", "ended", "--restart", "always", "busybox", *FOREVER)) as run_:
        wait_until(lambda: "ended" in lamina("ps", "--format", "{{.Names}}"), "its start")
        run_.send_signal(signal.SIGQUIT)  # at a terminal Ctrl-\; pid 1 has no handler for it
        wait_until(lambda: stopped_by(lamina, "ended") == "user", "the stop that is remembered")
        lamina("kill", "ended")
        assert run_.wait() == 137
    assert "contradict" in lamina.error("run", "--rm", "--restart", "always", "busybox", "true", code=125)


@each_driver
def test_what_it_wrote_is_there_after_a_restart_and_in_a_commit_and_diff_in_between(lamina: Lamina):
    with lamina.library() as engine:
        box = run(engine, "always", "sh", "-c", "echo x >> /kept; exec sleep 1000000")
        wait_until(lambda: Path(box.root, "kept").exists(), "its file")
        end_for_long(engine, box)
        assert [change.path for change in box.diff()] == ["kept"]
        box.commit("made")
        box.start()
        pid = box.pid
        wait_until(lambda: Path(box.root, "kept").read_text() == "x\n" * 2, "the second run")
        end(box)
        wait_until(lambda: runs_again(box, pid) and Path(box.root, "kept").read_text() == "x\n" * 3, "the third run")
        assert engine.containers.output("made", ["cat", "/kept"]) == "x\n"


def test_stop_ends_a_restart_that_is_waited_for_and_start_hastens_it(lamina: Lamina):
    with lamina.library() as engine:
        box = run(engine, "always", *FOREVER)
        end_for_long(engine, box)
        assert lamina("ps", "--format", "{{.Status}}").startswith("Restarting (137) ")
        state = box.inspect()["State"]
        assert (state["Status"], state["Running"], state["Restarting"], state["Pid"]) == ("restarting", True, True, 0)
        assert "is restarting" in lamina.error("exec", box.name, "true", code=1)
        assert "is restarting" in lamina.error("rm", box.name, code=1)
        keeper = box.record.monitor_pid
        lamina("stop", box.name)
        assert box.status == "exited"
        wait_until(lambda: is_gone(keeper), "the keeper's end")
        box.start()
        end_for_long(engine, box)
        keeper = box.record.monitor_pid
        box.start()
        assert box.record.restart_count == 0
        wait_until(lambda: is_gone(keeper), "the keeper's end")
        lamina("rm", "--force", box.name)


def test_its_log_is_followed_from_one_run_to_the_next(lamina: Lamina, tmp_path: Path):
    heard = tmp_path / "heard"
    with lamina.library() as engine:
        box = run(engine, "always", "sh", "-c", "echo begun; exec sleep 1000000")
        with heard.open("w") as out, subprocess.Popen(lamina.command("logs", "-f", box.name), stdout=out) as follower:
            wait_until(lambda: heard.read_text() == "begun\n", "the first run's line")
            for count in (2, 3):
                end(box)
                wait_until(lambda wanted="begun\n" * count: heard.read_text() == wanted, "the next run's line")
            box.stop(timeout_s=0)
            assert follower.wait() == 0
    assert heard.read_text() == "begun\n" * 3


def test_a_restart_that_cannot_be_made_is_told_and_is_the_last(lamina: Lamina, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    with lamina.library() as engine:
        mounts = [MountRequest(type="bind", source=str(source), target="/source")]
        box = engine.containers.run("busybox", FOREVER, mounts=mounts, supervision=Supervision(restart="always"))
        source.rmdir()
        end(box)
        wait_until(lambda: box.status == "exited", "the failure")
        assert "doesn't exist" in box.inspect()["State"]["Error"]
        assert box.record.restart_count == 1


def test_another_policy_holds_for_the_next_end(lamina: Lamina):
    with lamina.library() as engine:
        box = engine.containers.run("busybox", FOREVER, name="box")
        lamina("update", "--restart", "always", "box")
        end_for_long(engine, box)
        keeper = box.record.monitor_pid
        lamina("update", "--restart", "no", "box")
        assert box.status == "exited"
        wait_until(lambda: is_gone(keeper), "the keeper's end")
        assert box.inspect()["HostConfig"]["RestartPolicy"]["Name"] == "no"


@pytest.mark.parametrize("how", ["stop", "kill", "rm"])
def test_what_a_person_ends_is_not_started_again(lamina: Lamina, how: str):
    with lamina.library() as engine:
        box = run(engine, "unless-stopped", *FOREVER)
        name, monitor = box.name, box.record.monitor_pid
        match how:
            case "stop":
                box.stop(timeout_s=0)
            case "kill":
                box.kill("HUP")  # no end, and no wish for one
                assert box.record.stopped_by == ""
                box.kill()
            case "rm":
                box.remove(force=True)
        wait_until(lambda: is_gone(monitor), "the finisher's end")
        if how != "rm":
            assert (box.status, box.record.stopped_by) == ("exited", "user")
        assert [each.name for each in engine.containers.all(running_only=True)] == []
        assert name


def test_a_killed_monitor_or_keeper_is_replaced_by_the_next_command(lamina: Lamina):
    with lamina.library() as engine:
        box = run(engine, "always", *FOREVER)
        first = box.record
        os.kill(first.monitor_pid, signal.SIGKILL)
        end(box)
        wait_until(lambda: is_gone(first.pid) and is_gone(first.monitor_pid), "both ends")
    lamina("ps")  # it settles what nobody has settled, and what is to run again gets a keeper
    with lamina.library() as engine:
        box = engine.containers.get(box.id)
        wait_until(lambda: runs_again(box, first.pid), "the restart")
        pid = box.pid
        end_for_long(engine, box)
        keeper = box.record.monitor_pid
        os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: is_gone(keeper), "the keeper's end")
        with engine.context.database.transaction() as tx:
            engine.context.records.set_state(tx, box.id, restart_delay_ms=100)
    lamina("ps")
    with lamina.library() as engine:
        box = engine.containers.get(box.id)
        wait_until(lambda: runs_again(box, pid), "the restart by another keeper")
        assert box.record.restart_count == 2


def test_the_unit_is_one_that_systemd_takes(lamina: Lamina, tmp_path: Path):
    root = f"{lamina.root}/100% a"
    unit = tmp_path / "lamina.service"
    unit.write_text(subprocess.run([PROGRAM, "--root", root, "system", "unit"], capture_output=True, text=True, check=True).stdout)
    assert f'ExecStart={PROGRAM} --root "{lamina.root}/100%% a" system start\n' in unit.read_text()
    verify = shutil.which("systemd-analyze")
    if verify is not None:  # not every machine with the kernel that we need has systemd
        done = subprocess.run([verify, "verify", str(unit)], capture_output=True, text=True, check=False)
        assert (done.returncode, str(unit) in done.stderr) == (0, False), done.stderr


def test_after_a_boot_those_run_that_should(lamina: Lamina):
    """The boot is another one because the records say so; with it went the processes, the mounts and the run directory."""
    wanted = {"always": "always", "unless": "unless-stopped", "failed": "on-failure", "plain": "no", "waiting": "always"}
    stopped = {"always-stopped": "always", "unless-stopped": "unless-stopped", "failed-stopped": "on-failure", "never": "always"}
    with lamina.library() as engine:
        boxes = [run(engine, policy, *FOREVER, name=name) for name, policy in {**wanted, **stopped}.items() if name != "never"]
        engine.containers.create("busybox", FOREVER, name="never", supervision=Supervision(restart="always"))
        for name in stopped:
            engine.containers.get(name).stop(timeout_s=0)
        end_for_long(engine, engine.containers.get("waiting"))
        running = [box.record for box in boxes if box.record.is_up]
        with engine.context.database.transaction() as tx:
            tx.execute("UPDATE containers SET boot = 'an-earlier-one' WHERE boot != ''")
        for record in running:
            os.kill(record.monitor_pid, signal.SIGKILL)
            if record.pid:
                os.kill(record.pid, signal.SIGKILL)
        wait_until(lambda: all(is_gone(each.pid) for each in running if each.pid), "the machine's end")
    for each in reversed(mountinfo.mounts()):
        if each.target.startswith(f"{lamina.root}/"):
            mount.unmount(each.target)
    shutil.rmtree(lamina.root / "run")
    assert lamina("ps", "--quiet") == ""  # no command but `system start` starts what a boot has ended
    assert lamina("system", "start").splitlines() == ["always", "unless", "failed", "waiting", "always-stopped"]
    assert sorted(lamina("ps", "--format", "{{.Names}}").splitlines()) == [
        "always",
        "always-stopped",
        "failed",
        "unless",
        "waiting",
    ]
    assert lamina("system", "start") == ""
    assert sorted(lamina("system", "stop", "--timeout", "0").splitlines()) == [
        "always",
        "always-stopped",
        "failed",
        "unless",
        "waiting",
    ]
    assert lamina("ps", "--quiet") == ""
    with lamina.library() as engine:
        assert process.boot_id() == engine.context.records.boot_of(engine.containers.get("unless").id)
    assert "unless" in lamina("system", "start").splitlines()  # the machine's end is no person's stop
