"""Building a case of the corpus: what every builder is given, how Lamina builds it in this process, and how other programs do.

The command line itself is called, without a process of its own: there are some hundred cases and three drivers.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

from corpus import BASE, Case, Image, make_context, make_tree, read_archive, read_layout, said_config

from lamina.cli.commands.build import command
from lamina.cli.main import Settings
from lamina.engine import Engine

EPOCH = "1700000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A case that lies ready."""

    case: Case
    context: Path
    words: tuple[str, ...]
    """Flags, without the context."""
    before: tuple[str, ...] = ()
    stdin: bytes = b""
    url: str = ""

    @property
    def source(self) -> str:
        """What stands for the context on a command line."""
        return str(self.context) if self.case.given == "directory" else "-"


@contextlib.contextmanager
def given(case: Case, place: Path, *, base: str) -> Iterator[Given]:
    """Make a case's context and what is beside it in the new directory `place`; serve what it downloads."""
    place.mkdir(parents=True)
    make_context(case, place / "context")
    for name, tree in (("outside", case.outside), ("served", case.served)):
        (place / name).mkdir()
        make_tree(tree, place / name)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(served(place / "served")) if case.served else ""
        values = {"{context}": str(place / "context"), "{outside}": str(place / "outside"), "{url}": url, "{base}": base}
        words = tuple(_filled(word, values) for word in case.args)
        dockerfile = place / "context" / "Dockerfile"
        stdin = b""
        if case.given == "tar":
            stdin = _tar(place / "context")
        elif case.given == "nothing":
            stdin = dockerfile.read_bytes()
        elif case.dockerfile_on_stdin:
            stdin = dockerfile.read_bytes()
            dockerfile.unlink()
            words += ("-f", "-")
        before = tuple(str(place / "context" / word) if word.startswith("Dockerfile") else word for word in case.before)
        yield Given(case=case, context=place / "context", words=words, before=before, stdin=stdin, url=url)


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _tar(place: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:  # buildx knows one by its first 512 bytes
        tar.add(place, ".")
    return out.getvalue()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served(place: Path, port: int = 0) -> Iterator[str]:
    """Serve a directory on loopback, at a free port unless one is named; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=str(place))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Settings(Settings):
    """The command line's global options, with an engine that stays open."""

    def __init__(self, engine: Engine, root: Path, driver: str) -> None:
        super().__init__(str(root), "", driver)
        self._engine = engine

    @contextlib.contextmanager
    def engine(self, storage_driver: str = "") -> Iterator[Engine]:
        yield self._engine


class LaminaBuilder:
    """`lamina build` on one root directory and one driver."""

    def __init__(self, root: Path, driver: str) -> None:
        self.root = root
        self.driver = driver
        self.engine = Engine(root_dir=str(root), storage_driver=driver)

    def build(self, one: Given, *words: str) -> str:
        """Build a case; gives the image's id. Raises what the command raises."""
        if one.before:
            self._build(one, *one.before, str(one.context))
        return self._build(one, *one.words, *words, one.source)

    def _build(self, one: Given, *words: str) -> str:
        stdin = io.TextIOWrapper(io.BytesIO(one.stdin))
        out = io.StringIO()
        environment = {"SOURCE_DATE_EPOCH": EPOCH, **one.case.env}
        with mock.patch.dict(os.environ, environment), mock.patch.object(sys, "stdin", stdin), contextlib.redirect_stdout(out):
            command.main(["--quiet", *words], standalone_mode=False, obj=_Settings(self.engine, self.root, self.driver))
        return out.getvalue().strip()

    def read(self, image_id: str) -> Image:
        """Read an image from the layout on disk."""
        return read_layout(self.root / "image", image_id)


class PeerError(Exception):
    """A peer couldn't build it: the last of what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """A Docker daemon, with its classic builder or BuildKit."""

    host: str
    uses_buildkit: bool
    version: str

    @property
    def name(self) -> str:
        return f"docker {self.version}" if self.uses_buildkit else f"docker {self.version} classic"

    def load(self, archive: Path) -> None:
        """Give it the base image."""
        self._run("load", "-i", str(archive))

    def forget(self) -> None:
        """Take the base image away again."""
        self._run("rmi", "--force", BASE)

    def build(self, one: Given, place: Path) -> Image:
        """Build a case and read what came of it. Nothing stays but the builders' caches."""
        names = [one.before[one.before.index("-t") + 1]] if one.before else []
        try:
            if one.before:
                self._build(one, *one.before, str(one.context), place=place)
            image_id = self._build(one, *one.words, one.source, place=place)
            names.append(image_id)
            return self._read(image_id)
        finally:
            for name in reversed(names):
                self._run("rmi", "--force", name)

    def _build(self, one: Given, *words: str, place: Path) -> str:
        id_file = place / "id"
        self._run("build", "--network=host", "--iidfile", str(id_file), *words, stdin=one.stdin, env=one.case.env)
        return id_file.read_text()

    def _read(self, image_id: str) -> Image:
        config = json.loads(self._run("image", "inspect", image_id))[0]
        if not config["RootFS"].get("Layers"):  # `docker save` can't write such an image
            return Image(tree={}, config=said_config({"config": config["Config"], "author": config["Author"]}))
        return read_archive(io.BytesIO(self._run("save", image_id)))

    def _run(self, *words: str, stdin: bytes = b"", env: Any = None) -> bytes:
        environment = {**os.environ, "DOCKER_HOST": self.host, "DOCKER_BUILDKIT": str(int(self.uses_buildkit)), **(env or {})}
        return _run("docker", *words, stdin=stdin, env=environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Buildah:
    """A buildah, on a store of its own. `program` may be several words."""

    program: tuple[str, ...]
    version: str
    store: Path

    @property
    def name(self) -> str:
        return f"buildah {self.version}"

    def load(self, archive: Path) -> None:
        """Give it the base image."""
        self._run("pull", f"docker-archive:{archive}")

    def forget(self) -> None:
        """Do nothing: the store is the test's own."""

    def build(self, one: Given, place: Path) -> Image:
        """Build a case and read what came of it."""
        if one.before:
            self._build(one, *one.before, str(one.context), place=place)
        image_id = self._build(one, *one.words, one.source, place=place)
        archive = place / "image.tar"
        self._run("push", "--quiet", image_id, f"docker-archive:{archive}:corpus/of-buildah:1")
        with archive.open("rb") as content:
            return read_archive(content)

    def _build(self, one: Given, *words: str, place: Path) -> str:
        id_file = place / "id"
        # chroot leaves the machine's cgroups alone; the limits are lower than where buildah needs a privilege for them.
        flags = ("--isolation=chroot", "--format=docker", "--ulimit=nofile=1000:1000", "--ulimit=nproc=9000:9000")
        source = words[-1] if words[-1] != "-" or one.case.given == "tar" else "/dev/stdin"
        self._run("build", *flags, "--iidfile", str(id_file), *words[:-1], source, stdin=one.stdin, env=one.case.env)
        return id_file.read_text()

    def _run(self, *words: str, stdin: bytes = b"", env: Any = None) -> bytes:
        store = ("--root", str(self.store / "store"), "--runroot", str(self.store / "run"), "--storage-driver", "vfs")
        return _run(*self.program, *store, *words, stdin=stdin, env={**os.environ, **(env or {})})


def _run(*words: str, stdin: bytes, env: dict[str, str]) -> bytes:
    done = subprocess.run(words, input=stdin, env=env, capture_output=True, check=False, timeout=120)
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).decode("utf-8", "replace").splitlines() if line.strip()]
        raise PeerError("\n".join(said[-30:]))
    return done.stdout


def peers(store: Path) -> list[Docker | Buildah]:
    """Whom this machine has: DOCKER_HOST's daemon with both its builders, buildah, and what LAMINA_MORE_DOCKERS (addresses) and
    LAMINA_MORE_BUILDAHS (programs, `;` between them) name."""
    found: list[Docker | Buildah] = []
    for host in [os.environ["DOCKER_HOST"], *os.environ.get("LAMINA_MORE_DOCKERS", "").split()]:
        said = subprocess.run(["docker", "-H", host, "version", "--format", "json"], capture_output=True, check=True).stdout
        version = _short(json.loads(said)["Server"]["Version"])
        found += [Docker(host=host, uses_buildkit=True, version=version), Docker(host=host, uses_buildkit=False, version=version)]
    for program in ["buildah", *filter(None, os.environ.get("LAMINA_MORE_BUILDAHS", "").split(";"))]:
        said = subprocess.run([*program.split(), "--version"], capture_output=True, check=True).stdout
        version = _short(said.decode().split()[2])
        found.append(Buildah(program=tuple(program.split()), version=version, store=store / version))
    return found


def _short(version: str) -> str:
    return ".".join(version.split(".")[:2])


__all__: Sequence[str] = ("BASE", "Buildah", "Docker", "Given", "LaminaBuilder", "PeerError", "given", "peers")
