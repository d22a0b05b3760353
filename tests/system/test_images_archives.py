"""`load` and `save`: every form that an archive may come in, what other programs read and write, and hostile archives."""

import gzip
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lamina.errors import ArchiveError, IntegrityError, LaminaError, UsageError
from lamina.model.digest import Digest
from lamina.model.machine import machine_architecture
from lamina.model.reference import Reference
from lamina.store.bootstrap import bootstrap
from lamina.store.content import ContentStore
from lamina.store.database import Database
from lamina.store.image_archive import SavedImage, load, save
from lamina.store.image_build import add_layer_image
from lamina.store.images import Image, ImageStore


def ref(text: str) -> Reference:
    return Reference.parse(text)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def dumps(document: Any) -> bytes:
    return json.dumps(document).encode()


def tar_of(members: dict[str, bytes | tuple[bytes, str]]) -> bytes:
    """A tar of files; a value (type, link) is another kind of member. The order is the dict's."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(value, tuple):
                info.type, info.linkname = value
                tar.addfile(info)
            else:
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
    return out.getvalue()


LAYER = tar_of({"file": b"base" * 1000})
TOP = tar_of({"more": b"top" * 1000})


def config_of(*layers: bytes, architecture: str | None = None) -> bytes:
    diff_ids = [f"sha256:{sha(layer)}" for layer in layers]
    document = {
        "os": "linux",
        "architecture": architecture or machine_architecture(),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return dumps({**document, "history": [{"created": "2024-01-01T00:00:00Z"} for _ in layers]})


def docker_archive(*, names: tuple[str, ...] = ("a/b:1",), **replaced: Any) -> dict[str, Any]:
    """The members of an archive as Docker before 25 writes it."""
    config = config_of(LAYER, TOP)
    members = {
        f"{sha(config)}.json": config,
        "one/VERSION": b"1.0",
        "one/json": b"{}",
        "one/layer.tar": LAYER,
        "two/layer.tar": TOP,
        "manifest.json": dumps(
            [{"Config": f"{sha(config)}.json", "RepoTags": list(names), "Layers": ["one/layer.tar", "two/layer.tar"]}]
        ),
        "repositories": b"{}",
    }
    return {**members, **replaced}


def descriptor(content: bytes, kind: str, **more: Any) -> dict[str, Any]:
    media_type = f"application/vnd.oci.image.{kind}"
    return {"mediaType": media_type, "digest": f"sha256:{sha(content)}", "size": len(content), **more}


def oci_archive(
    *layers: bytes, config: bytes | None = None, name: str = "a/b:1", manifest: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The members of an OCI layout; layers are packed by gzip."""
    layers = layers or (LAYER, TOP)
    config = config or config_of(*layers)
    packed = [gzip.compress(layer, mtime=0) for layer in layers]
    document = {
        "schemaVersion": 2,
        "config": descriptor(config, "config.v1+json"),
        "layers": [descriptor(layer, "layer.v1.tar+gzip") for layer in packed],
        **(manifest or {}),
    }
    content = dumps(document)
    annotations = {"org.opencontainers.image.ref.name": name}
    index = {"schemaVersion": 2, "manifests": [descriptor(content, "manifest.v1+json", annotations=annotations)]}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": dumps(index),
        **{f"blobs/sha256/{sha(blob)}": blob for blob in (content, config, *packed)},
    }


@pytest.fixture
def images(root_dir: str) -> ImageStore:
    return ImageStore(ContentStore(root_dir), Database(f"{root_dir}/lamina.db"))


@pytest.fixture
def other(tmp_path: Path) -> ImageStore:
    """A second store, to load what the first has saved."""
    (tmp_path / "other").mkdir()
    return ImageStore(ContentStore(str(tmp_path / "other")), Database(str(tmp_path / "other" / "lamina.db")))


class Pipe(io.RawIOBase):
    """Bytes that can't be sought in and come in odd pieces."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        piece = self._content[self._at : self._at + min(size if size >= 0 else 10**9, 7001)]
        self._at += len(piece)
        return piece


def load_members(images: ImageStore, members: dict[str, Any], **options: Any) -> list[Image]:
    return [one.image for one in load(images, Pipe(tar_of(members)), **options)]


def contents(images: ImageStore, image: Image) -> list[bytes]:
    """An image's layers, unpacked."""
    return [gzip.decompress(images.content.read(layer.digest)) for layer in images.layers(image)]


def assert_untouched(images: ImageStore) -> None:
    assert images.images() == []
    assert list(images.content.walk()) == []
    assert os.listdir(images.content.tmp_dir) == []


def test_an_old_docker_archive_is_loaded(images):
    (image,) = load_members(images, docker_archive())
    assert image.id == f"sha256:{sha(config_of(LAYER, TOP))}"
    assert contents(images, image) == [LAYER, TOP]
    assert images.resolve("a/b:1") == image
    assert image.size_bytes == len(LAYER) + len(TOP)


def test_the_documents_may_stand_first_or_last(images):
    members = docker_archive()
    assert load_members(images, dict(reversed(members.items()))) == load_members(images, members)


def test_a_layer_may_be_a_link_to_another_images_layer(images):
    """Docker 1.10 to 20.10 write a layer that two images share once, and a symlink for the second."""
    config = config_of(LAYER, LAYER)
    entry = {"Config": "x.json", "RepoTags": None, "Layers": ["one/layer.tar", "three/layer.tar"]}
    members = {"three/layer.tar": (tarfile.SYMTYPE, "../one/layer.tar"), "x.json": config, "manifest.json": dumps([entry])}
    (image,) = load_members(images, {**members, "one/layer.tar": LAYER})
    assert contents(images, image) == [LAYER, LAYER]
    assert images.names(image) == []


@pytest.mark.parametrize("pack", [["gzip", "-c"], ["zstd", "-qc"], ["xz", "-1c"], ["bzip2", "-c"], ["cat"]])
def test_an_archive_may_be_packed_whole(images, pack):
    packed = subprocess.run(pack, input=tar_of(docker_archive()), capture_output=True, check=True).stdout
    seen: list[int] = []
    (loaded,) = load(images, Pipe(packed), progress=seen.append)
    assert [name.familiar for name in loaded.names] == ["a/b:1"]
    assert seen[-1] == len(packed)


@pytest.mark.parametrize("pack", ["gzip", "xz", "bzip2"])
def test_layers_may_be_packed_inside(images, pack):
    packed = subprocess.run([pack, "-c"], input=LAYER, capture_output=True, check=True).stdout
    (image,) = load_members(images, docker_archive(**{"one/layer.tar": packed}))
    assert contents(images, image) == [LAYER, TOP]


def test_packed_layers_of_an_oci_archive_are_kept_as_they_are(images):
    members = oci_archive()
    (image,) = load_members(images, members)
    stored = {f"blobs/sha256/{digest.hex}": images.content.read(digest) for digest in images.content.walk()}
    assert stored == {path: content for path, content in members.items() if path.startswith("blobs/")}
    assert images.resolve("a/b:1") == image


@pytest.mark.parametrize(
    ("annotations", "names"),
    [
        ({"io.containerd.image.name": "docker.io/library/x:2", "org.opencontainers.image.ref.name": "2"}, ["x:2"]),
        ({"org.opencontainers.image.ref.name": "host.example/y:1"}, ["host.example/y:1"]),
        ({"org.opencontainers.image.ref.name": "no name at all"}, []),
        ({}, []),
    ],
)
def test_an_oci_archive_names_its_images_by_annotations(images, annotations, names):
    members = oci_archive()
    index = json.loads(members["index.json"])
    index["manifests"][0]["annotations"] = annotations
    (loaded,) = load(images, Pipe(tar_of({**members, "index.json": dumps(index)})))
    assert [name.familiar for name in loaded.names] == names


def test_of_several_platforms_this_machines_is_loaded(images):
    ours, theirs = oci_archive(), oci_archive(config=config_of(LAYER, TOP, architecture="other"))
    manifests = []
    for members, architecture in ((theirs, "other"), (ours, machine_architecture())):
        (one,) = json.loads(members["index.json"])["manifests"]
        manifests.append({**one, "annotations": {}, "platform": {"os": "linux", "architecture": architecture}})
    attestation = {**descriptor(b"{}", "manifest.v1+json"), "platform": {"os": "unknown", "architecture": "unknown"}}
    nested = dumps({"schemaVersion": 2, "manifests": [attestation, *manifests]})
    top = dumps({"schemaVersion": 2, "manifests": [descriptor(nested, "index.v1+json")]})
    members = {**theirs, **ours, "index.json": top, f"blobs/sha256/{sha(nested)}": nested}
    (image,) = load_members(images, members)
    assert images.config(image).architecture == machine_architecture()

    third = {**manifests[0], "platform": {"os": "linux", "architecture": "third"}}
    only = dumps({"schemaVersion": 2, "manifests": [manifests[0], third]})
    top = dumps({"schemaVersion": 2, "manifests": [descriptor(only, "index.v1+json")]})
    with pytest.raises(ArchiveError, match=f"no image for linux/{machine_architecture()}, only for linux/other, linux/third"):
        load_members(images, {**theirs, "index.json": top, f"blobs/sha256/{sha(only)}": only})


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_what_is_saved_loads_as_the_same_image(images, other, form):
    base = bootstrap(images, names=[ref("base")])
    top = add_layer_image(images, base=base, write_layer=lambda out: out.write(TOP), names=[ref("user/top:1"), ref("user/top:2")])
    out = io.BytesIO()
    seen: list[int] = []
    selected = [SavedImage(image=base, names=(ref("base"),)), SavedImage(image=top, names=tuple(images.names(top)))]
    save(images, selected, out, form=form, progress=seen.append)
    assert seen[-1] == len(out.getvalue())
    loaded = load(other, Pipe(out.getvalue()))
    assert {one.image.id: [name.familiar for name in one.names] for one in loaded} == {
        base.id: ["base:latest"],
        top.id: ["user/top:1", "user/top:2"],
    }
    assert [layer.diff_id for layer in other.layers(other.resolve("user/top:1"))] == [layer.diff_id for layer in images.layers(top)]
    again = io.BytesIO()
    save(other, [SavedImage(image=other.get(one.image.id), names=one.names) for one in selected], again, form=form)
    assert again.getvalue() == out.getvalue()


def test_loading_what_is_there_takes_no_space_again(images):
    base = bootstrap(images, names=[ref("base")])
    before = set(images.content.walk())
    for form in ("docker", "oci"):
        out = io.BytesIO()
        save(images, [SavedImage(image=base, names=(ref("again"),))], out, form=form)
        load(images, Pipe(out.getvalue()))
        assert set(images.content.walk()) == before
    assert [name.familiar for name in images.names(base)] == ["again:latest", "base:latest"]


def test_an_unknown_form_is_a_usage_error(images):
    with pytest.raises(UsageError, match="'tar'"):
        save(images, [], io.BytesIO(), form="tar")


def test_a_damaged_blob_is_noticed_while_it_is_saved(images):
    (image,) = load_members(images, docker_archive())
    path = Path(images.content.blob_path(images.layers(image)[0].digest))
    path.write_bytes(gzip.compress(LAYER[:-1] + b"!", mtime=0))
    for form in ("docker", "oci"):
        with pytest.raises(IntegrityError):
            save(images, [SavedImage(image=image)], io.BytesIO(), form=form)


CONFIG = config_of(LAYER, TOP)
ENTRY = {"Config": f"{sha(CONFIG)}.json", "RepoTags": ["a:1"], "Layers": ["one/layer.tar", "two/layer.tar"]}
HOSTILE_DOCKER: dict[str, tuple[dict[str, Any], type[LaminaError], str]] = {
    "a path with dots": ({"../evil": b"x"}, ArchiveError, "leads out"),
    "a path with dots inside": ({"one/../../evil": b"x"}, ArchiveError, "leads out"),
    "an absolute path": ({"/etc/evil": b"x"}, ArchiveError, "leads out"),
    "a symlink out": ({"one/layer.tar": (tarfile.SYMTYPE, "../../../etc/shadow")}, ArchiveError, "leads out"),
    "an absolute symlink": ({"one/layer.tar": (tarfile.SYMTYPE, "/etc/shadow")}, ArchiveError, "leads out"),
    "a hard link out": ({"one/layer.tar": (tarfile.LNKTYPE, "/etc/shadow")}, ArchiveError, "leads out"),
    "a circle of symlinks": ({"one/layer.tar": (tarfile.SYMTYPE, "layer.tar")}, ArchiveError, "circle"),
    "a device": ({"one/layer.tar": (tarfile.CHRTYPE, "")}, ArchiveError, "neither file"),
    "another layer": ({"one/layer.tar": TOP}, IntegrityError, "diff_id"),
    "another configuration": ({f"{sha(CONFIG)}.json": config_of(TOP, LAYER)}, ArchiveError, "digest"),
    "no configuration": ({f"{sha(CONFIG)}.json": (tarfile.DIRTYPE, "")}, ArchiveError, "no '.*json'"),
    "a layer that is no tar": ({"one/layer.tar": os.urandom(2000)}, ArchiveError, "tar header"),
    "a layer that is damaged gzip": ({"one/layer.tar": gzip.compress(LAYER)[:-20]}, ArchiveError, "gzip"),
    "a layer that leads out": ({"one/layer.tar": tar_of({"../evil": b"x"})}, ArchiveError, "evil"),
    "a missing layer": (
        {"manifest.json": dumps([{**ENTRY, "Layers": ["one/layer.tar", "no/layer.tar"]}])},
        ArchiveError,
        "no/layer",
    ),
    "a layer too few": ({"manifest.json": dumps([{**ENTRY, "Layers": ["one/layer.tar"]}])}, ArchiveError, "Layers"),
    "a name that is none": ({"manifest.json": dumps([{**ENTRY, "RepoTags": ["A b"]}])}, ArchiveError, "RepoTags"),
    "no images": ({"manifest.json": b"[]"}, ArchiveError, "not a list"),
    "no JSON": ({"manifest.json": b"[{]"}, ArchiveError, "not valid JSON"),
    "a second image that is bad": ({"manifest.json": dumps([ENTRY, {**ENTRY, "Config": "gone.json"}])}, ArchiveError, "gone.json"),
    "a text for a manifest": ({"manifest.json": dumps(["x"])}, ArchiveError, "not a JSON object"),
}


@pytest.mark.parametrize("what", HOSTILE_DOCKER)
def test_a_bad_docker_archive_is_refused_and_leaves_nothing(images, what):
    replaced, error, message = HOSTILE_DOCKER[what]
    members = docker_archive()
    for name, value in replaced.items():
        members.pop(name, None)
        members[name] = value
    with pytest.raises(error, match=message):
        load_members(images, members)
    assert_untouched(images)


GOOD = oci_archive()
PACKED_LAYER = gzip.compress(LAYER, mtime=0)
HOSTILE_OCI: dict[str, tuple[dict[str, Any], type[LaminaError], str]] = {
    "a damaged layer": ({**GOOD, f"blobs/sha256/{sha(PACKED_LAYER)}": gzip.compress(TOP, mtime=0)}, IntegrityError, "damaged"),
    "a damaged configuration": ({**GOOD, f"blobs/sha256/{sha(CONFIG)}": CONFIG + b" "}, IntegrityError, "damaged"),
    "a configuration of other layers": (oci_archive(config=config_of(TOP, LAYER)), IntegrityError, "diff_id"),
    "a configuration of fewer layers": (oci_archive(config=config_of(LAYER)), IntegrityError, "1"),
    "a layer of another size": (
        oci_archive(manifest={"layers": [{**descriptor(PACKED_LAYER, "layer.v1.tar+gzip"), "size": 1}] * 2}),
        IntegrityError,
        "its manifest says 1",
    ),
    "a configuration of another size": (
        oci_archive(manifest={"config": {**descriptor(CONFIG, "config.v1+json"), "size": 1}}),
        IntegrityError,
        "announced",
    ),
    "a manifest that is an index too": (oci_archive(manifest={"manifests": []}), ArchiveError, "manifests"),
    "a layer that is none": (oci_archive(manifest={"layers": [descriptor(PACKED_LAYER, "x")] * 2}), ArchiveError, "no layer"),
    "an artifact": (
        oci_archive(manifest={"config": descriptor(CONFIG, "empty.v1+json")}),
        ArchiveError,
        "not of a container image",
    ),
    "a missing layer": ({**GOOD, f"blobs/sha256/{sha(PACKED_LAYER)}": (tarfile.DIRTYPE, "")}, ArchiveError, "no layer"),
    "an unknown layout": ({**GOOD, "oci-layout": b'{"imageLayoutVersion": "9"}'}, ArchiveError, "version"),
    "an empty index": ({**GOOD, "index.json": dumps({"schemaVersion": 2, "manifests": []})}, ArchiveError, "no image"),
    "a digest with a path": (
        {**GOOD, "index.json": GOOD["index.json"].replace(b"sha256:", b"sha256:../")},
        ArchiveError,
        "digest",
    ),
    "an index of itself": (
        {**GOOD, "index.json": GOOD["index.json"].replace(b"image.manifest.v1", b"image.index.v1")},
        ArchiveError,
        "mediaType|belongs",
    ),
}


@pytest.mark.parametrize("what", HOSTILE_OCI)
def test_a_bad_oci_archive_is_refused_and_leaves_nothing(images, what):
    members, error, message = HOSTILE_OCI[what]
    with pytest.raises(error, match=message):
        load_members(images, members)
    assert_untouched(images)


@pytest.mark.parametrize("keep", [0, 100, 513, 3000, 9000, 20_000])
def test_a_truncated_archive_is_refused_and_leaves_nothing(images, keep):
    with pytest.raises(ArchiveError):
        load(images, Pipe(tar_of(docker_archive())[:keep]))
    assert_untouched(images)


def test_a_file_that_is_no_archive_is_refused(images):
    with pytest.raises(ArchiveError):
        load(images, Pipe(b"hello\n" * 1000))
    assert_untouched(images)


def test_a_root_file_systems_tar_is_told_from_an_image(images):
    with pytest.raises(ArchiveError, match="no images") as caught:
        load(images, Pipe(LAYER))
    assert "import" in caught.value.hint


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_an_archive_that_unpacks_beyond_the_limit_is_refused(images, where):
    zeros = tar_of({"zeros": bytes(20_000_000)})
    entry = {"Config": "x.json", "RepoTags": None, "Layers": ["1.tar"]}
    layer = zeros if where == "outside" else gzip.compress(zeros)
    bomb = tar_of({"1.tar": layer, "x.json": config_of(zeros), "manifest.json": dumps([entry])})
    with pytest.raises(ArchiveError, match="limit of 5000000 bytes"):
        load(images, Pipe(gzip.compress(bomb) if where == "outside" else bomb), max_bytes=5_000_000)
    assert_untouched(images)


def test_the_limit_holds_for_all_layers_together(images):
    config = config_of(zeros := tar_of({"zeros": bytes(3_000_000)}), more := tar_of({"more": bytes(3_000_000)}))
    entry = {"Config": "x.json", "RepoTags": None, "Layers": ["1.tar", "2.tar"]}
    members = {"1.tar": gzip.compress(zeros), "2.tar": gzip.compress(more), "x.json": config, "manifest.json": dumps([entry])}
    with pytest.raises(ArchiveError, match="limit"):
        load_members(images, members, max_bytes=5_000_000)
    assert_untouched(images)
    assert load_members(images, members, max_bytes=7_000_000)


def test_a_good_image_beside_a_bad_one_does_not_become_visible(images):
    other = config_of(TOP)
    entries = [ENTRY, {"Config": "other.json", "RepoTags": ["b:1"], "Layers": ["one/layer.tar"]}]
    with pytest.raises(IntegrityError, match="diff_id"):
        load_members(images, docker_archive(**{"other.json": other, "manifest.json": dumps(entries)}))
    assert_untouched(images)


def test_a_failure_after_the_blobs_are_written_takes_them_away(images):
    images.database.connection.execute("CREATE TRIGGER full BEFORE INSERT ON images BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(sqlite3.IntegrityError, match="no room"):
        load_members(images, docker_archive())
    assert_untouched(images)


def test_a_file_nobody_asks_for_does_no_harm(images):
    """Archives also hold what isn't a container's: signatures, readme files, other programs' layers."""
    assert load_members(images, docker_archive(**{"README": os.urandom(3000), "x/y.gz": b"\x1f\x8b and nothing more" * 100}))


def run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
    return result.stdout


def test_skopeo_and_umoci_read_the_store_as_it_lies(images, tmp_path):
    base = bootstrap(images, names=[ref("busybox"), ref("host.example:5000/a/b:1.0")])
    layout = images.content.image_dir
    for name in ("busybox:latest", "host.example:5000/a/b:1.0"):
        seen = json.loads(run("skopeo", "inspect", f"oci:{layout}:{name}"))
        assert seen["Digest"] == base.manifest
        assert run("umoci", "stat", "--image", f"{layout}:{name}", "--json")
    assert run("umoci", "ls", "--layout", layout).split() == ["busybox:latest", "host.example:5000/a/b:1.0"]
    run("umoci", "raw", "unpack", "--image", f"{layout}:busybox:latest", str(tmp_path / "root"))
    assert run("chroot", str(tmp_path / "root"), "/bin/sh", "-c", "echo $((6 * 7))") == "42\n"


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_skopeo_reads_what_is_saved_and_we_load_what_skopeo_writes(images, other, tmp_path, transport):
    base = bootstrap(images, names=[ref("base")])
    top = add_layer_image(images, base=base, write_layer=lambda out: out.write(TOP), names=[ref("user/top:1")])
    saved, copied = str(tmp_path / "saved.tar"), str(tmp_path / "copied.tar")
    with open(saved, "wb") as out:
        selected = [SavedImage(image=base, names=(ref("base"),)), SavedImage(image=top, names=(ref("user/top:1"),))]
        save(images, selected, out, form=transport.partition("-")[0])
    layers = [layer.diff_id for layer in images.layers(top)]
    for to in ("docker-archive", "oci-archive"):
        Path(copied).unlink(missing_ok=True)
        run("skopeo", "copy", "-q", f"{transport}:{saved}:user/top:1", f"{to}:{copied}:copied/{to}:1")
        with open(copied, "rb") as file:
            (loaded,) = load(other, file)
        assert [name.familiar for name in loaded.names] == [f"copied/{to}:1"]
        assert [layer.diff_id for layer in other.layers(loaded.image)] == layers


def test_zstd_layers_as_skopeo_packs_them_are_kept(images, other, tmp_path):
    bootstrap(images, names=[ref("base")])
    copied = str(tmp_path / "copied.tar")
    source = f"oci:{images.content.image_dir}:base:latest"
    run("skopeo", "copy", "-q", "--dest-compress", "--dest-compress-format", "zstd", source, f"oci-archive:{copied}:z:1")
    with open(copied, "rb") as file:
        (loaded,) = load(other, file)
    (layer,) = other.layers(loaded.image)
    assert layer.media_type.endswith("+zstd")
    assert layer.diff_id == images.layers(images.resolve("base"))[0].diff_id
    out = io.BytesIO()
    save(other, [SavedImage(image=loaded.image)], out)
    assert [one.image.id for one in load(images, Pipe(out.getvalue()))] == [loaded.image.id]


def test_bootstrap_makes_the_same_image_each_time(images, other):
    assert bootstrap(images, names=[ref("a")]).manifest == bootstrap(other, names=[ref("b")]).manifest


def test_bootstrap_without_busybox_takes_the_core_tools_and_their_libraries(images, tmp_path):
    image = bootstrap(images, names=[ref("tools")], busybox="")
    config = images.config(image)
    assert config.config.cmd == ("sh",)
    assert config.config.env[0].startswith("PATH=")
    root = tmp_path / "root"
    root.mkdir()
    run("umoci", "raw", "unpack", "--image", f"{images.content.image_dir}:tools:latest", str(root))
    script = "echo x > /tmp/f && cat /tmp/f && ls -ld /tmp /root | cut -c1-10 && mkdir /d && rm -r /d && id -u && env -i true"
    assert run("chroot", str(root), "/bin/sh", "-c", script).split() == ["x", "drwx------", "drwxrwxrwt", "0"]
    assert (root / "etc/passwd").read_text().startswith("root:x:0:0:")


def test_the_layers_diff_id_is_that_of_its_tar(images):
    (image,) = load_members(images, docker_archive())
    assert [layer.diff_id for layer in images.layers(image)] == [Digest.of(LAYER), Digest.of(TOP)]
