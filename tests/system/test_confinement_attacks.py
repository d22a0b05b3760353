"""Attacks by which container engines were broken, carried out on this one: images that lie, links in /proc, files left open.

What concerns capabilities and system calls is in `test_confinement.py`. Every attack was seen to succeed without its defence.
"""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import archives
import pytest
from archives import Item, folder, link
from builds import Context
from cases import FOREVER, Lamina, driver_of

from lamina.dataclasses import replace
from lamina.errors import StartError, StateError
from lamina.linux import process
from lamina.model.container import MountRequest
from lamina.runtime import mount_steps, plan, process_steps

INTERPRETER = Path(os.path.realpath(sys.executable))
ENTERED = int(os.environ.get("LAMINA_ENTERED", "2"))
"""How often a container that races for the engine's program is entered, and joined by another."""


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def load(lamina: Lamina, tmp_path: Path, name: str, items: dict[str, Item | str], **config: object) -> None:
    """Make an image of busybox and one more layer."""
    path = archives.image(tmp_path / f"{name}.tar", f"{name}:latest", [archives.busybox_layer(), archives.layer(items)], **config)
    lamina("load", "-i", str(path))


def bind(source: str, target: str) -> MountRequest:
    """A bind mount."""
    return MountRequest(type="bind", source=source, target=target)


# The engine's own program (CVE-2019-5736)


def test_an_image_cannot_have_the_engines_interpreter_run(lamina: Lamina, tmp_path: Path):
    before = INTERPRETER.stat(), hashlib.sha256(INTERPRETER.read_bytes()).hexdigest()
    items = {
        "evil": folder(),
        "evil/script": Item(content=b"#!/proc/self/exe\nopen('/pwned', 'w')\n", mode=0o755),
        "evil/unreadable": Item(content=b"#! /proc/self/exe -c\n", mode=0o711),
        "evil/nested": Item(content=b"#!/evil/script x\n", mode=0o755),
        "evil/link": link("/proc/self/exe"),
        "evil/descriptor": Item(content=b"#!/proc/self/fd/0\n", mode=0o755),
        "fine": Item(content=b"#!/bin/sh\necho fine\n", mode=0o755),
    }
    load(lamina, tmp_path, "evil", items, Entrypoint=["/evil/script"])
    said = lamina.error("run", "--rm", "evil", code=126)
    assert "a link of /proc leads to the program" in said
    container = lamina.background("--entrypoint", "sleep", "evil", "1000000")
    with lamina.library() as engine:
        handle = engine.containers.get(container)
        for program in ("/proc/self/exe", *(f"/{name}" for name in items if name.startswith("evil/"))):
            for user in ("0", "1000"):
                with pytest.raises(StartError, match="a link of /proc") as caught:
                    handle.exec([program], user=user)
                assert caught.value.exit_code == 126
        assert handle.exec_output(["/fine"], user="1000") == "fine\n"
        assert not os.path.exists(f"{handle.root}/pwned")
    Context(lamina, tmp_path / "context", 'FROM evil\nENTRYPOINT []\nRUN ["/evil/script"]\n').error()
    now = INTERPRETER.stat(), hashlib.sha256(INTERPRETER.read_bytes()).hexdigest()
    assert (now[0].st_ino, now[0].st_mtime_ns, now[1]) == (before[0].st_ino, before[0].st_mtime_ns, before[1])


class Decoy(Lamina):
    """The command line by an interpreter that no other process of this machine runs: a copy, which an attack may get."""

    def __init__(self, place: Path, like: Lamina) -> None:
        super().__init__(like.root, like.driver)
        subprocess.run([sys.executable, "-m", "venv", "--copies", "--without-pip", place], check=True)
        self.interpreter = place / "bin/python"

    def command(self, *words: str, driver: str = "") -> list[str]:
        found = f"PYTHONPATH={os.pathsep.join(path for path in sys.path if path)}"
        return ["env", found, str(self.interpreter), "-m", "lamina", *super().command(*words, driver=driver)[1:]]


RACER = """
until [ -e /stop ]; do
    for each in /proc/[0-9]*/exe; do
        { [ /proc/self/fd/3 -ef /bin/busybox ] || case $(readlink /proc/self/fd/3) in
            */python*) echo reached; exec 4<&3 ;;
        esac; } 3<$each
    done
    if [ -e /proc/self/fd/4 ] && true >>/proc/self/fd/4; then echo writable; fi
done 2>/dev/null
"""
"""Looks for a program in /proc that isn't the container's, holds it, and tries all the time to open it for writing."""


def raced(decoy: Decoy, *words: str) -> list[str]:
    """Enter and join a container by `exec` and `run` while it runs the racer; gives what that says, each word once."""
    container = decoy.background(*words, "base", "sh", "-c", RACER)
    for _ in range(ENTERED):
        decoy("exec", container, "true")
        decoy("run", "--rm", "--init", "--pid", f"container:{container}", "base", "usleep", "20000")
    time.sleep(0.2)  # no command runs any more but the racer's monitor
    done = decoy.result("exec", container, "touch", "/stop")
    assert done.returncode in {0, 137}, done.stderr  # it may be killed with the container that it ends
    decoy("wait", container)
    return sorted(set(decoy("logs", container).split()))


def test_the_engines_interpreter_is_reached_by_nobody_who_races_for_it(lamina: Lamina, tmp_path: Path):
    """CVE-2019-5736, as its exploits do it: no process of the engine can be looked into by one of the container."""
    assert raced(Decoy(tmp_path / "decoy", lamina)) == []


def test_the_engines_interpreter_cannot_be_written_to_even_by_who_can_reach_it(lamina: Lamina, tmp_path: Path):
    """The monitor has it running for as long as the container can have it open: "text file busy"."""
    assert raced(Decoy(tmp_path / "decoy", lamina), "--cap-add", "SYS_PTRACE") == ["reached"]


def test_a_process_is_not_to_be_looked_into_before_it_is_the_command(lamina: Lamina, monkeypatch: pytest.MonkeyPatch):
    """A /proc/PID of another user that belongs to root is not dumpable: no process of the container may open its exe or fd/."""

    def tell_owner(_step: process_steps.Execute, place: object) -> None:
        os.write(1, f"{os.getuid()} {os.stat('/proc/self/status').st_uid}".encode())
        os._exit(0)

    monkeypatch.setattr(process_steps.Execute, "apply", tell_owner)
    with lamina.library() as engine:
        assert engine.containers.output("base", ["true"], user="1000") == "1000 0"


# Open files, and a working directory outside (CVE-2024-21626)


def test_a_command_has_three_descriptors_and_no_way_out_by_another(lamina: Lamina, tmp_path: Path):
    listing = ("sh", "-c", "echo /proc/self/fd/*")
    expected = "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2"
    inherited = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(inherited, True)
    try:
        container = lamina.background("base", *FOREVER)
        with lamina.library() as engine:
            handle = engine.containers.get(container)
            assert handle.exec_output(listing).split() == [*expected.split(), "/proc/self/fd/3"], "the last is the shell's own"
            assert engine.containers.output("base", listing).split() == [*expected.split(), "/proc/self/fd/3"]
            for number in range(3, 12):
                for place in (f"/proc/self/fd/{number}", f"/proc/1/fd/{number}/.."):
                    with pytest.raises(StartError):
                        handle.exec(["true"], working_dir=place)
                    with pytest.raises(StartError):
                        engine.containers.output("base", ["true"], working_dir=place)
    finally:
        os.close(inherited)
    context = Context(lamina, tmp_path / "context", "FROM base\nRUN echo /proc/self/fd/* > /listing\n")
    context.build("-t", "built")
    assert lamina("run", "--rm", "built", "cat", "/listing").split() == [*expected.split(), "/proc/self/fd/3"]
    for number in (3, 7, 8):
        Context(lamina, tmp_path / "context", f"FROM base\nWORKDIR /proc/self/fd/{number}\nRUN pwd\n").error()


def test_a_working_directory_outside_is_refused_even_if_a_descriptor_of_it_is_left(lamina: Lamina, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "close_descriptors", lambda _keep: None)
    left = os.open("/usr", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with lamina.library() as engine:
            with pytest.raises(StartError):
                engine.containers.output("base", ["true"], working_dir=f"/proc/self/fd/{left}")
            container = engine.containers.run("base", FOREVER)
            with pytest.raises(StartError):
                container.exec(["true"], working_dir=f"/proc/self/fd/{left}")
    finally:
        os.close(left)


def test_an_images_working_directory_makes_none_on_the_host_whose_processes_it_sees(lamina: Lamina, tmp_path: Path):
    inside = f"/proc/{os.getpid()}/root{tmp_path}/made/here"
    load(lamina, tmp_path, "evil", {"way": link(inside)}, WorkingDir=inside)
    for words in (("evil",), ("-w", "/way", "evil"), ("-w", f"/proc/{os.getpid()}/root", "evil")):
        assert "a link of /proc leads to the working directory" in lamina.error(
            "run", "--rm", "--pid", "host", *words, "true", code=125
        )
    assert not (tmp_path / "made").exists()


def test_what_enters_a_container_whose_pid_becomes_anothers_meanwhile_is_not_let_go(
    lamina: Lamina, monkeypatch: pytest.MonkeyPatch
):
    """Its namespaces are opened by its pid after it was seen to run."""
    is_alive = process.is_alive
    answers = [True]
    monkeypatch.setattr(process, "is_alive", lambda pid, started: answers.pop() if answers else is_alive(pid, started))
    with lamina.library() as engine:
        ended, other = engine.containers.run("base", FOREVER), engine.containers.run("base", FOREVER)
        record = replace(ended.record, pid=other.pid)
        with pytest.raises(StateError, match="has just ended"):
            engine.entering.launch(record, ["touch", "/there"])
        assert not os.path.exists(f"{other.root}/there")


def test_no_name_in_an_image_speaks_for_the_first_process(lamina: Lamina, tmp_path: Path):
    """It tells the monitor where it has made mount points: a line's end in a path isn't that of what it says."""
    load(lamina, tmp_path, "liar", {"x\nerror": folder(), "etc": link("x\nerror")}, Volumes={"/v\nerror": {}})
    assert lamina("run", "--rm", "liar", "sh", "-c", "usleep 100000; ls /etc").split() == ["hostname", "hosts", "resolv.conf"]


# /proc, /sys and /dev that are something else (CVE-2019-16884, CVE-2023-27561, CVE-2026-41579)


@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
@pytest.mark.parametrize("how", ["a link", "a link out", "a file"])
def test_an_image_whose_kernel_directories_are_others_is_refused(lamina: Lamina, tmp_path: Path, place: str, how: str):
    decoy = tmp_path / "decoy"
    decoy.mkdir()
    item = {"a link": link("/elsewhere"), "a link out": link(f"../../../..{decoy}"), "a file": "a file\n"}[how]
    load(lamina, tmp_path, "liar", {"elsewhere": folder(), place: item})
    assert f"'/{place}'" in lamina.error("run", "--rm", "liar", "true", code=125)
    assert not list(decoy.iterdir())


def test_nothing_is_mounted_in_proc_by_whatever_name(lamina: Lamina, tmp_path: Path):
    load(lamina, tmp_path, "liar", {"way": link("/proc"), "file": link("/proc/sysrq-trigger")}, Volumes={"/way/sys": {}})
    for words in (
        ("-v", f"{tmp_path}:/proc", "base"), ("-v", f"{tmp_path}:/proc/sys", "base"), ("--tmpfs", "/proc/acpi", "base"),
        ("-v", "/etc/hostname:/proc/version", "base"), ("liar",),
    ):  # fmt: skip
        assert "nothing can be mounted there: '/proc" in lamina.error("run", "--rm", *words, "true", code=125)
    file = tmp_path / "meminfo"
    file.write_text("as told\n", encoding="ascii")
    assert lamina("run", "--rm", "-v", f"{file}:/proc/meminfo:ro", "base", "cat", "/proc/meminfo") == "as told"


# What the kernel tells and takes (CVE-2025-31133, CVE-2025-52565, CVE-2022-0492)


def test_kernel_files_are_masked_and_settings_read_only(lamina: Lamina):
    writes = "; ".join(  # opened alone, as an engine without the defence would set something of this machine
        f"(: >> {path}) 2>/dev/null && echo may write {path}"
        for path in (
            "/proc/sys/kernel/core_pattern",
            "/proc/sysrq-trigger",
            "/proc/irq/default_smp_affinity",
            "/sys/kernel/profiling",
        )
    )
    reads = "head -c 1 /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | grep -v == | tr -d '\\n' | wc -c; ls -A /sys/firmware"
    script = f"{writes}; {reads}; mount -t cgroup none /mnt 2>/dev/null && echo mounted; cat /dev/kmsg 2>/dev/null | head -1"
    assert lamina("run", "--rm", "base", "sh", "-c", script).split() == ["0"]
    opened = lamina("run", "--rm", "--security-opt", "systempaths=unconfined", "base", "sh", "-c", reads).split()
    assert int(opened[0]) > 0


def test_a_pattern_of_masked_paths_masks_each(lamina: Lamina, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plan, "MASKED_PATHS", ("/sys/devices/system/cpu/cpu*/topology", "/sys/no/*/where"))
    script = "for each in /sys/devices/system/cpu/cpu*/topology; do ls -A $each | wc -l; done"
    with lamina.library() as engine:
        assert set(engine.containers.output("base", ["sh", "-c", script]).split()) == {"0"}
        assert set(engine.containers.output("base", ["sh", "-c", "ls /sys/devices/system/cpu/cpu0/cache"]).split()) != {"0"}


def test_masks_are_made_of_the_null_device_alone(lamina: Lamina, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mount_steps.FillDev, "DEVICES", (("null", 1, 5), *mount_steps.FillDev.DEVICES[1:]))
    with lamina.library() as engine:
        with pytest.raises(StartError, match="not the null device"):
            engine.containers.output("base", ["true"])
        monkeypatch.setattr(mount_steps.FillDev, "DEVICES", mount_steps.FillDev.DEVICES[1:])
        monkeypatch.setattr(mount_steps.FillDev, "LINKS", (("null", "/proc/sysrq-trigger"), *mount_steps.FillDev.LINKS))
        with pytest.raises(StartError, match="not the null device"):
            engine.containers.output("base", ["true"])


def test_a_console_is_put_where_it_belongs_or_nowhere(lamina: Lamina, tmp_path: Path):
    shared = tmp_path / "dev"
    shared.mkdir()
    (shared / "pts").mkdir()
    (shared / "ptmx").symlink_to("pts/ptmx")
    mounts = [bind(str(shared), "/dev"), bind("/dev/pts", "/dev/pts")]
    with lamina.library() as engine:
        for target in ("/proc/version", "/test/inside"):
            (shared / "console").symlink_to(target)
            with pytest.raises(StartError, match="symbolic links: '/dev/console'"):
                engine.containers.create("base", ["true"], tty=True, mounts=mounts).start()
            (shared / "console").unlink()
        engine.containers.output("base", ["true"], mounts=mounts)
    done = lamina(
        "run", "--rm", "-t", "base", "sh", "-c", "stat -c '%t %T' /dev/console; grep -c ' /dev/console devpts ' /proc/mounts"
    )
    assert done.split() == ["88", "0", "1"]
