"""The tutorial that everyone has done, in one go: built, run, visited at port 4000, entered, changed, committed, run again.

"The host" is a network namespace of the test's own: there the port is free, an index of packages is on loopback, and nothing else.
"""

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
import tutorial
from cases import Lamina, driver_of, wait_until
from terminals import Terminal

PORT = 3141
REDIS = r"""
import socketserver
class Answer(socketserver.StreamRequestHandler):
    visits = 0
    def handle(self):
        while (head := self.rfile.readline()):
            words = []
            for _ in range(int(head[1:])):
                words.append(self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2])
            Answer.visits += words[0] == b"INCRBY"
            said = {b"INCRBY": b":%d\r\n" % Answer.visits, b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n"}
            self.wfile.write(said.get(words[0], b"+OK\r\n"))
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
Server(("", 6379), Answer).serve_forever()
"""
"""As much of a Redis server as counts visits (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    """The story is the same on every driver; that its application runs on each, `test_tutorial.py` shows."""
    return driver_of(request)


@pytest.fixture
def index(tmp_path: Path, own_network: None) -> Iterator[None]:
    """An index of packages on loopback, and no way to any other."""
    tutorial.make_index(tmp_path / "index")
    with tutorial.served(tmp_path / "index", PORT):
        yield


def page(port: int = 4000, address: str = "127.0.0.1") -> str:
    """Ask the application as a browser does; an empty text while nobody answers."""
    connection = http.client.HTTPConnection(address, port, timeout=30)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()
    except (ConnectionError, http.client.RemoteDisconnected):
        return ""
    finally:
        connection.close()


def test_the_tutorial_from_its_dockerfile_to_a_second_image(lamina: Lamina, index: None, tmp_path: Path):
    archive = tutorial.python_image(tmp_path / "python.tar", index_url=f"http://127.0.0.1:{PORT}/simple/")
    lamina("load", "-i", str(archive))
    built = lamina.result("build", "--progress", "plain", "-t", "friendlyhello", str(tutorial.CONTEXT), timeout_s=110)
    assert built.returncode == 0, built.stderr

    lamina("network", "create", "front")
    no_dns = ("--dns", "127.0.0.1")  # the machine's name server can't be reached from here, and would be waited for
    hello = lamina.background("--name", "hello", "--net", "front", *no_dns, "-p", "4000:80", "friendlyhello")
    wait_until(page, "an answer at port 4000", timeout_s=30)
    assert page() == (
        f"<h3>Hello World!</h3><b>Hostname:</b> {hello[:12]}<br/>"
        "<b>Visits:</b> <i>cannot connect to Redis, counter disabled</i>"
    )  # fmt: skip
    assert "Hello World!" in page(address="::1")
    assert lamina("ps", "--format", "{{.Image}} {{.Ports}}") == "friendlyhello 0.0.0.0:4000->80/tcp, [::]:4000->80/tcp"
    assert lamina("port", "hello", "80").splitlines() == ["0.0.0.0:4000", "[::]:4000"]

    lamina.background("--name", "redis", "--net", "front", tutorial.NAME, "python", "-c", REDIS)
    wait_until(lambda: "<b>Visits:</b> 1" in page(), "the first visit that is counted, by the name of a container")
    assert "<b>Visits:</b> 2" in page()

    with Terminal(lamina.command("exec", "-it", "hello", "/bin/sh")) as terminal:
        terminal.expect("# ")
        terminal.type("touch /made-by-hand; ls /app\n")
        terminal.expect("app.py")
        terminal.type("exit\n")
        assert terminal.wait() == 0

    second = lamina("commit", "-m", "made by hand", "hello", "hello-by-hand")
    assert lamina("history", "--format", "{{.Comment}}", "hello-by-hand").splitlines()[0] == "made by hand"
    assert lamina("diff", "hello").splitlines().count("A /made-by-hand") == 1
    lamina.background("--name", "again", "--net", "front", *no_dns, "-p", "127.0.0.1:4001:80", "-v", "/test", "hello-by-hand")
    assert lamina.document("again")["Image"] == second
    wait_until(lambda: "<b>Visits:</b> 3" in page(4001), "an answer of the second image")
    assert "<b>Visits:</b> 4" in page(), "and the first one is visited as before"
    assert lamina("exec", "again", "ls", "/made-by-hand") == "/made-by-hand"
    lamina("exec", "again", "sh", "-c", "echo kept > /test/note")
    (volume,) = lamina.document("again")["Mounts"]
    assert (Path(volume["Source"]) / "note").read_text() == "kept\n"
    lamina("commit", "again", "third")
    assert lamina("run", "--rm", "third", "ls", "/test") == "", "what a volume holds is in no image"

    lamina("stop", "-t", "0", "redis")
    assert "cannot connect to Redis" in page()
    lamina("rm", "--force", "--volumes", "hello", "again", "redis")
    assert page() == ""
    assert lamina("network", "prune", "--force") == "Deleted Networks:\nfront\n"
    assert not lamina("volume", "ls", "-q")
