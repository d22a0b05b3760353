"""Pull and push against Debian's docker-registry: nothing comes or goes twice, what is cut goes on, what fails leaves nothing."""

import gc
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import archives
import leaks
import pytest
from cases import Lamina
from registries import Place, Proxy, Registry, make_image, noise, sample_layers

from lamina.engine import Engine
from lamina.errors import ArchiveError, IntegrityError, NotFoundError, TransferError
from lamina.model.digest import Digest
from lamina.model.image import DOCKER_LAYER_GZIP, OCI_INDEX, OCI_MANIFEST, Descriptor, Index, Manifest, Platform
from lamina.model.reference import Reference
from lamina.registry.opening import open_registry_destination, open_registry_source
from lamina.registry.push import copy_image
from lamina.registry.report import State, Transferred
from lamina.registry.transport import Document

ONCE = "[registries]\nattempts = 1\n"
BLOB = r"/blobs/sha256:"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One that speaks plain HTTP and asks nobody who they are."""
    registry = Registry(tmp_path_factory.mktemp("registry"))
    yield registry
    registry.stop()


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Proxy]:
    """A way to it that counts."""
    proxy = Proxy(registry.port)
    yield proxy
    proxy.stop()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch.setenv)


def push_new(place: Place, name: str, layers: list[bytes]) -> str:
    """Push an image from another store; gives its digest."""
    with place.engine("other") as engine:
        make_image(engine, place.directory, name, layers)
        return str(engine.images.push(name).digest)


def blobs_of(engine: Engine, name: str) -> list[Descriptor]:
    store = engine.images.store
    return list(store.manifest(store.resolve(name)).layers)


def test_what_is_pushed_is_pulled_and_runs(lamina: Lamina, registry: Registry, place: Place) -> None:
    name = f"{registry.host}/run/{lamina.driver}:1"
    lamina("tag", "base", name)
    pushed = lamina("push", name)
    lamina("rmi", "--force", "base", name)
    assert name not in lamina("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    lines = lamina("pull", name).splitlines()
    digest = lines[0].removeprefix("Digest: ")
    assert digest in pushed
    assert lines[1:] == [f"Status: Downloaded newer image for {name}", name]
    assert lamina("pull", name).splitlines()[1] == f"Status: Image is up to date for {name}"
    assert lamina("run", "--rm", name, "cat", "/tree/sub/b") == "b"
    assert lamina("run", "--rm", f"{name.rpartition(':')[0]}@{digest}", "cat", "/single") == "the image's own file"
    assert digest in lamina("images", "--digests", name)
    assert lamina.document(name, "image")["RepoDigests"] == [f"{name.rpartition(':')[0]}@{digest}"]


def test_run_pulls_what_is_missing_and_never_what_is_there(lamina: Lamina, registry: Registry, place: Place) -> None:
    name = f"{registry.host}/missing/{lamina.driver}:1"
    lamina("tag", "busybox", name)
    lamina("push", "-q", name)
    lamina("rmi", name)
    assert "no such image" in lamina.error("run", name, "true", code=125)
    done = lamina.result("run", "--rm", name, "echo", "hello", env={"LAMINA_PULL": ""})
    assert done.stdout == "hello\n", done.stderr
    assert done.stderr.splitlines()[0] == f"Unable to find image '{name}' locally"
    lamina("tag", "base", name)  # which the registry has otherwise
    assert lamina("run", "--rm", "--pull", "missing", name, "cat", "/single") == "the image's own file"
    assert lamina("run", "--rm", "--pull", "always", name, "sh", "-c", "test -e /single || echo other") == "other"
    created = lamina("create", "--pull=never", name, "true")
    lamina("rm", created)


def test_a_pull_unpacks_while_it_comes_and_no_blob_comes_twice(registry: Registry, proxy: Proxy, place: Place) -> None:
    digest = push_new(place, f"{registry.host}/once:1", sample_layers("once"))
    told: list[Transferred] = []
    with place.engine() as engine:
        pulled = engine.images.pull(f"{proxy.host}/once:1", report=told.append)
        assert pulled.digest == digest
        keys = [chain.hex for chain in engine.images.store.config(pulled.image).chain_ids]
        driver = engine.context.layers.driver("overlay")
        assert all(engine.context.layers.is_sealed(driver, key) for key in keys)
    asked = proxy.asked("GET", BLOB)
    assert len(asked) == len(set(asked)) == 4
    states = {state: [each.digest for each in told if each.state is state] for state in State}
    assert len(set(states[State.DOWNLOADED])) == len(set(states[State.DONE])) == 3
    with place.engine() as engine:
        engine.images.pull(f"{proxy.host}/once:1")
    assert proxy.asked("GET", BLOB) == asked


def test_a_pull_goes_on_where_the_connection_was_cut(registry: Registry, proxy: Proxy, place: Place) -> None:
    layers = sample_layers("cut", sizes=(4_000_000,))
    push_new(place, f"{registry.host}/cut:1", layers)
    with place.engine() as engine:
        proxy.cut_after(1_500_000, 1_000_000)
        pulled = engine.images.pull(f"{proxy.host}/cut:1")
        assert proxy.cuts_done == 2
        assert 4_000_000 < proxy.sent_down < 4_700_000  # what was on its way when it was cut comes again, and no more
        assert len(engine.images.store.layers(pulled.image)) == 1
        assert engine.containers.create(f"{proxy.host}/cut:1", ["true"]).inspect()["Image"] == str(pulled.image.id)
        engine.containers.all()[0].remove()


def test_a_pull_that_breaks_for_good_leaves_nothing(registry: Registry, proxy: Proxy, place: Place) -> None:
    push_new(place, f"{registry.host}/broken:1", sample_layers("broken", sizes=(1000, 2_000_000, 3000)))
    place.configure(ONCE)
    with place.engine() as engine:
        before = place.left()
        proxy.cut_after(700_000)
        with pytest.raises(TransferError, match="broke"):
            engine.images.pull(f"{proxy.host}/broken:1")
        assert place.left() == before == []


def test_a_tampered_blob_is_refused_and_leaves_nothing(registry: Registry, place: Place) -> None:
    name = f"{registry.host}/tampered:1"
    push_new(place, name, sample_layers("tampered"))
    with place.engine("other") as engine:
        digest = blobs_of(engine, name)[1].digest
    file = registry.blob_file(digest)
    content = bytearray(file.read_bytes())
    content[4] ^= 1  # the time of gzip's header: what it unpacks to stays the same
    file.write_bytes(content)
    with place.engine() as engine, pytest.raises(IntegrityError, match=digest):
        engine.images.pull(name)
    assert place.left() == []


@pytest.mark.parametrize("change", [b"", b"more"], ids=["shorter", "longer"])
def test_a_blob_of_another_length_is_refused(change: bytes, registry: Registry, place: Place) -> None:
    name = f"{registry.host}/length{len(change)}:1"
    push_new(place, name, sample_layers(f"length{change!r}"))
    with place.engine("other") as engine:
        digest = blobs_of(engine, name)[0].digest
    content = registry.blob_file(digest).read_bytes()
    registry.blob_file(digest).write_bytes(content + change if change else content[:-7])
    with place.engine() as engine, pytest.raises(IntegrityError, match=r"bytes there, the manifest says"):
        engine.images.pull(name)
    assert place.left() == []


def test_a_layer_that_unpacks_to_something_else_is_refused(registry: Registry, place: Place) -> None:
    name = f"{registry.host}/swapped:1"
    push_new(place, name, sample_layers("swapped", sizes=(5000, 6000)))
    with place.engine("other") as engine:
        store = engine.images.store
        image = store.resolve(name)
        manifest = store.manifest(image)
        swapped = Manifest(config=manifest.config, layers=manifest.layers[::-1], media_type=manifest.media_type)
    destination = open_registry_destination(Reference.parse(name))
    destination.put_document(Document(content=swapped.to_bytes(), media_type=swapped.media_type), is_root=True)
    with place.engine() as engine, pytest.raises(IntegrityError, match="unpacks to"):
        engine.images.pull(name)
    assert place.left() == []


def test_a_hostile_layer_is_refused_and_leaves_nothing(registry: Registry, place: Place) -> None:
    name = f"{registry.host}/hostile:1"
    with place.engine("other") as engine:
        layers = [archives.layer({"fine": "fine\n"}), archives.layer({"../../outside": "out\n"})]
        push_raw(place, name, layers)
    with place.engine() as engine, pytest.raises(ArchiveError):
        engine.images.pull(name)
    assert place.left() == []


def push_raw(
    place: Place,
    name: str,
    layers: list[bytes],
    media_type: str = "application/vnd.oci.image.layer.v1.tar",
    *,
    packed: list[bytes] | None = None,
) -> Digest:
    """Push layers as they are, which our own store would refuse or pack; gives the manifest's digest."""
    import io

    destination = open_registry_destination(Reference.parse(name))
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
         "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(each)) for each in layers]}}
    ).encode()  # fmt: skip
    blobs = packed or layers
    described = [Descriptor(media_type=media_type, digest=Digest.of(each), size_bytes=len(each)) for each in blobs]
    known = Descriptor(media_type="application/vnd.oci.image.config.v1+json", digest=Digest.of(config), size_bytes=len(config))
    for descriptor, content in zip([*described, known], [*blobs, config], strict=True):
        destination.put_blob(descriptor, io.BytesIO(content))
    manifest = Manifest(config=known, layers=tuple(described)).to_bytes()
    destination.put_document(Document(content=manifest, media_type="application/vnd.oci.image.manifest.v1+json"), is_root=True)
    destination.close()
    return Digest.of(manifest)


@pytest.mark.parametrize("form", ["none", "gzip", "zstd", "docker", "empty", "twice"])
def test_layers_come_as_gzip_zstd_or_unpacked_and_may_be_empty(form: str, registry: Registry, place: Place) -> None:
    name = f"{registry.host}/forms/{form}:1"
    layer = archives.layer({"file": f"{form}\n" * 3000})
    layers, packed, kind = [layer], None, "application/vnd.oci.image.layer.v1.tar"
    if form in {"gzip", "docker"}:
        import gzip

        packed = [gzip.compress(layer)]
        kind = DOCKER_LAYER_GZIP if form == "docker" else f"{kind}+gzip"
    if form == "zstd":
        packed = [subprocess.run(["zstd", "--stdout"], input=layer, capture_output=True, check=True).stdout]
        kind += "+zstd"
    if form == "empty":
        layers = [layer, archives.layer({}), b"\0" * 1024, archives.layer({"more": "more\n"})]
    if form == "twice":
        layers = [layer, archives.layer({"other": "x\n"}), layer]
    digest = push_raw(place, name, layers, kind, packed=packed)
    with place.engine() as engine:
        pulled = engine.images.pull(name)
        assert pulled.digest == digest == pulled.image.manifest
        assert [str(each) for each in engine.images.store.config(pulled.image).diff_ids] == [
            str(Digest.of(each)) for each in layers
        ]
        container = engine.containers.create(name, ["true"])
        container.copy_out("/file", str(place.directory / "out"))
        assert (place.directory / "out").read_text() == f"{form}\n" * 3000
        container.remove()
        again = name.removesuffix(":1") + ":again"
        engine.images.tag(name, again)
        assert engine.images.push(again).digest == digest


def test_two_pulls_at_once_fetch_each_blob_once(registry: Registry, proxy: Proxy, place: Place) -> None:
    name = f"{proxy.host}/shared:1"
    push_new(place, f"{registry.host}/shared:1", sample_layers("shared", sizes=(3_000_000, 2_000_000, 1_000_000, 500_000)))
    with place.engine():
        pass
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    results = context.Queue()
    both = [context.Process(target=_pull_at_once, args=(str(place.root), name, barrier, results)) for _ in range(2)]
    for each in both:
        each.start()
    found = [results.get(timeout=60) for _ in both]
    for each in both:
        each.join()
    assert found[0] == found[1], found
    assert found[0].startswith("sha256:"), found
    asked = proxy.asked("GET", BLOB)
    assert len(asked) == len(set(asked)) == 5, asked


def _pull_at_once(root: str, name: str, barrier: "threading.Barrier", results: "multiprocessing.Queue[str]") -> None:
    try:
        with Engine(root_dir=root, storage_driver="overlay") as engine:
            barrier.wait()
            results.put(str(engine.images.pull(name).image.id))
    except BaseException as error:  # noqa: BLE001  the other end asserts
        results.put(repr(error))


def test_a_pull_takes_over_from_one_that_failed(registry: Registry, proxy: Proxy, place: Place) -> None:
    name = f"{proxy.host}/taken:1"
    push_new(place, f"{registry.host}/taken:1", sample_layers("taken", sizes=(2_000_000, 1000)))
    place.configure(ONCE)
    with place.engine() as engine:
        proxy.cut_after(500_000)
        with pytest.raises(TransferError):
            engine.images.pull(name)
        assert engine.images.pull(name).is_new


def test_what_a_failing_pull_must_leave_to_others_the_last_of_them_removes(registry: Registry, place: Place) -> None:
    name, other = f"{registry.host}/leaves/bad:1", f"{registry.host}/leaves/good:1"
    push_new(place, name, sample_layers("leaves/bad"))
    push_new(place, other, sample_layers("leaves/good", sizes=(1000,)))
    with place.engine("other") as engine:
        file = registry.blob_file(blobs_of(engine, name)[2].digest)
    file.write_bytes(file.read_bytes()[::-1])
    with place.engine() as engine:
        content = engine.images.store.content
        with content.ingest(), pytest.raises(IntegrityError):  # somebody else adds something all the while
            engine.images.pull(name)
        assert len(list(content.walk())) == 3  # the configuration and the two layers that were right
        engine.images.pull(other)
        assert len(list(content.walk())) == 3  # a manifest, a configuration, a layer


def test_a_killed_pull_leaves_nothing_after_the_next_command(registry: Registry, proxy: Proxy, place: Place) -> None:
    name = f"{proxy.host}/killed:1"
    push_new(place, f"{registry.host}/killed:1", sample_layers("killed", sizes=(1000, 8_000_000)))
    with place.engine():
        pass
    for _ in range(3):
        process = multiprocessing.get_context("spawn").Process(target=_pull_and_die, args=(str(place.root), name))
        process.start()
        process.join()
        assert process.exitcode == 9
        with place.engine():
            pass
        assert place.left() == []


def _pull_and_die(root: str, name: str) -> None:
    def die(news: Transferred) -> None:
        if news.state is State.DONE:  # the first layer is unpacked, the second on its way
            os._exit(9)

    with Engine(root_dir=root, storage_driver="overlay") as engine:
        engine.images.pull(name, report=die)


def test_nothing_that_the_registry_has_is_sent_again(registry: Registry, proxy: Proxy, place: Place) -> None:
    with place.engine() as engine:
        make_image(engine, place.directory, f"{proxy.host}/again:1", sample_layers("again"))
        first = engine.images.push(f"{proxy.host}/again:1")
        assert len(proxy.asked("PUT", "/blobs/uploads/")) == 4
        assert proxy.sent_up > 600_000
        proxy.forget()
        engine.images.tag(f"{proxy.host}/again:1", f"{proxy.host}/again:2")
        second = engine.images.push(f"{proxy.host}/again:2")
        assert second.digest == first.digest
        assert proxy.asked("PUT", "/blobs/") == proxy.asked("POST", "/blobs/") == proxy.asked("PATCH", "/blobs/") == []
        assert proxy.sent_up < 10_000
    assert registry.uploads("again") == []


@pytest.mark.parametrize("known_by", ["push", "pull"])
def test_layers_are_mounted_from_where_they_are_known_to_be(known_by: str, registry: Registry, proxy: Proxy, place: Place) -> None:
    name, other = f"{proxy.host}/{known_by}/first:1", f"{proxy.host}/{known_by}/second:1"
    if known_by == "pull":
        push_new(place, f"{registry.host}/{known_by}/first:1", sample_layers(known_by))
    told: list[Transferred] = []
    with place.engine() as engine:
        if known_by == "pull":
            engine.images.pull(name)
        else:
            make_image(engine, place.directory, name, sample_layers(known_by))
            engine.images.push(name)
        engine.images.tag(name, other)
        proxy.forget()
        engine.images.push(other, report=told.append)
    assert len(proxy.asked("POST", rf"mount=sha256:.*&from={known_by}(/|%2F)first")) == 4
    assert proxy.asked("PUT", "/blobs/") == []
    assert {each.state for each in told} == {State.MOUNTED}
    assert proxy.sent_up < 10_000


def test_a_mount_that_the_registry_cannot_make_becomes_an_upload(registry: Registry, proxy: Proxy, place: Place) -> None:
    name = f"{proxy.host}/gone/first:1"
    with place.engine() as engine:
        make_image(engine, place.directory, name, sample_layers("gone"))
        engine.images.tag(name, f"{proxy.host}/gone/second:1")
        from lamina.store.image_places import remember_blobs

        with engine.context.database.transaction() as tx:
            digests = [each.digest for each in blobs_of(engine, name)]
            remember_blobs(tx, proxy.host, "gone/never-there", digests)
        engine.images.push(f"{proxy.host}/gone/second:1")
    assert len(proxy.asked("POST", "from=gone(/|%2F)never-there")) == 3
    assert len(proxy.asked("PUT", "/blobs/")) == 4
    assert registry.uploads("gone/second") == []


def test_a_push_that_is_cut_is_tried_again(registry: Registry, proxy: Proxy, place: Place) -> None:
    name = f"{proxy.host}/pushcut:1"
    with place.engine() as engine:
        make_image(engine, place.directory, name, sample_layers("pushcut"))
        proxy.cut_after(300)
        engine.images.push(name)
        assert proxy.cuts_done == 1
    with place.engine("third") as engine:
        engine.images.pull(f"{registry.host}/pushcut:1")


def test_a_deleted_image_is_not_found(registry: Registry, place: Place) -> None:
    name = f"{registry.host}/deleted:1"
    digest = push_new(place, name, sample_layers("deleted", sizes=(1000,)))
    assert registry.request("DELETE", f"/v2/deleted/manifests/{digest}")[0] == 202
    with place.engine() as engine:
        with pytest.raises(
            NotFoundError, match=rf"'{registry.host}/deleted:1': registry '{registry.host}' doesn't have the tag '1'"
        ):
            engine.images.pull(name)
        with pytest.raises(NotFoundError, match=f"doesn't have the manifest {digest}"):
            engine.images.pull(f"{registry.host}/deleted@{digest}")
    assert place.left() == []


def test_a_digest_wins_over_a_tag(registry: Registry, place: Place) -> None:
    first = push_new(place, f"{registry.host}/wins:1", sample_layers("wins-1", sizes=(1000,)))
    second = push_new(place, f"{registry.host}/wins:2", sample_layers("wins-2", sizes=(1000,)))
    assert first != second
    with place.engine() as engine:
        pulled = engine.images.pull(f"{registry.host}/wins:2@{first}")
        assert pulled.digest == first == pulled.image.manifest
        assert [name.canonical for name in engine.images.store.names(pulled.image)] == [f"{registry.host}/wins@{first}"]
        assert engine.images.get(f"{registry.host}/wins:2@{first}").id == pulled.image.id


def push_index(registry: Registry, place: Place, path: str, platforms: list[str]) -> tuple[Digest, dict[str, Digest]]:
    """Push an index of images for platforms."""
    from lamina.model.platforms import parse_platform

    manifests, digests = [], {}
    for text in platforms:
        platform = parse_platform(text) if text != "unknown/unknown" else Platform(os="unknown", architecture="unknown")
        content_name = f"{registry.host}/{path}:part"
        digest = push_raw(place, content_name, [archives.layer({"platform": text})])
        source = open_registry_source(Reference.parse(content_name))
        document = source.document()
        manifests.append(
            Descriptor(media_type=document.media_type, digest=digest, size_bytes=len(document.content), platform=platform)
        )
        digests[text] = digest
    index = Index(manifests=tuple(manifests)).to_bytes()
    destination = open_registry_destination(Reference.parse(f"{registry.host}/{path}:1"))
    destination.put_document(Document(content=index, media_type=OCI_INDEX), is_root=True)
    return Digest.of(index), digests


def test_an_index_gives_the_image_for_this_machine_or_the_one_asked_for(registry: Registry, place: Place) -> None:
    from lamina.model.platforms import this_machine

    mine = str(this_machine())
    name = f"{registry.host}/index:1"
    index, digests = push_index(registry, place, "index", ["unknown/unknown", "linux/s390x", mine, "linux/arm/v7"])
    with place.engine() as engine:
        pulled = engine.images.pull(name)
        assert pulled.digest == index
        assert pulled.image.manifest == digests[mine]
        assert engine.images.get(f"{registry.host}/index@{index}").id == pulled.image.id
        assert engine.images.inspect(name)["RepoDigests"] == [f"{registry.host}/index@{index}"]
        with pytest.raises(NotFoundError, match=r"is for linux/amd64, not for linux/s390x"):  # its configuration says so
            engine.images.pull(name, platform="linux/s390x")
        with pytest.raises(NotFoundError, match="has no image for linux/riscv64") as caught:
            engine.images.pull(name, platform="linux/riscv64")
        assert "linux/s390x" in caught.value.hint
        assert "unknown" not in caught.value.hint


def test_an_index_is_copied_whole_with_its_digest(registry: Registry, proxy: Proxy, place: Place) -> None:
    index, digests = push_index(registry, place, "whole", ["linux/amd64", "linux/arm64"])
    source = open_registry_source(Reference.parse(f"{registry.host}/whole:1"))
    destination = open_registry_destination(Reference.parse(f"{proxy.host}/copied/whole:2"))
    copied = copy_image(source, destination, all_platforms=True)
    assert copied.digest == index
    for digest in digests.values():
        assert registry.request("HEAD", f"/v2/copied/whole/manifests/{digest}", {"Accept": OCI_MANIFEST})[0] == 200


def test_all_tags_come_and_go(registry: Registry, place: Place) -> None:
    names = [f"{registry.host}/tags:{tag}" for tag in ("a", "b", "c")]
    with place.engine("other") as engine:
        make_image(engine, place.directory, names[0], sample_layers("tags", sizes=(1000,)))
        for name in names[1:]:
            engine.images.tag(names[0], name)
    lamina = Lamina(place.directory / "other", "overlay")
    assert [line.split(":")[0] for line in lamina("push", "-a", f"{registry.host}/tags").splitlines()] == ["a", "b", "c"]
    lamina = Lamina(place.root, "overlay")
    assert lamina("pull", "-a", "-q", f"{registry.host}/tags").splitlines() == names
    assert "without tag" in lamina.error("pull", "-a", names[0], code=1)


def test_lines_elsewhere_than_on_a_terminal_are_dockers(registry: Registry, place: Place) -> None:
    name = f"{registry.host}/lines:1"
    push_new(place, name, sample_layers("lines", sizes=(1000, 2000)))
    lamina = Lamina(place.root, "overlay")
    done = lamina.result("pull", name)
    lines = done.stderr.splitlines()
    assert lines[0] == "1: Pulling from lines"
    assert sorted(line.partition(": ")[2] for line in lines[1:]) == ["Download complete"] * 2 + ["Pull complete"] * 2
    assert lamina.result("pull", "-q", name).stderr == ""
    done = lamina.result("push", name)
    assert done.stderr.splitlines()[0] == f"The push refers to repository [{registry.host}/lines]"
    assert {line.partition(": ")[2] for line in done.stderr.splitlines()[1:]} == {"Layer already exists"}
    assert done.stdout.startswith("1: digest: sha256:")


def test_a_terminal_sees_a_bar_for_each_layer(registry: Registry, place: Place) -> None:
    name = f"{registry.host}/bars:1"
    push_new(place, name, sample_layers("bars", sizes=(1000, 2000)))
    out = subprocess.run(
        ["script", "-qec", " ".join(Lamina(place.root, "overlay").command("pull", name)), "/dev/null"],
        capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
    ).stdout  # fmt: skip
    assert "\x1b[" in out
    final = out.rpartition("\x1b[J")[2].replace("\r", "").splitlines()
    assert [line.partition(": ")[2] for line in final[:2]] == ["Pull complete"] * 2


def test_noise_is_not_compressible() -> None:
    assert len(noise("x", 100_000)) == 100_000


def test_what_skopeo_pushes_is_pulled_and_what_is_pushed_skopeo_reads(registry: Registry, place: Place) -> None:
    name = f"{registry.host}/skopeo/ours:1"
    with place.engine() as engine:
        make_image(engine, place.directory, name, sample_layers("skopeo", sizes=(5000, 1000)))
        digest = engine.images.push(name).digest
        image_id = engine.images.get(name).id
    policy = place.directory / "policy.json"
    policy.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')

    def skopeo(*words: str) -> str:
        return subprocess.run(
            ["skopeo", "--policy", str(policy), *words], capture_output=True, text=True, check=True, timeout=60
        ).stdout

    assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}"))["Digest"] == digest
    for form, options in (
        ("oci", ["--format=oci"]),
        ("v2s2", ["--format=v2s2"]),
        ("zstd", ["--format=oci", "--dest-compress-format=zstd"]),
    ):
        theirs = f"{registry.host}/skopeo/theirs:{form}"
        skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", *options, f"docker://{name}", f"docker://{theirs}")
        with place.engine(form) as engine:
            pulled = engine.images.pull(theirs)
            assert len(engine.images.store.layers(pulled.image)) == 2
            if form == "oci":
                assert pulled.image.id == image_id or pulled.image.manifest != digest
            container = engine.containers.create(theirs, ["true"])
            container.copy_out("/file-1", str(place.directory / "out"))
            assert (place.directory / "out").read_bytes() == noise("skopeo-1", 1000)
            container.remove()


def test_an_error_is_one_line_with_registry_and_repository(registry: Registry, place: Place) -> None:
    lamina = Lamina(place.root, "overlay")
    done = lamina.result("pull", "-q", "127.0.0.1:1/down/app:1")
    assert done.returncode == 1
    assert done.stderr == (
        "error: '127.0.0.1:1/down/app:1': registry '127.0.0.1:1': no connection: connection refused"
        " (is it running, and is the port right?)\n"
    )
    assert "no host of that name" in lamina.error("pull", "-q", "nowhere.invalid/app", code=1)


def test_no_connection_is_left_to_the_garbage_collector(registry: Registry, place: Place) -> None:
    """In a container's init, forked later, that would close whatever has its number there."""
    name = f"{registry.host}/descriptors:1"
    push_new(place, name, sample_layers("descriptors"))
    with place.engine() as engine:
        engine.images.all()
        before = leaks.descriptors()
        gc.disable()
        try:
            engine.images.pull(name)
            engine.images.push(name)
            engine.context.journal.close()
            assert {number: what for number, what in leaks.descriptors().items() if number not in before} == {}
        finally:
            gc.enable()


PROGRAM = """
import sys
from lamina.cli.main import main
code = main(sys.argv[1:])
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""


def test_a_run_of_an_image_that_is_here_imports_nothing_of_registries(lamina: Lamina) -> None:
    words = ["--root", str(lamina.root), "--storage-driver", lamina.driver, "run", "--rm", "busybox", "true"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LAMINA_PULL": ""},
    )
    modules = set(done.stderr.split())
    assert "lamina.usecases.create" in modules
    assert not {each for each in modules if each.split(".")[0] in {"urllib3", "ssl", "http"}}
    assert not {each for each in modules if each.startswith(("lamina.registry", "lamina.usecases.transfers"))}
