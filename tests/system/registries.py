"""Registries that tests start on loopback: Debian's docker-registry, a token server, a proxy that counts and cuts, and liars.

Nothing here listens anywhere else, and all of it ends with the fixture that began it.
"""

import base64
import contextlib
import http.client
import http.server
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import archives
from cases import wait_until

from lamina.engine import Engine
from lamina.store.image_archive import load

USER, PASSWORD = "anna", "correct horse"
HTPASSWD = "anna:$2b$04$gP2eazxIarwmxoXGiUK90eVK1B6RLNkiWeoaTzXl2QN6S2fo2IBRe\n"
"""That password by bcrypt with four rounds, which is all that docker-registry takes; htpasswd(1) would do no more."""


def free_port() -> int:
    """A port on loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Registry:
    """A docker-registry of its own directory."""

    def __init__(self, place: Path, *, settings: str = "", scheme: str = "http", tls: str = "") -> None:
        self.place, self.scheme = place, scheme
        self.port = free_port()
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.yml").write_text(
            f"version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n"
            f"storage:\n  filesystem:\n    rootdirectory: {place}/data\n"
            f"  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{self.port}\n{tls}{settings}"
        )
        self._log = (place / "log").open("wb")
        self._process = subprocess.Popen(
            ["docker-registry", "serve", place / "config.yml"], stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL
        )
        wait_until(self._is_up, "docker-registry listens")

    def _is_up(self) -> bool:
        assert self._process.poll() is None, (self.place / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Mapping[str, str]]:
        """Ask it by plain HTTP, past lamina."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, dict(answer.headers)

    def blob_file(self, digest: str) -> Path:
        """Where it keeps a blob."""
        digits = digest.partition(":")[2]
        return self.place / "data/docker/registry/v2/blobs/sha256" / digits[:2] / digits / "data"

    def uploads(self, repository: str) -> list[str]:
        """The uploads that it has begun and not finished."""
        folder = self.place / "data/docker/registry/v2/repositories" / repository / "_uploads"
        return sorted(os.listdir(folder)) if folder.exists() else []

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._log.close()


def make_certificates(place: Path) -> Path:
    """A CA (`ca.crt`) and a certificate for loopback of it (`server.crt`, `server.key`), and one for a client."""
    place.mkdir(parents=True, exist_ok=True)

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=test CA")
    for name, more in (("server", "subjectAltName=IP:127.0.0.1,DNS:localhost"), ("client", "extendedKeyUsage=clientAuth")):
        (place / f"{name}.ext").write_text(more)
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.crt",
                "-days", "2", "-extfile", f"{name}.ext")  # fmt: skip
    return place


class Server:
    """A small HTTP server of the test's own, each request in a thread. `answer` handles them; `seen` is what came."""

    def __init__(self, answer: "Callable[[Handler], None]") -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.errors: list[BaseException] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are part of it
        self._server.answer = answer  # type: ignore[attr-defined]
        self._server.seen = self.seen  # type: ignore[attr-defined]
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    """A request; `reply` answers it."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))  # type: ignore[attr-defined]
        self.server.answer(self)  # type: ignore[attr-defined]

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _handle

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, *, length: int | None = None) -> None:
        """Answer; a `length` other than the body's is a lie, -1 leaves it out."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Proxy:
    """A TCP proxy before a registry. It counts, and may cut: the connection that has given so many bytes in all is reset."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.sent_up = self.sent_down = 0
        self.requests: list[str] = []
        self._cuts: list[int] = []
        self.cuts_done = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut_after(self, *counts: int) -> None:
        """Cut when so many bytes more have come down, each count once."""
        with self._lock:
            self._cuts = [self.sent_down + sum(counts[: number + 1]) for number in range(len(counts))]

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self.requests.clear()
            self.sent_up = self.sent_down = 0

    def asked(self, method: str, pattern: str) -> list[str]:
        """Which of the requests were such ones."""
        with self._lock:
            return [each for each in self.requests if each.startswith(f"{method} ") and re.search(pattern, each)]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._open |= {client, server}
                for source, target, down in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._carry, args=(source, target), kwargs={"down": down}, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, *, down: bool) -> None:
        try:
            while data := source.recv(1 << 14):
                cut = False
                with self._lock:
                    if down:
                        self.sent_down += len(data)
                        if self._cuts and self.sent_down >= self._cuts[0]:
                            self._cuts.pop(0)
                            self.cuts_done += 1
                            cut = True
                    else:
                        self.sent_up += len(data)
                        self.requests += [f"{m[1].decode()} {m[2].decode()}" for m in _REQUEST.finditer(data)]
                if cut:
                    break
                target.sendall(data)
        except OSError:
            pass
        finally:
            for each in (source, target):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self._listener.close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()


_REQUEST = re.compile(rb"(?:^|\r\n)(GET|HEAD|PUT|PATCH|POST) (/v2/\S*) HTTP/1\.1\r\n")


class TokenServer:
    """Gives tokens that docker-registry believes: JSON Web Tokens signed by a key whose certificate it knows."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "token.key", "-out", "token.crt", "-days", "2",
             "-subj", "/CN=tokens"], cwd=place, check=True, capture_output=True,
        )  # fmt: skip
        self.life_s = 300
        self.refresh_token = "a-refresh-token"
        self.anonymous_may_pull = False
        self.asked: list[tuple[str, dict[str, list[str]], str]] = []
        self.server = Server(self._answer)

    def registry_settings(self) -> str:
        return (
            f"auth:\n  token:\n    realm: http://{self.server.host}/token\n    service: test registry\n    issuer: test\n"
            f"    rootcertbundle: {self.place}/token.crt\n"
        )

    def _answer(self, request: Handler) -> None:
        query = parse_qs(urlsplit(request.path).query)
        account = ""
        sent = request.headers.get("Authorization", "")
        if request.command == "POST":
            query = parse_qs(request.body.decode())
            if query.get("refresh_token") == [self.refresh_token] and query.get("grant_type") == ["refresh_token"]:
                account = USER
            else:
                return request.reply(401)
        elif sent:
            if base64.b64decode(sent.partition(" ")[2]).decode() != f"{USER}:{PASSWORD}":
                return request.reply(401, b'{"details":"incorrect username or password"}')
            account = USER
        self.asked.append((request.command, query, account))
        access = []
        for scope in " ".join(query.get("scope", [])).split():
            kind, name, actions = (
                scope.split(":", 1)[0],
                scope.split(":", 1)[1].rpartition(":")[0],
                scope.rpartition(":")[2].split(","),
            )
            allowed = actions if account else [each for each in actions if each == "pull" and self.anonymous_may_pull]
            access.append({"type": kind, "name": name, "actions": allowed})
        body = {"token": self._sign(account, access), "expires_in": self.life_s}
        return request.reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _sign(self, account: str, access: Sequence[Mapping[str, Any]]) -> str:
        certificate = "".join((self.place / "token.crt").read_text().splitlines()[1:-1])
        now = int(time.time())
        times = {"exp": now + 300, "nbf": now - 10, "iat": now, "jti": os.urandom(8).hex()}
        claims = {"iss": "test", "sub": account, "aud": "test registry", "access": access, **times}
        header = {"typ": "JWT", "alg": "RS256", "x5c": [certificate]}
        text = ".".join(_base64(json.dumps(each).encode()) for each in (header, claims))
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.place / "token.key"], input=text.encode(), capture_output=True, check=True
        ).stdout
        return f"{text}.{_base64(signed)}"

    def stop(self) -> None:
        self.server.stop()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Place:
    """A root directory with one engine at a time, and what the user's files say there."""

    def __init__(self, directory: Path, env: "Callable[[str, str], None]") -> None:
        self.directory = directory
        self.root = directory / "root"
        self.docker_config = directory / "docker"
        self._env = env
        env("DOCKER_CONFIG", str(self.docker_config))
        env("HOME", str(directory))
        env("REGISTRY_AUTH_FILE", str(directory / "no-auth.json"))
        self.configure("")

    def configure(self, text: str) -> None:
        """Write the configuration file."""
        path = self.directory / "config.toml"
        path.write_text(text)
        self._env("LAMINA_CONFIG", str(path))

    def log_in(self, host: str, username: str = USER, password: str = PASSWORD, **more: str) -> None:
        """Put an account into Docker's file."""
        self.docker_config.mkdir(exist_ok=True)
        path = self.docker_config / "config.json"
        document = json.loads(path.read_text()) if path.exists() else {"auths": {}}
        document["auths"][host] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode(), **more}
        path.write_text(json.dumps(document))

    @contextlib.contextmanager
    def engine(self, name: str = "root", driver: str = "overlay") -> Iterator[Engine]:
        """The library, on this place's store or another of that name."""
        with Engine(root_dir=str(self.directory / name), storage_driver=driver, warn=self.warned) as engine:
            yield engine

    def warned(self, text: str) -> None:
        self.warnings = [*getattr(self, "warnings", []), text]

    def left(self, name: str = "root") -> list[str]:
        """Everything that a store holds of images: blobs, layers, files half written, rows."""
        root = self.directory / name
        found = [
            str(path.relative_to(root))
            for pattern in ("image/blobs/sha256/*", "tmp/blob-*", "overlay/*/diff")
            for path in root.glob(pattern)
        ]
        with Engine(root_dir=str(root), storage_driver="overlay") as engine:
            connection = engine.context.database.connection
            for table in (
                "images",
                "image_names",
                "image_blobs",
                "image_digests",
                "layer_blobs",
                "layers",
                "operations",
                "intended_layers",
            ):
                found += [f"{table}: {tuple(row)}" for row in connection.execute(f"SELECT * FROM {table}")]
        return sorted(found)


def noise(seed: str, size: int) -> bytes:
    """Bytes that no compression makes fewer, the same for the same seed."""
    parts = []
    for number in range(size // 32 + 1):
        parts.append(sha256(f"{seed}{number}".encode()).digest())
    return b"".join(parts)[:size]


def make_image(engine: Engine, directory: Path, name: str, layers: Sequence[bytes], **config: Any) -> None:
    """Load an image of these layers under a name."""
    archive = archives.image(directory / "made.tar", name, list(layers), **config)
    with archive.open("rb") as stream:
        load(engine.images.store, stream)
    archive.unlink()


def sample_layers(seed: str, *, sizes: Sequence[int] = (300_000, 200_000, 100_000)) -> list[bytes]:
    """Layers of noise, one file each."""
    return [
        archives.layer({f"file-{number}": archives.Item(content=noise(f"{seed}-{number}", size))})
        for number, size in enumerate(sizes)
    ]
