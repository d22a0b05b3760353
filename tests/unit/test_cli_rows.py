"""What `ps` says of a container, made from a record alone; and `top`'s rows of the host's ps."""

import os
from dataclasses import replace
from typing import Any

import pytest

from lamina.cli.container_rows import _command, _image, _mounts, status_text
from lamina.errors import UsageError
from lamina.linux.process import start_time
from lamina.model.container import Container, ContainerConfig, MountRequest, Status
from lamina.usecases.host_ps import host_ps

S = 1_000_000_000
NOW = 1_800_000_000 * S
IMAGE = "sha256:" + "ab" * 32


def container(**given: Any) -> Container:
    values: dict[str, Any] = {
        "id": "cd" * 32, "name": "one", "image_id": IMAGE, "driver": "x", "created_ns": NOW - 60 * S, "status": Status.CREATED,
        "config": ContainerConfig(image="busybox", command=("true",)), "parents": (),
    }  # fmt: skip
    return Container(**values | given)


def test_a_status_is_in_dockers_words():
    own = {"monitor_pid": os.getpid(), "monitor_started": start_time(os.getpid())}
    running = container(status=Status.RUNNING, started_ns=NOW - 300 * S, **own)
    assert status_text(container(), now_ns=NOW) == "Created"
    assert status_text(running, now_ns=NOW) == "Up 5 minutes"
    assert status_text(replace(running, status=Status.PAUSED), now_ns=NOW) == "Up 5 minutes (Paused)"
    ended = container(status=Status.EXITED, exit_code=137, started_ns=1, finished_ns=NOW - 3 * S)
    assert status_text(ended, now_ns=NOW) == "Exited (137) 3 seconds ago"
    assert status_text(container(status=Status.REMOVING), now_ns=NOW) == "Removal In Progress"


def test_a_container_whose_monitor_has_gone_says_so():
    lost = container(status=Status.RUNNING, started_ns=NOW - 300 * S, monitor_pid=os.getpid(), monitor_started=1)
    assert status_text(lost, now_ns=NOW) == "Up 5 minutes (monitor lost)"


def test_a_command_is_quoted_and_cut_as_docker_does():
    spoken = container(config=ContainerConfig(image="x", command=("sh", "-c", 'echo a "b" c and more')))
    assert _command(spoken, cuts=True) == '"sh -c \'echo a \\"b\\" c…"'
    assert _command(spoken, cuts=False) == '"sh -c \'echo a \\"b\\" c and more\'"'
    assert _command(container(config=ContainerConfig(image="x", command=("a\x1bb\n\u202e",))), cuts=True) == '"a\\x1bb\\n\\u202e"'


def test_the_image_is_named_while_the_name_is_its():
    names = {"docker.io/library/busybox:latest": IMAGE, "docker.io/library/other:latest": "sha256:" + "00" * 32}
    assert _image(container(), names, cuts=True) == "busybox"
    for typed, shown in (("other", "abababababab"), ("gone", "abababababab"), (IMAGE, "abababababab"), ("abab", "abab")):
        assert _image(container(config=ContainerConfig(image=typed, command=("x",))), names, cuts=True) == shown
    assert _image(container(config=ContainerConfig(image="gone", command=("x",))), names, cuts=False) == IMAGE


def test_mounts_are_named_by_volume_or_source_and_cut():
    mounts = (
        MountRequest(type="bind", target="/a", source="/a/long/path/of/the/host"),
        MountRequest(type="volume", target="/b", source="data"),
        MountRequest(type="tmpfs", target="/c"),
    )
    mounted = container(config=ContainerConfig(image="x", command=("x",), mounts=mounts), volumes={"/b": "data"})
    assert _mounts(mounted, cuts=True) == "/a/long/path/o…,data"
    assert _mounts(mounted, cuts=False) == "/a/long/path/of/the/host,data"


def test_the_hosts_ps_is_cut_down_to_the_pids_asked_for():
    titles, rows = host_ps(["-eo", "pid,comm"], {os.getpid()})
    assert titles == ("PID", "COMMAND")
    assert [row[0] for row in rows] == [str(os.getpid())]


@pytest.mark.parametrize("options", [["-o", "comm"], ["-o", "comm=PID,pid=X"], ["--no-such-option"]])
def test_options_that_leave_the_pid_out_or_forge_it_are_refused(options: list[str]):
    with pytest.raises(UsageError):
        host_ps(options, {os.getpid()})
