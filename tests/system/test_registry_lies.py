"""Registries that lie, stall or talk nonsense: one clear line, nothing left behind, nothing waited for without end."""

import gzip
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import pytest
from cases import wait_until
from registries import Handler, Place, Proxy, Registry, Server, make_image, sample_layers

from lamina.errors import ArchiveError, IntegrityError, LaminaError, NotFoundError, NotUsableError, TransferError
from lamina.model.digest import Digest
from lamina.model.image import DOCKER_MANIFEST, OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor, Manifest

LAYER = archives.layer({"file": "content\n" * 100})
PACKED = gzip.compress(LAYER, mtime=0)
CONFIG = json.dumps(
    {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(LAYER))]},
    }
).encode()


def described(content: bytes, media_type: str, **more: object) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(content), size_bytes=len(content), **more)  # type: ignore[arg-type]


MANIFEST = Manifest(config=described(CONFIG, OCI_CONFIG), layers=(described(PACKED, OCI_LAYER_GZIP),)).to_bytes()
Answer = Callable[[Handler], None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path, monkeypatch.setenv)
    place.configure("[registries]\nattempts = 1\ntimeout = 1\n")
    return place


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start registries that answer honestly but for what a test says: by what ends the path."""
    servers: list[Server] = []

    def start(
        *lies: tuple[str, Answer], manifest: bytes = MANIFEST, kind: str = OCI_MANIFEST, blobs: tuple[bytes, ...] = (CONFIG, PACKED)
    ) -> Server:
        known = {str(Digest.of(each)): each for each in blobs}

        def answer(request: Handler) -> None:
            for pattern, lie in lies:
                if re.search(pattern, request.path):
                    return lie(request)
            if "/manifests/" in request.path:
                return request.reply(200, manifest, {"Content-Type": kind})
            digest = request.path.rpartition("/")[2]
            if "/blobs/" in request.path and digest in known:
                return request.reply(200, known[digest])
            return request.reply(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}')

        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def refused(place: Place, server: Server, kind: type[LaminaError], match: str, name: str = "app:1") -> LaminaError:
    """Pull, which must fail so, naming the image, and leave nothing."""
    with place.engine() as engine, pytest.raises(kind, match=match) as caught:
        engine.images.pull(f"{server.host}/{name}")
    assert caught.value.message.startswith(f"'{server.host}/app"), caught.value.message
    assert "\n" not in caught.value.message
    assert place.left() == []
    return caught.value


def test_the_honest_one_is_believed(serve: Callable[..., Server], place: Place) -> None:
    with place.engine() as engine:
        assert engine.images.pull(f"{serve().host}/app:1").digest == Digest.of(MANIFEST)


def test_another_manifest_than_the_one_asked_for_is_refused(serve: Callable[..., Server], place: Place) -> None:
    other = Digest.of(b"something else")
    refused(place, serve(), IntegrityError, f"gives a manifest {Digest.of(MANIFEST)} for {other}", f"app@{other}")


def test_a_digest_in_the_head_that_is_not_the_bodys_is_refused(serve: Callable[..., Server], place: Place) -> None:
    headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(Digest.of(b"x"))}
    refused(
        place, serve(("/manifests/", lambda request: request.reply(200, MANIFEST, headers))), IntegrityError, "gives a manifest"
    )


@pytest.mark.parametrize("blob", [CONFIG, PACKED], ids=["configuration", "layer"])
def test_another_blob_of_the_same_length_is_refused(blob: bytes, serve: Callable[..., Server], place: Place) -> None:
    lie = bytes(reversed(blob))
    refused(place, serve((str(Digest.of(blob)), lambda request: request.reply(200, lie))), IntegrityError, str(Digest.of(lie)))


def test_an_endless_body_is_refused(serve: Callable[..., Server], place: Place) -> None:
    sent = []

    def endless(request: Handler) -> None:
        request.reply(200, PACKED, length=-1)
        for _ in range(100_000):
            request.wfile.write(b"x" * 65536)
            sent.append(65536)

    refused(place, serve((str(Digest.of(PACKED)), endless)), IntegrityError, "is longer than")
    assert sum(sent) < 32 << 20


def test_a_body_that_announces_another_length_is_refused_at_once(serve: Callable[..., Server], place: Place) -> None:
    refused(
        place,
        serve((str(Digest.of(PACKED)), lambda request: request.reply(200, PACKED * 1000))),
        IntegrityError,
        "bytes there, the manifest says",
    )


def test_a_body_that_ends_early_is_an_error(serve: Callable[..., Server], place: Place) -> None:
    def short(request: Handler) -> None:
        request.reply(200, PACKED[:10], length=len(PACKED))
        request.close_connection = True

    refused(place, serve((str(Digest.of(PACKED)), short)), TransferError, "broke off")


def test_a_registry_without_ranges_gives_the_rest_anyway(serve: Callable[..., Server], place: Place) -> None:
    place.configure("[registries]\nattempts = 3\n")
    asked: list[str | None] = []

    def once_short(request: Handler) -> None:
        asked.append(request.headers.get("Range"))
        if len(asked) == 1:
            request.reply(200, PACKED[:50], length=len(PACKED))
            request.close_connection = True
        else:
            request.reply(200, PACKED)

    server = serve((str(Digest.of(PACKED)), once_short))
    with place.engine() as engine:
        engine.images.pull(f"{server.host}/app:1")
    assert asked == [None, "bytes=50-"]


def test_a_range_that_is_another_one_is_not_believed(serve: Callable[..., Server], place: Place) -> None:
    place.configure("[registries]\nattempts = 2\n")

    def wrong(request: Handler) -> None:
        if "Range" in request.headers:
            return request.reply(206, PACKED[:-50], {"Content-Range": f"bytes 0-{len(PACKED) - 51}/{len(PACKED)}"})
        request.reply(200, PACKED[:50], length=len(PACKED))
        request.close_connection = True
        return None

    refused(place, serve((str(Digest.of(PACKED)), wrong)), TransferError, "another part")


def test_a_web_page_is_no_manifest(serve: Callable[..., Server], place: Place) -> None:
    page = lambda request: request.reply(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})  # noqa: E731
    error = refused(place, serve(("/manifests/", page)), ArchiveError, "a web page where a manifest should be")
    assert error.hint == "is it a registry?"


@pytest.mark.parametrize(
    ("content", "kind", "match"),
    [
        (b"not json", OCI_MANIFEST, "not valid JSON"),
        (b"[]", OCI_MANIFEST, "not a JSON object"),
        (b"[" * 100_000, OCI_MANIFEST, "not valid JSON"),
        (b"{}", "application/octet-stream", "schemaVersion"),
        (b'{"schemaVersion":1,"name":"x"}', "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (b'{"schemaVersion":2,"mediaType":"text/x"}', "text/x", "which is no image"),
        (MANIFEST, DOCKER_MANIFEST, "which calls itself"),
        (b'{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}', OCI_MANIFEST, "manifests"),
    ],
    ids=["text", "list", "deep", "empty", "schema 1", "other", "two types", "both"],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(content: bytes, kind: str, match: str, serve: Callable[..., Server], place: Place) -> None:
    with place.engine() as engine, pytest.raises(LaminaError, match=match):
        engine.images.pull(f"{serve(manifest=content, kind=kind).host}/app:1")
    assert place.left() == []


def test_a_huge_manifest_is_refused(serve: Callable[..., Server], place: Place) -> None:
    refused(place, serve(manifest=MANIFEST + b" " * (4 << 20)), IntegrityError, "longer than 4194304 bytes")


def test_an_artifact_is_no_image(serve: Callable[..., Server], place: Place) -> None:
    manifest = Manifest(
        config=described(b"{}", "application/vnd.oci.empty.v1+json"), layers=(described(b"{}", "application/vnd.x"),)
    )
    refused(
        place, serve(manifest=manifest.to_bytes()), ArchiveError, "no image but an artifact of the type 'application/vnd.oci.empty"
    )


def test_an_image_for_another_system_is_refused(serve: Callable[..., Server], place: Place) -> None:
    config = CONFIG.replace(b"linux", b"windows")
    manifest = Manifest(config=described(config, OCI_CONFIG), layers=(described(PACKED, OCI_LAYER_GZIP),)).to_bytes()
    refused(place, serve(manifest=manifest, blobs=(config, PACKED)), NotUsableError, "an image for windows")


def test_an_image_for_another_processor_is_taken_with_a_warning(serve: Callable[..., Server], place: Place) -> None:
    config = CONFIG.replace(b"amd64", b"s390x")
    manifest = Manifest(config=described(config, OCI_CONFIG), layers=(described(PACKED, OCI_LAYER_GZIP),)).to_bytes()
    with place.engine() as engine:
        engine.images.pull(f"{serve(manifest=manifest, blobs=(config, PACKED)).host}/app:1")
    assert "is for linux/s390x, and this machine is" in place.warnings[0]


@pytest.mark.parametrize(
    ("status", "kind", "match"),
    [
        (403, LaminaError, "denies access"),
        (404, NotFoundError, "doesn't have the tag '1': manifest unknown, no such thing"),
        (418, LaminaError, "status 418"),
        (500, TransferError, "status 500"),
        (503, TransferError, "status 503"),
        (429, TransferError, "limits how often"),
    ],
)
def test_what_a_registry_refuses_is_said_in_a_line(
    status: int, kind: type[LaminaError], match: str, serve: Callable[..., Server], place: Place
) -> None:
    body = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such\\u001b[31m thing"}]}'
    match = match.replace("such thing", "such.*thing")
    error = refused(place, serve(("/manifests/", lambda request: request.reply(status, body))), kind, match)
    assert error.message.isprintable()


def test_who_is_asked_to_wait_waits_and_asks_again(serve: Callable[..., Server], place: Place) -> None:
    place.configure("[registries]\nattempts = 3\n")
    asked = []

    def limited(request: Handler) -> None:
        asked.append(request.path)
        if len(asked) == 1:
            return request.reply(429, headers={"Retry-After": "0"})
        if len(asked) == 2:
            return request.reply(502, b"<html>")
        return request.reply(200, MANIFEST, {"Content-Type": OCI_MANIFEST})

    with place.engine() as engine:
        engine.images.pull(f"{serve(('/manifests/', limited)).host}/app:1")
    assert len(asked) == 3


def test_a_manifest_that_breaks_off_is_asked_for_again(serve: Callable[..., Server], place: Place) -> None:
    place.configure("[registries]\nattempts = 2\n")
    asked = []

    def short(request: Handler) -> None:
        asked.append(request.path)
        request.reply(200, MANIFEST if len(asked) == 2 else MANIFEST[:9], {"Content-Type": OCI_MANIFEST}, length=len(MANIFEST))
        request.close_connection = True

    with place.engine() as engine:
        engine.images.pull(f"{serve(('/manifests/', short)).host}/app:1")
    assert len(asked) == 2


def test_who_is_asked_to_wait_for_long_says_so(serve: Callable[..., Server], place: Place) -> None:
    place.configure("[registries]\nattempts = 3\n")
    limited = ("/manifests/", lambda request: request.reply(429, headers={"Retry-After": "3600"}))
    assert "in 3600 seconds" in refused(place, serve(limited), TransferError, "limits").hint


@pytest.mark.parametrize(
    "location", ["", "ftp://127.0.0.1/x", "http://", "/v2/app/manifests/1"], ids=["none", "ftp", "empty", "itself"]
)
def test_a_redirect_to_nowhere_ends(location: str, serve: Callable[..., Server], place: Place) -> None:
    lie = ("/manifests/", lambda request: request.reply(302, headers={"Location": location} if location else {}))
    refused(place, serve(lie), LaminaError, "redirects")


def test_a_blob_may_be_elsewhere(serve: Callable[..., Server], place: Place) -> None:
    storage = serve(("/signed", lambda request: request.reply(200, PACKED)))
    server = serve(
        (str(Digest.of(PACKED)), lambda request: request.reply(307, headers={"Location": f"http://{storage.host}/signed?secret=x"}))
    )
    with place.engine() as engine:
        engine.images.pull(f"{server.host}/app:1")


def test_who_says_nothing_is_not_waited_for(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            place.engine() as engine,
            pytest.raises(TransferError, match=r"nothing for too long|doesn't answer|broke off|no connection"),
        ):
            engine.images.pull(f"{host}/app:1")
    assert place.left() == []


def test_who_stops_in_a_blob_is_not_waited_for(serve: Callable[..., Server], place: Place) -> None:
    over = threading.Event()

    def stall(request: Handler) -> None:
        request.reply(200, PACKED[:20], length=len(PACKED))
        request.wfile.flush()
        over.wait(30)

    try:
        refused(place, serve((str(Digest.of(PACKED)), stall)), TransferError, "sent nothing for too long")
    finally:
        over.set()


def test_a_refusal_without_an_end_is_not_waited_for(serve: Callable[..., Server], place: Place) -> None:
    place.configure("[registries]\nattempts = 1\ntimeout = 50\n")
    over, ended = threading.Event(), list[bool]()

    def stall(request: Handler) -> None:
        request.reply(401, b"who", {"WWW-Authenticate": 'Basic realm="r"'}, length=-1)
        request.wfile.flush()
        ended.append(over.wait(10))
        request.close_connection = True

    try:
        refused(place, serve(("/manifests/", stall)), LaminaError, "wants to know who asks")
    finally:
        over.set()
    wait_until(lambda: ended, "the one that stalls has ended")
    assert ended == [True], "the rest of the refusal was waited for"


def test_layers_that_the_disk_has_no_space_for_are_refused_before_they_come(serve: Callable[..., Server], place: Place) -> None:
    huge = Descriptor(media_type=OCI_LAYER_GZIP, digest=Digest.of(PACKED), size_bytes=1 << 60)
    manifest = Manifest(config=described(CONFIG, OCI_CONFIG), layers=(huge,)).to_bytes()
    asked: list[str] = []
    server = serve((str(Digest.of(PACKED)), lambda request: asked.append(request.path)), manifest=manifest)
    refused(place, server, LaminaError, f"its layers take {1 << 40} MiB, and [0-9]+ MiB are free")
    assert asked == []


def test_a_failing_layer_does_not_wait_for_one_that_stalls(serve: Callable[..., Server], place: Place) -> None:
    place.configure("[registries]\nattempts = 1\ntimeout = 50\n")
    began, over, ended = threading.Event(), threading.Event(), list[bool]()
    other = gzip.compress(LAYER + b"\0" * 10240, mtime=0)
    config = CONFIG.replace(b'"diff_ids": [', b'"diff_ids": ["' + str(Digest.of(LAYER)).encode() + b'", ')
    layers = (described(PACKED, OCI_LAYER_GZIP), described(other, OCI_LAYER_GZIP))
    manifest = Manifest(config=described(config, OCI_CONFIG), layers=layers).to_bytes()

    def stall(request: Handler) -> None:
        request.reply(200, other[:20], length=len(other))
        request.wfile.flush()
        began.set()
        ended.append(over.wait(10))

    def lie(request: Handler) -> None:
        began.wait(10)
        request.reply(200, bytes(reversed(PACKED)))

    server = serve((str(Digest.of(other)), stall), (str(Digest.of(PACKED)), lie), manifest=manifest, blobs=(config,))
    try:
        refused(place, server, IntegrityError, "has the digest")
    finally:
        over.set()
    wait_until(lambda: ended, "the one that stalls has ended")
    assert ended == [True], "the other was waited for"


FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def test_a_foreign_layer_comes_from_its_own_address_without_an_account(serve: Callable[..., Server], place: Place) -> None:
    asks = ("/curious", lambda request: request.reply(401, headers={"WWW-Authenticate": "Basic realm=x"}))
    storage = serve(("/layer", lambda request: request.reply(200, PACKED)), asks)
    urls = ["ftp://127.0.0.1/x", f"http://{storage.host}/curious", f"http://{storage.host}/layer"]
    foreign = described(PACKED, FOREIGN, extra={"urls": urls})
    manifest = Manifest(config=described(CONFIG, OCI_CONFIG), layers=(foreign,)).to_bytes()

    def knows(request: Handler) -> None:
        if "Authorization" not in request.headers:
            return request.reply(401, headers={"WWW-Authenticate": "Basic realm=x"})
        return request.reply(200, manifest, {"Content-Type": OCI_MANIFEST})

    server = serve(("/manifests/", knows), manifest=manifest, blobs=(CONFIG,))
    place.log_in(server.host)
    place.log_in(storage.host)
    with place.engine() as engine:
        pulled = engine.images.pull(f"{server.host}/app:1")
        assert engine.images.store.layers(pulled.image)[0].media_type == FOREIGN
    assert {path for _, path, _ in storage.seen} == {"/curious", "/layer"}
    assert not any("authorization" in headers for _, _, headers in storage.seen)


def test_a_proxy_is_used_and_its_account_never_shown(
    serve: Callable[..., Server], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.configure('[registries]\nattempts = 1\ninsecure = ["registry.invalid"]\n')
    proxy = serve()
    monkeypatch.setenv("http_proxy", f"http://anna:secret@{proxy.host}")
    with place.engine() as engine:
        engine.images.pull("registry.invalid/app:1")
    assert all(path.startswith("http://registry.invalid/v2/app/") for _, path, _ in proxy.seen)
    assert all(headers["proxy-authorization"].startswith("Basic ") for _, _, headers in proxy.seen)
    monkeypatch.setenv("http_proxy", "http://anna:secret@127.0.0.1:1")
    with place.engine() as engine, pytest.raises(TransferError, match="the proxy can't be reached") as caught:
        engine.images.pull("registry.invalid/other:1")
    assert "secret" not in caught.value.message + caught.value.hint


class TestMirrors:
    """`[registries.mirrors]`: asked first, never believed, never needed."""

    @pytest.fixture(scope="class")
    @classmethod
    def registry(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
        registry = Registry(tmp_path_factory.mktemp("registry"))
        yield registry
        registry.stop()

    @pytest.fixture
    def mirror(self, registry: Registry) -> Iterator[Proxy]:
        proxy = Proxy(registry.port)
        yield proxy
        proxy.stop()

    def prepare(self, place: Place, registry: Registry, *mirrors: str, path: str) -> str:
        name = f"{registry.host}/{path}:1"
        with place.engine("other") as engine:
            make_image(engine, place.directory, name, sample_layers(path, sizes=(50_000, 1000)))
            engine.images.push(name)
        listed = ", ".join(f'"http://{each}"' for each in mirrors)
        place.configure(f'[registries]\nattempts = 1\n[registries.mirrors]\n"{registry.host}" = [{listed}]\n')
        return name

    def test_a_mirror_is_asked_first(self, registry: Registry, mirror: Proxy, place: Place) -> None:
        name = self.prepare(place, registry, mirror.host, path="first")
        with place.engine() as engine:
            engine.images.pull(name)
        assert len(mirror.asked("GET", "/blobs/")) == 3

    def test_one_that_is_down_or_empty_or_refuses_costs_nothing_but_time(
        self, registry: Registry, mirror: Proxy, place: Place, serve: Callable[..., Server]
    ) -> None:
        nobody = serve(("", lambda request: request.reply(401)))
        empty = serve(("", lambda request: request.reply(404)))
        name = self.prepare(place, registry, "127.0.0.1:1", nobody.host, empty.host, path="down")
        with place.engine() as engine:
            engine.images.pull(name)

    def test_one_that_lies_is_found_out(self, registry: Registry, place: Place, serve: Callable[..., Server]) -> None:
        def lie(request: Handler) -> None:
            status, headers = registry.request("HEAD", request.path, {"Accept": OCI_MANIFEST})
            request.reply(status, b"x" * int(headers.get("Content-Length", 0)) if status == 200 else b"")

        name = self.prepare(place, registry, serve(("/blobs/", lie), ("", lambda request: request.reply(404))).host, path="lies")
        with place.engine() as engine:
            engine.images.pull(name)
        assert not [line for line in place.left() if "intended" in line or "operations" in line]

    def test_what_is_pushed_goes_to_the_registry_itself(self, registry: Registry, mirror: Proxy, place: Place) -> None:
        name = self.prepare(place, registry, mirror.host, path="pushed")
        with place.engine("other") as engine:
            engine.images.tag(name, name.replace("pushed", "pushed-again"))
            engine.images.push(name.replace("pushed", "pushed-again"))
        assert mirror.asked("PUT", "/") == mirror.asked("POST", "/") == []
