"""Places of images: every pair of transports hands an image on whole, other programs read and write the same, damage is refused.

With LAMINA_PEERS=1 the Docker daemon that DOCKER_HOST names, and Podman, take part.
"""

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any, ClassVar

import archives
import pytest

from lamina.archive.compression import Decompressed
from lamina.errors import ArchiveError, IntegrityError, LaminaError, NotFoundError, TransferError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import DOCKER_INDEX, DOCKER_LAYER_GZIP, INDEX_TYPES, OCI_INDEX, Descriptor, Index, Manifest
from lamina.model.reference import Reference
from lamina.registry.places import Place, Transport, open_destination, open_source, parse_place
from lamina.registry.transport import Destination, Document, Source
from lamina.store.content import ContentStore
from lamina.store.database import Database
from lamina.store.image_archive import load
from lamina.store.images import ImageStore

HAS_PEERS = os.environ.get("LAMINA_PEERS") == "1"
FILES = ("docker-archive", "oci", "oci-archive", "dir")
DAEMON_NAME = f"lamina-test-{os.getpid()}:1"
EVERYWHERE = (*FILES, *(("docker-daemon",) if HAS_PEERS else ()))
NAME = Reference.parse("place/app:1")
LAYERS = [
    archives.layer({"etc": archives.folder(), "etc/one": "one\n" * 5000, "etc/link": archives.link("one")}),
    archives.layer({"etc/two": "two\n" * 5000, "etc/one": "another one\n"}),
]


def place(text: str | Path) -> Place:
    return parse_place(str(text), bare=Transport.STORE)


def in_form(form: str, directory: Path, name: str = "it") -> str:
    """A place of this form, in a directory of the test's own."""
    return {
        "docker-archive": f"docker-archive:{directory}/{name}.tar:place/app:1",
        "oci": f"oci:{directory}/{name}.layout:1",
        "oci-archive": f"oci-archive:{directory}/{name}.oci.tar:1",
        "dir": f"dir:{directory}/{name}.dir",
        "docker-daemon": f"docker-daemon:{DAEMON_NAME}",
    }[form]


@pytest.fixture
def images(tmp_path: Path) -> ImageStore:
    root = tmp_path / "store"
    root.mkdir()
    return ImageStore(ContentStore(str(root)), Database(str(root / "lamina.db")))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What most tests copy from: the form of Docker before 25."""
    return archives.image(tmp_path / "first.tar", "place/app:1", LAYERS)


@pytest.fixture(autouse=True)
def nothing_left_in_the_daemon() -> Iterator[None]:
    yield
    if HAS_PEERS:
        subprocess.run(["docker", "rmi", "--force", DAEMON_NAME], capture_output=True, check=False)


class Copying:
    """Copies between places, as simply as can be: what is tested are the places."""

    def __init__(self, images: ImageStore) -> None:
        self.images = images

    def __call__(self, source: str, target: str, *, names: bool = False) -> Document:
        where = place(target)
        opened = open_source(place(source), self.images, plain_layers=where.transport.wants_plain_layers)
        try:
            return self.put(opened, target, names=opened.names if names else ())
        finally:
            opened.close()

    def put(self, source: Source, target: str, *, names: Sequence[Reference] = ()) -> Document:
        destination = open_destination(place(target), self.images, names=names)
        try:
            return transfer(source, destination)
        finally:
            destination.close()

    def read(self, source: str) -> "Found":
        opened = open_source(place(source), self.images)
        try:
            return Found(opened)
        finally:
            opened.close()


def transfer(source: Source, destination: Destination) -> Document:
    root = source.document()
    children = []
    if root.media_type in INDEX_TYPES:
        children = [source.document(one.digest) for one in Index.from_bytes(root.content).manifests]

    def move(descriptor: Descriptor) -> None:
        if not destination.has_blob(descriptor):
            with source.blob(descriptor) as content:
                destination.put_blob(descriptor, content)

    for document in children or [root]:
        manifest = Manifest.from_bytes(document.content)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(move, (manifest.config, *manifest.layers)))
    for document in children:
        destination.put_document(document, is_root=False)
    destination.put_document(root, is_root=True)
    return root


class Found:
    """What a source offers, read and checked."""

    def __init__(self, source: Source) -> None:
        self.names = [name.familiar for name in source.names]
        self.root = source.document()
        self.config = b""
        self.diff_ids: list[str] = []
        if self.root.media_type in INDEX_TYPES:
            return
        manifest = Manifest.from_bytes(self.root.content)
        self.config = blob_of(source, manifest.config)
        for layer in manifest.layers:
            plain = Decompressed(io.BytesIO(blob_of(source, layer)))
            plain.finish()
            self.diff_ids.append(plain.diff_id)

    @property
    def config_digest(self) -> str:
        return sha(self.config)


def blob_of(source: Source, descriptor: Descriptor) -> bytes:
    with source.blob(descriptor) as content:
        data = b"".join(iter(lambda: content.read(10_001), b""))
    assert len(data) == descriptor.size_bytes
    assert Digest.of(data) == descriptor.digest
    half = descriptor.size_bytes // 2
    with source.blob(descriptor, half) as content:
        assert b"".join(iter(lambda: content.read(777_777), b"")) == data[half:]
    return data


@pytest.fixture
def copying(images: ImageStore) -> Copying:
    return Copying(images)


def sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


DIFF_IDS = [sha(layer) for layer in LAYERS]


def skopeo(*words: str) -> bytes:
    done = subprocess.run(["skopeo", *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, hidden ones too."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def fails(error: type[LaminaError], message: str, call: Callable[[], object], *, hint: str = "") -> None:
    with pytest.raises(error) as caught:
        call()
    assert message in caught.value.message
    assert hint in caught.value.hint


# An image goes from everywhere to everywhere.


@pytest.mark.parametrize("target", EVERYWHERE)
@pytest.mark.parametrize("source", EVERYWHERE)
def test_every_pair_of_transports_hands_an_image_on(
    source: str, target: str, copying: Copying, archive: Path, tmp_path: Path
) -> None:
    first = copying.read(f"docker-archive:{archive}")
    copying(f"docker-archive:{archive}", in_form(source, tmp_path, "a"))
    copying(in_form(source, tmp_path, "a"), in_form(target, tmp_path, "b"))
    found = copying.read(in_form(target, tmp_path, "b"))
    assert found.config == first.config
    assert found.diff_ids == DIFF_IDS


@pytest.mark.parametrize("target", EVERYWHERE)
def test_an_image_of_the_store_goes_everywhere(target: str, copying: Copying, archive: Path, tmp_path: Path) -> None:
    with open(archive, "rb") as stream:
        (loaded,) = load(copying.images, stream)
    copying("lamina:place/app:1", in_form(target, tmp_path))
    found = copying.read(in_form(target, tmp_path))
    assert (found.config_digest, found.diff_ids) == (loaded.image.id, DIFF_IDS)


def test_what_is_packed_on_the_way_has_the_digests_that_load_gives(copying: Copying, archive: Path) -> None:
    with open(archive, "rb") as stream:
        (loaded,) = load(copying.images, stream)
    packed = Manifest.from_bytes(copying.read(f"docker-archive:{archive}").root.content)
    assert [layer.digest for layer in packed.layers] == [layer.digest for layer in copying.images.layers(loaded.image)]


# Other programs read what was written, and the other way about.


@pytest.mark.parametrize("form", FILES)
def test_skopeo_reads_what_was_written(form: str, copying: Copying, archive: Path, tmp_path: Path) -> None:
    copying(f"docker-archive:{archive}", in_form(form, tmp_path))
    assert (
        sha(skopeo("inspect", "--raw", "--config", in_form(form, tmp_path)))
        == copying.read(f"docker-archive:{archive}").config_digest
    )
    skopeo("copy", "--quiet", in_form(form, tmp_path), f"dir:{tmp_path}/again")
    assert copying.read(f"dir:{tmp_path}/again").diff_ids == DIFF_IDS


@pytest.mark.parametrize("form", FILES)
def test_what_skopeo_wrote_is_read(form: str, copying: Copying, archive: Path, tmp_path: Path) -> None:
    skopeo("copy", "--quiet", f"docker-archive:{archive}", in_form(form, tmp_path))
    found = copying.read(in_form(form, tmp_path))
    assert found.diff_ids == DIFF_IDS
    assert found.config_digest == sha(skopeo("inspect", "--raw", "--config", in_form(form, tmp_path)))


def test_umoci_unpacks_what_was_written_and_is_read(copying: Copying, archive: Path, tmp_path: Path) -> None:
    copying(f"docker-archive:{archive}", f"oci:{tmp_path}/app:1.0")
    subprocess.run(["umoci", "unpack", "--image", f"{tmp_path}/app:1.0", f"{tmp_path}/bundle"], capture_output=True, check=True)
    assert (tmp_path / "bundle/rootfs/etc/one").read_text() == "another one\n"
    subprocess.run(
        ["umoci", "config", "--image", f"{tmp_path}/app:1.0", "--tag", "2.0", "--config.user", "1000"],
        capture_output=True,
        check=True,
    )
    found = copying.read(f"oci:{tmp_path}/app:2.0")
    assert (found.names, found.diff_ids) == (["app:2.0"], DIFF_IDS)
    assert json.loads(found.config)["config"]["User"] == "1000"


@pytest.mark.skipif(not HAS_PEERS, reason="LAMINA_PEERS is not 1")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_podman_loads_what_was_written(form: str, copying: Copying, archive: Path, tmp_path: Path) -> None:
    copying(f"docker-archive:{archive}", in_form(form, tmp_path).removesuffix(":1").removesuffix(":place/app"), names=True)
    path = next(path for path in tmp_path.glob("it*"))
    with tempfile.TemporaryDirectory(prefix="lp-") as short:  # podman takes a run root of up to 50 characters
        podman = ["podman", "--root", f"{short}/root", "--runroot", f"{short}/run", "--storage-driver", "vfs"]
        loaded = subprocess.run([*podman, "load", "--input", str(path)], capture_output=True, text=True, check=True)
        assert "place/app:1" in loaded.stdout
        inspect = [*podman, "image", "inspect", "--format", "{{ .RootFS.Layers }}", "docker.io/place/app:1"]
        done = subprocess.run(inspect, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[{' '.join(DIFF_IDS)}]"


@pytest.mark.skipif(not HAS_PEERS, reason="LAMINA_PEERS is not 1")
def test_docker_loads_the_archive_and_what_docker_saved_is_read(copying: Copying, archive: Path, tmp_path: Path) -> None:
    copying(f"docker-archive:{archive}", f"docker-archive:{tmp_path}/out.tar:{DAEMON_NAME}")
    subprocess.run(["docker", "load", "--input", f"{tmp_path}/out.tar"], capture_output=True, check=True)
    subprocess.run(["docker", "save", "--output", f"{tmp_path}/saved.tar", DAEMON_NAME], capture_output=True, check=True)
    found = copying.read(f"docker-archive:{tmp_path}/saved.tar")
    assert found.config == copying.read(f"docker-archive:{archive}").config
    assert (found.names, found.diff_ids) == ([DAEMON_NAME], DIFF_IDS)


# Names.


def test_a_docker_archive_keeps_the_names_that_an_image_has(copying: Copying, archive: Path, tmp_path: Path) -> None:
    assert copying.read(f"docker-archive:{archive}").names == ["place/app:1"]
    copying(f"docker-archive:{archive}", f"docker-archive:{tmp_path}/out.tar", names=True)
    assert copying.read(f"docker-archive:{tmp_path}/out.tar").names == ["place/app:1"]
    copying(f"docker-archive:{archive}", f"docker-archive:{tmp_path}/out.tar:other", names=True)
    assert copying.read(f"docker-archive:{tmp_path}/out.tar").names == ["other:latest"]


def test_a_layout_names_images_by_whole_names_or_after_itself(copying: Copying, archive: Path, tmp_path: Path) -> None:
    start = f"docker-archive:{archive}"
    copying(start, f"oci-archive:{tmp_path}/App.oci.tar", names=True)
    assert copying.read(f"oci-archive:{tmp_path}/App.oci.tar").names == ["place/app:1"]
    copying(start, f"oci-archive:{tmp_path}/App.oci.tar:2.0", names=True)
    assert copying.read(f"oci-archive:{tmp_path}/App.oci.tar").names == ["app:2.0"]
    copying(start, f"oci:{tmp_path}/layout:localhost:5000/b:3")
    assert copying.read(f"oci:{tmp_path}/layout").names == ["localhost:5000/b:3"]
    copying(start, f"oci:{tmp_path}/unnamed")
    assert copying.read(f"oci:{tmp_path}/unnamed").names == []
    copying(start, f"dir:{tmp_path}/dir")
    assert copying.read(f"dir:{tmp_path}/dir").names == []


def test_containerd_s_whole_name_wins_over_the_tag(copying: Copying, archive: Path, tmp_path: Path) -> None:
    """What `docker save` of Docker 25 and later writes is both forms in one."""
    copying(f"docker-archive:{archive}", f"docker-archive:{tmp_path}/both.tar:place/app:1")
    for which in ("", ":1", ":place/app:1", ":docker.io/place/app:1", ":@0"):
        found = copying.read(f"oci-archive:{tmp_path}/both.tar{which}")
        assert (found.names, found.diff_ids) == (["place/app:1"], DIFF_IDS)


def two_images(path: Path) -> Path:
    """A docker archive with two images."""
    first = archives.image(path.with_suffix(".1"), "one:1", LAYERS[:1])
    second = archives.image(path.with_suffix(".2"), "two:2", LAYERS)
    members: dict[str, bytes] = {}
    entries: list[Any] = []
    for number, part in enumerate((first, second)):
        with tarfile.open(part) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert stream is not None
                content = stream.read()
                if member.name == "manifest.json":
                    (entry,) = json.loads(content)
                    entries.append({**entry, "Layers": [f"{number}/{layer}" for layer in entry["Layers"]]})
                else:
                    members[member.name if member.name.endswith(".json") else f"{number}/{member.name}"] = content
    write_tar(path, {**members, "manifest.json": json.dumps(entries).encode()})
    return path


def write_tar(path: Path, members: dict[str, Any], **options: Any) -> Path:
    """A tar of files; a value (type, link) is another kind of member."""
    with tarfile.open(path, "w", **options) as tar:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(value, tuple):
                info.type, info.linkname = value
                tar.addfile(info)
            else:
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
    return path


def read_tar(path: Path) -> dict[str, Any]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]


def test_one_of_several_images_is_named_or_numbered(copying: Copying, tmp_path: Path) -> None:
    both = f"docker-archive:{two_images(tmp_path / 'both.tar')}"
    assert copying.read(f"{both}:one:1").diff_ids == DIFF_IDS[:1]
    assert copying.read(f"{both}:@1").names == ["two:2"]
    fails(UsageError, "has 2 images", lambda: copying.read(both), hint="it has one:1, two:2")
    fails(NotFoundError, "has no image 'three:latest'", lambda: copying.read(f"{both}:three"), hint="it has one:1, two:2")
    fails(NotFoundError, "beyond the archive's last image, which is @1", lambda: copying.read(f"{both}:@2"))
    copying(f"{both}:@0", f"oci:{tmp_path}/layout:one")
    copying(f"{both}:@1", f"oci:{tmp_path}/layout:two")
    layout = f"oci:{tmp_path}/layout"
    assert copying.read(f"{layout}:@1").diff_ids == DIFF_IDS
    fails(UsageError, "has 2 images", lambda: copying.read(layout), hint="it has one, two")
    fails(NotFoundError, "has no image 'three'", lambda: copying.read(f"{layout}:three"), hint="it has one, two")
    fails(NotFoundError, "beyond the layout's last image, which is @1", lambda: copying.read(f"{layout}:@7"))


# Several platforms.


def platforms(copying: Copying, tmp_path: Path, media_type: str = OCI_INDEX) -> str:
    """A directory with an index of two platforms' images, made by hand of two images in the form that fits."""
    children = {}
    for architecture, layers in (("amd64", LAYERS), ("arm64", LAYERS[:1])):
        start = archives.image(tmp_path / f"{architecture}.tar", "place/app:1", layers)
        form = "oci" if media_type == OCI_INDEX else "dir"
        copying(f"docker-archive:{start}", f"{form}:{tmp_path}/{architecture}")
        skopeo("copy", "--quiet", f"{form}:{tmp_path}/{architecture}", f"dir:{tmp_path}/{architecture}.dir")
        children[architecture] = tree(tmp_path / f"{architecture}.dir")
    files: dict[str, bytes] = {}
    manifests = []
    for architecture, found in children.items():
        content = found.pop("manifest.json")
        files |= {**found, f"{sha(content).removeprefix('sha256:')}.manifest.json": content}
        manifests.append(
            {
                "mediaType": json.loads(content)["mediaType"], "digest": sha(content), "size": len(content),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )  # fmt: skip
    files["manifest.json"] = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}).encode()
    target = tmp_path / "platforms"
    target.mkdir()
    for name, content in files.items():
        (target / name).write_bytes(content)
    return f"dir:{target}"


@pytest.mark.parametrize("form", ["dir", "oci", "oci-archive"])
@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_INDEX], ids=["oci's types", "docker's types"])
def test_an_index_goes_with_all_its_images(form: str, media_type: str, copying: Copying, tmp_path: Path) -> None:
    start = platforms(copying, tmp_path, media_type)
    copying(start, in_form(form, tmp_path))
    skopeo("copy", "--quiet", "--all", in_form(form, tmp_path), f"dir:{tmp_path}/again")
    index = Index.from_bytes((tmp_path / "again/manifest.json").read_bytes())
    assert index.media_type == (media_type if form == "dir" else OCI_INDEX)
    assert [str(one.platform) for one in index.manifests] == ["linux/amd64", "linux/arm64"]
    for descriptor in index.manifests:
        manifest = Manifest.from_bytes((tmp_path / f"again/{descriptor.digest.hex}.manifest.json").read_bytes())
        assert manifest.media_type == descriptor.media_type
        for part in (manifest.config, *manifest.layers):
            assert ("docker" in part.media_type) == ("docker" in index.media_type)
            assert Digest.of((tmp_path / f"again/{part.digest.hex}").read_bytes()) == part.digest
    if media_type == OCI_INDEX:
        assert copying.read(in_form(form, tmp_path)).root.digest == copying.read(start).root.digest


def test_an_index_finds_no_place_in_a_docker_archive(copying: Copying, tmp_path: Path) -> None:
    start = platforms(copying, tmp_path)
    fails(UsageError, "several platforms", lambda: copying(start, f"docker-archive:{tmp_path}/out.tar"), hint="without --all")
    assert not (tmp_path / "out.tar").exists()


def test_platforms_side_by_side_in_an_index_json_are_one_image(copying: Copying, tmp_path: Path) -> None:
    copying(platforms(copying, tmp_path), f"oci:{tmp_path}/layout:1")
    index_path = tmp_path / "layout/index.json"
    root = copying.read(f"oci:{tmp_path}/layout:1").root
    named = {"annotations": {"org.opencontainers.image.ref.name": "1"}}
    manifests = [{**one, **named} for one in json.loads(root.content)["manifests"]]
    index_path.write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    found = copying.read(f"oci:{tmp_path}/layout:1").root
    assert [one.digest for one in Index.from_bytes(found.content).manifests] == [one["digest"] for one in manifests]
    copying(f"oci:{tmp_path}/layout:1", f"oci-archive:{tmp_path}/x.tar:1")
    skopeo("copy", "--quiet", "--all", f"oci-archive:{tmp_path}/x.tar:1", f"dir:{tmp_path}/again")


# Writing into what is there.


def test_a_layout_keeps_its_other_images_and_replaces_the_same_tag(copying: Copying, archive: Path, tmp_path: Path) -> None:
    other = archives.image(tmp_path / "other.tar", "other:1", LAYERS[1:])
    layout = f"oci:{tmp_path}/layout"
    for start, tag in ((archive, ":a"), (archive, ":b"), (other, ":a"), (other, ""), (other, "")):
        copying(f"docker-archive:{start}", layout + tag)
    assert copying.read(f"{layout}:a").diff_ids == DIFF_IDS[1:]
    assert copying.read(f"{layout}:b").diff_ids == DIFF_IDS
    listed = subprocess.run(["umoci", "ls", "--layout", f"{tmp_path}/layout"], capture_output=True, text=True, check=True).stdout
    assert sorted(listed.split()) == ["a", "b"]
    assert len(json.loads((tmp_path / "layout/index.json").read_text())["manifests"]) == 2


def test_fields_of_an_index_that_nobody_here_knows_stay(copying: Copying, archive: Path, tmp_path: Path) -> None:
    copying(f"docker-archive:{archive}", f"oci:{tmp_path}/layout:a")
    path = tmp_path / "layout/index.json"
    document = {**json.loads(path.read_text()), "org.example": {"kept": True}, "annotations": {"by": "somebody"}}
    path.write_text(json.dumps(document))
    copying(f"docker-archive:{archive}", f"oci:{tmp_path}/layout:b")
    found = json.loads(path.read_text())
    assert (found["org.example"], found["annotations"]) == ({"kept": True}, {"by": "somebody"})


def test_a_directory_s_older_image_goes_when_the_new_one_is_whole(copying: Copying, archive: Path, tmp_path: Path) -> None:
    other = archives.image(tmp_path / "other.tar", "other:1", LAYERS[1:])
    copying(f"docker-archive:{archive}", f"dir:{tmp_path}/dir")
    copying(f"docker-archive:{other}", f"dir:{tmp_path}/dir")
    copying(f"docker-archive:{other}", f"dir:{tmp_path}/fresh")
    assert tree(tmp_path / "dir") == tree(tmp_path / "fresh")


def test_an_archive_is_replaced_and_has_the_mode_that_umask_says(copying: Copying, archive: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        for form in FILES:
            copying(f"docker-archive:{archive}", in_form(form, tmp_path))
            copying(f"docker-archive:{archive}", in_form(form, tmp_path))
    finally:
        os.umask(before)
    assert (tmp_path / "it.tar").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "it.oci.tar").stat().st_mode & 0o777 == 0o640
    for path in (*(tmp_path / "it.layout").rglob("*"), *(tmp_path / "it.dir").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path


def write_many(store: str, archive: str, layout: str, tags: Sequence[str]) -> None:
    copying = Copying(ImageStore(ContentStore(store), Database(f"{store}/lamina.db")))
    for tag in tags:
        copying(archive, f"{layout}:{tag}")


def test_writers_of_one_layout_at_once_lose_nothing(copying: Copying, archive: Path, tmp_path: Path) -> None:
    starts = [f"docker-archive:{archives.image(tmp_path / f'{one}.tar', 'x:1', LAYERS, User=str(one))}" for one in range(4)]
    context = multiprocessing.get_context("fork")
    store = str(tmp_path / "store")
    workers = [
        context.Process(target=write_many, args=(store, start, f"oci:{tmp_path}/layout", [f"{one}-{turn}" for turn in range(8)]))
        for one, start in enumerate(starts)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    for one, start in enumerate(starts):
        expected = copying.read(start).config
        assert all(copying.read(f"oci:{tmp_path}/layout:{one}-{turn}").config == expected for turn in range(8))
    found = {path.name for path in (tmp_path / "layout").iterdir()}
    assert found == {"blobs", "index.json", "oci-layout"}
    subprocess.run(["umoci", "gc", "--layout", f"{tmp_path}/layout"], capture_output=True, check=True)
    assert len(os.listdir(tmp_path / "layout/blobs/sha256")) == 4 + 4 + 2  # manifests, configurations, layers


@pytest.mark.parametrize("form", FILES)
def test_a_killed_writer_leaves_nothing(form: str, copying: Copying, archive: Path, tmp_path: Path) -> None:
    target = in_form(form, tmp_path)
    pid = os.fork()
    if pid == 0:
        source = open_source(place(f"docker-archive:{archive}"), copying.images)
        destination = open_destination(place(target), copying.images)
        manifest = Manifest.from_bytes(source.document().content)
        for part in (manifest.config, *manifest.layers):
            with source.blob(part) as content:
                destination.put_blob(part, content)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "store" not in path.parts and path != archive] == []
    assert os.listdir(tmp_path / "store/tmp") == []
    copying(f"docker-archive:{archive}", target)
    assert copying.read(target).diff_ids == DIFF_IDS


# What goes wrong leaves nothing.

BLOB = b"a blob" * 1000
DAMAGES = {
    "other bytes": (b"A" + BLOB[1:], "is damaged: its bytes have the digest"),
    "too few": (BLOB[:-1], "5999 bytes where 6000 were announced"),
    "too many": (BLOB + b"x", "more than the 6000 bytes that were announced"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("form", FILES)
def test_a_damaged_blob_is_refused_and_leaves_nothing(form: str, damage: str, images: ImageStore, tmp_path: Path) -> None:
    content, message = DAMAGES[damage]
    descriptor = Descriptor(media_type=DOCKER_LAYER_GZIP, digest=Digest.of(BLOB), size_bytes=len(BLOB))
    before = sorted(tmp_path.iterdir())
    destination = open_destination(place(in_form(form, tmp_path)), images)
    fails(IntegrityError, message, lambda: destination.put_blob(descriptor, io.BytesIO(content)))
    assert not destination.has_blob(descriptor)
    destination.put_blob(descriptor, io.BytesIO(BLOB))  # trying again may help
    assert destination.has_blob(descriptor)
    destination.close()
    destination.close()
    assert sorted(tmp_path.iterdir()) == before
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
    found = copying.read("docker-daemon:some/name:1")
    assert (found.config_digest, found.diff_ids, found.names) == (config_digest, DIFF_IDS, ["some/name:1"])
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
