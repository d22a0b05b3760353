"""AppArmor: the default profile, or the one that `--security-opt apparmor=NAME` names, holds a container and all that enters it.

`make vm-test`.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Context
from cases import FOREVER, Lamina, driver_of, each_driver

from lamina.linux import apparmor
from lamina.runtime import confinement

pytestmark = pytest.mark.vm
NAME = "lamina-test"
PROFILE = f"""
profile {NAME} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  network,
  signal,
  deny /tmp/denied w,
}}
"""
WRITE = "cat /proc/self/attr/current; echo x >/tmp/allowed && (echo x >/tmp/denied) 2>&1; cat /tmp/denied 2>&1; rm /tmp/allowed"
HELD = [
    f"{NAME} (enforce)",
    "sh: can't create /tmp/denied: Permission denied",
    "cat: can't open '/tmp/denied': No such file or directory",
]
FREE = ["unconfined", "x"]

DEFAULT = "lamina-default (enforce)"
OWN = ("cat", "/proc/self/attr/current")
DENIED = (
    "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/sys/vm/swappiness", "/proc/sys/net/core/somaxconn",
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/sysrq", "/proc/sys/kernel/sched_rt_runtime_us",
    "/proc/sys/kernel/seccomp/actions_logged", "/proc/sys/fs/suid_dumpable", "/sys/kernel/mm/ksm/run",
    "/sys/module/overlay/parameters/metacopy", "/sys/block/vda/queue/read_ahead_kb",
)  # fmt: skip
ALLOWED = (
    "/proc/self/comm", "/proc/self/oom_score_adj", "/proc/thread-self/comm", "/proc/sys/kernel/shmmax",
    "/proc/sys/kernel/shm_rmid_forced", "/proc/sys/kernel/msgmax", "/proc/sys/kernel/sem", "/sys/fs/cgroup/cgroup.procs",
)  # fmt: skip
OPEN = """for path in "$@"; do (: >>$path) 2>/dev/null || echo $path; done"""
"""Open each to append, write nothing, and say which can't be opened."""


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


@pytest.fixture
def profile() -> Iterator[tuple[str, str]]:
    """The option for a profile of this test's own, which is loaded until its end."""
    subprocess.run(["apparmor_parser", "--replace", "--skip-cache"], input=PROFILE, text=True, check=True)
    yield ("--security-opt", f"apparmor={NAME}")
    subprocess.run(["apparmor_parser", "--remove"], input=PROFILE, text=True, check=True)


def test_a_profile_holds_a_container_and_every_command_in_it(lamina: Lamina, profile: tuple[str, str]):
    for words in ((), ("--init",), ("--security-opt", "no-new-privileges"), ("--privileged",)):
        assert lamina("run", "--rm", *profile, *words, "base", "sh", "-c", WRITE).splitlines() == HELD
    container = lamina.background(*profile, "base", *FOREVER)
    for user in ("0", "1000"):
        assert lamina("exec", "-u", user, container, "sh", "-c", WRITE).splitlines() == HELD
    assert lamina("exec", "--privileged", container, "sh", "-c", WRITE).splitlines() == FREE
    shown = lamina.document(container)
    assert (shown["AppArmorProfile"], shown["HostConfig"]["SecurityOpt"]) == (NAME, [f"apparmor={NAME}"])


@each_driver
def test_the_default_profile_holds_who_asks_for_none(lamina: Lamina, tmp_path: Path):
    container = lamina.background("base", "sh", "-c", f"{' '.join(OWN)}; sleep 1000000 & echo $! >/pid; wait")
    assert lamina("exec", container, *OWN) == DEFAULT
    assert lamina("exec", "--privileged", container, *OWN) == "unconfined"
    assert lamina.show(container, "{{.AppArmorProfile}} {{.HostConfig.SecurityOpt}}") == "lamina-default []"
    lamina.result("exec", container, "sh", "-c", "kill $(cat /pid)")  # it may be ended with the container
    assert lamina("wait", container) == "0"
    assert lamina("logs", container) == DEFAULT
    lamina("start", container)
    assert "sleep" in lamina("top", container)
    lamina("kill", container)
    context = Context(lamina, tmp_path / "context", f"FROM base\nRUN {' '.join(OWN)} >/label\n")
    context.build("-t", "made")
    assert lamina("run", "--rm", "made", "cat", "/label") == DEFAULT
    assert "name=apparmor,profile=lamina-default" in json.loads(lamina("info", "--format", "{{json .SecurityOptions}}"))
    assert " apparmor (lamina-default)" in lamina("info").splitlines()


def test_the_default_profile_denies_what_options_have_opened(lamina: Lamina):
    """What nothing else would deny any more: without the profile, each can be opened."""

    def refused(profile: str, *words: str) -> list[str]:
        options = (*words, "--security-opt", f"apparmor={profile}")
        return lamina("run", "--rm", *options, "base", "sh", "-c", OPEN, "sh", *DENIED, *ALLOWED).splitlines()

    assert refused("unconfined", "--privileged") == []
    assert refused("lamina-default", "--privileged") == [*DENIED]
    words = ("--cap-add", "ALL", "--security-opt", "systempaths=unconfined")
    of_sys = [path for path in (*DENIED, *ALLOWED) if path.startswith("/sys/")]
    assert refused("unconfined", *words) == of_sys, "which is mounted read-only"
    assert set(refused("lamina-default", *words)) == {*DENIED, *of_sys}
    words = ("--cap-add", "SYS_ADMIN", "base", "mount", "-t", "tmpfs", "none", "/tmp")
    assert "permission denied" in lamina.result("run", "--rm", *words).stderr.lower()
    lamina("run", "--rm", "--security-opt", "apparmor=unconfined", *words)


def test_an_unconfined_and_a_privileged_container_have_no_profile_and_that_is_told(lamina: Lamina):
    for words in (("--privileged",), ("--security-opt", "apparmor=unconfined")):
        container = lamina("create", *words, "base", "sh", "-c", WRITE)
        assert lamina("start", "-a", container).splitlines() == FREE
        assert lamina.show(container, "{{.AppArmorProfile}}") == "unconfined"


def test_the_default_profile_is_loaded_by_the_first_start_that_does_not_find_it(lamina: Lamina, monkeypatch: pytest.MonkeyPatch):
    """One that is loaded is left as it is, and can be an administrator's; where none can be loaded that is told."""
    own = f"profile {confinement.DEFAULT_PROFILE} {{ file, capability, network, signal, deny /tmp/denied w, }}"
    unloaded = {"input": own, "text": True, "check": True}
    lamina("run", "--rm", "base", "true")
    subprocess.run(["apparmor_parser", "--remove"], **unloaded)
    assert not apparmor.is_loaded(confinement.DEFAULT_PROFILE)
    at_once = [subprocess.Popen(lamina.command("run", "--rm", "base", *OWN), stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [each.communicate()[0].strip() for each in at_once] == [DEFAULT] * 4
    subprocess.run(["apparmor_parser", "--replace", "--skip-cache"], **unloaded)
    try:
        assert lamina("run", "--rm", "base", "sh", "-c", WRITE).splitlines() == [DEFAULT, *HELD[1:]]
    finally:
        subprocess.run(["apparmor_parser", "--remove"], **unloaded)
    monkeypatch.setattr(apparmor, "PARSER_DIRS", "")
    monkeypatch.setenv("PATH", "/nowhere")
    with lamina.library() as engine:
        assert engine.containers.output("base", list(OWN)).strip() == "unconfined"
        assert "name=apparmor,profile=unconfined" in engine.system.info()["SecurityOptions"]


def test_a_profile_that_is_not_loaded_is_one_clear_error(lamina: Lamina):
    error = lamina.error("run", "--rm", "--security-opt", "apparmor=never-loaded", "base", "true", code=125)
    assert "no such AppArmor profile is loaded: 'never-loaded'" in error
    assert lamina("ps", "-aq") == ""
