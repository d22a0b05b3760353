"""`lamina copy`: images between the store and other places, as a person types it."""

import os
import pty
import subprocess
from pathlib import Path

import archives
import pytest
from cases import PROGRAM, Lamina
from test_readme_tour import BLOCK, matches
from transfers import DIFF_IDS, LAYERS, skopeo, tree

PAGE = Path(__file__).parents[2] / "docs" / "moving-images.md"


@pytest.fixture
def store(tmp_path: Path) -> Lamina:
    """The command line on an empty root directory."""
    return Lamina(tmp_path / "root", "vfs")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return archives.image(tmp_path / "first.tar", "place/app:1", LAYERS)


def test_an_image_comes_from_a_place_and_goes_to_another(store: Lamina, archive: Path, tmp_path: Path) -> None:
    assert store("copy", f"docker-archive:{archive}", "app:1") == f"Copied docker-archive:{archive} to lamina:app:1"
    assert store.diff_ids("app:1") == DIFF_IDS
    image_id = store("images", "--quiet", "--no-trunc", "app:1")
    for number, name in enumerate(
        ("app:1", "lamina:app:1", image_id, image_id.removeprefix("sha256:")[:12], f"lamina:{image_id[:20]}")
    ):
        assert store("copy", "--quiet", name, f"oci:{tmp_path}/layout:{number}") == ""
        assert skopeo("inspect", "--config", "--raw", f"oci:{tmp_path}/layout:{number}") == skopeo(
            "inspect", "--config", "--raw", f"oci:{tmp_path}/layout:0"
        )
    store("rmi", "app:1")
    store("copy", f"oci:{tmp_path}/layout:3", "lamina:again")
    assert store("images", "--quiet", "--no-trunc", "again") == image_id
    store("copy", "again", "twice:2")
    assert store("images", "--quiet", "--no-trunc", "twice:2") == image_id


def test_an_archive_goes_through_a_pipe_and_keeps_the_name(store: Lamina, archive: Path, tmp_path: Path) -> None:
    store("copy", f"docker-archive:{archive}", "place/app:1")
    for form in ("docker-archive", "oci-archive"):
        out = subprocess.run(store.command("copy", "--quiet", "place/app:1", f"{form}:-"), capture_output=True, check=True)
        assert out.stderr == b""
        (tmp_path / f"{form}.tar").write_bytes(out.stdout)
        subprocess.run(
            store.command("copy", f"{form}:-", f"dir:{tmp_path}/{form}"), input=out.stdout, capture_output=True, check=True
        )
        with (tmp_path / f"{form}.tar").open("rb") as file:  # a file on standard input is read where it lies
            subprocess.run(store.command("copy", f"{form}:-", f"dir:{tmp_path}/again"), stdin=file, capture_output=True, check=True)
        assert tree(tmp_path / form) == tree(tmp_path / "again")
        store("copy", f"{form}:{tmp_path}/{form}.tar", f"docker-archive:{tmp_path}/named.tar")
        assert "Loaded image: place/app:1" in store("load", "--input", f"{tmp_path}/named.tar")
    pushed = subprocess.run(store.command("push", "-q", "place/app:1", "docker-archive:-"), capture_output=True, check=True).stdout
    assert pushed == (tmp_path / "docker-archive.tar").read_bytes()
    with (tmp_path / "device.tar").open("wb") as file:
        subprocess.run(
            store.command("copy", "-q", "place/app:1", f"oci-archive:/dev/fd/{file.fileno()}:1"),
            pass_fds=[file.fileno()],
            check=True,
        )
    skopeo("inspect", f"oci-archive:{tmp_path}/device.tar:1")


@pytest.mark.parametrize(
    "words", [("copy", "place/app:1", "oci-archive:-"), ("copy", "docker-archive:-", "app:1")], ids=["to", "from"]
)
def test_a_terminal_is_neither_read_nor_written(words: tuple[str, ...], store: Lamina, archive: Path) -> None:
    store("copy", f"docker-archive:{archive}", "place/app:1")
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(store.command(*words), stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 1
    assert "terminal" in done.stderr


def test_what_can_not_be_copied_is_one_line_and_leaves_nothing(store: Lamina, archive: Path, tmp_path: Path) -> None:
    store("copy", "-q", f"docker-archive:{archive}", "app:1")
    before = sorted(tmp_path.iterdir())
    for words, message in (
        (("none", f"dir:{tmp_path}/out"), "no such image: 'none:latest'"),
        (("--all", "app:1", f"docker-archive:{tmp_path}/out"), "one platform only (leave out --all)"),
        (("--all", "app:1", "b:1"), "one platform only (leave out --all)"),
        (("--all", "--platform", "arm64", "app:1", f"dir:{tmp_path}/out"), "exclude each other"),
        (("app:1", f"oci:{tmp_path}/out:@1"), "only chooses what to read"),
        (("app:1", f"lamina:sha256:{'a' * 64}"), "is not a name that an image can be given"),
        (("app:1", f"oci-archive:{tmp_path}"), "is a directory"),
        ((f"docker-archve:{archive}", "b:1"), "did you mean 'docker-archive:PATH"),
        ((f"oci-archive:{archive}", "b:1"), "it looks like a docker-archive"),
        ((f"docker-archive:{archive}:other", "b:1"), "it has place/app:1"),
    ):
        assert message in store.error("copy", *words, code=1)
    assert sorted(tmp_path.iterdir()) == before
    assert store("images", "--quiet") != ""
    assert "b" not in store("images", "--format", "{{ .Repository }}").split()
    assert [name for name in os.listdir(store.root / "tmp") if name.startswith("blob-")] == []


def test_pull_takes_the_names_of_a_place_and_push_gives_them(store: Lamina, archive: Path, tmp_path: Path) -> None:
    store("pull", "-q", f"docker-archive:{archive}")
    assert store.diff_ids("place/app:1") == DIFF_IDS
    store("push", "-q", "place/app:1", f"oci-archive:{tmp_path}/x.tar")
    store("push", "-q", "place/app:1", f"oci:{tmp_path}/other:2.0")
    store("rmi", "place/app:1")
    store("pull", "-q", f"oci-archive:{tmp_path}/x.tar")
    store("pull", "-q", f"oci:{tmp_path}/other:2.0")
    assert sorted(store("images", "--format", "{{ .Repository }}:{{ .Tag }}").split()) == ["other:2.0", "place/app:1"]


def test_a_disk_that_is_full_is_told_and_nothing_is_left(store: Lamina, tmp_path: Path, own_mounts: None) -> None:
    start = archives.image(tmp_path / "big.tar", "app:1", [archives.layer({"noise": archives.Item(content=os.urandom(3 << 20))})])
    store("copy", "-q", f"docker-archive:{start}", "app:1")
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", f"{tmp_path}/small"], check=True)
    try:
        for place in ("oci:{}/out:1", "dir:{}/out", "oci-archive:{}/out.tar", "docker-archive:{}/out.tar"):
            line = store.error("copy", "-q", "app:1", place.format(f"{tmp_path}/small"), code=1)
            assert "no space left on device" in line
            assert os.listdir(tmp_path / "small") == []
    finally:
        subprocess.run(["umount", f"{tmp_path}/small"], check=True)


def test_the_page_prints_what_it_says(tmp_path: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Other places\n")[2].partition("\n## ")[0]
    environment = {
        **os.environ, "LAMINA_ROOT": f"{tmp_path}/root", "PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}",
        "LAMINA_STORAGE_DRIVER": "vfs",
    }  # fmt: skip
    lines = "".join(BLOCK.findall(section)).split("\n$ ")
    assert len(lines) > 6
    for line in lines:
        command, _, expected = line.removeprefix("$ ").partition("\n")
        done = subprocess.run(["sh", "-c", command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert matches(done.stdout, expected.strip()), f"$ {command}\n{done.stdout}"


def test_the_help_tells_the_forms() -> None:
    told = subprocess.run([PROGRAM, "copy", "--help"], capture_output=True, text=True, check=True).stdout
    assert "docker-archive:PATH" in told
