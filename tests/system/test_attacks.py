"""Attacks on more than how a process is confined: races for mount points, code of an image run by the engine, files of the
store and of other containers within reach. The others are where what they attack is tested; `docs/security.md` lists them all.
"""

import ctypes
import os
import re
import signal
from pathlib import Path

import pytest
from builds import Context
from cases import FOREVER, Lamina, driver_of, wait_until
from straces import strace

from lamina.errors import StartError
from lamina.linux import mount as lm
from lamina.linux import mountinfo
from lamina.runtime.mount_steps import BindInRoot, MountInRoot
from lamina.runtime.steps import Place, Step

RACES = int(os.environ.get("LAMINA_RACES", "1000"))
"""How often a mount is raced for; `LAMINA_RACES=20000` for a long evening."""

_RENAME_EXCHANGE = 2
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def swapping(place: Path) -> int:
    """Fork a process that exchanges `x` and `link` in a directory for ever, as whoever shares a volume can."""
    child = os.fork()
    if child == 0:
        os.chdir(place)
        while True:
            _libc.renameat2(-100, b"x", -100, b"link", _RENAME_EXCHANGE)
    return child


@pytest.mark.parametrize("how", ["absolute", "relative"])
def test_no_mount_and_no_mount_point_leaves_the_root_while_its_way_is_swapped_for_a_symlink(
    own_mounts: None, tmp_path: Path, how: str
):
    """CVE-2021-30465 and CVE-2024-45310: the steps that mount, on a root of which another process has a part."""
    outside, root, source = tmp_path / "outside", tmp_path / "root", tmp_path / "source"
    for each in (outside / "there", root / "shared/x/there", source):
        each.mkdir(parents=True)
    (source / "file").write_text("seen\n")
    (root / "shared/link").symlink_to(outside if how == "absolute" else f"../../../../../../../../../../..{outside}")
    place = Place()
    place.root_fd = lm.open_tree(str(root))
    lm.move_mount(place.root_fd, str(root))
    racer = swapping(root / "shared")
    done = refused = 0
    try:
        for turn in range(RACES):
            target = ("/shared/x/there", f"/shared/x/new{turn}", f"/shared/x/deep{turn}/er")[turn % 3]
            step: Step = BindInRoot(source=str(source), target=target, read_only=False, recursive=False, internal=False)
            if turn % 6 == 3:
                step = MountInRoot(type="tmpfs", target=target, flags=0, options=())
            elif turn % 6 == 4:
                step = BindInRoot(source=f"{source}/file", target=target, read_only=False, recursive=False, internal=True)
            try:
                step.apply(place)
                done += 1
            except OSError:
                refused += 1
            targets = [each.target for each in mountinfo.mounts() if each.target.startswith(f"{tmp_path}/")]
            assert not [each for each in targets if not f"{each}/".startswith(f"{root}/")], turn
            assert os.listdir(outside) == ["there"], turn
            assert os.listdir(outside / "there") == [], turn
            for each in targets:
                if each != str(root):
                    os.kill(racer, signal.SIGSTOP)
                    os.waitpid(racer, os.WUNTRACED)
                    lm.unmount(next(one.target for one in reversed(mountinfo.mounts()) if one.target.startswith(f"{root}/")))
                    os.kill(racer, signal.SIGCONT)
    finally:
        os.kill(racer, signal.SIGKILL)
        os.waitpid(racer, 0)
        os.close(place.root_fd)
        lm.unmount(str(root), detach=True)  # the kernel may not have let go of the killed racer's directory yet
    assert done > RACES // 20, "the directory was met"
    assert refused > RACES // 20, "the symlink was met"


def opened_inside(output: Path) -> list[str]:
    """What processes opened once they had a container's root for their own, until they became its command."""
    inside: set[str] = set()
    found = []
    for line in output.read_text(encoding="utf-8", errors="replace").splitlines():
        pid, _, call = line.partition(" ")
        if re.search(r"pivot_root\(|setns\(.*CLONE_NEWNS", call):
            inside.add(pid)
        elif "execve(" in call:
            inside.discard(pid)
        elif pid in inside and (opened := re.search(r'open(?:at2?)?\([^"]*"([^"]*)"', call)):
            found.append(opened[1])
    return found


def test_nothing_of_a_container_is_loaded_or_run_by_the_engine(lamina: Lamina, tmp_path: Path):
    """CVE-2019-14271: a `cp` that had entered the root loaded the image's libraries. Of Python: its modules and codecs, too."""
    container = lamina.background("base", *FOREVER)
    (tmp_path / "in").write_text("in\n")
    for number, words in enumerate(
        (
            ("cp", f"{container}:/etc/passwd", str(tmp_path / "out")),
            ("cp", str(tmp_path / "in"), f"{container}:/tmp/in"),
            ("export", "-o", str(tmp_path / "tar"), container),
        )
    ):
        trace = tmp_path / f"trace{number}"
        assert strace(lamina.command(*words), trace).returncode == 0
        calls = trace.read_text(encoding="utf-8", errors="replace")
        assert len(re.findall(r"\bexecve\(", calls)) == 1, "the engine's own"
        assert not re.findall(r"\b(?:chroot|pivot_root|setns)\(", calls), "so what is loaded by its path is the host's"
    allowed = re.compile(r"/etc/(passwd|group)|/bin/true|/dev/.*|/|/files")
    for words in (("exec", "-u", "alice", "-w", "/files", container, "true"), ("run", "--rm", "-u", "alice", "base", "true")):
        trace = tmp_path / f"trace-{words[0]}"
        assert strace(lamina.command(*words), trace).returncode == 0
        opened = opened_inside(trace)
        assert "/etc/passwd" in opened
        assert [path for path in opened if not allowed.fullmatch(path)] == []


def test_whom_a_container_is_told_to_be_is_looked_up_in_it_and_never_waited_for(lamina: Lamina, tmp_path: Path):
    """CVE-2024-9676, by a container that changes its own files before an `exec`."""
    outside = tmp_path / "passwd"
    outside.write_text("intruder:x:0:0::/:/bin/sh\n")
    with lamina.library() as engine:
        container = engine.containers.run("base", FOREVER)
        assert container.exec_output(["id", "-G"], user="alice").split() == ["1000", "10"]
        passwd = Path(container.root, "etc/passwd")
        for make, message in (
            (lambda: passwd.symlink_to(outside), "no such user"),
            (lambda: passwd.symlink_to(f"../../../../../../../../../..{outside}"), "no such user"),
            (lambda: os.mkfifo(passwd), "is not a regular file"),
            (lambda: passwd.symlink_to("/dev/zero"), "is not a regular file"),
            (lambda: (passwd.touch(), os.truncate(passwd, 1 << 30)), "is too large"),
        ):
            passwd.unlink()
            make()
            with pytest.raises(StartError, match=message):
                container.exec(["true"], user="intruder")


def test_a_mode_that_shuts_a_users_own_group_out_does(lamina: Lamina):
    """CVE-2022-36109: a group that isn't among the supplementary ones is shaken off by a set-group-ID program."""
    script = "mkdir /shut && touch /shut/in && chgrp 1000 /shut && chmod 705 /shut && exec sleep 1000000"
    container = lamina.background("base", "sh", "-c", script)
    with lamina.library() as engine:
        handle = engine.containers.get(container)
        wait_until(lambda: b"sleep\x001000000" in Path(f"/proc/{handle.pid}/cmdline").read_bytes(), "it has made the directory")
        assert handle.exec(["ls", "/shut"], user="4711:4711") == 0
        for user in ("alice", "1000:1000", "4711:1000"):
            assert handle.exec(["ls", "/shut"], user=user) != 0
            groups = handle.exec_output(["grep", "^Groups:", "/proc/self/status"], user=user)
            assert "1000" in groups.split(), "a supplementary one stays, whatever becomes of the group itself"


def test_containers_reach_no_process_of_another_or_of_the_host(lamina: Lamina):
    with lamina.library() as engine:
        one, other = engine.containers.run("base", FOREVER), engine.containers.run("base", ["sleep", "2000000"])
        look = f"kill -0 {other.pid}; kill -0 {os.getpid()}; cat /proc/{other.pid}/environ; grep -c 200000[0] /proc/[0-9]*/cmdline"
        said = one.exec_output(["sh", "-c", f"({look}) 2>&1; true"])
        assert said.count("No such process") == 2
        assert "No such file or directory" in said
        assert ":0" in said and ":1" not in said, "it sees its own processes alone"
        assert other.status == "running"
    # Even where the host's processes are in sight, root of a container may not look into one that has more capabilities.
    look = f"for each in environ mem root/etc exe fd/0 maps; do cat /proc/{os.getpid()}/$each; done >/dev/null"
    done = lamina.result("run", "--rm", "--pid", "host", "base", "sh", "-c", look)
    assert done.stderr.count("Permission denied") == 6
    done = lamina.result("run", "--rm", "--pid", "host", "-u", "1000", "base", "sh", "-c", f"kill -0 {os.getpid()}")
    assert "Operation not permitted" in done.stderr


def test_users_of_the_host_cannot_enter_the_store_and_no_socket_is_without_a_path(lamina: Lamina):
    """CVE-2021-41091: set-user-ID programs of images are in there. CVE-2020-15257: an abstract socket has no permissions."""
    abstract_before = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if line.split()[-1][0] == "@"}
    container = lamina.background("--network", "host", "base", *FOREVER)
    inside = lamina("exec", container, "cat", "/proc/net/unix")
    assert {line.split()[-1] for line in inside.splitlines() if line.split()[-1].startswith("@")} <= abstract_before
    with lamina.library() as engine:
        run_dir = Path(engine.context.run_dir)
    for path in (lamina.root, run_dir):
        assert path.stat().st_mode & 0o067 == 0, path
    parent_fd = os.open(lamina.root.parent, os.O_PATH | os.O_DIRECTORY)
    child = os.fork()
    if child == 0:
        os.fchdir(parent_fd)
        os.setgroups([])
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        names = ("lamina.db", "overlay", "aufs", "vfs", "image", "volumes", "containers")
        os._exit(sum(os.access(f"{lamina.root.name}/{name}", os.F_OK) for name in names))
    os.close(parent_fd)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_no_mount_of_a_build_leads_out_of_what_it_is_of(lamina: Lamina, tmp_path: Path):
    """CVE-2024-1753, CVE-2024-9675, CVE-2024-9407, CVE-2024-23651, CVE-2024-23653, CVE-2025-4953."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("canary\n")
    up = f"../../../../../../../../../../..{outside}"
    stage = f"FROM base AS evil\nRUN ln -s {outside} /absolute; ln -s {up} /relative; ln -s {up} /tmp/cache\nFROM base\n"
    context = Context(lamina, tmp_path / "context", stage, {"file": "file\n"})
    (context.directory / "way").symlink_to(outside)
    for mount in (
        "type=bind,from=evil,source=/absolute,target=/m",
        "type=bind,from=evil,source=relative,target=/m",
        "type=bind,from=evil,source=/relative/../relative/secret,target=/m",
        "type=bind,source=way,target=/m",
        "type=bind,source=../outside,target=/m",
        "type=cache,from=evil,source=/relative,target=/m",
        "type=bind,target=/m,bind-propagation=shared",
        "type=bind,target=/proc/sys,rw",
        "type=tmpfs,target=/proc/acpi",
    ):
        context.write({"Dockerfile": f"{stage}RUN --mount={mount} cat /m /m/*; false\n"})
        done = context.result()
        assert done.returncode == 1
        assert "canary" not in done.stdout + done.stderr, mount
        assert "ended with exit code" not in done.stderr, mount
    context.write({"Dockerfile": f"{stage}RUN --mount=type=bind,target=/m,rw rm -rf /m/file && echo mine > /m/new\n"})
    context.build()
    assert sorted(os.listdir(context.directory)) == ["Dockerfile", "file", "way"]
    assert (context.directory / "file").read_text() == "file\n"
    assert os.listdir(outside) == ["secret"]
