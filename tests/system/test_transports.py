"""Places of images: every pair of transports hands an image on whole; other programs read and write the same.

With LAMINA_PEERS=1 the Docker daemon that DOCKER_HOST names, and Podman, take part.
"""

import fcntl
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import archives
import pytest
from cases import wait_until
from transfers import (
    DAEMON_NAME,
    DIFF_IDS,
    EVERYWHERE,
    FILES,
    HAS_PEERS,
    LAYERS,
    Copying,
    fails,
    in_form,
    new_store,
    place,
    sha,
    skopeo,
    tree,
    write_tar,
)

from lamina.errors import NotFoundError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import DOCKER_INDEX, OCI_INDEX, OCI_LAYER, Descriptor, Index, Manifest
from lamina.registry.places import open_destination, open_source
from lamina.registry.writing import lock_directory
from lamina.store.content import ContentStore
from lamina.store.database import Database
from lamina.store.image_archive import load
from lamina.store.images import ImageStore


@pytest.fixture
def copying(tmp_path: Path) -> Copying:
    return Copying(new_store(tmp_path))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What most tests copy from: the form of Docker before 25."""
    return archives.image(tmp_path / "first.tar", "place/app:1", LAYERS)


@pytest.fixture(autouse=True)
def nothing_left_in_the_daemon() -> Iterator[None]:
    yield
    if HAS_PEERS:
        subprocess.run(["docker", "rmi", "--force", DAEMON_NAME], capture_output=True, check=False)


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
    if form != "dir":  # an index in OCI's form may name manifests in Docker's, and then names others too
        index_path = tmp_path / "platforms/manifest.json"
        index_path.write_text(index_path.read_text().replace(DOCKER_INDEX, OCI_INDEX))
        copying(start, in_form(form, tmp_path, "mixed"))
        assert copying.read(in_form(form, tmp_path, "mixed")).root == copying.read(in_form(form, tmp_path)).root
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


def test_a_file_system_without_unnamed_files_is_written_to(
    copying: Copying, archive: Path, tmp_path: Path, own_mounts: None
) -> None:
    for name in ("lower", "upper", "work", "mnt"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["fuse-overlayfs", "-o", options, f"{tmp_path}/mnt"], capture_output=True, check=True)
    try:
        with pytest.raises(OSError, match="not supported"):
            os.open(tmp_path / "mnt", os.O_TMPFILE | os.O_RDWR)
        for form in FILES:
            copying(f"docker-archive:{archive}", in_form(form, tmp_path / "mnt"))
            assert copying.read(in_form(form, tmp_path / "mnt")).diff_ids == DIFF_IDS
        destination = open_destination(place(f"oci:{tmp_path}/mnt/new/layout"), copying.images)
        destination.put_blob(Descriptor(media_type=OCI_LAYER, digest=Digest.of(b"blob"), size_bytes=4), io.BytesIO(b"blob"))
        destination.close()
        assert sorted(os.listdir(tmp_path / "mnt")) == ["it.dir", "it.layout", "it.oci.tar", "it.tar"]
    finally:
        subprocess.run(["umount", f"{tmp_path}/mnt"], check=True)


def test_more_blobs_than_files_may_be_open_are_taken(copying: Copying, tmp_path: Path) -> None:
    layers = [archives.layer({f"file{number}": f"{number}\n"}) for number in range(240)]
    start = archives.image(tmp_path / "many.tar", "x:1", layers)
    copying(f"docker-archive:{start}", f"dir:{tmp_path}/dir")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        copying(f"dir:{tmp_path}/dir", f"oci:{tmp_path}/layout:1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(copying.read(f"oci:{tmp_path}/layout:1").diff_ids) == 240
    assert not [name for name in os.listdir(tmp_path / "layout") if name.startswith(".")]


def test_a_writer_waits_for_one_that_makes_the_layout(copying: Copying, archive: Path, tmp_path: Path) -> None:
    copying(f"docker-archive:{archive}", f"oci:{tmp_path}/whole:1")
    layout = tmp_path / "layout"
    (layout / "blobs").mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool, lock_directory(str(layout), fcntl.LOCK_EX):
        writer = pool.submit(copying, f"docker-archive:{archive}", f"oci:{layout}:2")
        wait_until(lambda: writer.done() or b"->" in Path("/proc/locks").read_bytes(), "a writer that waits")
        shutil.rmtree(layout / "blobs")
        subprocess.run(["cp", "--archive", f"{tmp_path}/whole/.", str(layout)], check=True)
    writer.result()
    assert [copying.read(f"oci:{layout}:{tag}").diff_ids for tag in (1, 2)] == [DIFF_IDS, DIFF_IDS]


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
