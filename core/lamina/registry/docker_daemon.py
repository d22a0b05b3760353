"""`docker-daemon:`, the images of a Docker daemon on this machine, by the Engine API over its socket.

An image comes and goes as an archive of Docker's (`docker_archive.py`): `GET /images/NAME/get`, `POST /images/load`. DOCKER_HOST
says where the daemon listens, as for Docker's own client: a Unix socket, or loopback. Not here: daemons elsewhere, by TLS or ssh.
"""

import contextlib
import http.client
import os
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from lamina import json
from lamina.errors import ArchiveError, NotFoundError, TransferError, UsageError
from lamina.model.reference import Reference
from lamina.registry.archive_file import ArchiveFile
from lamina.registry.docker_archive import DockerArchiveDestination, DockerArchiveSource
from lamina.store.docker_archive import no_images, read_entries

if TYPE_CHECKING:
    from lamina.registry.places import Place

DEFAULT_HOST = "unix:///var/run/docker.sock"
OLDEST_API = (1, 24)
"""Docker 1.12's, of 2016. The calls used here are the same since, so the daemon's own version is spoken."""

_CONNECT_S = 10.0
_MAX_ANSWER_BYTES = 1 << 20
_MAX_LINE_BYTES = 1 << 20
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CONNECT_S)
        self.sock.connect(self._path)
        self.sock.settimeout(None)  # a daemon may work for minutes before it answers, and it is here: it can't be lost


class _TcpConnection(http.client.HTTPConnection):
    """HTTP over loopback."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(None)


class DockerDaemon:
    """A daemon that answered. Each request has a connection of its own."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._version = self._negotiate()

    @classmethod
    def of_environment(cls) -> "DockerDaemon":
        """Find the daemon that Docker's client would talk to. Raise UsageError, TransferError."""
        return cls(os.environ.get("DOCKER_HOST") or DEFAULT_HOST)

    def _connection(self) -> http.client.HTTPConnection:
        scheme, found, address = self.host.partition("://")
        if scheme == "unix" and found and address.startswith("/"):
            return _UnixConnection(address)
        if scheme in {"tcp", "http"} and found:
            if os.environ.get("DOCKER_TLS_VERIFY"):
                raise UsageError("DOCKER_TLS_VERIFY is set, and daemons are not talked to by TLS here", hint="use its Unix socket")
            try:
                parts = urlsplit(f"http://{address}")
                name, port = parts.hostname or "", parts.port or 2375
            except ValueError:
                raise UsageError(f"DOCKER_HOST is '{self.host}', which has no valid port") from None
            if name not in _LOOPBACK:
                raise UsageError(
                    f"DOCKER_HOST is '{self.host}', which is not on this machine", hint="use docker:// with a registry"
                )
            return _TcpConnection(name, port, timeout=_CONNECT_S)
        raise UsageError(f"DOCKER_HOST is '{self.host}'", hint="it may be unix:///PATH or tcp://localhost:PORT")

    @contextlib.contextmanager
    def connected(self) -> Iterator[http.client.HTTPConnection]:
        """Connect; an error of the connection becomes one that names the daemon."""
        connection = self._connection()
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise TransferError(
                f"no docker daemon listens at '{self.host}'", hint="start it, or set DOCKER_HOST to where it listens"
            ) from error
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise TransferError(f"the docker daemon at '{self.host}' can't be reached: {why}") from error
        try:
            yield connection
        except (http.client.HTTPException, ConnectionError) as error:
            what = str(error) or type(error).__name__
            raise TransferError(f"the docker daemon at '{self.host}' broke off: {what[:200].lower()}") from error
        finally:
            connection.close()

    def _negotiate(self) -> str:
        with self.connected() as connection:
            connection.request("GET", "/_ping")
            answer = connection.getresponse()
            answer.read(_MAX_ANSWER_BYTES)
            spoken = answer.getheader("Api-Version") or answer.getheader("API-Version") or ""
        try:
            major, minor = (int(part) for part in spoken.split("."))
        except ValueError:
            raise TransferError(f"what listens at '{self.host}' is no docker daemon, or one older than Docker 1.12") from None
        if (major, minor) < OLDEST_API:
            raise TransferError(f"the docker daemon at '{self.host}' is too old: it speaks API {spoken}, 1.24 is needed")
        return f"/v{major}.{minor}"

    def inspect(self, name: str) -> dict[str, Any]:
        """Tell what the daemon knows of an image. Raise NotFoundError."""
        with self.connected() as connection:
            connection.request("GET", f"{self._version}/images/{quote(name, safe='/:@')}/json")
            answer = connection.getresponse()
            content = answer.read(_MAX_ANSWER_BYTES)
            self._check(answer, content, name)
            document = json.loads(content)
        if not isinstance(document, dict):
            raise TransferError(f"the docker daemon at '{self.host}' gave an answer that is no JSON object")
        return document

    @contextlib.contextmanager
    def saved(self, name: str) -> Iterator[http.client.HTTPResponse]:
        """Give the archive of an image as it comes."""
        with self.connected() as connection:
            connection.request("GET", f"{self._version}/images/{quote(name, safe='/:@')}/get")
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                self._check(answer, answer.read(_MAX_ANSWER_BYTES), name)
            yield answer

    @contextlib.contextmanager
    def load(self) -> Iterator["_Body"]:
        """Take an archive that the block writes. Raise what the daemon says of it."""
        with self.connected() as connection:
            connection.putrequest("POST", f"{self._version}/images/load?quiet=1")
            connection.putheader("Content-Type", "application/x-tar")
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            body = _Body(connection)
            yield body
            body.finish()
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                self._check(answer, answer.read(_MAX_ANSWER_BYTES), "")
            while line := answer.readline(_MAX_LINE_BYTES):
                self._check_line(line)

    def _check_line(self, line: bytes) -> None:
        """Load answers with JSON lines, and with 200 before it knows whether it can."""
        try:
            document = json.loads(line)
        except ValueError:
            return
        said = document.get("error") if isinstance(document, dict) else None
        if said:
            raise ArchiveError(f"the docker daemon at '{self.host}' refused the image: {str(said)[:300]}")

    def _check(self, answer: http.client.HTTPResponse, content: bytes, name: str) -> None:
        if answer.status == http.client.OK:
            return
        if answer.status == http.client.NOT_FOUND and name:
            raise NotFoundError(f"the docker daemon has no image '{name}'", hint="`docker images` lists those that it has")
        try:
            said = str(json.loads(content)["message"])
        except (ValueError, KeyError, TypeError):
            said = answer.reason
        raise TransferError(f"the docker daemon at '{self.host}' answered {answer.status}: {said[:300]}")


class _Body:
    """A request's body in chunks."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._is_refused = False

    def write(self, data: bytes, /) -> int:
        """Send bytes. A daemon that has stopped reading has answered why, which is read at the end."""
        if data and not self._is_refused:
            try:
                self._connection.send(b"%x\r\n" % len(data) + data + b"\r\n")
            except (BrokenPipeError, ConnectionResetError):
                self._is_refused = True
        return len(data)

    def finish(self) -> None:
        """Send the end."""
        if not self._is_refused:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._connection.send(b"0\r\n\r\n")


def open_docker_daemon(place: "Place", *, spool_dir: str, plain_layers: bool) -> DockerArchiveSource:
    """Fetch an image from the daemon. Raise NotFoundError, TransferError."""
    daemon = DockerDaemon.of_environment()
    name = place.id or (place.reference.familiar if place.reference is not None else "")
    image_id = str(daemon.inspect(name).get("Id") or "")
    with daemon.saved(name) as answer:
        archive = ArchiveFile.spool(answer, described=place.described, spool_dir=spool_dir)
    try:
        content = archive.read("manifest.json")
        if content is None:
            raise no_images(has_repositories=False)
        entries = read_entries(content)
        # A daemon whose store is containerd's may save more than was asked for; an id that isn't a configuration's says nothing.
        named = [entry for entry in entries if image_id.removeprefix("sha256:") in entry.config_path] or list(entries)
    except BaseException:
        archive.close()
        raise
    source = DockerArchiveSource(archive, named[0], described=place.described, spool_dir=spool_dir, plain_layers=plain_layers)
    source.names = [name for name in named[0].names if name == place.reference]
    return source


class DockerDaemonDestination(DockerArchiveDestination):
    """Loads one image into the daemon, under a name."""

    def __init__(self, place: "Place", *, spool_dir: str) -> None:
        reference = place.reference
        if reference is None or reference.tag is None or reference.digest is not None:
            raise UsageError(
                f"'{place.described}' can't be written to: an image there is given a name", hint="write docker-daemon:NAME[:TAG]"
            )
        self._daemon = DockerDaemon.of_environment()
        names: Sequence[Reference] = [reference]
        super().__init__(self._daemon.load, described=place.described, spool_dir=spool_dir, names=names)
