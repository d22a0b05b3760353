"""Namespaces that are shared, limits and settings that a container is born with, as its processes see them; what is refused."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from cases import FOREVER, Lamina, driver_of, is_gone, namespaces, wait_until

from lamina.errors import LaminaError
from lamina.linux import process
from lamina.model.isolation import Isolation, Ulimit


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def test_what_one_container_is_born_with(lamina: Lamina):
    """All in one container, as its first process sees it, as `exec` sees it, and as `inspect` tells it."""
    options = (
        "--ulimit", "nofile=100:200", "--ulimit", "core=0", "--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=1234",
        "--sysctl", "fs.mqueue.msg_max=7", "--shm-size", "1m", "--group-add", "wheel", "--group-add", "4711", "-u", "alice",
        "--oom-score-adj", "700", "--ipc", "shareable",
    )  # fmt: skip
    see = "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; id -G"
    container = lamina.background(*options, "base", "sh", "-c", f"{see}; exec sleep 1000000")
    expected = "100\n200\n0\n700\n1000 10 4711"
    wait_until(lambda: lamina("logs", container) == expected, "what the first process sees")
    assert lamina("exec", container, "sh", "-c", see) == expected
    settings = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max; df -k /dev/shm | tail -1"
    assert lamina("exec", container, "sh", "-c", settings).split()[:5] == ["1", "1234", "7", "tmpfs", "1024"]
    config = lamina.document(container)["HostConfig"]
    assert config["Ulimits"] == [{"Name": "nofile", "Hard": 200, "Soft": 100}, {"Name": "core", "Hard": 0, "Soft": 0}]
    assert config["Sysctls"] == {"net.ipv4.ip_forward": "1", "kernel.msgmax": "1234", "fs.mqueue.msg_max": "7"}
    shown = {name: config[name] for name in ("ShmSize", "GroupAdd", "OomScoreAdj", "IpcMode", "PidMode", "UTSMode", "UsernsMode")}
    assert shown == {
        "ShmSize": 1 << 20, "GroupAdd": ["wheel", "4711"], "OomScoreAdj": 700, "IpcMode": "shareable", "PidMode": "", "UTSMode": "",
        "UsernsMode": "host",
    }  # fmt: skip
    assert config["CgroupnsMode"] == "private"


def test_any_user_may_listen_on_any_port_of_its_own_network_and_ping(lamina: Lamina):
    names = ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/net/ipv4/ping_group_range")
    assert lamina("run", "--rm", "base", "cat", *names).split() == ["0", "0", "2147483647"]
    assert Path(names[1]).read_text(encoding="ascii").split() != ["0", "2147483647"], "the host's own was changed"


def test_what_is_asked_is_refused_before_the_start_where_it_cannot_be_had(lamina: Lamina):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    able = process.CAPABILITIES.index("SYS_RESOURCE") in process.own_capabilities()
    cases = {
        f"nofile={hard + 1}": "the hard limit here is",
        "nofile=unlimited": "the hard limit here is",
    }
    with lamina.library() as engine:
        if not able:
            for text, message in cases.items():
                assert message in lamina.error("run", "--rm", "--ulimit", text, "base", "true", code=125)
            with pytest.raises(LaminaError, match="the score for running out of memory can't be -1: it is 0 here"):
                engine.containers.create("base", ["true"], isolation=Isolation(oom_score_adj=-1))
            with pytest.raises(LaminaError, match="ulimit 'nofile' can't be"):
                engine.containers.create("base", ["true"], isolation=Isolation(ulimits=(Ulimit("nofile", 1, hard + 1),)))
        for asked, message in (
            (Isolation(oom_score_adj=1001), "invalid --oom-score-adj '1001'"),
            (Isolation(sysctls={"kernel/core_pattern": "x"}), "'kernel.core_pattern' would be set for others"),
            (Isolation(sysctls={"net/../kernel/sem": "x"}), "would be set for others"),
            (Isolation(sysctls={"net/ipv4/not_there": "1"}), "no such sysctl: 'net.ipv4.not_there'"),
            (Isolation(sysctls={"net/ipv4/ip_forward": "a"}), "refuses 'a': 'net.ipv4.ip_forward'"),
            (Isolation(groups=("nobodys",)), "no such group in the container's /etc/group: 'nobodys'"),
            (Isolation(ipc="host", sysctls={"kernel/sem": "1"}), "'kernel.sem' would be set for others"),
        ):
            with pytest.raises(LaminaError, match=message):
                engine.containers.create("base", ["true"], isolation=asked).start()
        for container in engine.containers.all():
            container.remove()
        with pytest.raises(LaminaError, match="would be set for others"):
            engine.containers.create("base", ["true"], network="host", isolation=Isolation(sysctls={"net/ipv4/ip_forward": "1"}))
        with pytest.raises(LaminaError, match="has the host's name"):
            engine.containers.create("base", ["true"], hostname="own", isolation=Isolation(uts="host"))
        assert not engine.containers.all()


def test_the_hosts_pid_uts_and_cgroup_namespaces(lamina: Lamina):
    """Of what is started there all ends with the first process; `top`, `pause` and `stop` mean the container's processes alone."""
    bystander = subprocess.Popen(["sleep", "1000001"])
    try:
        script = "trap : TERM; sleep 1000002 & sleep 1000003 & wait"
        container = lamina.background("--pid", "host", "--uts", "host", "--cgroupns", "host", "base", "sh", "-c", script)
        inside, here = namespaces(lamina.pid(container)), namespaces("self")
        assert {kind for kind in inside if inside[kind] == here[kind]} >= {"pid", "uts", "cgroup", "user"}
        assert {kind for kind in ("mnt", "ipc", "net") if inside[kind] != here[kind]} == {"mnt", "ipc", "net"}
        assert lamina("exec", container, "hostname") == os.uname().nodename
        assert lamina("exec", container, "test", "-d", f"/proc/{bystander.pid}") == ""
        lamina("exec", "-d", container, "sleep", "1000004")
        with lamina.library() as engine:
            handle = engine.containers.get(container)
            record = engine.context.records.find(container)
            wait_until(lambda: len(engine.control.pids(record)) == 4, "the container's four processes")
            pids = engine.control.pids(record)
            assert bystander.pid not in pids
            handle.pause()
            states = [Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] for pid in pids]
            assert "Z" not in states
            assert bystander.poll() is None
            handle.unpause()
            handle.stop()
        wait_until(lambda: all(is_gone(pid) for pid in pids), "the end of all that it had started")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_another_containers_pid_and_ipc_namespaces(lamina: Lamina):
    first = lamina.background(
        "--name", "first", "--ipc", "shareable", "base", "sh", "-c", "echo shared > /dev/shm/file; sleep 1000000; true"
    )
    wait_until(lambda: lamina.result("exec", first, "test", "-s", "/dev/shm/file").returncode == 0, "the file in /dev/shm")
    second = lamina.background("--pid", "container:first", "--ipc", f"container:{first[:12]}", "base", *FOREVER)
    one, other = namespaces(lamina.pid(first)), namespaces(lamina.pid(second))
    assert {kind for kind in one if one[kind] == other[kind]} >= {"pid", "ipc"}
    assert one["mnt"] != other["mnt"]
    assert lamina("exec", second, "cat", "/dev/shm/file") == "shared"
    assert lamina("exec", second, "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '").startswith("sh -c echo shared")
    with lamina.library() as engine:
        pids = engine.control.pids(engine.context.records.find(second))
        assert pids == [lamina.pid(second)]
        assert engine.containers.get(second).inspect()["HostConfig"]["PidMode"] == f"container:{first}"
        engine.containers.get("first").kill()
        assert engine.containers.get(second).wait() == 137
    assert is_gone(pids[0])
    lamina.error("start", second, code=1)
    private = lamina.background("base", *FOREVER)
    assert "--ipc shareable" in lamina.error("run", "--rm", "--ipc", f"container:{private}", "base", "true", code=125)


def test_the_hosts_ipc_and_none(lamina: Lamina):
    container = lamina.background("--ipc", "host", "base", *FOREVER)
    assert namespaces(lamina.pid(container))["ipc"] == namespaces("self")["ipc"]
    assert lamina("run", "--rm", "--ipc", "none", "base", "ls", "/dev").split().count("shm") == 0


def test_an_init_reaps_in_the_hosts_pid_namespace_too(lamina: Lamina):
    script = "(sleep 0.1 &) ; sleep 0.3; cat /proc/*/stat 2>/dev/null | grep -c '(sleep) Z' || true"
    assert lamina("run", "--rm", "--init", "--pid", "host", "base", "sh", "-c", script) == "0"


def test_own_files_of_proc_are_those_of_the_host_in_a_new_pid_namespace(tmp_path: Path):
    """There getpid(2) is 1, and /proc/1 of a /proc of outside is another's."""
    code = (
        "import os; from lamina.linux import namespace as n, procfs; n.unshare(n.CLONE_NEWPID)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    procfs.write_in_proc('self/comm', 'written')\n"
        "    os._exit(open('/proc/self/comm').read() != 'written\\n')\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 0
