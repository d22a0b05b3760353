"""What to show, 7: `--trace` names every system call that changes the system, in its order. strace(1) is the judge."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cases import FOREVER, Lamina, driver_of, each_driver
from straces import changing_calls, strace

from lamina.linux.cgroup import hierarchies
from lamina.runtime.confinement import apparmor_profile

pytestmark = pytest.mark.vm  # version 2 of cgroups has other calls, and before 6.7 an overlay is mounted in another way

ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1"}  # else Python's cache of our own modules is written on the way


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


@pytest.fixture(autouse=True)
def needs_strace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("strace"), "install the package strace"
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    apparmor_profile(None, loads=True)  # as a first start after a boot does, by a program of which strace tells, too


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def traced_calls(path: Path) -> dict[int, list[str]]:
    calls: dict[int, list[str]] = {}
    for row in rows(path):
        if row["kind"] == "call":
            calls.setdefault(row["pid"], []).append("clone" if row["name"] == "clone3" else row["name"])
    return calls


def both(lamina: Lamina, tmp_path: Path, *words: str) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Run a command under strace and traced by ourselves; gives both accounts, pid to calls."""
    ours, theirs = tmp_path / "trace.json", tmp_path / "strace"
    done = strace(lamina.command(words[0], "--trace=json", "--trace-file", str(ours), *words[1:]), theirs)
    assert done.returncode == 0, done.stderr
    return traced_calls(ours), changing_calls(theirs)


RUNS = {
    "plain": ("--rm", "base", "true"),
    "host network, kept": ("--net", "host", "base", "true"),
    "read-only, a user, mounts": (
        "--rm", "--read-only", "-u", "1000:1000", "-w", "/tmp", "-v", "/usr:/below/usr:ro", "-v", "named:/named",
        "--tmpfs", "/scratch:size=1m", "base", "true",
    ),
    "working directory made": ("--rm", "-w", "/not/there", "base", "true"),
}  # fmt: skip


@each_driver
@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_a_run_names_every_changing_call_of_every_process_in_order(lamina: Lamina, tmp_path: Path, words: tuple[str, ...]):
    ours, theirs = both(lamina, tmp_path, "run", *words)
    assert len(theirs) == 3  # the command, the monitor, the container
    assert ours == theirs


def test_with_an_init_its_child_is_followed_too(lamina: Lamina, tmp_path: Path):
    ours, theirs = both(lamina, tmp_path, "run", "--rm", "--init", "base", "true")
    assert len(theirs) == 4
    assert list(ours.values()) == list(theirs.values())
    assert sorted(set(ours) - set(theirs)) == [2]  # its pid as its parent, in the container, sees it


def test_an_image_that_isnt_unpacked_yet_is_unpacked_in_sight(lamina: Lamina, tmp_path: Path):
    lamina("system", "prune", "--force")
    with lamina.library() as engine:
        engine.system.discard_unused_layers()
    ours, theirs = both(lamina, tmp_path, "run", "--rm", "base", "true")
    assert ours == theirs


def test_an_exec_names_every_changing_call(lamina: Lamina, tmp_path: Path):
    container = lamina.background("base", *FOREVER)
    ours, theirs = both(lamina, tmp_path, "exec", "-u", "1000", container, "true")
    assert len(theirs) == 3
    assert ours == theirs
    monitor = next(calls for calls in ours.values() if calls[-1] != "execve" and "setns" in calls)
    assert monitor.count("setns") == 2  # into the container's PID namespace and back


@pytest.mark.parametrize("running", [True, False], ids=["running", "ended"])
def test_a_commit_names_every_changing_call(lamina: Lamina, tmp_path: Path, running: bool):
    container = lamina.background("base", *FOREVER)
    lamina("exec", container, "sh", "-c", "rm -r /etc/hosts; echo new > /new")
    if not running:
        lamina("kill", container)
    ours, theirs = both(lamina, tmp_path, "commit", container, "made")
    assert ours == theirs


def test_an_exec_with_a_terminal_names_every_changing_call(lamina: Lamina, tmp_path: Path):
    container = lamina.background("base", *FOREVER)
    ours, theirs = both(lamina, tmp_path, "exec", "-t", container, "true")
    assert ours == theirs
    assert "ioctl" in next(calls for calls in ours.values() if calls[-1] == "execve")


def test_a_command_that_isnt_there_shows_the_failing_call_and_is_127(lamina: Lamina, tmp_path: Path):
    path = tmp_path / "trace"
    done = lamina.result("run", "--rm", "--trace=json", "--trace-file", str(path), "base", "/not/there")
    assert done.returncode == 127
    found = rows(path)
    assert [row["name"] for row in found if row["kind"] == "step" and row["process"] == "container"][-1] == "find program"
    assert "remove the container" in [row["name"] for row in found]


def test_steps_come_with_their_time_and_a_command_line(lamina: Lamina, tmp_path: Path):
    path = tmp_path / "trace"
    lamina("run", "--rm", "--trace=json", "--trace-file", str(path), "-v", "/usr:/below", "--hostname", "ship", "base", "true")
    found = rows(path)
    steps = {row["name"]: row for row in found if row["kind"] == "step"}
    assert steps["set hostname"]["commands"] == ["hostname ship"]
    assert steps["leave namespaces"]["commands"] == ["unshare --mount --uts --ipc --cgroup --net"]
    assert steps["pivot root"]["commands"][0].endswith("&& pivot_root . . && umount -l .")
    born_there = "|CLONE_INTO_CGROUP" if hierarchies().unified == "/sys/fs/cgroup" else ""  # version 2 alone
    assert [row["arguments"] for row in found if row["name"] == "clone3"] == ["", f"CLONE_NEWPID{born_there}"]  # monitor, container
    assert ["mount --rbind /usr $ROOT/below"] in [row["commands"] for row in found if row["name"] == "bind in root"]
    assert all(row["took_us"] is not None for name, row in steps.items() if name != "execute")
    names = [row["name"] for row in found if row["kind"] == "step"]
    order = ["create the container", "start the container", "leave namespaces", "pivot root", "execute", "remove the container"]
    assert [name for name in names if name in order] == order
    assert any(row["name"].startswith(f"storage_prepare (storage.{lamina.driver})") for row in found)
    assert [row for row in found if row["kind"] == "database" and row["text"].startswith("INSERT INTO containers")]


def test_a_step_stands_before_its_calls_and_they_lie_within_it(lamina: Lamina, tmp_path: Path):
    path = tmp_path / "trace"
    lamina("run", "--rm", "--trace=json", "--trace-file", str(path), "base", "true")
    container = [row for row in rows(path) if row["process"] == "container"]
    at = next(index for index, row in enumerate(container) if row["name"] == "pivot root")
    inner = [row["name"] for row in container[at + 1 : at + 8]]
    assert inner == ["fchdir", "chdir", "pivot_root", "fchdir", "mount", "umount2", "chdir"]
    step = container[at]
    for row in container[at + 1 : at + 8]:
        assert row["depth"] == step["depth"] + 1
        assert step["at_us"] <= row["at_us"]
        assert row["at_us"] + row["took_us"] <= step["at_us"] + step["took_us"] + 2


def test_without_a_value_the_trace_is_text_on_standard_error_and_the_output_is_the_containers(lamina: Lamina):
    done = lamina.result("run", "--rm", "--trace", "base", "echo", "hello")
    assert done.stdout == "hello\n"
    lines = done.stderr.splitlines()
    assert any("pivot_root('.', '.') = 0" in line for line in lines)
    assert any(line.strip().startswith("$ mount -t proc") for line in lines)
    assert not [line for line in lines if not line.isprintable()]


def test_a_trace_can_go_to_an_open_descriptor(lamina: Lamina):
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    with open(read_fd, encoding="utf-8") as reader:
        process = subprocess.Popen(
            lamina.command("run", "--rm", "--trace=json", "--trace-file", f"/dev/fd/{write_fd}", "base", "true"),
            pass_fds=[write_fd], stdin=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(write_fd)
        documents = [json.loads(line) for line in reader]
        assert process.wait() == 0
    assert {row["process"] for row in documents} == {"lamina", "monitor", "container"}


def test_the_container_inherits_nothing_of_the_trace(lamina: Lamina):
    shown = lamina("run", "--rm", "--trace", "base", "ls", "/proc/self/fd")
    assert shown.split() == ["0", "1", "2", "3"]  # the last one is ls's own


def test_an_unknown_form_and_a_file_that_cant_be_written_are_one_line(lamina: Lamina, tmp_path: Path):
    assert "xml" in lamina.error("run", "--trace=xml", "base", "true", code=125)
    assert "no such file" in lamina.error("run", "--trace-file", str(tmp_path / "not" / "there"), "base", "true", code=125)


def test_without_a_trace_no_call_more_is_made_and_nothing_of_it_is_loaded(lamina: Lamina, tmp_path: Path):
    lamina("run", "--rm", "base", "true")
    output = tmp_path / "strace"
    done = strace(lamina.command("run", "--rm", "base", "true"), output, everything=True)
    assert done.returncode == 0
    seen = output.read_text(encoding="utf-8", errors="replace")
    assert "lamina-trace" not in seen
    opened = re.findall(r'open\w*\([^"\n]*"([^"\n]*)"', seen)
    assert any("runtime/init" in path or "lamina" in path for path in opened)
    assert not [path for path in opened if "recorder" in path or "usecases/trace" in path or "cli/tracing" in path]


def test_a_terminal_of_its_own_is_made_in_sight(lamina: Lamina, tmp_path: Path):
    ours, theirs = tmp_path / "trace.json", tmp_path / "strace"
    done = strace(lamina.command("run", "-d", "-t", "--trace=json", "--trace-file", str(ours), "base", "true"), theirs)
    assert done.returncode == 0, done.stderr
    container = next(row["pid"] for row in rows(ours) if row["process"] == "container")
    assert traced_calls(ours)[container] == changing_calls(theirs)[container]
    assert [row["arguments"].split(", ")[1] for row in rows(ours) if row["name"] == "ioctl" and "TIOC" in row["arguments"]] == [
        "TIOCSPTLCK", "TIOCGPTPEER", "TIOCSCTTY",
    ]  # fmt: skip


def test_a_signal_that_is_passed_on_is_named(lamina: Lamina, tmp_path: Path):
    path = tmp_path / "trace"
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        lamina.command("run", "--rm", "--trace=json", "--trace-file", str(path), "base", "sh", "-c", script),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(30) == 3
    container = next(row["pid"] for row in rows(path) if row["process"] == "container")
    assert [row["arguments"] for row in rows(path) if row["name"] == "kill"] == [f"{container}, {int(signal.SIGTERM)}"]


FUSE = """
import os
from lamina.api.hookspecs import hookimpl
from lamina.api.types import Capabilities, Probe, View, WhiteoutFormat
from lamina.model.mount import Mount

class Driver:
    name = "fused"
    api_version = 1

    @hookimpl
    def storage_probe(self):
        return Probe(usable=True, capabilities=Capabilities(whiteouts=WhiteoutFormat.OVERLAY, native_diff=True))

    @hookimpl
    def storage_prepare(self, home, key):
        for name in ("diff", "work", "merged"):
            os.makedirs(f"{home}/{key}/{name}")
        return True

    @hookimpl
    def storage_mounts(self, home, key, parents):
        lowers = ":".join(f"{home}/{each}/diff" for each in parents) or f"{home}/{key}/merged"
        options = (("lowerdir", lowers), ("upperdir", f"{home}/{key}/diff"), ("workdir", f"{home}/{key}/work"))
        root = f"{home}/{key}/merged"
        mount = Mount(type="fuse.fuse-overlayfs", target=root, options=options)
        return View(root=root, mounts=(mount,), upper_dir=f"{home}/{key}/diff")

    @hookimpl
    def storage_discard(self, home, key):
        if os.path.exists(f"{home}/{key}"):
            os.makedirs(f"{home}/trash", exist_ok=True)
            os.rename(f"{home}/{key}", f"{home}/trash/{key}")
        return True

    @hookimpl
    def storage_keys(self, home):
        return [name for name in os.listdir(home) if name != "trash"]

plugin = Driver()
"""


def test_the_calls_of_a_driver_from_outside_and_the_helper_that_it_needs_are_named(
    tmp_path: Path, own_mounts: None, monkeypatch: pytest.MonkeyPatch
):
    site = tmp_path / "site" / "fused-1.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: fused\nVersion: 1.0\n")
    (site / "entry_points.txt").write_text("[lamina]\nstorage.fused = fused_driver:plugin\n")
    (site.parent / "fused_driver.py").write_text(FUSE)
    monkeypatch.setenv("PYTHONPATH", str(site.parent))
    lamina = Lamina(tmp_path / "root", "fused")
    lamina("image", "bootstrap")
    ours, theirs = both(lamina, tmp_path, "run", "--rm", "busybox", "true")
    helpers = [row for row in rows(tmp_path / "trace.json") if row["kind"] == "exec"]
    assert helpers
    assert all(row["text"].startswith("fuse-overlayfs -o lowerdir=") for row in helpers)
    assert len([name for name in next(iter(ours.values())) if name in {"vfork", "clone"}]) == len(helpers) + 1  # and the monitor
    assert ours == {pid: calls for pid, calls in theirs.items() if pid in ours}  # the helper's own calls are strace's to tell


def test_the_documentations_program_runs(lamina: Lamina):
    page = Path(__file__).parents[2] / "docs" / "trace.md"
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, check=True,
        env={**os.environ, "LAMINA_ROOT": str(lamina.root), "LAMINA_STORAGE_DRIVER": lamina.driver, "LAMINA_CONFIG": ""},
    )  # fmt: skip
    assert "pivot_root('.', '.') = 0" in done.stdout
