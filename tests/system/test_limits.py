"""Limits hold: memory, processes, processors, disks; what can't be held is refused; update, stats, inspect, info tell the truth.

The same tests run on version 1 and on version 2 of cgroups (`make vm-test`): what is written where is asked of the machine.
"""

import json
import os
import re
import time
from pathlib import Path

import pytest
from cases import FOREVER, Lamina, driver_of, is_gone, wait_until
from terminals import CTRL_C, Terminal

from lamina.linux import mount
from lamina.linux.cgroup import hierarchies
from lamina.runtime.cgroups import cgroup_of

pytestmark = pytest.mark.vm
MACHINE = hierarchies()
HOG = "x=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; while [ ${#x} -lt 200000000 ]; do x=$x$x; done"
"""A shell's variable that doubles until there is no memory; on an engine that sets no limit it leaves the machine some."""


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def held(container: str, controller: str, first: str, second: str) -> str:
    """What a container's cgroup has in a file: its name in version 1 and in version 2."""
    version = MACHINE.version(controller)
    return cgroup_of(container, None).read(controller, first if version == 1 else second).strip()


def test_a_hog_is_killed_for_want_of_memory_and_that_is_told(lamina: Lamina):
    lamina("run", "--name", "hog", "-m", "20m", "--memory-swap", "20m", "base", "sh", "-c", HOG, code=137)
    assert lamina.show("hog", "{{.State.OOMKilled}} {{.State.ExitCode}}") == "true 137"
    events = [json.loads(line) for line in lamina("events", "--since", "10m", "--until", "0s", "--format", "json").splitlines()]
    told = [each.get("Action") or each.get("status") for each in events if "hog" in json.dumps(each)]
    assert told.index("oom") < told.index("die")
    lamina("start", "hog")
    wait_until(lambda: lamina.status("hog") == "exited", "its second end", timeout_s=60)
    assert lamina.show("hog", "{{.State.OOMKilled}}") == "true"
    lamina("run", "--name", "modest", "-m", "20m", "base", "true")
    assert lamina.show("modest", "{{.State.OOMKilled}}") == "false"


def test_a_fork_bomb_is_held_and_removed_while_the_machine_stays_usable(lamina: Lamina):
    container = lamina.background("--pids-limit", "30", "base", "sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 1000000")
    wait_until(lambda: int(held(container, "pids", "pids.current", "pids.current")) >= 25, "processes")
    pids = cgroup_of(container, None).pids()
    assert len(pids) <= 30
    assert "can't fork" in lamina("logs", container) + lamina.result("logs", container).stderr
    assert lamina("run", "--rm", "base", "echo", "still here") == "still here"
    lamina("rm", "-f", container)
    assert all(is_gone(pid) for pid in pids)
    assert not cgroup_of(container, None).pids()


def test_processor_time_is_throttled_and_weights_and_processors_are_as_asked(lamina: Lamina):
    container = lamina.background(
        "--cpus", "0.1", "-c", "512", "--cpuset-cpus", "0", "base", "sh", "-c", "while :; do :; done"
    )  # fmt: skip

    def throttled() -> int:
        text = cgroup_of(container, None).read("cpu", "cpu.stat")
        return int(re.findall(r"^nr_throttled (\d+)", text, re.MULTILINE)[0])

    wait_until(lambda: throttled() >= 3, "being throttled", timeout_s=60)
    assert held(container, "cpu", "cpu.shares", "cpu.weight") == {1: "512", 2: "59"}[MACHINE.version("cpu")]
    assert lamina("exec", container, "grep", "Cpus_allowed_list", "/proc/self/status").split() == ["Cpus_allowed_list:", "0"]
    lamina("update", "--cpus", "0.2", container)
    lamina("update", "--cpu-quota", "30000", "--cpu-period", "60000", container)  # the other way to say it replaces it
    written = {1: ("30000", "60000"), 2: ("30000 60000",)}[MACHINE.version("cpu")]
    files = {1: ("cpu.cfs_quota_us", "cpu.cfs_period_us"), 2: ("cpu.max",)}[MACHINE.version("cpu")]
    assert tuple(cgroup_of(container, None).read("cpu", file).strip() for file in files) == written


def test_all_that_was_asked_is_written_before_the_first_instruction_and_shown_by_inspect(lamina: Lamina):
    asked = (
        "-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpus", "0.5", "--pids-limit", "50",
        "--cpuset-mems", "0",
    )  # fmt: skip
    version = MACHINE.version("memory")
    place = {1: "/sys/fs/cgroup/memory", 2: "/sys/fs/cgroup"}[version]
    files = {1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"),
             2: ("memory.max", "memory.swap.max", "memory.low")}[version]  # fmt: skip
    container = lamina("create", *asked, "base", "cat", *(f"{place}/{file}" for file in files))
    assert lamina("start", "-a", container).split() == [str(64 << 20), str((96 if version == 1 else 32) << 20), str(32 << 20)]
    shown = lamina.document(container)["HostConfig"]
    assert (shown["Memory"], shown["MemorySwap"], shown["MemoryReservation"]) == (64 << 20, 96 << 20, 32 << 20)
    assert (shown["NanoCpus"], shown["PidsLimit"], shown["CpusetMems"], shown["CgroupParent"]) == (500_000_000, 50, "0", "")
    lamina("update", "-m", "48m", "--memory-swap", "-1", container)  # it doesn't run: from its next start on
    assert lamina("start", "-a", container).split()[:2] == [
        str(48 << 20),
        "max" if version == 2 else str(2**63 // 4096 * 4096 - 4096),
    ]
    lamina("update", "-m", "48m", "--memory-swap", "48m", container)
    assert lamina("start", "-a", container).split()[1] == ("0" if version == 2 else str(48 << 20))


def test_update_changes_a_running_container_and_leaves_all_as_it_was_if_it_is_refused(lamina: Lamina):
    container = lamina.background("-m", "64m", "base", *FOREVER)
    for size in ("256m", "32m"):  # memory with swap must first grow, then shrink
        assert lamina("update", "-m", size, "--pids-limit", "40", container) == container
        assert held(container, "memory", "memory.limit_in_bytes", "memory.max") == str(int(size[:-1]) << 20)
    assert held(container, "pids", "pids.max", "pids.max") == "40"
    lamina("update", "--cpuset-cpus", "0", container)
    assert cgroup_of(container, None).read("cpuset", "cpuset.cpus").strip() == "0"
    status = Path(f"/proc/{lamina.pid(container)}/status").read_text(encoding="utf-8")
    assert "Cpus_allowed_list:\t0\n" in status
    assert "nothing is to be changed" in lamina.error("update", container, code=1)
    assert "too small" in lamina.error("update", "-m", "1m", container, code=1)
    use = "x=$(head -c 20000000 /dev/zero | tr '\\0' a); echo had; sleep 1000000 & wait"
    hogged = lamina.background("-m", "64m", "base", "sh", "-c", use)
    wait_until(lambda: lamina("logs", hogged) == "had", "the memory's use")
    if MACHINE.version("memory") == 1:  # version 2 makes it fit, or kills
        words = ("-m", "10m", "--memory-swap", "10m", "--pids-limit", "99")
        assert "more is in use" in lamina.error("update", *words, hogged, code=1)
        assert held(hogged, "memory", "memory.limit_in_bytes", "") == str(64 << 20)
        assert held(hogged, "pids", "pids.max", "pids.max") == "max"
    assert lamina.document(container)["HostConfig"]["Memory"] == 32 << 20


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("-m", "5m"), "too small"),
        (("--memory-swap", "10m"), "needs --memory"),
        (("-m", "20m", "--memory-swap", "10m"), "smaller than --memory"),
        (("-m", "20m", "--memory-reservation", "30m"), "larger than --memory"),
        (("--cpus", "999"), "invalid --cpus"),
        (("--cpus", "1", "--cpu-quota", "5000"), "can't be combined"),
        (("--cpu-period", "10"), "invalid --cpu-period"),
        (("--cpuset-cpus", "4095"), "this machine has"),
        (("--blkio-weight", "5"), "10 to 1000"),
        (("--oom-kill-disable",), "stop the whole machine"),
        (("--cgroup-parent", "/a/../b"), "invalid parent cgroup"),
        (("--device", "/dev/nothing-there"), "doesn't exist"),
        (("--device", "/dev/null:/dev/x:q"), "invalid device"),
        (("--device", "/etc/passwd"), "not a device"),
        (("--device-cgroup-rule", "z 1:1 r"), "invalid device rule"),
        (("--device-read-bps", "/dev/null:1m"), "not a block device"),
        (("--device-read-iops", "/dev/loop0:fast"), "operations in a second"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_meant_is_refused_in_one_line(lamina: Lamina, words: tuple[str, ...], why: str):
    done = lamina.result("create", *words, "base", "true")
    assert done.returncode in {1, 125}  # 125 where the option itself is malformed
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert lamina("ps", "-aq") == ""


def test_what_this_machine_cannot_hold_is_refused_before_anything_is_made(lamina: Lamina):
    wanted = [("--oom-kill-disable", "-m", "20m"), ("--memory-swappiness", "10")]
    if MACHINE.version("pids") == 1:  # a machine without that controller, as this test's own mount namespace is
        mount.unmount(MACHINE.controllers["pids"])
        wanted = [("--pids-limit", "10")]
        assert lamina("run", "--rm", "base", "echo", "fine without") == "fine without"
    for words in wanted:
        assert f"{words[0]} can't be held on this machine" in lamina.error("run", *words, "base", "true", code=125)
    assert lamina("ps", "-aq") == ""


def test_the_rate_of_a_disk_is_limited(lamina: Lamina, tmp_path: Path):
    device = disk_of(tmp_path)
    if device is None:
        device = next((f"/dev/{name}" for name in sorted(os.listdir("/sys/block")) if Path(f"/dev/{name}").is_block_device()), None)
    assert device is not None
    number = f"{os.major(os.stat(device).st_rdev)}:{os.minor(os.stat(device).st_rdev)}"
    container = lamina.background("--device-read-bps", f"{device}:1mb", "--device-write-iops", f"{device}:100", "base", *FOREVER)
    cgroup = cgroup_of(container, None)
    if MACHINE.version("io") == 2:
        assert cgroup.read("io", "io.max").split() == [number, "rbps=1048576", "wbps=max", "riops=max", "wiops=100"]
    else:
        assert cgroup.read("blkio", "blkio.throttle.read_bps_device").split() == [number, "1048576"]
        assert cgroup.read("blkio", "blkio.throttle.write_iops_device").split() == [number, "100"]
    rates = lamina.document(container)["HostConfig"]
    assert rates["BlkioDeviceReadBps"] == [{"Path": device, "Rate": 1048576}]
    assert rates["BlkioDeviceWriteIOps"] == [{"Path": device, "Rate": 100}]


def disk_of(path: Path) -> str | None:
    """The whole disk that a path's file system is on, if it is on one."""
    number = os.stat(path).st_dev
    try:
        name = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name
    except OSError:
        return None
    device = Path("/dev", name)
    return str(device) if device.is_block_device() and Path("/sys/block", name).exists() else None


def test_stats_count_processor_memory_and_processes(lamina: Lamina):
    busy = lamina.background(
        "--name", "busy", "-m", "64m", "base", "sh", "-c", "x=$(head -c 8000000 /dev/zero | tr '\\0' a); while :; do :; done"
    )
    lamina("create", "--name", "still", "base", "true")
    time.sleep(0.5)
    (line,) = lamina("stats", "--no-stream", "--format", "json").splitlines()
    row = json.loads(line)
    assert (row["ID"], row["Name"], row["Container"], row["PIDs"]) == (busy[:12], "busy", busy[:12], "1")
    assert float(row["CPUPerc"].removesuffix("%")) > 1
    used, limit = row["MemUsage"].split(" / ")
    assert limit == "64MiB"
    assert 6 < float(used.removesuffix("MiB")) < 64
    assert row["NetIO"] == "0B / 0B"
    with Terminal(lamina.command("stats", "--all"), columns=160) as terminal:
        mode = terminal.mode()
        for _ in range(2):  # the screen is drawn anew, from its first place on, until somebody has seen enough
            screen = terminal.expect(r"\x1b\[H\x1b\[J((?:[^\x1b\n]+\r\n){3})", timeout_s=30)[1]
            header, *rows = [re.split(r"\s{2,}", text.strip()) for text in screen.splitlines()]
            assert header == ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]
            shown = {name: words for _, name, *words in rows}
            assert shown["still"] == ["0.00%", "0B / 0B", "0.00%", "0B / 0B", "0B / 0B", "0"]
            percent, used, of_limit = (float(shown["busy"][each].partition("MiB")[0].rstrip("%")) for each in range(3))
            assert 1 < percent < 150, "one processor, counted a little early or late"
            assert of_limit == pytest.approx(used * 100 / 64, abs=0.1)
        terminal.type(CTRL_C)
        assert (terminal.wait(), terminal.mode()) == (130, mode)
    assert lamina("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "still") == "still 0"
    assert "no such container" in lamina.error("stats", "--no-stream", "nobody", code=1)


def test_info_tells_what_this_machine_can_hold(lamina: Lamina):
    with lamina.library() as engine:
        facts = engine.system.info()
    pure = MACHINE.unified == "/sys/fs/cgroup"
    assert (facts["CgroupDriver"], facts["CgroupVersion"]) == ("cgroupfs", "2" if pure else "1")
    assert all(facts[name] is True for name in ("MemoryLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit"))
    assert facts["OomKillDisable"] is (MACHINE.version("memory") == 1)
    assert f"Cgroup Version: {facts['CgroupVersion']}" in lamina("info")
