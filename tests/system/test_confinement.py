"""What holds a container: capabilities, system calls, labels, masked paths, keyrings, and what `inspect` and `info` say of them.

System calls are made by the host's own Python, which a container is given for it to be a program that may call anything. Each test
asks a container without the defence, too, or was seen to fail without it.
"""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builds import Context
from cases import FOREVER, Lamina, driver_of

from lamina.linux import apparmor, libc, process, selinux
from lamina.model.confinement import Confinement
from lamina.seccomp.syscalls import numbers

DOCKERS = "00000000a80425fb"
NONE = "0000000000000000"
PYTHON = ("-v", f"{sys.base_prefix}:/python:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro")
PROGRAM = """
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *words):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_void_p(word) if isinstance(word, int) else word for word in words))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result if number == KEYCTL else "yes"
buffer = ctypes.create_string_buffer(4096)
asked = json.loads(sys.argv[1])
print(json.dumps({name: call(number, *(buffer if word == "buffer" else word for word in words)) for name, number, words in asked}))
""".replace("KEYCTL", str(libc.SYS_KEYCTL))
CLONE_NEWUSER, ADDR_NO_RANDOMIZE, AF_VSOCK, SESSION_KEYRING = 0x10000000, 0x40000, 40, (1 << 32) - 3


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def calls(*asked: tuple[Any, ...]) -> tuple[str, ...]:
    """The words of a command that makes these system calls, each a name and arguments, and tells as JSON how they went."""
    table = numbers(os.uname().machine)
    listed = [[each[0], table[each[0]], each[1:]] for each in asked]
    return (f"/python/bin/{os.path.basename(os.path.realpath(sys.executable))}", "-I", "-c", PROGRAM, json.dumps(listed))


def status(text: str) -> dict[str, str]:
    """The fields of a /proc/PID/status."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def capabilities(text: str) -> list[str]:
    """Inheritable, permitted, effective, bounding, ambient, of a /proc/PID/status."""
    return [status(text)[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")]


def with_inheritable_capabilities() -> None:
    """Give this process, about to be lamina, inheritable and ambient capabilities, as some container engines give to theirs."""
    bits = sum(1 << number for number in process.own_capabilities())
    words = (ctypes.c_uint32 * 6)(*(word for half in (bits & 0xFFFFFFFF, bits >> 32) for word in (half, half, half)))
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert libc.libc.capset(header, words) == 0
    for number in (0, 12):
        process.prctl(process.PR_CAP_AMBIENT, 2, number)


# Capabilities


def test_every_process_has_dockers_capabilities_and_none_to_inherit(lamina: Lamina, tmp_path: Path):
    look = ("cat", "/proc/self/status")

    def told(*words: str) -> list[str]:
        done = subprocess.run(
            lamina.command(*words), preexec_fn=with_inheritable_capabilities, capture_output=True, text=True, check=True
        )
        return capabilities(done.stdout)

    as_root, as_user = [NONE, DOCKERS, DOCKERS, DOCKERS, NONE], [NONE, NONE, NONE, DOCKERS, NONE]
    assert told("run", "--name", "one", "base", *look) == as_root
    assert told("run", "--rm", "--user", "1000", "base", *look) == as_user
    assert told("run", "--rm", "--user", "1000", "--security-opt", "no-new-privileges", "base", *look) == as_user
    assert told("run", "--rm", "--init", "base", "cat", "/proc/1/status") == as_root
    container = lamina.background("base", *FOREVER)
    assert told("exec", container, *look) == as_root
    assert told("exec", "--user", "1000", container, *look) == as_user
    dockerfile = "FROM base\nRUN cat /proc/self/status > /root-status\nUSER 1000\nRUN cat /proc/self/status > /tmp/user-status\n"
    context = Context(lamina, tmp_path / "context", dockerfile)
    build = lamina.command("build", "-q", "-t", "built", str(context.directory))
    subprocess.run(build, preexec_fn=with_inheritable_capabilities, check=True)
    assert capabilities(lamina("run", "--rm", "built", "cat", "/root-status")) == as_root
    assert capabilities(lamina("run", "--rm", "built", "cat", "/tmp/user-status")) == as_user


def test_capabilities_are_added_dropped_and_refused(lamina: Lamina):
    def bounding(*words: str) -> int:
        return int(status(lamina("run", "--rm", *words, "base", "cat", "/proc/self/status"))["CapBnd"], 16)

    default, own = int(DOCKERS, 16), sum(1 << number for number in process.own_capabilities())
    assert bounding("--cap-add", "net_admin", "--cap-drop", "CAP_MKNOD") == (default | 1 << 12) & ~(1 << 27)
    assert bounding("--cap-drop", "all") == 0
    assert bounding("--cap-drop", "ALL", "--cap-add", "CAP_CHOWN", "--cap-add", "kill") == 1 << 0 | 1 << 5
    assert bounding("--cap-add", "ALL", "--cap-drop", "SYS_ADMIN") == own & ~(1 << 21)
    assert bounding("--privileged", "--cap-drop", "ALL") == own, "Docker's rule"
    assert "'NOSUCH'" in lamina.error("create", "--cap-add", "NOSUCH", "base", code=125)
    lacking = next((name for number, name in enumerate(process.CAPABILITIES) if not own >> number & 1), None)
    if lacking:
        assert f"capability '{lacking}' can't be given" in lamina.error("create", "--cap-add", lacking, "base", code=1)
    assert lamina("ps", "-aq") == ""


def test_a_privileged_container_has_all_that_the_engine_has(lamina: Lamina):
    own = f"{sum(1 << number for number in process.own_capabilities()):016x}"
    script = "cat /proc/1/status; ls -l /dev; echo; head -c 1 /proc/interrupts | wc -c; grep ' /sys ' /proc/mounts"
    plain, privileged = (lamina("run", "--rm", *words, "base", "sh", "-c", script) for words in ((), ("--privileged",)))
    assert capabilities(privileged) == [NONE, own, own, own, NONE]
    assert (status(plain)["Seccomp"], status(privileged)["Seccomp"]) == ("2", "0")
    for shown, device in (("/dev/kmsg", "1, 11"), ("/dev/loop-control", "10, 237")):
        assert os.path.exists(shown)
        assert (device.replace(" ", "") in plain.replace(" ", ""), device.replace(" ", "") in privileged.replace(" ", "")) == (
            False,
            True,
        )
    assert (plain.splitlines()[-2].strip(), privileged.splitlines()[-2].strip()) == ("0", "1")
    assert " ro," in plain.splitlines()[-1]
    assert " rw," in privileged.splitlines()[-1]


def test_exec_privileged_gives_one_command_all_capabilities(lamina: Lamina):
    own = f"{sum(1 << number for number in process.own_capabilities()):016x}"
    container = lamina.background("base", *FOREVER)
    script = "cat /proc/self/status; mount -t tmpfs none /mnt && echo mounted"
    lamina("exec", container, "mkdir", "/mnt")
    assert "mounted" in (told := lamina("exec", "--privileged", container, "sh", "-c", script))
    assert capabilities(told)[2] == own
    assert "mounted" not in lamina.result("exec", container, "sh", "-c", script).stdout


# System calls

REFUSED = (
    ("unshare", CLONE_NEWUSER), ("io_uring_setup", 1, "buffer"), ("userfaultfd", 1), ("keyctl", 0, SESSION_KEYRING, 0),
    ("add_key", "buffer", "buffer", "buffer", 1, SESSION_KEYRING), ("personality", ADDR_NO_RANDOMIZE),
    ("socket", AF_VSOCK, 1, 0), ("bpf", 0, "buffer", 0), ("mount", 0, 0, 0, 0, 0), ("setns", 0, 0),
    ("perf_event_open", 0, 0, 0, 0, 0),
    ("init_module", 0, 0, 0), ("finit_module", 0, 0, 0), ("kexec_load", 0, 1, 0, 0), ("open_by_handle_at", 0, 0, 0),
    ("fsopen", 0, 0),
    ("open_tree", 0, 0, 0), ("quotactl", 0, 0, 0, 0), ("pivot_root", 0, 0), ("request_key", 0, 0, 0, 0), ("syslog", 2, 0, 0),
)  # fmt: skip
WITHOUT_A_FILTER = {"unshare", "io_uring_setup", "userfaultfd", "keyctl", "personality", "socket"}
"""Those that the kernel itself refuses nobody in a container."""


def test_system_calls_are_refused_to_root_and_to_users_of_every_command(lamina: Lamina):
    ask = calls(*REFUSED, ("clone3", 0, 0), ("ptrace", 0, 0, 0, 0))
    expected = {name: "EPERM" for name, *_ in REFUSED} | {"clone3": "ENOSYS", "ptrace": "yes"}
    container = lamina.background(*PYTHON, "base", *FOREVER)
    assert json.loads(lamina("run", "--rm", *PYTHON, "base", *ask)) == expected
    for words in ((), ("--user", "1000")):
        assert json.loads(lamina("exec", *words, container, *ask)) == expected
    bare = lamina.background("--security-opt", "seccomp=unconfined", *PYTHON, "base", *FOREVER)
    told = json.loads(lamina("exec", bare, *ask))
    assert {name for name in WITHOUT_A_FILTER if told[name] == "EPERM"} == set(), "what the filter is for"
    assert told["clone3"] != "ENOSYS"


def test_a_new_namespace_is_not_to_be_had_in_a_build_either(lamina: Lamina, tmp_path: Path):
    Context(lamina, tmp_path / "context", "FROM base\nRUN ! unshare -U true && ! unshare -m true\n").build()
    Context(lamina, tmp_path / "context", "FROM base\nUSER 1000\nRUN ! unshare -U true\n").build()
    assert lamina.result("run", "--rm", "--security-opt", "seccomp=unconfined", "base", "unshare", "-U", "true").returncode == 0


def test_a_profile_of_ones_own_is_kept_and_holds_for_exec_and_the_next_start(lamina: Lamina, tmp_path: Path):
    path = tmp_path / "profile.json"
    names = ["mkdir", "mkdirat"]
    rule = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "includes": {}, "excludes": {}, "args": []}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}, indent=4), encoding="utf-8")
    container = lamina.background("--security-opt", f"seccomp={path}", "base", *FOREVER)
    path.unlink()
    assert "No space left" in lamina.result("exec", container, "mkdir", "/new").stderr
    lamina("kill", container)
    lamina("wait", container)
    lamina("start", container)
    assert "No space left" in lamina.result("exec", container, "mkdir", "/new").stderr
    (option,) = lamina.document(container)["HostConfig"]["SecurityOpt"]
    assert json.loads(option.removeprefix("seccomp="))["syscalls"][0]["names"] == names
    path.write_text('{"defaultAction": "SCMP_ACT_MAYBE"}', encoding="utf-8")
    assert "SCMP_ACT_MAYBE" in lamina.error("create", "--security-opt", f"seccomp={path}", "base", code=125)
    assert "can't be read" in lamina.error("create", "--security-opt", "seccomp=/no/where", "base", code=125)


@pytest.mark.parametrize("more", [(), ("--security-opt", "no-new-privileges")], ids=["", "no-new-privileges"])
def test_a_profile_may_refuse_what_only_the_engine_needs(lamina: Lamina, tmp_path: Path, more: tuple[str, ...]):
    path = tmp_path / "profile.json"
    needed_by_us = ["setgroups", "setresuid", "setresgid", "openat2", "rt_sigaction", "access", "getdents64", "seccomp", "capget"]
    rule = {"names": needed_by_us + (["capset"] if more else []), "action": "SCMP_ACT_KILL_PROCESS"}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}), encoding="utf-8")
    for user in ("0", "1000"):
        words = ("--user", user, "--security-opt", f"seccomp={path}", *more, "base", "echo", "ran")
        assert lamina("run", "--rm", *words) == "ran"


def test_no_new_privileges_is_what_was_asked(lamina: Lamina):
    for words, expected in (
        ((), "0"), (("--security-opt", "no-new-privileges"), "1"), (("--security-opt", "no-new-privileges:true"), "1"),
        (("--security-opt=no-new-privileges=false",), "0"),
    ):  # fmt: skip
        assert status(lamina("run", "--rm", *words, "base", "cat", "/proc/self/status"))["NoNewPrivs"] == expected


def test_the_filter_is_read_from_a_file_after_the_first_start(lamina: Lamina):
    lamina("run", "--rm", "base", "true")
    (compiled,) = (lamina.root / "seccomp").iterdir()
    before = compiled.stat().st_ino, compiled.stat().st_mtime_ns
    lamina("run", "--rm", "--user", "1000", "base", "true")
    lamina("run", "--rm", "--cap-add", "SYS_TIME", "base", "true")
    assert (compiled.stat().st_ino, compiled.stat().st_mtime_ns) == before
    assert len(list((lamina.root / "seccomp").iterdir())) == 2
    compiled.write_bytes(b"12345")
    assert "seccomp" in lamina.error("run", "--rm", "base", "true", code=125), "never without a filter"


# Keyrings


def test_every_process_has_a_session_keyring_of_its_own(lamina: Lamina):
    ask = calls(("keyctl", 0, SESSION_KEYRING, 0))
    container = lamina.background("--security-opt", "seccomp=unconfined", *PYTHON, "base", *FOREVER)
    found = [json.loads(lamina("exec", container, *ask))["keyctl"] for _ in range(2)]
    found.append(json.loads(lamina("run", "--rm", "--security-opt", "seccomp=unconfined", *PYTHON, "base", *ask))["keyctl"])
    found.append(libc.syscall(libc.SYS_KEYCTL, ctypes.c_int(0), ctypes.c_int(-3), ctypes.c_int(0)))
    assert all(isinstance(each, int) and each > 0 for each in found)
    assert len(set(found)) == 4


# Labels, and what is told


def test_labels_that_this_kernel_cannot_apply_are_refused(lamina: Lamina):
    """A kernel has one of AppArmor and SELinux, or none; what it has is shown in `make vm-test`."""
    if not apparmor.is_enabled():
        assert "AppArmor profile 'mine'" in lamina.error("create", "--security-opt", "apparmor=mine", "base", code=1)
    if not selinux.is_enabled():
        assert "label 'type:mine_t'" in lamina.error("create", "--security-opt", "label=type:mine_t", "base", code=1)
    assert "'label=kind:x'" in lamina.error("create", "--security-opt", "label=kind:x", "base", code=125)
    lamina("run", "--rm", "--security-opt", "label=disable", "--security-opt", "apparmor=unconfined", "base", "true")


def test_inspect_and_info_tell_what_is_in_force(lamina: Lamina):
    plain = lamina("create", "base")
    asked = lamina(
        "create", "--cap-add", "net_admin", "--cap-drop", "MKNOD", "--security-opt", "systempaths=unconfined",
        "--security-opt", "seccomp:unconfined", "--security-opt", "no-new-privileges", "base",
    )  # fmt: skip
    shown = lamina.document(plain)["HostConfig"]
    assert (shown["Privileged"], shown["CapAdd"], shown["CapDrop"], shown["SecurityOpt"]) == (False, None, None, None)
    assert "/proc/kcore" in shown["MaskedPaths"]
    assert "/proc/sysrq-trigger" in shown["ReadonlyPaths"]
    shown = lamina.document(asked)["HostConfig"]
    assert (shown["CapAdd"], shown["CapDrop"], shown["MaskedPaths"]) == (["CAP_NET_ADMIN"], ["CAP_MKNOD"], None)
    assert shown["SecurityOpt"] == ["no-new-privileges", "seccomp=unconfined", "systempaths=unconfined"]
    assert lamina.show(lamina("create", "--privileged", "base"), "{{.HostConfig.Privileged}}") == "true"
    told = json.loads(lamina("info", "--format", "{{json .SecurityOptions}}"))
    modules = ["name=apparmor,profile=lamina-default"] if apparmor.is_enabled() else []
    modules += ["name=selinux"] if selinux.is_enabled() else []
    assert sorted(told) == sorted([*modules, "name=seccomp,profile=builtin", "name=cgroupns"])
    assert " seccomp (builtin)" in lamina("info").splitlines()


def test_the_library_confines_too(lamina: Lamina):
    with lamina.library() as engine:
        look = ["grep", "CapBnd", "/proc/self/status"]
        asked = Confinement(cap_drop=("ALL",), no_new_privileges=True)
        assert engine.containers.output("base", look, confinement=asked).split()[1] == NONE
