"""The recorder of calls, on calls that need no privilege; and its notes, read as rows."""

import builtins
import ctypes
import errno
import fcntl
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.linux import libc, mount, process
from lamina.linux.recorder import Recorder
from lamina.usecases.trace import Notes, Row

REPLACED = (
    (os, "mkdir"), (os, "fork"), (os, "execve"), (os, "open"), (builtins, "open"), (io, "open"), (signal, "pidfd_send_signal"),
    (fcntl, "ioctl"), (socket.socket, "bind"), (libc.libc, "mount"), (libc.libc, "syscall"),
)  # fmt: skip


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    assert tmp_path.is_dir()  # made before the recording begins
    made = Recorder()
    made.start()
    yield made
    made.stop()
    made.close()


def rows(recorder: Recorder) -> list[Row]:
    return Notes(pids={"0": os.getpid()}).read(recorder.kept_fd)


def calls(recorder: Recorder) -> list[str]:
    return [f"{row.name}({row.text}) = {row.result}" for row in rows(recorder) if row.kind == "call"]


def test_after_the_end_every_function_is_again_what_it_was() -> None:
    before = [getattr(owner, name) for owner, name in REPLACED]
    made = Recorder()
    made.start()
    assert all(getattr(owner, name) is not was for (owner, name), was in zip(REPLACED, before, strict=True))
    made.stop()
    made.close()
    assert [getattr(owner, name) for owner, name in REPLACED] == before
    assert "bind" not in vars(socket.socket)
    assert libc.listener is None


def test_names_are_those_of_the_calls_and_a_directorys_descriptor_is_told_by_its_path(recorder: Recorder, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_DIRECTORY)
    os.mkdir("a", 0o700, dir_fd=fd)
    os.symlink("text", "link", dir_fd=fd)
    os.rmdir("a", dir_fd=fd)
    os.chmod(tmp_path, 0o711)
    os.chown(tmp_path / "link", -1, -1, follow_symlinks=False)
    made = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY, 0o600)
    os.close(made)
    os.close(os.open(tmp_path / "file", os.O_RDONLY))
    assert calls(recorder) == [
        f"mkdirat({fd}<{tmp_path}>, 'a', 0o700) = 0",
        f"symlinkat({fd}<{tmp_path}>, 'text', 'link') = 0",
        f"unlinkat({fd}<{tmp_path}>, 'a', AT_REMOVEDIR) = 0",
        f"chmod('{tmp_path}', 0o711) = 0",
        f"lchown('{tmp_path}/link', -1, -1) = 0",
        f"openat('{tmp_path}/file', O_WRONLY|O_CREAT, 0o600) = {made}",
    ]
    os.close(fd)


def test_a_failed_call_is_noted_with_its_error_and_still_raises(recorder: Recorder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        os.rmdir(str(tmp_path / "not"))
    with pytest.raises(OSError, match="umount2") as caught:
        mount.unmount(str(tmp_path / "not"))
    assert caught.value.errno in {errno.ENOENT, errno.EPERM}
    name = errno.errorcode[caught.value.errno]
    assert calls(recorder) == [
        f"rmdir('{tmp_path}/not') = -1 ENOENT", f"umount2('{tmp_path}/not', UMOUNT_NOFOLLOW) = -1 {name}",
    ]  # fmt: skip


@pytest.mark.parametrize("call", ["clone", "clone3"])
def test_a_childs_calls_are_its_own_and_it_is_found_by_its_parents_fork(recorder: Recorder, tmp_path: Path, call: str) -> None:
    pid = os.fork() if call == "clone" else process.fork_into(0)
    if pid == 0:
        recorder.enters("child")
        os.mkdir(str(tmp_path / "made"))
        os._exit(0)
    os.waitpid(pid, 0)
    found = {row.name: row for row in rows(recorder)}
    assert (found[call].pid, found[call].role, found[call].result) == (os.getpid(), "lamina", str(pid))
    assert (found["mkdir"].pid, found["mkdir"].role) == (pid, "child")


def test_a_program_that_cant_be_executed_is_one_row_with_its_error(recorder: Recorder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        os.execve(str(tmp_path / "not"), ["not"], {})
    assert calls(recorder) == [f"execve('{tmp_path}/not', ['not']) = -1 ENOENT"]


def test_a_helper_program_is_named(recorder: Recorder) -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)
    found = rows(recorder)
    assert [row.name for row in found if row.kind == "call"] in (["vfork"], ["clone3"])  # the latter since Python 3.13
    assert [row.text for row in found if row.kind == "exec"] == [f"{sys.executable} -c "]


def test_a_tree_is_still_removed_in_the_safe_way(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    shutil.rmtree(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert "unlinkat" in " ".join(calls(recorder))  # by descriptors: shutil looks for os.unlink in os.supports_dir_fd


def test_what_is_noted_stays_on_one_line_whatever_a_name_holds(recorder: Recorder, tmp_path: Path) -> None:
    os.mkdir(str(tmp_path / "a\nb\x1fc\x1b[31m"))
    with libc.told("odd\u202e", lambda: "one\ntwo"):
        pass
    (call, step) = rows(recorder)
    assert call.text.endswith(r"a\nb\x1fc\x1b[31m'")
    assert step.text == r"one\ntwo"


def test_errno_survives_being_recorded(recorder: Recorder) -> None:
    assert libc.libc.umount2(b"/nowhere/at/all", 0) < 0
    assert ctypes.get_errno() in {errno.ENOENT, errno.EPERM}
    assert len(rows(recorder)) == 1


def test_processes_that_note_at_once_lose_nothing(recorder: Recorder) -> None:
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            for _ in range(2_000):
                os.umask(0o022)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    kept = os.pread(recorder.kept_fd, 1 << 24, 0).decode()
    assert kept.count("umask") == 6_000


def test_steps_nest_and_the_outermost_ones_end_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    made = Recorder()
    made.start(lambda: told.append(1))
    with libc.told("outer", lambda: "first; second"):
        with libc.told("inner", lambda: ""):
            os.mkdir(str(tmp_path / "made"))
        assert not told
    made.stop()
    found = rows(made)
    made.close()
    assert [(row.name, row.depth) for row in found] == [("outer", 0), ("inner", 1), ("mkdir", 2)]
    assert found[0].commands == ["first", "second"]
    assert all(row.took_ns is not None for row in found)
    assert told == [1]


def test_a_note_that_isnt_whole_yet_is_read_later(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "notes", os.O_CREAT | os.O_RDWR)
    whole = "\x1f".join(["call", "0", "lamina", "0", "5", "9", "mkdir", "0", "'/a'"]).encode() + b"\n"
    os.write(fd, whole[:10])
    notes = Notes()
    assert notes.read(fd) == []
    os.write(fd, whole[10:])
    (row,) = notes.read(fd)
    os.close(fd)
    assert (row.name, row.took_ns, row.text) == ("mkdir", 4, "'/a'")
