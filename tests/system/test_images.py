"""The image store: names, ids, removal, garbage, and that the layout's index always says what the database says."""

import errno
import fcntl
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from lamina.errors import ArchiveError, ConflictError, IntegrityError, NotFoundError, UsageError
from lamina.linux import mount
from lamina.model.digest import Digest
from lamina.model.image import OCI_CONFIG, OCI_LAYER_GZIP, Descriptor, Manifest
from lamina.model.image_config import Defaults, ImageConfig
from lamina.model.reference import Reference
from lamina.store.content import ContentStore
from lamina.store.database import Database
from lamina.store.image_build import add_layer_image, import_rootfs
from lamina.store.image_history import history
from lamina.store.images import Image, ImageStore, ImageUser, LayerBlob


def ref(text: str) -> Reference:
    return Reference.parse(text)


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def nobody(image_id: str) -> list[ImageUser]:
    return []


def index_names(images: ImageStore) -> list[tuple[str, str]]:
    """The index as a stranger reads it: (name, manifest digest), sorted."""
    document = json.loads((Path(images.content.image_dir) / "index.json").read_bytes())
    return sorted(
        (one.get("annotations", {}).get("org.opencontainers.image.ref.name", ""), one["digest"]) for one in document["manifests"]
    )


def blobs(images: ImageStore) -> set[str]:
    return set(images.content.walk())


@pytest.fixture
def images(root_dir: str) -> ImageStore:
    return ImageStore(ContentStore(root_dir), Database(f"{root_dir}/lamina.db"))


def make(images: ImageStore, *names: str, content: bytes = b"x", **options: object) -> Image:
    return import_rootfs(
        images, io.BytesIO(tar_of({"file": content})), names=[ref(name) for name in names], created_ns=0, **options
    )


def test_a_new_store_is_an_empty_layout(images):
    images.rewrite_index()
    layout = Path(images.content.image_dir)
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((layout / "index.json").read_bytes())["manifests"] == []
    assert images.images() == []


def test_an_image_is_found_by_every_way_of_calling_it(images):
    image = make(images, "busybox:1", "host.example:5000/a/b")
    manifest = image.manifest
    for text in (
        *("busybox:1", "docker.io/library/busybox:1", "host.example:5000/a/b:latest", "host.example:5000/a/b"),
        *(image.id, image.id.hex, image.id.hex[:12], image.id.hex[:4], image.id[:20], manifest, f"busybox@{manifest}"),
    ):
        assert images.resolve(text) == image, text


@pytest.mark.parametrize(
    "text", ["nothing", "busybox", "ffff", "0" * 64, "sha256:" + "0" * 64, "sha256:ffff", "busybox@sha256:" + "0" * 64]
)
def test_what_is_not_there_is_named(images, text):
    make(images, "busybox:1")
    with pytest.raises(NotFoundError, match=f"no such image: '{text}'"):
        images.resolve(text)


def test_a_beginning_that_two_ids_have_is_ambiguous(images):
    made = [make(images, content=str(number).encode()) for number in range(17)]
    firsts = [image.id.hex[0] for image in made]
    twice = next(first for first in firsts if firsts.count(first) > 1)
    with pytest.raises(ConflictError, match="ambiguous"):
        images.resolve(twice)


def test_a_name_wins_over_the_beginning_of_an_id(images):
    first = make(images, content=b"1")
    second = make(images, first.id.hex[:6], content=b"2")
    assert images.resolve(first.id.hex[:6]) == second


def test_a_name_moves_to_the_image_that_gets_it_last(images):
    first, second = make(images, "a", content=b"1"), make(images, "b", content=b"2")
    images.tag(second, ref("a"))
    assert images.resolve("a") == second
    assert images.names(first) == []
    assert index_names(images) == sorted([("", first.manifest), ("a:latest", second.manifest), ("b:latest", second.manifest)])


def test_a_name_with_a_digest_cannot_be_given(images):
    image = make(images)
    with pytest.raises(UsageError, match="digest"):
        images.tag(image, ref("a@sha256:" + "0" * 64))


def test_the_same_image_again_takes_no_space_again(images):
    first = make(images, "a")
    before = blobs(images)
    assert make(images, "b") == first
    assert blobs(images) == before
    assert [name.familiar for name in images.names(first)] == ["a:latest", "b:latest"]


def test_the_last_name_takes_the_image_with_it_and_another_does_not(images):
    image = make(images, "a", "b")
    removal = images.remove("a", users=nobody)
    assert (removal.untagged, removal.deleted) == (("a:latest",), ())
    assert images.resolve("b") == image
    removal = images.remove("b", users=nobody)
    assert (removal.untagged, removal.deleted) == (("b:latest",), (image.id,))
    assert images.images() == []
    assert blobs(images) == set()
    assert index_names(images) == []


def test_by_id_all_names_of_one_repository_go(images):
    image = make(images, "a:1", "a:2")
    removal = images.remove(image.id.hex[:12], users=nobody)
    assert (removal.untagged, removal.deleted) == (("a:1", "a:2"), (image.id,))


def test_by_id_names_of_several_repositories_go_only_by_force(images):
    image = make(images, "a:1", "b:1")
    with pytest.raises(ConflictError, match="several repositories"):
        images.remove(image.id, users=nobody)
    assert len(images.names(image)) == 2
    assert images.remove(image.id, users=nobody, force=True).deleted == (image.id,)


def test_an_image_in_use_is_not_deleted(images):
    image = make(images, "a", "b")

    def stopped(image_id: str) -> list[ImageUser]:
        return [ImageUser(container_id="c" * 64, is_running=False)]

    def running(image_id: str) -> list[ImageUser]:
        return [ImageUser(container_id="d" * 64, is_running=True)]

    assert images.remove("b", users=running).untagged == ("b:latest",)  # it has another name
    with pytest.raises(ConflictError, match="running container dddddddddddd"):
        images.remove("a", users=running, force=True)
    with pytest.raises(ConflictError, match="container cccccccccccc"):
        images.remove("a", users=stopped)
    removal = images.remove("a", users=stopped, force=True)
    assert (removal.untagged, removal.deleted) == (("a:latest",), ())
    assert images.resolve(image.id) == image
    assert images.config(image).diff_ids


def test_shared_layers_stay_while_one_image_has_them(images):
    base = make(images, "base")
    top = add_layer_image(
        images, base=base, write_layer=lambda out: out.write(tar_of({"more": b"y"})), names=[ref("top")], created_by="commit"
    )
    shared = images.layers(base)[0]
    assert images.layers(top)[0] == shared
    assert len(images.layers(top)) == 2
    images.remove("base", users=nobody)
    assert images.content.exists(shared.digest)
    assert images.content.read(shared.digest)
    images.remove("top", users=nobody)
    assert blobs(images) == set()


def test_a_layer_on_top_keeps_the_base_and_tells_its_history(images):
    base = make(images, "base", changes=['CMD ["sh"]', "ENV A=b"], message="begun")
    top = add_layer_image(
        images,
        base=base,
        write_layer=lambda out: out.write(tar_of({"more": b"y"})),
        defaults=Defaults(cmd=("top",)),
        created_by="sh -c make",
        comment="why",
        author="me",
    )
    config = images.config(top)
    assert config.diff_ids[:1] == images.config(base).diff_ids
    assert config.config == Defaults(cmd=("top",))
    assert config.author == "me"
    newest, oldest = history(images, top)
    assert (newest.image_id, newest.created_by, newest.comment) == (top.id, "sh -c make", "why")
    assert newest.size_bytes == len(tar_of({"more": b"y"}))
    assert (oldest.image_id, oldest.comment) == (None, "begun")
    assert images.config(base).config.env == ("A=b",)


def test_an_error_while_a_layer_is_written_leaves_nothing(images):
    base = make(images, "base")
    before, threads = blobs(images), threading.enumerate()

    def fail(out: object) -> None:
        out.write(b"x" * 3_000_000)
        raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        add_layer_image(images, base=base, write_layer=fail)
    assert blobs(images) == before
    assert os.listdir(images.content.tmp_dir) == []
    assert threading.enumerate() == threads


def test_a_layer_gives_the_same_blob_in_whatever_pieces_it_is_written(images):
    tar = tar_of({"file": b"".join(str(number).encode() for number in range(300_000))})

    def in_pieces(out: object) -> None:
        for at in range(0, len(tar), 100_003):
            out.write(tar[at : at + 100_003])

    digests = []
    for write in (lambda out: out.write(tar), in_pieces):
        image = add_layer_image(images, base=None, write_layer=write)
        digests.append(images.layers(image)[0].digest)
        images.remove(image.id, users=nobody)
    assert digests[0] == digests[1]


def test_the_same_layer_packed_in_another_way_takes_no_space_again(images):
    tar = tar_of({"file": b"x" * 100_000})
    packed = subprocess.run(["gzip", "-9", "-c"], input=tar, capture_output=True, check=True).stdout
    first = import_rootfs(images, io.BytesIO(packed), message="one")
    second = import_rootfs(images, io.BytesIO(tar), message="two")
    assert first.id != second.id
    assert images.layers(first) == images.layers(second)
    assert len(blobs(images)) == 5


def test_a_failure_after_the_blobs_are_written_takes_them_away(images):
    base = make(images, "base")
    before = blobs(images)
    images.database.connection.execute("CREATE TRIGGER full BEFORE INSERT ON images BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(sqlite3.IntegrityError, match="no room"):
        add_layer_image(images, base=base, write_layer=lambda out: out.write(tar_of({"more": b"y"})))
    assert blobs(images) == before


def test_a_full_disk_leaves_nothing(root_dir):
    small = f"{root_dir}/small"
    os.mkdir(small)
    mount.mount("none", small, "tmpfs", data="size=2m")
    try:
        images = ImageStore(ContentStore(small), Database(f"{root_dir}/lamina.db"))
        images.rewrite_index()
        with pytest.raises(OSError) as caught:
            import_rootfs(images, io.BytesIO(tar_of({"file": os.urandom(5_000_000)})))
        assert caught.value.errno == errno.ENOSPC
        assert blobs(images) == set()
        assert os.listdir(images.content.tmp_dir) == []
        assert make(images, "fits").size_bytes
    finally:
        mount.unmount(small)


@pytest.mark.parametrize("compress", [[], ["gzip", "-9"], ["zstd", "-q"], ["xz", "-1"], ["bzip2"]])
def test_an_imported_tar_may_be_packed_in_any_usual_way(images, compress):
    tar = tar_of({"file": os.urandom(300_000)})
    packed = subprocess.run([*compress, "-c"], input=tar, capture_output=True, check=True).stdout if compress else tar
    seen: list[int] = []
    image = import_rootfs(images, io.BytesIO(packed), names=[ref("x")], progress=seen.append)
    assert images.config(image).diff_ids == (Digest.of(tar),)
    assert image.size_bytes == len(tar)
    assert seen[-1] == len(packed)
    assert seen == sorted(seen)
    (layer,) = images.layers(image)
    kept = compress[:1] in (["gzip"], ["zstd"])
    assert (images.content.read(layer.digest) == packed) is kept  # what may lie in the store as it is, does


@pytest.mark.parametrize(
    "damage",
    [
        lambda tar: b"",
        lambda tar: b"hello\n",
        lambda tar: tar[:700],
        lambda tar: tar[:1024],
        lambda tar: tar[:200] + b"!" + tar[201:],
        lambda tar: tar_of({"../out": b""}),
    ],
)
def test_a_damaged_tar_is_no_image_and_leaves_nothing(images, damage):
    with pytest.raises(ArchiveError):
        import_rootfs(images, io.BytesIO(damage(tar_of({"file": b"x" * 1000}))))
    assert images.images() == []
    assert blobs(images) == set()
    assert os.listdir(images.content.tmp_dir) == []


def test_an_import_beyond_the_limit_stops(images):
    bomb = subprocess.run(["gzip", "-1", "-c"], input=tar_of({"zeros": bytes(30_000_000)}), capture_output=True, check=True).stdout
    with pytest.raises(ArchiveError, match="limit of 1000000"):
        import_rootfs(images, io.BytesIO(bomb), max_bytes=1_000_000)
    assert blobs(images) == set()


def test_documents_that_do_not_belong_together_are_refused(images):
    layer_bytes = b"not read here"
    diff_id = Digest("sha256:" + "1" * 64)
    with images.content.ingest() as ingest:
        digest = ingest.put(layer_bytes)
        layer = LayerBlob(digest=digest, media_type=OCI_LAYER_GZIP, stored_bytes=len(layer_bytes), diff_id=diff_id, size_bytes=5)
        config = ImageConfig(os="linux", architecture="amd64", diff_ids=(diff_id,)).to_bytes()

        def manifest(*, config_bytes: bytes = config, layer_size: int = len(layer_bytes), layers: int = 1) -> bytes:
            one = Descriptor(media_type=OCI_LAYER_GZIP, digest=digest, size_bytes=layer_size)
            of_config = Descriptor(media_type=OCI_CONFIG, digest=Digest.of(config_bytes), size_bytes=len(config_bytes))
            return Manifest(config=of_config, layers=(one,) * layers).to_bytes()

        for wrong in (
            {"manifest": manifest(config_bytes=b"other"), "config": config, "layers": [layer]},
            {"manifest": manifest(layer_size=1), "config": config, "layers": [layer]},
            {"manifest": manifest(layers=2), "config": config, "layers": [layer]},
            {"manifest": manifest(), "config": config, "layers": []},
        ):
            with pytest.raises(IntegrityError):
                images.add(ingest, **wrong)
        assert images.images() == []
        assert images.add(ingest, manifest=manifest(), config=config, layers=[layer]).size_bytes == 5


def test_garbage_is_collected_and_nothing_that_is_being_added(images):
    image = make(images, "a")
    with images.content.ingest() as ingest:
        garbage = ingest.put(b"garbage")
        ingest.flush()
        assert images.delete_unreferenced_blobs(wait=False) == 0  # it might get its row yet
        assert images.content.exists(garbage)
    assert images.delete_unreferenced_blobs() == len(b"garbage")
    assert not images.content.exists(garbage)
    assert all(images.content.exists(layer.digest) for layer in images.layers(image))


def test_collecting_waits_for_who_adds(images):
    images.content.prepare()
    done = threading.Event()
    other = ImageStore(ContentStore(os.path.dirname(images.content.image_dir)), Database(images.database.path))
    with images.content.ingest():
        thread = threading.Thread(target=lambda: (other.delete_unreferenced_blobs(), done.set()))
        thread.start()
        assert not done.wait(0.2)
    assert done.wait(5)
    thread.join()
    other.database.close()


def test_collecting_is_left_to_others_if_somebody_always_adds(images, monkeypatch):
    monkeypatch.setattr("lamina.store.content.PATIENCE_S", 0.1)
    with images.content.ingest() as ingest:
        garbage = ingest.put(b"garbage")
        ingest.flush()
        with images.ingest():
            assert images.delete_unreferenced_blobs() == 0
            assert images.content.has_garbage
        assert images.content.exists(garbage)
    with images.ingest():
        pass
    assert not images.content.exists(garbage)


def test_an_image_that_is_removed_while_it_is_recognised_is_not_here(images, monkeypatch):
    image, name = make(images, "a"), Reference.parse("new")
    found = images.find_whole(image.id)
    assert images.recognise(image.id, names=[name]) == found
    assert name in images.names(image)
    images.remove(str(image.id), users=lambda _id: [], force=True)
    assert images.recognise(image.id, names=[name]) is None
    monkeypatch.setattr(images, "find_whole", lambda _id: found)  # it was there a moment ago
    assert images.recognise(image.id, names=[name]) is None
    assert images.all_names() == []


def test_a_blob_with_another_digest_than_expected_is_not_committed(images):
    with images.content.ingest() as ingest, ingest.writer() as writer:
        writer.write(b"content")
        with pytest.raises(IntegrityError, match="digest"):
            writer.commit(digest=Digest("sha256:" + "0" * 64))
    assert blobs(images) == set()
    assert os.listdir(images.content.tmp_dir) == []


def test_two_writers_of_one_blob_do_not_disturb_each_other(images):
    with images.content.ingest() as first, images.content.ingest() as second, first.writer() as one, second.writer() as two:
        one.write(b"same")
        two.write(b"same")
        digest = one.commit()
        assert two.commit(digest=digest, size_bytes=4) == digest
    assert images.content.read(digest) == b"same"


def test_a_damaged_blob_is_noticed_when_it_is_read(images):
    image = make(images, "a")
    path = images.content.blob_path(images.layers(image)[0].digest)
    content = bytearray(Path(path).read_bytes())
    content[-1] ^= 1
    Path(path).write_bytes(content)
    with pytest.raises(IntegrityError, match="damaged"), images.content.open(images.layers(image)[0].digest, verify=True) as blob:
        while blob.read(1000):
            pass
    assert images.remove("a", users=nobody).deleted  # and it can be removed all the same


def test_an_image_whose_blobs_were_lost_is_whole_again_after_it_is_added_again(images):
    image = make(images, "a")
    layer = images.layers(image)[0].digest
    images.content.delete(layer)
    assert images.find_whole(image.id) is None
    with pytest.raises(NotFoundError, match="is missing"):
        images.layers(image)
    assert make(images, "a").id == image.id
    assert images.content.exists(layer)


KILLED = """
import io, os, signal, sys, tarfile
from lamina.model.reference import Reference
from lamina.store import images as module
from lamina.store.content import BlobWriter, ContentStore
from lamina.store.database import Database
from lamina.store.image_build import import_rootfs
root_dir, step = sys.argv[1:]
def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)
steps = {"write": (BlobWriter, "commit"), "row": (module.ImageStore, "add"), "index": (module.ImageStore, "_write_index")}
target, name = steps[step]
setattr(target, name, die)
out = io.BytesIO()
with tarfile.open(fileobj=out, mode="w") as tar:
    tar.addfile(tarfile.TarInfo("new"))
out.seek(0)
import_rootfs(module.ImageStore(ContentStore(root_dir), Database(root_dir + "/lamina.db")), out, names=[Reference.parse("killed")])
"""


@pytest.mark.parametrize(("step", "is_there"), [("write", False), ("row", False), ("index", True)])
def test_a_killed_import_leaves_garbage_at_most(images, root_dir, step, is_there):
    make(images, "kept")
    run = subprocess.run([sys.executable, "-c", KILLED, root_dir, step], check=False, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    assert run.returncode == -signal.SIGKILL
    images.delete_unreferenced_blobs()
    images.rewrite_index()
    assert os.listdir(images.content.tmp_dir) == []
    assert [name.familiar for name, _ in images.all_names()] == (["kept:latest", "killed:latest"] if is_there else ["kept:latest"])
    assert [name for name, _ in index_names(images)] == [name.familiar for name, _ in images.all_names()]
    assert len(blobs(images)) == (6 if is_there else 3)


def test_many_processes_that_name_images_leave_one_true_index(images, root_dir):
    image = make(images, "a")
    script = (
        "import sys\nfrom lamina.model.reference import Reference\nfrom lamina.store.content import ContentStore\n"
        "from lamina.store.database import Database\nfrom lamina.store.images import ImageStore\n"
        "images = ImageStore(ContentStore(sys.argv[1]), Database(sys.argv[1] + '/lamina.db'))\n"
        "for number in range(5):\n"
        "    images.tag(images.resolve('a'), Reference.parse(f'p{sys.argv[2]}:{number}'))\n"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = [subprocess.Popen([sys.executable, "-c", script, root_dir, str(number)], env=environment) for number in range(4)]
    assert [one.wait() for one in running] == [0] * 4
    assert len(images.names(image)) == 21
    assert index_names(images) == sorted((name.familiar, image.manifest) for name in images.names(image))


def test_the_index_lock_is_free_after_each_change(images, root_dir):
    make(images, "a")
    with open(f"{root_dir}/image-index.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
