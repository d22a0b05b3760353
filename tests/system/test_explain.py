"""`explain`, held against what containers really see and really copy, on each driver."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import leaks
import pytest
from cases import DRIVERS, FOREVER, Lamina, own_dir

from lamina.engine import Engine
from lamina.usecases.explain import ExplainedPath, Explaining, stack_document
from lamina.usecases.layerlookup import Has

LAYER_1 = """
mkdir -p /t/kept /t/opaque /t/gone/deep /t/turned /t/merged
echo one > /t/kept/a; echo one > /t/opaque/a; echo one > /t/gone/deep/a
echo one > /t/replaced; echo one > /t/deleted; echo one > /t/turned/a; echo one > /t/merged/low; echo file > /t/grown
head -c 300000 /dev/zero | tr '\\0' x > /t/big; echo linked > /t/name1; ln /t/name1 /t/name2; ln -s /t/kept /t/link
ln -s link/a /t/deep-link
ln -s loop /t/loop; mkfifo /t/fifo; mkdir -p /t/a/b/c; echo deep > /t/a/b/c/f
"""
LAYER_2 = """
rm -r /t/opaque /t/gone /t/turned; mkdir /t/opaque; echo two > /t/opaque/b; echo two > /t/turned; echo two > /t/replaced
rm /t/deleted /t/grown; echo two > /t/merged/high; mkdir /t/grown; echo in > /t/grown/inside
"""
OWN = """
echo own > /t/mine; rm /t/merged/low; echo own > /t/replaced; mkdir /t/gone; echo back > /t/gone/new
rm -r /t/opaque; mkdir /t/opaque; echo own > /t/opaque/c
"""


@pytest.fixture(scope="module")
def prepared_roots(prepared_roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The root directories with an image `two` too: two layers of changes over `base`, by which every kind of entry comes to be."""
    place = tmp_path_factory.mktemp("layered")
    for driver in DRIVERS:
        source = prepared_roots[driver]
        subprocess.run(["cp", "--archive", "--reflink=auto", str(source), str(place / driver)], check=True)
        with Lamina(place / driver, driver).library() as engine:
            for image, script, made in (("base", LAYER_1, "one"), ("one", LAYER_2, "two")):
                container = engine.containers.create(image, ["sh", "-ec", script])
                assert container.start_attached() == 0
                container.commit(made)
                container.remove()
            engine.containers.create("two", ["true"]).remove()
        assert not leaks.left_on_disk(place / driver)
    yield {driver: place / driver for driver in DRIVERS}
    shutil.rmtree(place)


@pytest.fixture
def layered(lamina: Lamina) -> str:
    """The image with the two layers of changes."""
    return "two"


@contextmanager
def explaining(lamina: Lamina, name: str) -> Iterator[tuple[Explaining, Any]]:
    with lamina.library() as engine:
        yield Explaining(engine.context), engine.containers.get(name).record


def explain(lamina: Lamina, name: str, path: str) -> dict[str, Any]:
    document = json.loads(lamina("explain", "--format", "json", name, path))
    assert isinstance(document, dict)
    return document


KINDS = {
    stat.S_IFREG: Has.FILE, stat.S_IFDIR: Has.DIRECTORY, stat.S_IFLNK: Has.SYMLINK, stat.S_IFIFO: Has.FIFO,
}  # fmt: skip


def agrees(explained: ExplainedPath, root: Path) -> bool:
    """Whether an explanation is what the union shows."""
    seen = explained.lookup.seen
    real = root / explained.lookup.path.lstrip("/")
    if seen is None:
        return not os.path.lexists(real)
    found = real.lstat()
    has = Has.DIRECTORY if seen.has is Has.OPAQUE else seen.has
    if has is not KINDS.get(stat.S_IFMT(found.st_mode), Has.DEVICE):
        return False
    if has is Has.FILE:
        return Path(seen.host_path).read_bytes() == real.read_bytes()
    return has is not Has.SYMLINK or seen.link == os.readlink(real)


def every_path(*roots: Path) -> set[str]:
    return {
        f"/{Path(folder, name).relative_to(root)}"
        for root in roots for folder, directories, files in os.walk(root) for name in (*directories, *files)
        if not name.startswith(".wh.")
    }  # fmt: skip


@pytest.mark.parametrize("running", [True, False], ids=["running", "at rest"])
def test_what_is_said_to_be_seen_is_what_the_union_shows_for_every_path_of_every_layer(lamina: Lamina, layered: str, running: bool):
    container = lamina.background("--name", "box", layered, *FOREVER)
    lamina("exec", container, "sh", "-ec", OWN)
    merged = lamina.merged("box")
    if not running:
        lamina("kill", "box")
        lamina("run", "-d", "--name", "other", layered, *FOREVER)  # a mounted union that is not asked about
    with explaining(lamina, "box") as (it, record):
        storage = it.context.layers.driver(record.driver)
        with it.context.layers.seen(storage, record.id, record.parents) as path:
            root = merged if running else Path(path)
            layers = [Path(layer.directory) for layer in it.stack(record).layers]
            paths = {path for path in every_path(root, *layers) if path.startswith("/t")} | {"/bin", "/not/there"}
            paths |= {"/"} if running else set()  # at rest the root is a descriptor's link
            assert len(paths) > 30
            assert [path for path in sorted(paths) if not agrees(it.path(record, path), root)] == []


STORIES = {
    # path: what is seen, from which layer (0 the container's own, 1 the upper, 2 the lower of the image's changes)
    "/t/kept/a": ("file", 2), "/t/opaque/b": ("nothing", None), "/t/opaque/c": ("file", 0), "/t/opaque/a": ("nothing", None),
    "/t/gone/deep/a": ("nothing", None),
    "/t/gone/new": ("file", 0), "/t/deleted": ("nothing", None), "/t/turned": ("file", 1), "/t/turned/a": ("nothing", None),
    "/t/replaced": ("file", 0), "/t/merged/high": ("file", 1), "/t/merged/low": ("nothing", None), "/t/grown/inside": ("file", 1),
    "/t/link": ("symlink", 2), "/t/link/a": ("file", 2), "/t/mine": ("file", 0), "/t/fifo": ("fifo", 2),
}  # fmt: skip


def test_each_path_comes_from_the_layer_that_made_it(lamina: Lamina, layered: str):
    lamina("exec", lamina.background("--name", "box", layered, *FOREVER), "sh", "-ec", OWN)
    with explaining(lamina, "box") as (it, record):
        keys = (record.id, *record.parents)
        told = {path: it.path(record, path).lookup.seen for path in STORIES}
    found = {path: ("nothing", None) if seen is None else (seen.has.value, keys.index(seen.key)) for path, seen in told.items()}
    assert found == STORIES


def test_a_layer_is_named_by_the_step_of_the_images_history_that_made_it(lamina: Lamina, layered: str):
    lamina("create", "--name", "box", layered)
    layers = explain(lamina, "box", "/t/turned")["Layers"]
    assert layers[0]["Step"] == "the container's own layer"
    assert layers[1]["Step"] == f"sh -ec {LAYER_2}"
    assert layers[2]["Step"] == f"sh -ec {LAYER_1}"
    assert [layer["DiffId"] for layer in layers[1:]] == lamina.diff_ids(layered)[::-1]
    assert (layers[1]["Role"], layers[2]["Role"]) == ("seen", "hidden")


def test_a_write_copies_as_many_bytes_and_makes_the_directories_that_were_told(lamina: Lamina, layered: str):
    container = lamina.background("--name", "box", layered, *FOREVER)
    own = own_dir(lamina, container)
    for path in ("/t/big", "/t/a/b/c/f"):
        before = every_path(own)
        write = explain(lamina, "box", path)["Write"]
        lamina("exec", "box", "sh", "-c", f"echo more >> {path}")
        if lamina.driver == "vfs":
            assert write["CopiesBytes"] == 0
            assert "full tree" in write["Why"]
            assert every_path(own) == before
            continue
        copied = own / path.lstrip("/")
        assert copied.stat().st_size == write["CopiesBytes"] + len("more\n")
        assert every_path(own) - before == {path, *write["MakesDirectories"]}
        assert explain(lamina, "box", path)["Write"]["CopiesBytes"] == 0  # it is there now


def test_a_change_of_mode_copies_it_too(lamina: Lamina, layered: str):
    container = lamina.background("--name", "box", layered, *FOREVER)
    told = explain(lamina, "box", "/t/big")["Write"]["CopiesBytes"]
    lamina("exec", "box", "chmod", "600", "/t/big")
    assert told == (0 if lamina.driver == "vfs" else 300_000)
    assert (own_dir(lamina, container) / "t/big").stat().st_blocks * 512 >= told


def test_a_directory_copies_no_bytes_and_is_made(lamina: Lamina, layered: str):
    container = lamina.background("--name", "box", layered, *FOREVER)
    before = every_path(own_dir(lamina, container))
    write = explain(lamina, "box", "/t/a/b")["Write"]
    assert write["CopiesBytes"] == 0
    lamina("exec", "box", "touch", "/t/a/b/new")
    assert every_path(own_dir(lamina, container)) - before == {"/t/a/b/new", *write["MakesDirectories"]}


def test_the_hard_links_that_break_are_named_and_do_break(lamina: Lamina, layered: str):
    lamina.background("--name", "box", layered, *FOREVER)
    broken = explain(lamina, "box", "/t/name1")["Write"]["BreaksHardLinks"]
    lamina("exec", "box", "sh", "-c", "echo changed > /t/name1")
    other = lamina("exec", "box", "cat", "/t/name2")
    assert broken == ([] if other == "changed" else ["/t/name2"])
    assert (other == "changed") is (lamina.driver == "vfs")


def test_what_a_mount_hides_is_told_with_the_mount(lamina: Lamina, layered: str, tmp_path: Path):
    lamina.background(
        "--name", "box", "-v", f"{tmp_path}:/t/kept", "-v", "named:/t/a", "--tmpfs", "/t/a/b", "-v", "/t/opaque", layered, *FOREVER
    )  # fmt: skip
    hidden = {
        path: explain(lamina, "box", path)["HiddenBy"]
        for path in ("/t/kept/a", "/t/a/x", "/t/a/b/c/f", "/t/opaque", "/proc/1", "/etc/hosts", "/t/big", "/t/link/a")
    }
    assert {path: each and (each["Target"], each["Type"]) for path, each in hidden.items()} == {
        "/t/kept/a": ("/t/kept", "bind"), "/t/a/x": ("/t/a", "volume"), "/t/a/b/c/f": ("/t/a/b", "tmpfs"),
        "/t/opaque": ("/t/opaque", "volume"), "/proc/1": ("/proc", "proc"), "/etc/hosts": ("/etc/hosts", "bind"), "/t/big": None,
        "/t/link/a": ("/t/kept", "bind"),
    }  # fmt: skip
    assert hidden["/t/a/x"]["Source"] == "named"
    assert f"bind {tmp_path}" in lamina("explain", "box", "/t/kept/a")


def test_a_read_only_root_is_said_to_refuse_and_does(lamina: Lamina, layered: str):
    lamina.background("--name", "box", "--read-only", layered, *FOREVER)
    assert "EROFS" in explain(lamina, "box", "/t/big")["Write"]["Why"]
    assert lamina.result("exec", "box", "sh", "-c", "echo > /t/big").returncode != 0


def test_symlinks_on_the_way_are_followed_within_the_container(lamina: Lamina, layered: str):
    lamina("create", "--name", "box", layered)
    document = explain(lamina, "box", "/t/link/../kept/./a")
    assert (document["Resolved"], document["Has"]) == ("/t/kept/a", "file")
    document = explain(lamina, "box", "/../../t/deep-link")
    assert (document["Resolved"], document["Has"], document["Link"]) == ("/t/deep-link", "symlink", "link/a")
    assert "too many symlinks" in lamina.error("explain", "box", "/t/loop/x", code=1)


def test_bad_paths_and_names_are_one_line(lamina: Lamina):
    lamina("create", "--name", "box", "base")
    assert "not an absolute path" in lamina.error("explain", "box", "etc/hosts", code=1)
    assert "no such container" in lamina.error("explain", "nobody", code=1)
    assert explain(lamina, "box", "/" + "x" * 255)["Has"] == "nothing"


def test_every_option_in_force_has_its_meaning_and_its_reason(lamina: Lamina, layered: str):
    lamina.background("--name", "box", layered, *FOREVER)
    document = json.loads(lamina("explain", "box", "--format", "json"))
    options = [option for mount in document["Mounts"] for option in mount["Options"]]
    assert bool(options) is (lamina.driver != "vfs")
    assert [option["Name"] for option in options if not option["Means"] or not option["Why"]] == []
    for mount in document["Mounts"]:
        assert mount["Mounted"]
        for option in mount["Options"]:
            if option["Name"] in {"redirect_dir", "metacopy", "index"}:
                default_or_shown = f"{option['Name']}={option['Value']}"
                assert default_or_shown in mount["KernelOptions"] or option["Value"] == "off"  # the kernel shows no defaults
    lamina("kill", "box")
    assert [each["Mounted"] for each in json.loads(lamina("explain", "box", "--format", "json"))["Mounts"]] == [False] * len(
        document["Mounts"]
    )


def test_the_stack_has_the_layers_with_their_sizes_and_reads_as_text(lamina: Lamina, layered: str):
    lamina.background("--name", "box", layered, *FOREVER)
    with explaining(lamina, "box") as (it, record):
        document = stack_document(it.stack(record))
        sizes = [it.context.layers.usage(it.context.layers.driver(record.driver), record.id, record.parents).size_bytes]
    assert [layer["Key"] for layer in document["Layers"]] == [record.id, *record.parents]
    assert document["Layers"][0]["Size"] == sizes[0]
    text = lamina("explain", "box")
    assert "the container's own layer" in text
    assert "/etc/resolv.conf" in text
    assert lamina("explain", "box", "--format", "{{ .Driver }} {{ len .Layers }}") == f"{lamina.driver} {len(document['Layers'])}"


def test_explaining_changes_nothing(lamina: Lamina, layered: str):
    lamina("create", "--name", "box", layered)
    with Engine(root_dir=str(lamina.root), storage_driver=lamina.driver) as engine:
        before = [change.path for change in engine.containers.get("box").diff()]
    lamina("explain", "box")
    lamina("explain", "box", "/t/big")
    with Engine(root_dir=str(lamina.root), storage_driver=lamina.driver) as engine:
        assert [change.path for change in engine.containers.get("box").diff()] == before == []
