"""What a layer costs on its way in, counted and not timed: how often its bytes are read, the system calls for each of its files."""

import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from archives import Item, folder, image, layer
from cases import Lamina
from straces import strace

FILES, SIZE_BYTES = 100, 20_000
_CALL = re.compile(r"^\d+ +([a-z0-9_]+)\((.*)")
_BYTES = re.compile(r"= (\d+)$")


@pytest.fixture
def driver() -> str:
    return "overlay"


def calls_of(trace: Path) -> list[tuple[str, str]]:
    """Each system call's name and the rest of its line."""
    found = (_CALL.match(line) for line in trace.read_text(errors="replace").splitlines())
    return [(each[1], each[2]) for each in found if each is not None]


def bytes_read(calls: list[tuple[str, str]], file: str) -> int:
    """How many bytes were read of a file whose descriptors are shown so."""
    sizes = (_BYTES.search(rest) for name, rest in calls if name in {"read", "pread64"} and file in rest)
    return sum(int(size[1]) for size in sizes if size is not None)


def test_a_loaded_layer_is_read_once_and_a_file_of_it_costs_four_system_calls(
    lamina: Lamina, tmp_path: Path, own_mounts: None
) -> None:
    items: dict[str, Item | str] = {"many": folder()}
    for number in range(FILES):
        items[f"many/{number}"] = Item(content=number.to_bytes(4, "big") * (SIZE_BYTES // 4))
    archive = image(tmp_path / "many.tar", "many:latest", [layer(items)])

    done = strace(lamina.command("load", "-q", "-i", str(archive)), tmp_path / "load.strace", everything=True)
    assert done.returncode == 0, done.stderr
    calls = calls_of(tmp_path / "load.strace")
    on_files = Counter(name for name, rest in calls if re.search(r"/diff/many[>/]", rest))
    assert on_files.pop("mkdirat", 0) <= 2
    assert on_files.pop("fgetxattr", 0) + on_files.pop("fstat", 0) + on_files.pop("newfstatat", 0) <= 8, "for the directory alone"
    assert set(on_files) == {"openat", "write", "utimensat", "close"}, "a file is made with its owner and mode"
    assert all(count < FILES * 1.2 for count in on_files.values()), on_files
    durable = Counter(name for name, _rest in calls if name in {"fsync", "fdatasync", "syncfs", "sync"})
    assert durable["syncfs"] == 1, "of the layer's files"
    assert durable["fsync"] + durable["fdatasync"] < 25, (
        "of blobs, documents, directories and the database, whatever the layer holds"
    )
    assert bytes_read(calls, "many.tar>") < archive.stat().st_size * 1.7, "once; the beginning once more, to find out what is in it"

    done = strace(lamina.command("create", "--net", "none", "many", "true"), tmp_path / "create.strace", everything=True)
    assert done.returncode == 0, done.stderr
    calls = calls_of(tmp_path / "create.strace")
    assert bytes_read(calls, "/blobs/") < 10_000, "the configuration, and no layer"
    assert not [rest for _name, rest in calls if "/diff/many" in rest], "it is unpacked already"


def test_what_a_layer_changes_is_found_without_looking_at_what_else_lies_below(tmp_path: Path) -> None:
    for name, files in (("below", 300), ("upper", 1)):
        (tmp_path / name / "many").mkdir(parents=True)
        for number in range(files):
            (tmp_path / name / "many" / str(number)).write_text(name)
    program = (
        "from lamina.api.types import WhiteoutFormat\n"
        "from lamina.archive.changes import read_upper\n"
        f"found = read_upper('{tmp_path}/upper', WhiteoutFormat.OVERLAY, lambda: '{tmp_path}/below')\n"
        "assert [each.path for each in found] in (['many', 'many/0'], ['many/0']), found\n"
    )
    done = strace([sys.executable, "-c", program], tmp_path / "changes.strace", everything=True)
    assert done.returncode == 0, done.stderr
    looked_at = [rest for _name, rest in calls_of(tmp_path / "changes.strace") if "/below" in rest]
    assert len(looked_at) < 30, looked_at
