"""What ADD fetches from elsewhere: files by HTTP from a server of the test's own, repositories from git's own daemon."""

import http.server
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
from copies import Place, make, packed, shape


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class _Files(http.server.BaseHTTPRequestHandler):
    """What the tests download: by path."""

    log: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.log.append((self.path, self.headers.get("Authorization")))
        path = urlsplit(self.path).path  # a proxy is asked for whole URLs
        if path in {"/a%20b.txt", "/dir/f.txt"}:
            self._answer(b"hello", {"Last-Modified": formatdate(1234567, usegmt=True)})
        elif path == "/a.tar":
            self._answer(packed([("f", {"content": b"x"})]), {})
        elif path == "/old":
            self._answer(b"", {"Location": "/dir/f.txt"}, 302)
        elif path == "/elsewhere":
            self._answer(b"", {"Location": f"http://localhost:{self.server.server_address[1]}/dir/f.txt"}, 302)
        elif path == "/loop":
            self._answer(b"", {"Location": "/loop"}, 302)
        elif path == "/short":
            self._answer(b"hel", {"Content-Length": "10"})
        elif path == "/huge":
            self._answer(b"", {"Content-Length": str(1 << 50)})
        elif path == "/":
            self._answer(b"root", {})
        else:
            self._answer(b"no", {}, 500 if path == "/broken" else 404)

    def _answer(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(own_network: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server on this test's own loopback."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    _Files.log.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


class TestDownloads:
    """What ADD fetches."""

    def test_a_file_has_its_urls_name_its_time_and_mode_600(self, place: Place, server: str) -> None:
        out = place.build(f"ADD {server}/dir/f.txt?x=1 /n/")
        assert (out / "n/f.txt").read_text() == "hello"
        assert shape(out / "n/f.txt") == (0o600, 0, 0)
        assert (out / "n/f.txt").stat().st_mtime == 1234567
        assert (place.build(f"ADD {server}/a%20b.txt /n/") / "n/a b.txt").exists()
        out = place.build(f"ADD --chmod=755 --chown=5 {server}/old /n")
        assert (out / "n").read_text() == "hello"
        assert shape(out / "n") == (0o755, 5, 5)

    def test_archives_are_unpacked_only_if_asked(self, place: Place, server: str) -> None:
        assert (place.build(f"ADD {server}/a.tar /n/") / "n/a.tar").is_file()
        assert (place.build(f"ADD --unpack=true {server}/a.tar /n/") / "n/f").read_text() == "x"

    def test_a_checksum_is_checked(self, place: Place, server: str) -> None:
        assert place.build(f"ADD --checksum=sha256:{HELLO} {server}/dir/f.txt /n/")
        wrong = place.error(f"ADD --checksum=sha256:{'0' * 64} {server}/dir/f.txt /n/")
        assert f"has the digest sha256:{HELLO}" in wrong.message
        assert "not a checksum" in place.error(f"ADD --checksum=md5:1 {server}/dir/f.txt /n/").message

    def test_the_digest_is_the_contents(self, place: Place, server: str) -> None:
        first = place.gather(f"ADD {server}/dir/f.txt /n")
        assert first.digest == place.gather(f"ADD {server}/dir/f.txt /n").digest
        assert first.digest != place.gather(f"ADD {server}/a.tar /n").digest

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("/missing", "the server says that there is no such file (404)"),
            ("/broken", "the server answered 500"),
            ("/loop", "redirects more than 10 times"),
            ("/short", "broke"),
            ("/huge", "more than the limit"),
            ("/", "doesn't say what the file is called"),
        ],
    )
    def test_what_cannot_be_downloaded_is_one_line_and_nothing_is_left(
        self, place: Place, server: str, path: str, message: str
    ) -> None:
        error = place.error(f"ADD {server}{path} /n/")
        assert message in error.message
        assert error.message.startswith("Dockerfile:2: ADD: ")
        if path != "/":
            assert not os.listdir(place.top / "downloads")

    def test_a_proxy_of_the_environment_is_gone_through(self, place: Place, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", server)
        assert (place.build("ADD http://files.example.invalid/dir/f.txt /n/") / "n/f.txt").read_text() == "hello"
        assert _Files.log[0][0] == "http://files.example.invalid/dir/f.txt"
        monkeypatch.setenv("no_proxy", ".invalid")
        assert "can't be downloaded" in place.error("ADD http://files.example.invalid/dir/f.txt /n/").message

    def test_a_server_that_is_not_there_is_one_line(self, place: Place, server: str) -> None:
        assert "connection refused" in place.error("ADD http://127.0.0.1:1/x /n").message

    def test_a_certificate_that_nobody_trusts_is_one_line(self, place: Place, own_network: None, tmp_path: Path) -> None:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-subj", "/CN=localhost", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")],
            check=True, capture_output=True,
        )  # fmt: skip
        secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secure.load_cert_chain(tmp_path / "cert", tmp_path / "key")
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files) as running:
            running.socket = secure.wrap_socket(running.socket, server_side=True)
            thread = threading.Thread(target=running.serve_forever, args=(0.01,))
            thread.start()
            try:
                error = place.error(f"ADD https://localhost:{running.server_address[1]}/dir/f.txt /n")
            finally:
                running.shutdown()
                thread.join()
        assert "certificate is not trusted" in error.message

    def test_credentials_go_to_their_host_alone_and_into_no_message(self, place: Place, server: str) -> None:
        host = server.removeprefix("http://")
        place.build(f"ADD http://me:secret@{host}/elsewhere /n")
        assert [given is not None for _, given in _Files.log] == [True, False]
        error = place.error(f"ADD http://me:secret@{host}/missing?token=secret /n")
        assert "secret" not in error.message + error.hint


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with two commits, a branch and a tag."""
    top = tmp_path / "work"
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words], cwd=top, check=True, env=env)

    make(top / "f", "first")
    make(top / "docs/d", "doc", 0o755)
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("tag", "v1")
    (top / "f").write_text("second")
    git("commit", "-q", "-a", "-m", "two")
    bare = tmp_path / "served/repo.git"
    bare.parent.mkdir()
    subprocess.run(["git", "clone", "-q", "--bare", str(top), str(bare)], check=True, env=env)
    return bare


@pytest.fixture
def git_server(own_network: None, repository: Path) -> Iterator[str]:
    """git's own daemon on this test's own loopback."""
    with subprocess.Popen(
        ["git", "daemon", "--listen=127.0.0.1", "--port=9418", "--export-all", "--verbose", "--reuseaddr",
         f"--base-path={repository.parent}", str(repository.parent)],
        stderr=subprocess.PIPE, text=True,
    ) as daemon:  # fmt: skip
        assert daemon.stderr is not None
        assert "Ready to rumble" in daemon.stderr.readline()
        yield "git://127.0.0.1/repo.git"
        daemon.terminate()


class TestGit:
    """Repositories that ADD fetches."""

    def test_a_branch_a_tag_a_commit_and_a_directory(self, place: Place, git_server: str, repository: Path) -> None:
        out = place.build(f"ADD {git_server} /n")
        assert (out / "n/f").read_text() == "second"
        assert sorted(os.listdir(out / "n")) == ["docs", "f"]
        assert shape(out / "n/docs/d") == (0o755, 0, 0)
        assert (place.build(f"ADD {git_server}#v1 /n") / "n/f").read_text() == "first"
        first = subprocess.run(
            ["git", "-C", str(repository), "rev-parse", "v1"], capture_output=True, text=True, check=True
        ).stdout.strip()
        assert (place.build(f"ADD {git_server}#{first[:10]} /n") / "n/f").read_text() == "first"
        assert os.listdir(place.build(f"ADD {git_server}#main:docs /n") / "n") == ["d"]
        assert (place.build(f"ADD --keep-git-dir=true {git_server} /n") / "n/.git/HEAD").exists()
        assert place.gather(f"ADD --checksum={first[:8]} {git_server}#v1 /n")
        assert "--checksum says" in place.error(f"ADD --checksum={first[:8]} {git_server}#main /n").message

    @pytest.mark.parametrize(
        ("rest", "message"),
        [
            ("#nothing", "has no branch, tag or commit 'nothing'"),
            ("#main:nowhere", "'nowhere' isn't in"),
            ("#main:../x", "leads out"),
        ],
    )
    def test_what_is_not_there_is_one_line(self, place: Place, git_server: str, rest: str, message: str) -> None:
        assert message in place.error(f"ADD {git_server}{rest} /n").message

    def test_a_repository_that_is_not_there_is_one_line(self, place: Place, git_server: str) -> None:
        error = place.error("ADD git://127.0.0.1/none.git /n")
        assert error.message.startswith("Dockerfile:2: ADD: git can't fetch 'git://127.0.0.1/none.git': ")
        assert not os.listdir(place.top / "downloads")

    def test_without_git_it_is_said(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        error = place.error("ADD git://127.0.0.1/repo.git /n")
        assert "the program 'git' is not installed" in error.message
        assert error.hint == "install git"
