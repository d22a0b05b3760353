"""The documents that `inspect` shows: Docker's names and the shapes that templates rely on, the same for each driver."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lamina.model.container import Container, ContainerConfig, MountRequest, Status
from lamina.usecases.context import Context
from lamina.usecases.inspect import NEVER, container_document
from lamina.usecases.volumes import Volumes

DRIVERS = ("overlay", "aufs", "vfs")
CONFIG = ContainerConfig(
    image="busybox", command=("echo", "hi"), env=("A=1",), labels={"l": "v"}, stop_signal="SIGINT", stop_timeout_s=3,
    exposed_ports=("80/tcp",), storage_options={"size": "1G"}, hostname="box",
    mounts=(
        MountRequest(type="bind", source="/host", target="/in", read_only=True),
        MountRequest(type="tmpfs", target="/t", options={"size": "1m", "noexec": ""}),
    ),
)  # fmt: skip
CREATED = Container(
    id="ab" * 32, name="one", image_id="sha256:" + "0" * 64, driver="overlay", created_ns=1_700_000_000_123_456_789,
    status=Status.CREATED, config=CONFIG, parents=("p" * 64,),
)  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context.open(root_dir=str(tmp_path / "root"), run_dir=str(tmp_path / "run"), chosen_driver="vfs", warn=print)


def document(context: Context, container: Container = CREATED) -> dict:
    found = container_document(context, Volumes(context), container)
    assert json.loads(json.dumps(found)) == found, "what is shown is JSON"
    return found


def test_a_created_container_has_no_process_and_never_started(context: Context):
    found = document(context)
    assert found["State"] == {
        "Status": "created", "Running": False, "Paused": False, "Restarting": False, "OOMKilled": False, "Dead": False,
        "Pid": 0, "ExitCode": 0, "Error": "", "StartedAt": NEVER, "FinishedAt": NEVER,
    }  # fmt: skip
    assert found["Created"].startswith("2023-11-14T22:13:20.123456789")
    assert (found["Name"], found["Path"], found["Args"]) == ("/one", "echo", ["hi"])
    assert found["NetworkSettings"]["SandboxKey"] == ""


def test_a_running_one_has_its_pid_and_its_network_namespace(context: Context):
    found = document(context, replace(CREATED, status=Status.RUNNING, pid=42, started_ns=1))
    assert (found["State"]["Running"], found["State"]["Pid"]) == (True, 42)
    assert found["NetworkSettings"]["SandboxKey"] == "/proc/42/ns/net"


def test_an_ended_one_keeps_no_pid_though_the_record_may(context: Context):
    found = document(context, replace(CREATED, status=Status.EXITED, pid=42, exit_code=3, started_ns=1, finished_ns=2))
    assert (found["State"]["Pid"], found["State"]["ExitCode"], found["State"]["Running"]) == (0, 3, False)


def test_a_paused_one_runs_and_is_paused_as_docker_says_it(context: Context):
    state = document(context, replace(CREATED, status=Status.PAUSED, pid=42))["State"]
    assert (state["Status"], state["Running"], state["Paused"], state["Pid"]) == ("paused", True, True, 42)


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_drivers_containers_have_a_merged_directory(context: Context, driver: str):
    found = document(context, replace(CREATED, driver=driver))
    assert found["Driver"] == found["GraphDriver"]["Name"] == driver
    assert found["GraphDriver"]["Data"]["MergedDir"].startswith(f"{context.root_dir}/{driver}/")
    assert CREATED.id in found["GraphDriver"]["Data"]["MergedDir"]


def test_an_aliass_container_is_shown_by_the_drivers_own_name(context: Context):
    assert document(context, replace(CREATED, driver="overlay2"))["Driver"] == "overlay"


def test_mounts_are_shown_as_what_they_are(context: Context):
    found = document(context)
    bind, tmpfs = found["Mounts"]
    assert bind == {
        "Type": "bind", "Source": "/host", "Destination": "/in", "Mode": "ro", "RW": False, "Propagation": "rprivate",
    }  # fmt: skip
    assert (tmpfs["Type"], tmpfs["Destination"], tmpfs["RW"]) == ("tmpfs", "/t", True)
    assert found["HostConfig"]["Binds"] == ["/host:/in:ro"]
    assert found["HostConfig"]["Tmpfs"] == {"/t": "size=1m,noexec"}


def test_the_configuration_is_under_dockers_names(context: Context):
    config = document(context)["Config"]
    assert config["Env"] == ["A=1"]
    assert config["Cmd"] == ["echo", "hi"]
    assert config["Entrypoint"] is None
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert (config["StopSignal"], config["StopTimeout"], config["Hostname"]) == ("SIGINT", 3, "box")
    assert "StopTimeout" not in document(context, replace(CREATED, config=replace(CONFIG, stop_timeout_s=None)))["Config"]


def test_what_is_empty_is_null_where_dockers_is(context: Context):
    found = document(context, replace(CREATED, config=ContainerConfig(image="i", command=("x",))))
    assert found["HostConfig"]["Binds"] is None
    assert found["HostConfig"]["Tmpfs"] is None
    assert found["HostConfig"]["StorageOpt"] is None
    assert found["Config"]["Volumes"] is None
    assert found["Config"]["Hostname"] == CREATED.short_id
