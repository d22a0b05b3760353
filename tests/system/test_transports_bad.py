"""Places of images that are damaged, hostile or not there, and daemons that say no: one clear error, and nothing is left."""

import gzip
import io
import json
import os
import random
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any, ClassVar

import archives
import pytest
from transfers import (
    DIFF_IDS,
    FILES,
    LAYERS,
    Copying,
    fails,
    in_form,
    new_store,
    place,
    read_tar,
    tree,
    write_tar,
)

from lamina.errors import ArchiveError, IntegrityError, LaminaError, NotFoundError, TransferError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import DOCKER_LAYER_GZIP, Descriptor
from lamina.registry.places import open_destination


@pytest.fixture
def copying(tmp_path: Path) -> Copying:
    return Copying(new_store(tmp_path))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What most tests copy from: the form of Docker before 25."""
    return archives.image(tmp_path / "first.tar", "place/app:1", LAYERS)


BLOB = b"a blob" * 1000
DAMAGES = {
    "other bytes": (b"A" + BLOB[1:], "is damaged: its bytes have the digest"),
    "too few": (BLOB[:-1], "5999 bytes where 6000 were announced"),
    "too many": (BLOB + b"x", "more than the 6000 bytes that were announced"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("form", FILES)
def test_a_damaged_blob_is_refused_and_leaves_nothing(form: str, damage: str, copying: Copying, tmp_path: Path) -> None:
    content, message = DAMAGES[damage]
    descriptor = Descriptor(media_type=DOCKER_LAYER_GZIP, digest=Digest.of(BLOB), size_bytes=len(BLOB))
    before, open_fds = sorted(tmp_path.iterdir()), len(os.listdir("/proc/self/fd"))
    destination = open_destination(place(in_form(form, tmp_path)), copying.images)
    fails(IntegrityError, message, lambda: destination.put_blob(descriptor, io.BytesIO(content)))
    assert not destination.has_blob(descriptor)
    destination.put_blob(descriptor, io.BytesIO(BLOB))  # trying again may help
    assert destination.has_blob(descriptor)
    destination.close()
    destination.close()
    assert sorted(tmp_path.iterdir()) == before
    assert len(os.listdir("/proc/self/fd")) == open_fds
    assert os.listdir(tmp_path / "store/tmp") == []


def test_a_layout_is_as_it_was_when_a_copy_into_it_fails(copying: Copying, archive: Path, tmp_path: Path) -> None:
    copying(f"docker-archive:{archive}", f"oci:{tmp_path}/layout:1")
    before = tree(tmp_path / "layout")
    destination = open_destination(place(f"oci:{tmp_path}/layout:2"), copying.images)
    descriptor = Descriptor(media_type=DOCKER_LAYER_GZIP, digest=Digest.of(BLOB), size_bytes=len(BLOB))
    destination.put_blob(descriptor, io.BytesIO(BLOB))
    destination.close()
    assert tree(tmp_path / "layout") == before


def test_what_can_not_be_a_place_is_refused(copying: Copying, archive: Path, tmp_path: Path) -> None:
    start = f"docker-archive:{archive}"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    copying(start, f"oci:{tmp_path}/layout:1")
    copying(start, f"oci-archive:{tmp_path}/oci.tar:1")
    copying(start, f"dir:{tmp_path}/dir")
    for target, message, hint in (
        (f"oci:{tmp_path}/full", "neither empty nor an OCI layout", ""),
        (f"oci:{tmp_path}/dir", "it looks like dir:", ""),
        (f"oci:{archive}", "is not a directory", "docker-archive:PATH"),
        (f"dir:{tmp_path}/full", "is not empty", ""),
        (f"dir:{tmp_path}/layout", "it looks like an OCI layout, oci:", ""),
        (f"dir:{archive}", "is not a directory", ""),
        (f"docker-archive:{tmp_path}/full", "is a directory", "the name of a file"),
        (f"oci-archive:{tmp_path}/none/x.tar", "doesn't exist", "a colon ends the path"),
        (f"oci:{tmp_path}/new:@1", "only chooses what to read", ""),
        (f"oci:{archive}/below", "can't be written: not a directory", ""),
    ):
        fails(LaminaError, message, lambda target=target: copying(start, target), hint=hint)  # type: ignore[misc]
    for source, message, hint in (
        (f"oci:{tmp_path}/none", "doesn't exist", "a colon ends the path"),
        (f"oci:{archive}", "is not a directory", "docker-archive:PATH"),
        (f"oci:{tmp_path}/dir", "it looks like dir:", ""),
        (f"dir:{tmp_path}/layout", "it looks like an OCI layout, oci:", ""),
        (f"dir:{tmp_path}/none", "doesn't exist", ""),
        (f"dir:{archive}", "is not a directory", ""),
        (f"docker-archive:{tmp_path}/none.tar", "doesn't exist", "a colon ends the path"),
        (f"docker-archive:{tmp_path}/layout", "is a directory: it looks like an OCI layout, oci:", ""),
        (f"docker-archive:{tmp_path}/oci.tar", "it looks like an oci-archive", "write oci-archive:"),
        (f"oci-archive:{archive}", "it looks like a docker-archive", "write docker-archive:"),
        ("lamina:none", "no such image: ", ""),
    ):
        fails(LaminaError, message, lambda source=source: copying.read(source), hint=hint)  # type: ignore[misc]


# Archives that aren't plain files, and hostile ones.


@pytest.mark.parametrize(
    "pack", [gzip.compress, lambda data: subprocess.run(["zstd", "-q"], input=data, capture_output=True).stdout]
)
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_a_packed_archive_is_read(
    form: str, pack: Callable[[bytes], bytes], copying: Copying, archive: Path, tmp_path: Path
) -> None:
    copying(f"docker-archive:{archive}", in_form(form, tmp_path))
    plain = next(tmp_path.glob("it*"))
    plain.write_bytes(pack(plain.read_bytes()))
    assert copying.read(in_form(form, tmp_path)).diff_ids == DIFF_IDS
    assert os.listdir(tmp_path / "store/tmp") == []


@pytest.mark.parametrize("pack", ["gzip", "bzip2", "xz", "zstd"])
def test_layers_of_a_docker_archive_may_be_packed(pack: str, copying: Copying, archive: Path, tmp_path: Path) -> None:
    members = {
        name: subprocess.run([pack, "-q", "-c"], input=content, capture_output=True, check=True).stdout
        if "layer" in name
        else content
        for name, content in read_tar(archive).items()
    }
    start = f"docker-archive:{write_tar(tmp_path / 'packed.tar', members)}"
    assert copying.read(start).diff_ids == DIFF_IDS
    copying(start, f"docker-archive:{tmp_path}/out.tar")
    assert copying.read(f"docker-archive:{tmp_path}/out.tar").diff_ids == DIFF_IDS


def test_a_layer_that_is_there_twice_goes_twice(copying: Copying, tmp_path: Path) -> None:
    start = archives.image(tmp_path / "twice.tar", "x:1", [LAYERS[0], LAYERS[1], LAYERS[0]])
    for form in FILES:
        copying(f"docker-archive:{start}", in_form(form, tmp_path))
        assert copying.read(in_form(form, tmp_path)).diff_ids == [DIFF_IDS[0], DIFF_IDS[1], DIFF_IDS[0]]


def test_links_within_an_archive_are_followed(copying: Copying, archive: Path, tmp_path: Path) -> None:
    """Docker before 25 put a layer that two images share in once, and symlinks to it."""
    members = read_tar(archive)
    members["0000/real.tar"] = members.pop("0000/layer.tar")
    start = write_tar(tmp_path / "links.tar", {"0000/layer.tar": (tarfile.SYMTYPE, "../0000/real.tar"), **members})
    assert copying.read(f"docker-archive:{start}").diff_ids == DIFF_IDS


def changed(**replaced: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda members: {**members, **{name.replace("__", "/").replace("_", "."): value for name, value in replaced.items()}}


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "climbs out": (lambda members: {"../x": b"x", **members}, "leads out of it"),
    "absolute": (lambda members: {"/etc/x": b"x", **members}, "leads out of it"),
    "a link out": (lambda members: {**members, "0000/layer.tar": (tarfile.SYMTYPE, "../../etc/passwd")}, "leads out of it"),
    "a hard link out": (lambda members: {**members, "0000/layer.tar": (tarfile.LNKTYPE, "/etc/passwd")}, "leads out of it"),
    "links in a circle": (
        lambda members: {**members, "0000/layer.tar": (tarfile.SYMTYPE, "b"), "0000/b": (tarfile.SYMTYPE, "layer.tar")},
        "in a circle",
    ),
    "a device": (lambda members: {**members, "dev": (tarfile.CHRTYPE, "")}, "neither file, directory nor link"),
    "a pipe": (lambda members: {**members, "pipe": (tarfile.FIFOTYPE, "")}, "neither file, directory nor link"),
    "another layer": (lambda members: {**members, "0000/layer.tar": LAYERS[1]}, "has the diff_id"),
    "no layer": (lambda members: {name: members[name] for name in members if name != "0001/layer.tar"}, "has no '0001/layer.tar'"),
    "a packed layer cut off": (
        lambda members: {**members, "0000/layer.tar": gzip.compress(members["0000/layer.tar"])[:-20]}, "truncated",
    ),
    "no manifest": (lambda members: {name: value for name, value in members.items() if name != "manifest.json"}, "has no images"),
    "a manifest that isn't JSON": (changed(manifest_json=b"{"), "not valid JSON"),
    "a manifest of nothing": (changed(manifest_json=b"[]"), "not a list of images"),
    "a huge manifest": (changed(manifest_json=b"[" + b" " * (9 << 20) + b"]"), "too many for a document"),
    "an archive of Docker 1.9": (
        lambda members: {"repositories": b"{}", "x/layer.tar": LAYERS[0]}, "the form of Docker before 1.10",
    ),
}  # fmt: skip


@pytest.mark.parametrize("plain", [False, True], ids=["packing", "plain"])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused(what: str, plain: bool, copying: Copying, archive: Path, tmp_path: Path) -> None:
    change, message = HOSTILE[what]
    start = write_tar(tmp_path / "bad.tar", change(read_tar(archive)))
    before = sorted(tmp_path.iterdir())
    target = f"docker-archive:{tmp_path}/out.tar" if plain else f"oci:{tmp_path}/out"
    with pytest.raises((ArchiveError, IntegrityError)) as caught:
        copying(f"docker-archive:{start}", target)
    assert message in caught.value.message or (plain and "is damaged" in caught.value.message)
    assert sorted(tmp_path.iterdir()) == before
    assert os.listdir(tmp_path / "store/tmp") == []


@pytest.mark.parametrize("size_bytes", [0, 100, 5_000, 30_000])
def test_an_archive_that_is_cut_off_is_refused(size_bytes: int, copying: Copying, archive: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.tar"
    short.write_bytes(archive.read_bytes()[:size_bytes])
    with pytest.raises(ArchiveError, match=r"truncated|it is empty"):
        copying.read(f"docker-archive:{short}")
    short.write_bytes(gzip.compress(archive.read_bytes())[:size_bytes])
    if size_bytes < len(gzip.compress(archive.read_bytes())):
        with pytest.raises(ArchiveError, match=r"truncated|it is empty|the archive has no|empty"):
            copying.read(f"docker-archive:{short}")
    assert os.listdir(tmp_path / "store/tmp") == []


def test_a_long_archive_that_is_cut_off_is_refused_where_its_data_is_skipped(copying: Copying, tmp_path: Path) -> None:
    noise = random.Random(7).randbytes(1 << 20)
    whole = archives.image(tmp_path / "long.tar", "x:1", [archives.layer({"noise": archives.Item(content=noise)})])
    assert len(copying.read(f"docker-archive:{whole}").diff_ids) == 1
    os.truncate(whole, 700_000)
    fails(ArchiveError, "truncated", lambda: copying.read(f"docker-archive:{whole}"))


def test_a_sparse_archive_is_refused(copying: Copying, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"[]")
    os.truncate(tmp_path / "manifest.json", 1 << 20)
    subprocess.run(["tar", "--sparse", "-C", str(tmp_path), "-cf", f"{tmp_path}/x.tar", "manifest.json"], check=True)
    fails(ArchiveError, "is stored as a sparse file", lambda: copying.read(f"docker-archive:{tmp_path}/x.tar"), hint="--sparse")


def layout_with(copying: Copying, archive: Path, tmp_path: Path, change: Callable[[Path], object]) -> str:
    copying(f"docker-archive:{archive}", f"oci:{tmp_path}/layout:1")
    change(tmp_path / "layout")
    return f"oci:{tmp_path}/layout:1"


def each_blob(layout: Path, change: Callable[[bytes], bytes]) -> None:
    for path in (layout / "blobs/sha256").iterdir():
        path.write_bytes(change(path.read_bytes()))


def pipe_for(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


LAYOUTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another version": (lambda layout: (layout / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}'), "another version"),
    "no index": (lambda layout: (layout / "index.json").unlink(), "no 'index.json'"),
    "an index that isn't JSON": (lambda layout: (layout / "index.json").write_text("["), "not valid JSON"),
    "an index that is a pipe": (lambda layout: pipe_for(layout / "index.json"), "not a regular file"),
    "an index without images": (lambda layout: (layout / "index.json").write_text('{"schemaVersion": 2}'), "has no image"),
    "no blobs": (lambda layout: subprocess.run(["rm", "-r", layout / "blobs"], check=True), "there is no blob"),
    "other bytes": (lambda layout: each_blob(layout, lambda data: data[:-1] + b"x"), "is damaged"),
    "blobs cut off": (lambda layout: each_blob(layout, lambda data: data[:-1]), "is damaged"),
}


@pytest.mark.parametrize("what", LAYOUTS)
def test_a_damaged_layout_is_refused(what: str, copying: Copying, archive: Path, tmp_path: Path) -> None:
    change, message = LAYOUTS[what]
    start = layout_with(copying, archive, tmp_path, change)
    with pytest.raises((ArchiveError, IntegrityError), match=message):
        copying(start, f"docker-archive:{tmp_path}/out.tar")
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.parametrize("form", ["oci", "dir", "oci-archive"])
def test_a_layer_with_other_bytes_is_refused_on_the_way(form: str, copying: Copying, archive: Path, tmp_path: Path) -> None:
    copying(f"docker-archive:{archive}", in_form(form, tmp_path))
    found = [path for path in tmp_path.glob("it*" if form == "oci-archive" else "it*/**/*") if path.is_file()]
    path = next(path for path in found if b"\x1f\x8b\x08" in path.read_bytes())
    content = bytearray(path.read_bytes())
    at = content.index(b"\x1f\x8b\x08") + 30
    content[at] ^= 1
    path.write_bytes(content)
    for target in FILES:
        with pytest.raises((ArchiveError, IntegrityError)):
            copying(in_form(form, tmp_path), in_form(target, tmp_path, "out"))
    assert list(tmp_path.glob("out*")) == []


def test_a_directory_of_an_unknown_form_is_refused(copying: Copying, archive: Path, tmp_path: Path) -> None:
    for name, content, message in (
        ("version", "Directory Transport Version: 9.0\n", "names none of 1.0 to 1.2"),
        ("manifest.json", '{"schemaVersion": 1, "name": "x"}', "schema 1"),
        ("manifest.json", '{"schemaVersion": 2, "mediaType": "text/plain"}', "is a 'text/plain'"),
        ("manifest.json", "{}", "is no manifest"),
    ):
        copying(f"docker-archive:{archive}", f"dir:{tmp_path}/dir")
        (tmp_path / "dir" / name).write_text(content)
        fails(ArchiveError, message, lambda: copying.read(f"dir:{tmp_path}/dir"))
        (tmp_path / "dir/manifest.json").write_text("{}")


# The Docker daemon.


class OtherDaemon(BaseHTTPRequestHandler):
    """What may listen where a daemon should."""

    api_version = "1.41"
    answers: ClassVar[dict[str, tuple[int, bytes]]] = {}
    cuts_off = False

    def address_string(self) -> str:
        return "a client"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        status, content = self.answers.get(self.path.rpartition("/")[2].partition("?")[0], (200, b"OK"))
        self.send_response(status)
        if self.api_version:
            self.send_header("Api-Version", self.api_version)
        self.send_header("Content-Length", str(len(content) + (100 if self.cuts_off and self.path.endswith("get") else 0)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        status, content = self.answers["load"]
        if status == 200:
            while (size := int(self.rfile.readline(), 16)) or not self.rfile.readline():
                self.rfile.read(size + 2)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[OtherDaemon]]:
    class Handler(OtherDaemon):
        pass

    path = tmp_path / "daemon.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with ThreadingUnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Handler
        server.shutdown()
        thread.join()


def test_an_image_comes_from_a_daemon(copying: Copying, archive: Path, daemon: type[OtherDaemon]) -> None:
    config_digest = copying.read(f"docker-archive:{archive}").config_digest
    daemon.answers = {"json": (200, json.dumps({"Id": config_digest}).encode()), "get": (200, archive.read_bytes())}
    found = copying.read("docker-daemon:place/app:1")
    assert (found.config_digest, found.diff_ids, found.names) == (config_digest, DIFF_IDS, ["place/app:1"])
    assert copying.read(f"docker-daemon:{config_digest}").names == []


def test_what_a_daemon_says_is_passed_on(copying: Copying, archive: Path, daemon: type[OtherDaemon]) -> None:
    start, target = f"docker-archive:{archive}", "docker-daemon:some/name:1"
    daemon.answers = {"json": (404, b'{"message": "No such image"}')}
    fails(NotFoundError, "the docker daemon has no image 'some/name:1'", lambda: copying.read(target), hint="docker images")
    daemon.answers = {"json": (500, b'{"message": "it is tired"}'), "load": (500, b'{"message": "no room"}')}
    fails(TransferError, "answered 500: it is tired", lambda: copying.read(target))
    fails(TransferError, "answered 500: no room", lambda: copying(start, target))
    daemon.answers = {"load": (200, b'{"stream": "x"}\n{"error": "bad layer"}\n')}
    fails(ArchiveError, "refused the image: bad layer", lambda: copying(start, target))
    daemon.answers = {"json": (200, b"{}"), "get": (200, archive.read_bytes()[:20_000])}
    daemon.cuts_off = True
    fails(LaminaError, "", lambda: copying.read(target))
    daemon.api_version = "1.20"
    fails(TransferError, "is too old: it speaks API 1.20, 1.24 is needed", lambda: copying.read(target))
    daemon.api_version = ""
    fails(TransferError, "is no docker daemon, or one older than", lambda: copying.read(target))


def test_where_no_daemon_listens_is_said(copying: Copying, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host, error, message in (
        (f"unix://{tmp_path}/none.sock", TransferError, "no docker daemon listens at 'unix://"),
        ("tcp://127.0.0.1:1", TransferError, "no docker daemon listens at 'tcp://127.0.0.1:1'"),
        ("tcp://192.0.2.1:2375", UsageError, "which is not on this machine"),
        ("ssh://root@localhost", UsageError, "DOCKER_HOST is 'ssh://root@localhost'"),
        ("tcp://localhost:port", UsageError, "no valid port"),
        ("nonsense", UsageError, "DOCKER_HOST is 'nonsense'"),
    ):
        monkeypatch.setenv("DOCKER_HOST", host)
        fails(error, message, lambda: copying.read("docker-daemon:app"))
    fails(UsageError, "is given a name", lambda: open_destination(place(f"docker-daemon:sha256:{'a' * 64}"), copying.images))
