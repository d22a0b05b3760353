"""Every container has a cgroup of its own, from before its first process until after its last; and its devices are Docker's."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from cases import FOREVER, Lamina, driver_of, is_gone, wait_until
from leaks import cgroups
from straces import strace

from lamina.linux import mount
from lamina.linux.cgroup import Cgroup, hierarchies
from lamina.linux.device_filter import attach
from lamina.runtime.cgroups import CONTROLLERS, DEVICE_RULES, cgroup_of, set_frozen

pytestmark = pytest.mark.vm
MACHINE = hierarchies()


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def places(pid: int) -> set[str]:
    """The cgroups that a process is in, but those that every process is in."""
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    return {line.split(":", 2)[2] for line in lines} - {"/"}


def test_the_first_process_and_those_of_exec_are_in_the_containers_cgroup_and_the_monitor_is_not(lamina: Lamina):
    container = lamina.background("base", *FOREVER)
    lamina("exec", "-d", container, *FOREVER)
    cgroup = cgroup_of(container, None)
    wait_until(lambda: len(cgroup.pids()) == 2, "the second process")
    for pid in cgroup.pids():
        assert f"/lamina/{container}" in places(pid)
        inside = {directory for directory in cgroup.directories(CONTROLLERS) if str(pid) in read_procs(directory)}
        assert inside == set(cgroup.directories(CONTROLLERS))
    with lamina.library() as engine:
        record = engine.containers.get(container).record
    assert record.monitor_pid not in cgroup.pids()
    assert sorted(row.split()[1] for row in lamina("top", container).splitlines()[1:]) == sorted(map(str, cgroup.pids()))
    lamina("rm", "-f", container)
    assert not [path for path in cgroups() if path.endswith(container)]


def read_procs(directory: str) -> list[str]:
    return Path(directory, "cgroup.procs").read_text(encoding="ascii").split()


def test_a_builds_command_has_a_cgroup_too(lamina: Lamina, tmp_path: Path):
    command = "cat $(find /sys/fs/cgroup -name cgroup.procs) > /seen && mknod /tmp/kmsg c 1 11 && ! (: </tmp/kmsg)"
    (tmp_path / "Dockerfile").write_text(f"FROM base\nRUN {command}\n", encoding="utf-8")
    lamina("build", "-q", "-t", "built", str(tmp_path), timeout_s=100)
    seen = lamina("run", "--rm", "built", "cat", "/seen").split()
    assert "1" in seen
    assert "0" not in seen  # as a process of another PID namespace would be shown, that is in the same cgroup


def test_a_container_sees_its_own_cgroup_alone_and_can_write_nothing_there(lamina: Lamina):
    pure = MACHINE.unified == "/sys/fs/cgroup"
    limit = "/sys/fs/cgroup/memory.max" if pure else "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    container = lamina.background("-m", "32m", "base", *FOREVER)
    assert lamina("exec", container, "cat", limit) == str(32 << 20)
    found = lamina(
        "exec", container, "find", "/sys/fs/cgroup", "-name", "cgroup.procs", "-o", "-name", "release_agent"
    ).splitlines()
    assert len(found) == len(cgroup_of(container, None).directories(CONTROLLERS))
    assert all(path.endswith("/cgroup.procs") for path in found)
    script = (
        "for file in $(find /sys/fs/cgroup -type f -perm -200); do (: >>$file) 2>/dev/null && echo open $file; done;"
        " mkdir $(dirname $file)/mine || echo refused"
    )
    done = lamina.result("exec", container, "sh", "-c", script)
    assert done.stdout == "refused\n"
    assert "Read-only file system" in done.stderr


def test_devices_are_denied_but_the_harmless_ones_and_those_that_were_given(lamina: Lamina):
    try_all = (
        "for pair in 'b 8 0' 'b 7 0' 'c 1 11' 'c 1 1' 'c 10 229'; do rm -f /tmp/d; mknod /tmp/d $pair || echo no node;"
        " head -c1 /tmp/d 2>&1; done; head -c2 /dev/zero | wc -c; head -c1 /dev/full /dev/random >/dev/null && echo fine"
    )
    lines = lamina("run", "--rm", "base", "sh", "-c", try_all).splitlines()
    assert [line.rpartition(": ")[2] for line in lines[:-2]] == ["Operation not permitted"] * 5
    assert lines[-2:] == ["2", "fine"]
    look = ": <>/dev/fuse && stat -c '%t:%T' /dev/fuse"
    opened = lamina("run", "--rm", "--device", "/dev/fuse", "base", "sh", "-c", look)
    assert opened == "a:e5"
    made = "mknod /f c 10 229 && : </f && : >/f"
    rule = lamina.result("run", "--rm", "--device-cgroup-rule", "c 10:229 rm", "base", "sh", "-c", made)
    assert "can't create /f: Operation not permitted" in rule.stderr
    moved = "ls -l /dev/other/fuse /there; : </there && echo read; (: >/there) 2>/dev/null || echo not written"
    given = ("--device", "/dev/fuse:/there:r", "--device", "/dev/fuse:/dev/other/fuse:r")
    lines = lamina("run", "--name", "moved", *given, "base", "sh", "-c", moved).splitlines()
    assert [line[0] for line in lines[:2]] == ["c", "c"]
    assert lines[2:] == ["read", "not written"]
    assert lamina("diff", "moved") == ""  # the node is in no layer
    hosted = lamina.document("moved")["HostConfig"]["Devices"]
    assert hosted[0] == {"PathOnHost": "/dev/fuse", "PathInContainer": "/there", "CgroupPermissions": "r"}


def test_a_directory_of_devices_is_given_whole(lamina: Lamina, tmp_path: Path):
    (tmp_path / "card/sub").mkdir(parents=True)
    os.mknod(tmp_path / "card/one", 0o020640, os.makedev(1, 3))
    os.mknod(tmp_path / "card/sub/two", 0o020600, os.makedev(1, 5))
    (tmp_path / "card/text").write_text("no device", encoding="ascii")
    shown = lamina(
        "run", "--rm", "--device", f"{tmp_path}/card:/dev/card", "base", "sh", "-c", "cd /dev/card; find . -type c | sort"
    )
    assert shown.splitlines() == ["./one", "./sub/two"]


def test_all_that_is_left_is_killed_at_the_end_and_by_recovery(lamina: Lamina):
    container = lamina.background("base", *FOREVER)
    cgroup = cgroup_of(container, None)
    pid = os.fork()  # as one that shares the host's PID namespace would be: it doesn't end with the first process
    if pid == 0:
        time.sleep(1000)
        os._exit(0)
    for directory in cgroup.directories(CONTROLLERS):
        Path(directory, "cgroup.procs").write_text(str(pid), encoding="ascii")
    with lamina.library() as engine:
        record = engine.containers.get(container).record
    for each in (record.monitor_pid, record.pid):
        os.kill(each, signal.SIGKILL)
    wait_until(lambda: is_gone(record.pid) and is_gone(record.monitor_pid), "their end")
    assert not is_gone(pid)
    lamina("ps")
    assert is_gone(pid)
    os.waitpid(pid, 0)
    assert not [path for path in cgroups() if path.endswith(container)]


def test_its_parent_is_the_one_that_was_asked_for(lamina: Lamina):
    container = lamina.background("--cgroup-parent", "/lamina-test/below", "-m", "32m", "base", *FOREVER)
    try:
        assert f"/lamina-test/below/{container}" in places(lamina.pid(container))
        lamina("pause", container)
        lamina("unpause", container)
        lamina("exec", container, "true")
        lamina("rm", "-f", container)
        for directory in Cgroup(MACHINE, "lamina-test/below").directories(CONTROLLERS):
            assert not os.path.exists(f"{directory}/{container}")
    finally:
        for name in ("lamina-test/below", "lamina-test"):
            Cgroup(MACHINE, name).remove()


def test_a_hybrid_machine_freezes_kills_and_keeps_from_devices_by_whichever_version_has_it(lamina: Lamina):
    if MACHINE.unified == "/sys/fs/cgroup":
        return  # there is no version 1 here
    assert MACHINE.unified
    assert MACHINE.freezer == MACHINE.controllers["freezer"]
    for gone in ("freezer", "devices"):  # in this test's own mount namespace
        mount.unmount(MACHINE.controllers[gone])
    assert hierarchies().freezer == MACHINE.unified
    container = lamina.background(
        "base", "sh", "-c", "mknod /d c 1 11; (: </d) 2>/dev/null || echo denied; while :; do sleep 1 & wait; done"
    )
    cgroup = cgroup_of(container, None)
    lamina("pause", container)
    assert "frozen 1" in Path(cgroup.machine.unified, cgroup.name, "cgroup.events").read_text(encoding="ascii")
    lamina("unpause", container)
    lamina("exec", container, "true")
    assert lamina("logs", container) == "denied"
    lamina("pause", container)
    pids = cgroup.pids()
    assert pids
    lamina("rm", "-f", container)
    assert all(is_gone(pid) for pid in pids)
    assert not [path for path in cgroups() if path.endswith(container)]


def test_processes_are_born_in_a_cgroup_of_version_2_as_entering_it_takes_its_time(lamina: Lamina, tmp_path: Path):
    """Who writes to its cgroup.procs waits for a grace period of RCU."""
    if MACHINE.unified != "/sys/fs/cgroup":
        mount.unmount(MACHINE.controllers["devices"])  # in this test's own mount namespace: then version 2 has a part in it
    container = lamina.background("base", *FOREVER)
    for words in (("run", "--rm", "base"), ("exec", container)):
        done = strace([*lamina.command(*words), "cat", "/proc/self/cgroup"], tmp_path / "strace")
        (own,) = (line for line in done.stdout.splitlines() if line.startswith("0::"))
        assert own == "0::/", "the top of the cgroup namespace"
        told = (tmp_path / "strace").read_text(encoding="utf-8", errors="replace")
        assert len(re.findall(r"clone3\(\{flags=[A-Z_|]*CLONE_INTO_CGROUP", told)) == 1
        assert not re.findall(r'cgroup\.procs", O_(?:WRONLY|RDWR)', told)


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_whoever_is_left_in_a_cgroup_is_killed_when_it_is_removed(lamina: Lamina, frozen: bool):
    del lamina  # for its mount namespace, and to see that nothing is left
    other = cgroup_of("left-over", None)
    other.make(CONTROLLERS)
    pid = os.fork()
    if pid == 0:
        time.sleep(1000)
        os._exit(0)
    for directory in other.directories(CONTROLLERS):
        Path(directory, "cgroup.procs").write_text(str(pid), encoding="ascii")
    if frozen:
        set_frozen(other, frozen=True)
    other.remove()
    os.waitpid(pid, 0)
    assert not other.pids()


def test_version_2_keeps_to_the_device_rules_by_a_program_of_the_kernels(tmp_path: Path):
    """Where version 1 has the controller too, the program is tried on a cgroup of its own."""
    assert MACHINE.unified
    directory = Path(MACHINE.unified, f"lamina-filter-{os.getpid()}")
    directory.mkdir()
    try:
        attach(str(directory), (*DEVICE_RULES, "c 1:11 r", "b 7:* w"))
        wanted = {
            ("c", 1, 3, os.O_RDWR): True, ("c", 1, 9, os.O_RDONLY): True, ("c", 1, 11, os.O_RDONLY): True,
            ("c", 1, 11, os.O_WRONLY): False, ("c", 1, 1, os.O_RDONLY): False, ("b", 8, 0, os.O_RDONLY): False,
            ("b", 7, 0, os.O_RDONLY): False,
        }  # fmt: skip
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            (directory / "cgroup.procs").write_text("0", encoding="ascii")
            for index, (kind, major, minor, flags) in enumerate(wanted):
                path = tmp_path / str(index)
                os.mknod(path, 0o600 | (0o020000 if kind == "c" else 0o060000), os.makedev(major, minor))
                try:
                    os.close(os.open(path, flags | os.O_NONBLOCK))
                    os.write(write_fd, b"y")
                except PermissionError:
                    os.write(write_fd, b"n")
                except OSError:
                    os.write(write_fd, b"y")  # no such device: it was asked for, and not denied
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(write_fd)
        answers = os.read(read_fd, 100).decode()
        os.close(read_fd)
        assert {key: answer == "y" for key, answer in zip(wanted, answers, strict=True)} == wanted
    finally:
        directory.rmdir()
