"""What to show, 6: where everything lies on disk: Docker's layouts for aufs and overlay, dir/ for vfs, an OCI layout for images."""

import json
import os
import re
from pathlib import Path

import pytest
from cases import DRIVERS, FOREVER, Lamina

from lamina.linux import mountinfo


@pytest.fixture
def layer_keys(lamina: Lamina) -> list[str]:
    """The keys of the layers of the image `base`, lowest first."""
    return lamina.layer_keys("base")


@pytest.fixture
def container(lamina: Lamina) -> str:
    """A running container that has written a file and deleted one."""
    container = lamina.background("base", *FOREVER)
    lamina("exec", container, "sh", "-c", "echo new > /new; rm /files/doomed")
    return container


def test_each_driver_keeps_docker_layout(lamina: Lamina, layer_keys: list[str], container: str):
    {"overlay": check_overlay, "aufs": check_aufs, "vfs": check_vfs}[lamina.driver](lamina, layer_keys, container)


def check_aufs(lamina: Lamina, keys: list[str], container: str) -> None:
    home = lamina.root / "aufs"
    low, top = keys
    assert (home / "diff" / low / "bin/busybox").is_file()
    assert (home / "diff" / top / "test/inside").read_text(encoding="utf-8") == "the image's own\n"
    assert not (home / "diff" / top / "bin").exists(), "a layer has its own files only"
    assert (home / "layers" / low).read_text(encoding="utf-8") == ""
    assert (home / "layers" / top).read_text(encoding="utf-8").splitlines() == [low]
    assert (home / "layers" / container).read_text(encoding="utf-8").splitlines() == [top, low]
    assert lamina.merged(container) == home / "mnt" / container
    assert [each.target for each in mountinfo.mounts() if each.target.startswith(str(home))] == [str(home / "mnt" / container)]
    assert (home / "mnt" / container / "bin/busybox").is_file()
    assert (home / "mnt" / container / "new").read_text(encoding="utf-8") == "new\n"
    assert (home / "diff" / container / "new").read_text(encoding="utf-8") == "new\n"
    lamina("stop", "-t", "0", container)
    assert os.listdir(home / "mnt" / container) == []
    own = home / "diff" / container
    assert (own / "files/.wh.doomed").is_file(), "at rest it is aufs's own format"
    assert [name for name in os.listdir(own) if not name.startswith(".wh.")] == ["files", "new"] or sorted(
        name for name in os.listdir(own) if not name.startswith(".wh.")
    ) == ["files", "new"]


def check_overlay(lamina: Lamina, keys: list[str], container: str) -> None:
    home = lamina.root / "overlay"
    low, top = keys
    assert (home / low / "diff/bin/busybox").is_file()
    assert (home / top / "diff/test/inside").is_file()
    assert not (home / top / "diff/bin").exists()
    short = {key: (home / key / "link").read_text(encoding="utf-8") for key in (low, top, container)}
    for key, name in short.items():
        assert re.fullmatch(r"[A-Z2-7]{26}", name)
        assert os.readlink(home / "l" / name) == f"../{key}/diff"
    assert not (home / low / "lower").exists()
    assert (home / top / "lower").read_text(encoding="utf-8") == f"l/{short[low]}"
    assert (home / container / "lower").read_text(encoding="utf-8") == f"l/{short[top]}:l/{short[low]}"
    assert lamina.merged(container) == home / container / "merged"
    assert (home / container / "merged/new").is_file()
    assert (home / container / "diff/new").is_file()
    assert os.stat(home / container / "diff/files/doomed").st_rdev == 0
    data = lamina.document(container)["GraphDriver"]
    assert data["Name"] == "overlay"
    assert data["Data"]["LowerDir"] == f"{home}/{top}/diff:{home}/{low}/diff"
    assert data["Data"]["UpperDir"] == f"{home}/{container}/diff"
    assert data["Data"]["WorkDir"] == f"{home}/{container}/work"
    lamina("stop", "-t", "0", container)
    assert not (home / container / "merged").exists(), "as Docker leaves it"


def check_vfs(lamina: Lamina, keys: list[str], container: str) -> None:
    home = lamina.root / "vfs"
    low, top = keys
    assert (home / "dir" / low / "bin/busybox").is_file()
    assert not (home / "dir" / low / "test").exists()
    assert (home / "dir" / top / "bin/busybox").is_file(), "each layer is a whole tree"
    assert lamina.merged(container) == home / "dir" / container
    assert (home / "dir" / container / "new").is_file()
    assert not (home / "dir" / container / "files/doomed").exists()
    assert (home / "dir" / top / "files/doomed").exists()


def test_merged_dir_is_the_containers_root_on_every_driver(lamina: Lamina, container: str):
    merged = Path(lamina.show(container, "{{ .GraphDriver.Data.MergedDir }}"))
    assert lamina.show(container, "{{ .GraphDriver.Name }}") == lamina.driver
    assert sorted(os.listdir(merged)) == lamina("exec", container, "ls", "-A", "/").split()
    (merged / "from-host").write_text("host\n", encoding="utf-8")
    assert lamina("exec", container, "cat", "/from-host") == "host"


def test_the_rest_lies_where_the_plan_says(lamina: Lamina, container: str):
    lamina("volume", "create", "store")
    assert (lamina.root / "lamina.db").read_bytes()[:15] == b"SQLite format 3"
    assert json.loads((lamina.root / "image/oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    names = {each["annotations"]["org.opencontainers.image.ref.name"] for each in index(lamina.root)["manifests"]}
    assert len(names) == 2
    assert sorted(os.listdir(lamina.root / "containers" / container)) == sorted(
        ["hostname", "hosts", "resolv.conf", f"{container}-json.log"]
    )
    assert (lamina.root / "volumes/store/_data").is_dir()
    assert os.listdir(lamina.root / "run/containers") == [container]


def index(root: Path) -> dict[str, list[dict[str, dict[str, str]]]]:
    """The image store's index, as a stranger reads it."""
    document = json.loads((root / "image/index.json").read_bytes())
    assert isinstance(document, dict)
    return document


def test_lost_unpacked_layers_are_made_again_from_the_images(lamina: Lamina):
    """A driver's unpacked layers are a cache: with the image, not with the driver, lies what counts."""
    lamina("rmi", "busybox")
    for driver in DRIVERS:
        assert lamina("run", "--rm", "base", "cat", "/test/inside", driver=driver) == "the image's own"
    archive = lamina.root / "saved.tar"
    lamina("save", "-o", str(archive), "base")
    lamina("rmi", "base")
    for driver in DRIVERS:
        assert not list(lamina.home(driver).rglob("inside"))
    lamina("load", "-q", "-i", str(archive))
    archive.unlink()
    for driver in DRIVERS:
        assert lamina("run", "--rm", "base", "cat", "/test/inside", driver=driver) == "the image's own"
