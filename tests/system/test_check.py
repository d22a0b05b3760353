"""`lamina system check`: whatever is damaged, lost or left behind is found, and put right where that can be."""

import contextlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import pytest
from cases import FOREVER, Lamina, driver_of, each_driver
from leaks import rows

from lamina.engine import Engine
from lamina.linux import mount, ptrace
from lamina.model.mount import MountFlag
from lamina.runtime import cgroups
from lamina.store.image_archive import load
from lamina.store.operations import Operation
from lamina.usecases.check import Finding


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def findings(lamina: Lamina, *, repair: bool = False, fast: bool = False) -> list[Finding]:
    with Engine(root_dir=str(lamina.root), storage_driver=lamina.driver, warn=lambda _text: None) as engine:
        return engine.system.check(repair=repair, reads_bytes=not fast)


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, found
    return found[0]


def flip(path: Path, seed: int = 0) -> None:
    """Change one bit, and nothing else that a file system tells of a file."""
    before = path.stat()
    with path.open("r+b") as file:
        at = random.Random(seed).randrange(before.st_size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << seed % 8]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextlib.contextmanager
def same_times(folder: Path) -> Iterator[None]:
    before = folder.stat()
    yield
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def tree(lamina: Lamina, image: str, layer: int) -> Path:
    """Where a layer's files lie."""
    key = lamina.layer_keys(image)[layer]
    return {"overlay": lamina.home() / key / "diff", "aufs": lamina.home() / "diff" / key, "vfs": lamina.home() / "dir" / key}[
        lamina.driver
    ]


def blobs(lamina: Lamina) -> list[Path]:
    return sorted((lamina.root / "image" / "blobs" / "sha256").iterdir())


def with_whiteouts(lamina: Lamina) -> None:
    """Load the image `hiding`, whose upper layer hides a file and a directory's content, and unpack it."""
    layers = [
        archives.layer({"gone": "x\n", "full": archives.folder(), "full/old": "x\n", "kept": "x\n", "empty": archives.folder()}),
        archives.layer(
            {".wh.gone": archives.Item(), "full": archives.folder(), "full/.wh..wh..opq": archives.Item(), "full/new": "y\n"}
        ),
    ]
    path = archives.image(lamina.root / "hiding.tar", "hiding", layers)
    with lamina.library() as engine, path.open("rb") as stream:
        load(engine.images.store, stream)
        engine.containers.create("hiding", ["x"]).remove()
    path.unlink()


@each_driver
def test_a_store_that_is_whole_has_no_findings(lamina: Lamina):
    with_whiteouts(lamina)
    lamina("create", "--name", "one", "-v", "data:/data", "base", "true")
    lamina.background("--name", "two", "--network", "none", "base", *FOREVER)
    assert lamina("system", "check") == ""
    assert findings(lamina, repair=True) == []


def test_a_flipped_bit_in_any_blob_is_found_and_its_image_is_named(lamina: Lamina):
    for seed, path in enumerate(blobs(lamina)):
        flip(path, seed)
        found = [each for each in findings(lamina) if each.kind == "blob"]
        assert only(found).subject == f"sha256:{path.name}"
        assert any(name in found[0].problem for name in ("busybox", "base"))
        assert found[0].is_left
        flip(path, seed)
    assert findings(lamina) == []


def test_a_damaged_image_is_whole_again_once_it_has_been_loaded_again(lamina: Lamina):
    archive = archives.image(lamina.root / "again.tar", "again", [archives.layer({"file": "x" * 5000})])
    lamina("load", "-i", str(archive))
    of_it = rows(lamina.root, "SELECT digest FROM image_blobs JOIN image_names USING (image_id) WHERE reference LIKE '%/again:%'")
    assert len(of_it) == 3
    for (digest,) in of_it:
        flip(lamina.root / "image/blobs/sha256" / str(digest).removeprefix("sha256:"))
    done = lamina.result("system", "check", "--repair")
    assert done.returncode == 1
    assert "pull or load again: again" in done.stdout
    lamina("rmi", "busybox")  # another image can be removed beside it
    lamina("load", "-i", str(archive))
    assert findings(lamina) == []
    archive.unlink()


def _byte(folder: Path) -> None:
    flip(folder / "test/inside")


def _mode(folder: Path) -> None:
    (folder / "files/setuid").chmod(0o755)


def _owner(folder: Path) -> None:
    os.chown(folder / "files/owned", 0, 10)


def _time(folder: Path) -> None:
    os.utime(folder / "files/plain", ns=(1, 1))


def _xattr(folder: Path) -> None:
    os.setxattr(folder / "files/noted", "user.note", b"from elsewhere")


def _link(folder: Path) -> None:
    with same_times(folder / "files"):
        (folder / "files/link").unlink()
        (folder / "files/link").symlink_to("twin")


def _device(folder: Path) -> None:
    with same_times(folder / "files"):
        (folder / "files/device").unlink()
        os.mknod(folder / "files/device", 0o666 | 0o020000, os.makedev(1, 5))


def _hard_link(folder: Path) -> None:
    with same_times(folder / "files"):
        shutil.copy2(folder / "files/twin", folder / "files/twin.new")
        (folder / "files/twin.new").rename(folder / "files/twin")


def _missing(folder: Path) -> None:
    with same_times(folder / "tree"):
        (folder / "tree/a").unlink()


def _extra(folder: Path) -> None:
    with same_times(folder / "tree/sub"):
        (folder / "tree/sub/intruder").write_bytes(b"")


def _empty_folder(folder: Path) -> None:
    with same_times(folder):
        (folder / "emptied").mkdir()


@each_driver
def test_whatever_changes_in_an_unpacked_layer_is_found_and_put_right(lamina: Lamina):
    lamina("create", "--name", "one", "base", "cat", "/test/inside")
    harms: tuple[Callable[[Path], None], ...] = (
        _byte, _mode, _owner, _time, _xattr, _link, _device, _hard_link, _missing, _extra, _empty_folder,
    )  # fmt: skip
    for harm in harms:
        harm(tree(lamina, "base", 1))
        assert only(findings(lamina, repair=True)).repaired == "unpacked again from the image store", harm
    assert findings(lamina) == []
    assert lamina("start", "-a", "one") == "the image's own"


@each_driver
def test_a_layer_is_compared_with_its_image_and_not_with_the_layer_below(lamina: Lamina):
    """In the base layer a file is harmed; where layers are full copies, the one above has its own and is whole."""
    flip(tree(lamina, "base", 0) / "etc/passwd")
    found = only(findings(lamina))
    assert lamina.layer_keys("base")[0][:12] in found.subject
    assert "'/etc/passwd' differs in its content" in found.problem
    assert only(findings(lamina, repair=True)).repaired
    assert lamina("run", "--rm", "--network", "none", "base", "head", "-1", "/etc/passwd") == "root:x:0:0:root:/root:/bin/sh"


@each_driver
def test_a_whiteout_that_is_gone_and_one_too_many_are_found(lamina: Lamina):
    with_whiteouts(lamina)
    top = tree(lamina, "hiding", 1)
    with same_times(top):
        if lamina.driver == "overlay":
            (top / "gone").unlink()
        elif lamina.driver == "aufs":
            (top / ".wh.gone").unlink()
        else:
            (top / "gone").write_bytes(b"x\n")
    assert "'/gone' differs in its existence" in only(findings(lamina, repair=True)).problem
    with same_times(top / "full"):
        if lamina.driver == "overlay":
            os.removexattr(top / "full", "trusted.overlay.opaque")
        elif lamina.driver == "aufs":
            (top / "full/.wh..wh..opq").unlink()
        else:
            (top / "full/old").write_bytes(b"x\n")
    assert "'/full/old' differs in its existence" in only(findings(lamina, repair=True)).problem
    with same_times(top):
        if lamina.driver == "overlay":
            os.mknod(top / "kept", 0o020000, 0)
        elif lamina.driver == "aufs":
            (top / ".wh.kept").write_bytes(b"")
        else:
            (top / "kept").unlink()
    assert "'/kept' differs in its existence" in only(findings(lamina, repair=True)).problem
    assert findings(lamina) == []


@each_driver
def test_a_layer_that_is_lost_is_made_again_below_what_stands_on_it(lamina: Lamina):
    lamina("run", "--name", "one", "--network", "none", "base", "sh", "-c", "echo mine >/mine")
    for key in lamina.layer_keys("base"):
        for place in lamina.layer_dirs(key):
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        for place in (lamina.home() / key, lamina.home() / "mnt" / key):
            shutil.rmtree(place, ignore_errors=True)
    assert [each.problem for each in findings(lamina, fast=True)] == ["it is missing on disk"] * 2
    assert all(each.repaired for each in findings(lamina, repair=True))
    assert findings(lamina) == []
    assert lamina("diff", "one") == "A /mine"
    lamina("start", "one")


@pytest.mark.parametrize("driver", ["overlay", "aufs"], indirect=True)
def test_a_layer_below_a_running_container_is_not_replaced(lamina: Lamina):
    lamina.background("--name", "one", "--network", "none", "base", *FOREVER)
    flip(tree(lamina, "base", 1) / "test/inside")
    found = only(findings(lamina, repair=True))
    assert found.is_left
    assert "container 'one' stands on it and runs" in found.problem
    lamina("kill", "one")
    assert only(findings(lamina, repair=True)).repaired


@pytest.mark.timeout(36000)
def test_a_repair_that_is_killed_at_any_call_is_finished_by_the_next_one_or_the_next_container(lamina: Lamina):
    lamina("create", "--name", "one", "base", "cat", "/single")
    place = tree(lamina, "base", -1) / "single"
    whole = place.read_text(encoding="ascii")

    def repair() -> None:
        assert findings(lamina, repair=True)

    flip(place)
    calls = ptrace.watch(repair).calls
    for point in range(0, len(calls), 1 if os.environ.get("LAMINA_KILLS") == "all" else max(1, len(calls) // 3)):
        flip(place)
        damaged, when = place.read_text(encoding="ascii"), f"killed before call {point + 1} of {len(calls)}, {calls[point]}"
        if not ptrace.watch(repair, kill_at=point).killed:  # it makes a few calls more or less, as SQLite's log is long
            assert point > len(calls) * 0.95, when
        assert lamina("start", "-a", "one") in {whole.strip(), damaged.strip()}, when
        assert all(each.repaired for each in findings(lamina, repair=True)), when
        assert findings(lamina) == [], when
        assert place.read_text(encoding="ascii") == whole, when


def test_what_nobody_knows_is_found_and_removed(lamina: Lamina):
    stray = "f" * 64
    layer = {
        "overlay": lamina.home() / stray / "diff",
        "aufs": lamina.home() / "diff" / stray,
        "vfs": lamina.home() / "dir" / stray,
    }
    layer[lamina.driver].mkdir(parents=True)
    (lamina.root / "containers" / stray).mkdir()
    (lamina.root / "tmp" / "build-77").mkdir(parents=True)
    (lamina.root / "tmp" / "blob-left").write_bytes(b"x")
    (lamina.root / "image/blobs/sha256" / stray).write_bytes(b"x")
    (lamina.root / "image/index.json").write_bytes(b"{}")
    with sqlite3.connect(lamina.root / "lamina.db") as connection:
        connection.execute("INSERT INTO volume_users VALUES ('v', 'c')")
        connection.execute("INSERT INTO build_blobs VALUES (4711, ?)", (f"sha256:{stray}",))
    connection.close()
    kinds = {"layer", "container", "file", "blob", "index", "record"}
    assert {each.kind for each in findings(lamina)} == kinds
    assert all(each.repaired for each in findings(lamina, repair=True))
    assert findings(lamina) == []
    assert not (lamina.root / "tmp" / "build-77").exists()


def test_content_that_a_removal_is_about_to_delete_is_not_called_left_behind(lamina: Lamina):
    archive = archives.image(lamina.root.parent / "extra.tar", "extra:latest", [archives.layer({"extra": "x\n"})])
    with lamina.library() as engine:
        store = engine.images.store
        with archive.open("rb") as stream:
            load(store, stream)
        before = len(blobs(lamina))
        store.remove("extra", users=lambda _id: [], collect=False)  # as prune does, which deletes at its end
        assert engine.system.check() == []
        assert len(blobs(lamina)) == before
        with store.ingest():  # whoever is next deletes it
            pass
        assert len(blobs(lamina)) == before - 3
        assert engine.system.check() == []


def test_layers_of_an_image_that_is_being_removed_are_not_called_left_behind_and_go_though_that_is_killed(lamina: Lamina):
    archive = archives.image(
        lamina.root.parent / "extra.tar", "extra:latest", [archives.layer({"extra": "x\n"}), archives.layer({"more": "y\n"})]
    )

    def unpack() -> None:
        with archive.open("rb") as stream:
            load(engine.images.store, stream)
        engine.containers.create("extra", ["true"]).remove()

    with lamina.library() as engine:
        layers = {row[1] for row in engine.context.layers.records()}
        unpack()
        operation = Operation(name="remove an image")
        engine.images.store.remove(
            "extra",
            users=lambda _id: [],
            on_delete=lambda tx, chain: engine.context.layers.intend_to_discard(tx, [each.hex for each in chain], operation),
        )
        assert len(engine.context.layers.records()) == len(layers) + 2
        assert engine.system.check() == []
        with engine.context.database.transaction() as tx:
            tx.execute("UPDATE operations SET pid = ?, started = 1 WHERE id = ?", (os.getpid(), operation.id))
    assert findings(lamina) == []
    with lamina.library() as engine:
        assert {row[1] for row in engine.context.layers.records()} == layers, "the next command has finished it"
        unpack()
        calls = ptrace.watch(lambda: engine.images.remove("extra")).calls
        for point in range(0, len(calls), max(1, len(calls) // 10)):
            unpack()
            ptrace.watch(lambda: engine.images.remove("extra"), kill_at=point)
            when = f"killed before call {point + 1} of {len(calls)}, {calls[point]}"
            assert findings(lamina) == [], when
            assert ({row[1] for row in engine.context.layers.records()} == layers) is not bool(lamina("images", "-q", "extra")), (
                when
            )


def test_what_is_mounted_for_nobody_is_found_and_unmounted(lamina: Lamina):
    container_id = lamina("create", "--name", "one", "base", "true")
    with lamina.library() as engine:
        container = engine.containers.get("one").record
        view = engine.context.layers.mount(engine.context.layers.driver(lamina.driver), container_id, container.parents)
    if not view.mounts:  # full copies are seen where they lie
        mount.mount(view.root, view.root, None, MountFlag.BIND)
    assert only(findings(lamina, fast=True)).kind == "mount"
    assert only(findings(lamina, fast=True, repair=True)).repaired == "unmounted"
    assert findings(lamina) == []


def test_a_cgroup_of_a_container_that_does_not_run_is_found_and_removed(lamina: Lamina):
    lamina("create", "--name", "one", "base", "true")
    with lamina.library() as engine:
        cgroup = cgroups.own_cgroup(engine.containers.get("one").record)
    cgroup.make(["pids"])
    assert only(findings(lamina, fast=True)).kind == "cgroup"
    assert only(findings(lamina, fast=True, repair=True)).repaired == "removed"
    assert findings(lamina, fast=True) == []


def test_a_users_files_are_told_of_and_never_touched(lamina: Lamina):
    lamina("volume", "create", "data")
    stray = lamina.root / "volumes/stray/_data"
    stray.mkdir(parents=True)
    (stray / "file").write_text("mine", encoding="utf-8")
    shutil.rmtree(lamina.root / "volumes/data")
    container_id = lamina("create", "--name", "one", "base", "true")
    with lamina.library() as engine:
        engine.context.layers.driver(lamina.driver).discard(container_id)
        engine.context.layers.driver(lamina.driver).sweep()
    found = findings(lamina, repair=True)
    assert {(each.kind, each.subject, each.is_left) for each in found} == {
        ("volume", "stray", True), ("volume", "data", True), ("container", "one", True),
    }  # fmt: skip
    assert (stray / "file").read_text(encoding="utf-8") == "mine"
    lamina("rm", "one")
    lamina("volume", "rm", "data")
    lamina("volume", "create", "stray")
    assert findings(lamina) == []
    assert (stray / "file").exists()
    lamina("volume", "rm", "stray")


def test_findings_are_lines_or_json_and_decide_the_exit_code(lamina: Lamina):
    (lamina.root / "containers" / ("e" * 64)).mkdir()
    assert lamina("system", "check", "--fast", code=1) == (
        f"container eeeeeeeeeeee: no container has the folder '{lamina.root}/containers/{'e' * 64}'"
        " (`lamina system check --repair` puts it right)"
    )
    (document,) = [json.loads(text) for text in lamina("system", "check", "--repair", "--format", "json").splitlines()]
    assert document["Kind"] == "container"
    assert document["Repaired"] is True
    assert lamina("system", "check", "--format", "{{.Subject}}") == ""
    assert not rows(lamina.root, "SELECT * FROM operations")
