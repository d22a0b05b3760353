"""What to show, 10: signals as under Docker, orphans reaped with --init, stop, and a life beyond the terminal that began it."""

import os
import signal
import time
from pathlib import Path

import pytest
from cases import FOREVER, Lamina, driver_of, each_driver, is_gone, wait_until
from terminals import CTRL_C, Terminal

HANDLER = "trap 'echo got {0}' {0}; echo ready; while :; do sleep 0.02; done"


def ready(lamina: Lamina, *words: str) -> str:
    """A background container whose command has said that it is ready."""
    container = lamina.background(*words)
    wait_until(lambda: "ready" in lamina("logs", container), "the container's word")
    return container


def exit_code(lamina: Lamina, container: str) -> int:
    return int(lamina("wait", container))


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def test_without_a_handler_the_first_process_ignores_what_would_end_another(lamina: Lamina):
    container = lamina.background("base", *FOREVER)
    for name in ("TERM", "INT", "HUP", "SIGUSR1", "12"):
        lamina("kill", "-s", name, container)
    time.sleep(0.1)
    assert lamina.status(container) == "running"
    lamina("kill", container)
    assert (lamina.status(container), exit_code(lamina, container)) == ("exited", 137)


@pytest.mark.parametrize("name", ["TERM", "USR1", "HUP"])
def test_with_a_handler_it_runs(lamina: Lamina, name: str):
    container = ready(lamina, "base", "sh", "-c", HANDLER.format(name))
    lamina("kill", "--signal", name, container)
    wait_until(lambda: f"got {name}" in lamina("logs", container), "the handler's word")
    assert lamina.status(container) == "running"


@each_driver
def test_stop_asks_waits_and_then_kills(lamina: Lamina):
    container = lamina.background("base", *FOREVER)
    began = time.monotonic()
    lamina("stop", "-t", "1", container)
    assert 1 <= time.monotonic() - began < 8
    assert exit_code(lamina, container) == 137


def test_stop_ends_at_once_where_the_signal_is_handled(lamina: Lamina):
    container = ready(lamina, "base", "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done")
    began = time.monotonic()
    lamina("stop", "-t", "30", container)
    assert time.monotonic() - began < 10
    assert exit_code(lamina, container) == 5


def test_stop_sends_the_stop_signal_asked_for_and_waits_as_long_as_asked_for(lamina: Lamina):
    script = "trap 'echo got TERM' TERM; trap 'echo got USR2; exit 6' USR2; echo ready; while :; do sleep 0.02; done"
    container = ready(lamina, "--stop-signal", "USR2", "base", "sh", "-c", script)
    lamina("stop", container)
    assert exit_code(lamina, container) == 6
    assert lamina("logs", container) == "ready\ngot USR2"
    assert lamina.document(container)["Config"]["StopSignal"].removeprefix("SIG") == "USR2"
    quick = lamina.background("--stop-timeout", "0", "base", *FOREVER)
    began = time.monotonic()
    lamina("stop", quick)
    assert time.monotonic() - began < 5
    assert exit_code(lamina, quick) == 137


def test_run_in_front_passes_signals_on_and_gives_the_code_of_the_end(lamina: Lamina):
    import subprocess

    script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.02; done"
    with subprocess.Popen(lamina.command("run", "--rm", "base", "sh", "-c", script), stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        client.send_signal(signal.SIGTERM)
        assert client.stdout.read() == "got it\n"
        assert client.wait() == 3


def test_ctrl_c_in_front_without_a_terminal_of_its_own_reaches_the_container(lamina: Lamina):
    script = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.02; done"
    with Terminal(lamina.command("run", "--rm", "base", "sh", "-c", script)) as terminal:
        terminal.expect("ready")
        terminal.type(CTRL_C)
        terminal.expect("interrupted")
        assert terminal.wait() == 4


def test_a_command_that_a_signal_ends_gives_128_and_its_number(lamina: Lamina):
    lamina("run", "--rm", "--init", "base", "sh", "-c", "kill -TERM $$", code=143)
    lamina("run", "--rm", "--init", "base", "sh", "-c", "kill -KILL $$", code=137)
    container = lamina("run", "-d", "--init", "base", *FOREVER)
    lamina("kill", "-s", "TERM", container)
    assert exit_code(lamina, container) == 143


def states(pid: int) -> list[str]:
    """The states of the processes in the PID namespace of `pid`, itself apart: Z for a dead one that nobody reaps."""
    wanted = os.readlink(f"/proc/{pid}/ns/pid")
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(name) != pid and os.readlink(f"/proc/{name}/ns/pid") == wanted:
                found.append(words[0])
        except OSError:
            try:  # a zombie's links can't be read any more
                if words[0] == "Z" and words[1] == str(pid):
                    found.append("Z")
            except (UnboundLocalError, IndexError):
                pass
    return found


def test_orphans_are_reaped_with_init_and_stay_dead_without(lamina: Lamina):
    """The first process reaps nothing by itself: it is a sleep, put there by exec after the orphans were made."""
    make = "for each in 1 2 3; do (sleep 0.05 & exec true); done; exec sleep 1000000"
    without = lamina.background("base", "sh", "-c", make)
    with_init = lamina.background("--init", "base", "sh", "-c", make)
    wait_until(lambda: states(lamina.pid(without)).count("Z") >= 3, "dead orphans without --init")
    wait_until(lambda: len(states(lamina.pid(with_init))) == 1, "the end of every orphan with --init")
    assert "Z" not in states(lamina.pid(with_init))


def test_with_init_the_command_is_its_child_gets_the_signals_and_says_the_code(lamina: Lamina):
    container = ready(
        lamina, "--init", "base", "sh", "-c", "echo pid $$; trap 'exit 9' USR1; echo ready; while :; do sleep 0.02; done"
    )
    assert lamina("logs", container).splitlines()[0] == "pid 2"
    lamina("kill", "-s", "USR1", container)
    assert exit_code(lamina, container) == 9
    lamina("run", "--rm", "--init", "base", "sh", "-c", "exit 42", code=42)
    lamina("run", "--rm", "--init", "base", "nowhere", code=127)
    quick = lamina.background("--init", "base", *FOREVER)
    began = time.monotonic()
    lamina("stop", "-t", "20", quick)
    assert time.monotonic() - began < 10, "with an init TERM ends a sleep"
    assert exit_code(lamina, quick) == 143


@each_driver
def test_a_background_container_outlives_the_terminal_that_started_it(lamina: Lamina):
    command = " ".join(lamina.command("run", "-d", "--name", "survivor", "base", *FOREVER))
    with Terminal(["/bin/sh", "-i"]) as terminal:
        terminal.type(command + "\n")
        terminal.expect(r"[0-9a-f]{64}\r\n")
        leader = terminal.pid
        terminal.hang_up()
        wait_until(lambda: is_gone(leader), "the end of the shell")
    time.sleep(0.1)
    pid = lamina.pid("survivor")
    assert not is_gone(pid)
    assert lamina("exec", "survivor", "echo", "alive") == "alive"
    assert os.getsid(pid) != leader
    with lamina.library() as engine:
        assert os.getsid(engine.containers.get("survivor").record.monitor_pid) != leader


def test_a_container_in_front_that_was_left_outlives_its_terminal_too(lamina: Lamina):
    with Terminal(lamina.command("run", "-it", "--name", "survivor", "base", "sh")) as terminal:
        terminal.expect("/ # ")
        terminal.hang_up()
        wait_until(lambda: is_gone(terminal.pid), "the end of the client")
    assert lamina.status("survivor") == "running"


@each_driver
def test_nothing_of_a_container_outlives_its_first_process(lamina: Lamina):
    container = ready(
        lamina, "base", "sh", "-c", "for each in 1 2 3; do setsid sleep 1000000 & done; echo ready; sleep 1000000 & wait"
    )
    with lamina.library() as engine:
        record = engine.containers.get(container).record
        inside = engine.control.pids(record)
    assert len(inside) == 5
    lamina("stop", "-t", "0", container)
    assert all(is_gone(pid) for pid in [*inside, record.monitor_pid])


def test_signals_to_what_does_not_run_are_refused_in_one_line(lamina: Lamina):
    container = lamina("create", "base", "true")
    assert "not running" in lamina.error("kill", container, code=1)
    assert "'NONSENSE'" in lamina.error("kill", "-s", "NONSENSE", container, code=1)
    lamina("stop", container)


def test_the_init_process_shows_nothing_of_the_host(lamina: Lamina) -> None:
    """What the engine was started with, its words and its environment, is the host's affair."""
    shown = lamina(
        "run",
        "--rm",
        "--init",
        "busybox",
        "sh",
        "-c",
        "tr '\\0' ' ' < /proc/1/cmdline; tr '\\0' ' ' < /proc/1/environ; cat /proc/1/comm",
    )
    assert shown.split() == ["lamina-init", "lamina-init"]
