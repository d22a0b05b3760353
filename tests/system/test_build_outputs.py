"""`--output`: an image's files in a directory or a tar, the image itself in an archive."""

import io
import json
import os
import pty
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import leaks
import pytest
from cases import Lamina

from lamina.build.outputs import Output, parse_output, write_output
from lamina.engine import Engine
from lamina.errors import ConflictError, LaminaError, NotFoundError, UsageError
from lamina.model.reference import Reference
from lamina.store.images import Image

pytestmark = pytest.mark.parametrize("driver", ["overlay"])


def layers() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, mode, owner, content in (
            ("d", tarfile.DIRTYPE, 0o750, 5, b""),
            ("d/f", tarfile.REGTYPE, 0o4755, 6, b"content"),
            ("d/l", tarfile.SYMTYPE, 0o777, 7, b"f"),
            ("null", tarfile.CHRTYPE, 0o666, 0, b""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, owner, owner, 1000
            info.devmajor, info.devminor = 1, 3
            if kind == tarfile.SYMTYPE:
                info.linkname = content.decode()
            elif content:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("d/h")
        link.type, link.linkname, link.mode, link.uid, link.gid, link.mtime = tarfile.LNKTYPE, "d/f", 0o4755, 6, 6, 1000
        tar.addfile(link)
    return out.getvalue()


@pytest.fixture
def engine(lamina: Lamina) -> Iterator[Engine]:
    with lamina.library() as opened:
        yield opened


@pytest.fixture
def image(engine: Engine) -> Image:
    return engine.images.import_rootfs(io.BytesIO(layers()), "made")


NAMES = (Reference.parse("made"),)


def write(engine: Engine, image: Image, text: str) -> None:
    write_output(parse_output(text), engine=engine, image=image, names=NAMES)


def check_tree(top: Path) -> None:
    assert (top / "d/f").read_text() == "content"
    found = (top / "d/f").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime) == (0o4755, 6, 6, 1000)
    assert (top / "d/h").stat().st_ino == found.st_ino
    assert stat.S_IMODE((top / "d").stat().st_mode) == 0o750
    assert os.readlink(top / "d/l") == "f"
    assert (top / "d/l").lstat().st_uid == 7
    assert (top / "null").lstat().st_rdev == os.makedev(1, 3)


@pytest.mark.parametrize("text", ["{}", "type=local,dest={}", '"type=local","dest={}"'])
def test_a_directory_gets_the_final_tree(engine: Engine, image: Image, tmp_path: Path, text: str) -> None:
    write(engine, image, text.format(tmp_path / "out"))
    check_tree(tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_directories_above_are_made(engine: Engine, image: Image, tmp_path: Path) -> None:
    write(engine, image, str(tmp_path / "a/b/out"))
    check_tree(tmp_path / "a/b/out")


def test_an_empty_directory_keeps_its_mode(engine: Engine, image: Image, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o700)
    write(engine, image, str(tmp_path / "out"))
    check_tree(tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_files_that_are_there_stay(engine: Engine, image: Image, tmp_path: Path) -> None:
    (tmp_path / "out/d").mkdir(parents=True)
    (tmp_path / "out/d/kept").write_text("kept")
    (tmp_path / "out/d/f").write_text("old")
    write(engine, image, str(tmp_path / "out"))
    check_tree(tmp_path / "out")
    assert (tmp_path / "out/d/kept").read_text() == "kept"


def test_what_clashes_is_refused_before_anything_is_written(engine: Engine, image: Image, tmp_path: Path) -> None:
    (tmp_path / "out/null").mkdir(parents=True)
    with pytest.raises(ConflictError, match="/out/null': there is a directory of that name"):
        write(engine, image, str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == ["null"]
    (tmp_path / "out/null").rmdir()
    (tmp_path / "out/d").write_text("file")
    with pytest.raises(ConflictError, match="/out/d': there is something else of that name"):
        write(engine, image, str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == ["d"]


def test_no_symlink_of_the_directory_is_written_through(engine: Engine, image: Image, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/d").symlink_to(tmp_path / "host")
    with pytest.raises(ConflictError):
        write(engine, image, str(tmp_path / "out"))
    assert not os.listdir(tmp_path / "host")


def test_a_tar_has_the_final_tree(engine: Engine, image: Image, tmp_path: Path) -> None:
    write(engine, image, f"type=tar,dest={tmp_path / 'out.tar'}")
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xpf", str(tmp_path / "out.tar"), "-C", str(tmp_path / "out")], check=True)
    check_tree(tmp_path / "out")


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_archive_of_the_image_can_be_loaded(engine: Engine, image: Image, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out.tar"
    write(engine, image, f"type={kind},dest={path}")
    with tarfile.open(path) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        assert len(json.load(index)["manifests"]) == 1
    with Engine(root_dir=str(tmp_path / "other"), run_dir=str(tmp_path / "run")) as other, open(path, "rb") as stream:
        (loaded,) = other.images.load(stream)
        assert (loaded.image.id, loaded.names) == (image.id, NAMES)


def test_docker_without_a_place_is_the_store(engine: Engine, image: Image) -> None:
    write(engine, image, "type=docker")


def test_standard_output_gets_a_tar_and_nothing_else(lamina: Lamina, engine: Engine, image: Image) -> None:
    program = (
        "import sys\n"
        "from lamina.build.outputs import parse_output, write_output\n"
        "from lamina.engine import Engine\n"
        "with Engine(root_dir=sys.argv[1], storage_driver='overlay') as engine:\n"
        "    write_output(parse_output('-'), engine=engine, image=engine.images.get('made'), names=())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(lamina.root)], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert tar.getnames() == ["d", "d/f", "d/h", "d/l", "null"]


def test_nothing_is_written_to_a_terminal(lamina: Lamina) -> None:
    program = "from lamina.build.outputs import parse_output; parse_output('-')"
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run([sys.executable, "-c", program], stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "isn't written to a terminal" in done.stderr


def test_a_failure_leaves_neither_the_file_nor_half_of_it(lamina: Lamina, engine: Engine, image: Image, tmp_path: Path) -> None:
    """The image's layer is damaged in the store; an older archive at the place stays as it is."""
    (layer,) = engine.context.images.layers(image)
    blob = lamina.root / "image/blobs/sha256" / layer.digest.hex
    os.chmod(blob, 0o600)
    with open(blob, "r+b") as file:
        file.truncate(layer.stored_bytes - 10)
    out = tmp_path / "results"
    out.mkdir()
    (out / "there.tar").write_text("older")
    for text in (
        f"type=docker,dest={out}/there.tar",
        f"type=oci,dest={out}/new.tar",
        f"{out}/new/dir",
        f"type=tar,dest={out}/t.tar",
    ):
        with pytest.raises(LaminaError):
            write(engine, image, text)
    assert os.listdir(out) == ["there.tar"]
    assert (out / "there.tar").read_text() == "older"


def test_nothing_is_left_in_the_store(lamina: Lamina, engine: Engine, image: Image, tmp_path: Path) -> None:
    write(engine, image, str(tmp_path / "out"))
    assert not leaks.left_on_disk(lamina.root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an output is empty"),
        ("type=tar,level=9", "unknown part 'level=9'"),
        ("type=tar,dest", "unknown part 'dest'"),
        ("dest=x", "has no type"),
        ("type=zip,dest=x", "unknown type 'zip'"),
        ("type=local", "names no directory"),
        ("type=local,dest=-", "names no directory"),
        ("type=tar,dest=", "has an empty dest"),
        ("type=tar,type=oci", "has type twice"),
        ('"type=tar', "is malformed"),
    ],
)
def test_what_cannot_be_an_output_is_one_line(driver: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        parse_output(text)
    assert "\n" not in error.value.message


def test_a_place_that_cannot_be_written_is_refused_before_the_build(driver: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for text, kind in (
        (f"{tmp_path}/file", ConflictError),
        (f"{tmp_path}/file/below/it", ConflictError),
        (f"type=tar,dest={tmp_path}", UsageError),
        (f"type=oci,dest={tmp_path}/no/where", NotFoundError),
    ):
        with pytest.raises(kind):
            parse_output(text)
    assert parse_output(f"{tmp_path}/new") == Output(type="local", destination=f"{tmp_path}/new")
