"""Containers that take what they can get, of descriptors and of room in their log: held, entered and removed like any other.

Hogs of memory and of processes are in `test_limits.py`.
"""

import os
from pathlib import Path

import pytest
from cases import Lamina, driver_of, is_gone, wait_until

from lamina.runtime.cgroups import cgroup_of

PROCESSES, LIMIT, WANTED = 10, 64, 3000
LOG_BYTES = 100 << 10


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def test_a_hog_of_descriptors_stops_at_its_limit_and_is_entered_and_removed(lamina: Lamina):
    hog = f"for i in $(seq {PROCESSES}); do tail -f $(yes /single | head -n {WANTED}) & done; wait; exec sleep 1000000"
    container = lamina.background("--ulimit", f"nofile={LIMIT}", "base", "sh", "-c", hog)

    def opened() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in cgroup_of(container, None).pids() if not is_gone(pid)]

    wait_until(lambda: lamina.result("logs", container).stderr.count("Too many open files") >= PROCESSES, "what can't be had")
    assert max(opened()) <= LIMIT
    assert lamina("exec", container, "echo", "entered") == "entered"
    assert lamina("run", "--rm", "base", "echo", "still here") == "still here"
    pids = cgroup_of(container, None).pids()
    lamina("rm", "-f", container)
    assert all(is_gone(pid) for pid in pids)


def test_a_flood_of_output_keeps_to_the_logs_size_and_its_monitor_small(lamina: Lamina):
    options = ("--log-opt", f"max-size={LOG_BYTES}", "--log-opt", "max-file=2")
    container = lamina.background(*options, "base", "yes", "x" * 200)
    log = Path(lamina.document(container)["LogPath"])
    rotated = log.with_name(f"{log.name}.1")

    def files() -> list[Path]:
        return sorted(log.parent.glob(f"{log.name}*"))

    wait_until(rotated.exists, "a rotation")
    first = rotated.read_bytes().partition(b"\n")[0]
    wait_until(lambda: first != rotated.read_bytes().partition(b"\n")[0], "another one, which deletes what the first has kept")
    with lamina.library() as engine:
        handle = engine.containers.get(container)
        for _ in range(20):
            assert len(files()) <= 2
            assert sum(file.stat().st_size for file in files()) < 2 * LOG_BYTES + (64 << 10)
            monitor = Path(f"/proc/{handle.record.monitor_pid}/status").read_text(encoding="ascii", errors="replace")
            assert int(monitor.partition("VmRSS:")[2].split()[0]) < 60 << 10, "kB"
        assert handle.exec_output(["echo", "entered"]) == "entered\n"
    lamina("rm", "-f", container)
    assert files() == []
