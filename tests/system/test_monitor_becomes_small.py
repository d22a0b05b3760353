"""A monitor that executes itself anew after five seconds, unnoticed by what it carries: output, input, logs, exit codes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cases import Lamina, driver_of


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    """One driver a test: a monitor knows of none."""
    return driver_of(request)


def small_monitor(lamina: Lamina, name: str) -> int:
    """Wait until the container's monitor has become small; gives its pid, which is what it was."""
    with lamina.library() as engine:
        pid = engine.containers.get(name).record.monitor_pid
    deadline = time.monotonic() + 30
    while b"lamina-monitor" not in Path(f"/proc/{pid}/cmdline").read_bytes() or "/memfd" in open_files(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return pid


def open_files(pid: int) -> list[str]:
    """What a process has open, descriptors 0 to 2 aside."""
    return sorted(os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{pid}/fd") if int(fd) > 2)


def test_a_line_that_is_half_written_is_one_line_in_the_log(lamina: Lamina):
    words = "printf one-; until [ -e /go ]; do sleep 0.1; done; echo two; exit 7"
    container = lamina.background("--name", "half", "busybox", "sh", "-c", words)
    pid = small_monitor(lamina, "half")
    held = open_files(pid)
    log = f"{lamina.root}/containers/{container}/{container}-json.log"
    assert held == sorted([log, "anon_inode", "pipe", "pipe", "socket"])  # the container's end, its two outputs, clients to come
    attached = subprocess.Popen(lamina.command("attach", "half"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    while len(open_files(pid)) == len(held):
        time.sleep(0.02)
    lamina("exec", "half", "touch", "/go")
    assert attached.communicate(timeout=30) == ("two\n", None)
    assert attached.returncode == 7
    assert lamina("wait", "half") == "7"
    assert lamina("logs", "half") == "one-two"
    died = lamina("events", "--since", "5m", "--until", "0s", "--filter", "event=die", "--format", "{{json .Actor.Attributes}}")
    assert '"exitCode":"7"' in died


def test_the_one_who_started_it_goes_on_giving_input_and_hearing_output(lamina: Lamina):
    process = subprocess.Popen(
        lamina.command("run", "--rm", "-i", "--name", "talk", "busybox", "sh", "-c", "read a; echo got $a; read b; exit $b"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while lamina.result("inspect", "talk").returncode:
        time.sleep(0.05)
    small_monitor(lamina, "talk")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("this\n")
    process.stdin.flush()
    assert process.stdout.readline() == "got this\n"
    process.stdin.write("9\n")
    process.stdin.close()
    assert process.wait(timeout=30) == 9
    process.stdout.close()
    assert lamina("ps", "-aq") == ""


def test_it_imports_few_modules():
    """What they are decides how much memory each container costs."""
    program = "import sys; sys.path.insert(0, sys.argv[1]); import lamina.runtime.watch; print(len(sys.modules), *sys.modules)"
    core = str(Path(__file__).parents[2] / "core")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program, core], capture_output=True, text=True, check=True)
    count, *names = done.stdout.split()
    assert int(count) <= 75
    assert not {"typing", "ctypes", "inspect", "dataclasses", "sqlite3", "logging", "subprocess"} & set(names)
