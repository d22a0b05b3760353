"""The tutorial that everyone has done, on every driver: its Dockerfile is built, run with `--net host`, and asked for its page.

The host's network is the test's own network namespace: there is port 80 free, an index of packages, and nothing else.
"""

import http.client
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tutorial
from cases import DRIVERS, Lamina, wait_until

PORT = 3141


@pytest.fixture(params=DRIVERS if os.environ.get("LAMINA_KILLS") == "all" else ["aufs"])
def driver(request: pytest.FixtureRequest) -> str:
    """Each in the long form; the story of networks builds the same on another one."""
    return str(request.param)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive with `python:2.7-slim`."""
    return tutorial.python_image(tmp_path_factory.mktemp("python") / "python.tar", index_url=f"http://127.0.0.1:{PORT}/simple/")


@pytest.fixture
def index(tmp_path: Path, own_network: None) -> Iterator[None]:
    """An index of packages on loopback, and no way to any other."""
    tutorial.make_index(tmp_path / "index")
    with tutorial.served(tmp_path / "index", PORT):
        yield


def page() -> str:
    """Ask the application as a browser does; an empty text while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=30)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()
    except ConnectionRefusedError:
        return ""
    finally:
        connection.close()


def test_the_application_of_the_tutorial_is_built_and_answers(lamina: Lamina, python: Path, index: None) -> None:
    lamina("load", "-i", str(python))
    built = lamina.result("build", "--progress", "plain", "-t", "friendlyhello", str(tutorial.CONTEXT), timeout_s=110)
    assert built.returncode == 0, built.stderr
    assert "Successfully installed" in built.stderr

    container = lamina.background("--net", "host", "--name", "hello", "friendlyhello")
    wait_until(page, "an answer at port 80", timeout_s=30)
    hostname = lamina.show(container, "{{ .Config.Hostname }}")
    assert page() == (
        f"<h3>Hello World!</h3><b>Hostname:</b> {hostname}<br/>"
        "<b>Visits:</b> <i>cannot connect to Redis, counter disabled</i>"
    )  # fmt: skip
    assert lamina("exec", "hello", "cat", "/app/requirements.txt") == "Flask\nRedis"

    config = lamina.document("friendlyhello", "image")["Config"]
    assert config["Cmd"] == ["python", "app.py"]
    assert config["WorkingDir"] == "/app"
    assert list(config["ExposedPorts"]) == ["80/tcp"]
    assert "NAME=World" in config["Env"]
    lamina("rm", "--force", "hello")
