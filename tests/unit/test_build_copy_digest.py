"""What the digest of COPY's sources depends on, and the cache of what files contain."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lamina.build import contenthash
from lamina.build.contenthash import ContentHashes
from lamina.build.copying import SourceTree, gather
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.instructions import Copy
from lamina.dockerfile.parse import parse
from lamina.errors import LaminaError


def instruction(text: str) -> Copy:
    (found,) = parse(f"FROM scratch\n{text}\n".encode()).stages[0].instructions
    assert isinstance(found, Copy)
    return found


def digest(path: Path, text: str = "COPY . /n/", cache_path: str = "") -> str:
    return gather(instruction(text), SourceTree(path=str(path), described="the build context"), cache_path=cache_path).digest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "ctx"
    (top / "dir").mkdir(parents=True)
    (top / "dir/file").write_text("one")
    (top / "dir/other").write_text("two")
    (top / "dir/link").symlink_to("file")
    return top


def aged(top: Path) -> None:
    """Wait until the tree's changes are older than the clock's granularity, so that they may be remembered."""
    newest = max(os.lstat(path).st_ctime_ns for path in (top, *top.rglob("*")))
    while time.time_ns() - newest <= contenthash._FINE_NS:
        time.sleep(0.01)


def test_times_change_nothing(tree: Path) -> None:
    before = digest(tree)
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert digest(tree) == before


def test_a_copy_elsewhere_has_the_same_digest(tree: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", "--preserve=mode", str(tree), str(tmp_path / "again")], check=True)
    assert digest(tmp_path / "again") == digest(tree)


@pytest.mark.parametrize(
    "change",
    [
        lambda top: (top / "dir/file").write_text("One"),
        lambda top: (top / "dir/file").chmod(0o755),
        lambda top: (top / "dir").chmod(0o700),
        lambda top: (top / "dir/file").rename(top / "dir/file2"),
        lambda top: (top / "dir/new").touch(),
        lambda top: (top / "empty").mkdir(),
        lambda top: (top / "dir/other").unlink(),
        lambda top: ((top / "dir/link").unlink(), (top / "dir/link").symlink_to("other")),
        lambda top: ((top / "dir/other").unlink(), os.link(top / "dir/file", top / "dir/other")),
        lambda top: ((top / "dir/other").unlink(), os.mkfifo(top / "dir/other")),
    ],
)
def test_what_the_image_would_show_changes_the_digest(tree: Path, change: Callable[[Path], object]) -> None:
    before = digest(tree)
    change(tree)
    assert digest(tree) != before


@pytest.mark.parametrize(
    "text",
    [
        "COPY . /m/",
        "COPY --chown=1 . /n/",
        "COPY --chmod=755 . /n/",
        "COPY --link . /n/",
        "COPY --parents . /n/",
        "COPY --exclude=file . /n/",
        "ADD . /n/",
        "COPY dir /n/",
    ],
)
def test_what_the_instruction_says_changes_the_digest(tree: Path, text: str) -> None:
    (tree / "dir/file").chmod(0o600)
    (tree / "dir/other").rename(tree / "file")
    assert digest(tree, text) != digest(tree)


def test_what_is_excluded_or_not_named_does_not_matter(tree: Path) -> None:
    before = digest(tree, "COPY --exclude=dir/file . /n/"), digest(tree, "COPY dir/other /n/")
    (tree / "dir/file").write_text("changed")
    assert (digest(tree, "COPY --exclude=dir/file . /n/"), digest(tree, "COPY dir/other /n/")) == before


def test_whether_two_files_are_one_matters(tree: Path) -> None:
    (tree / "dir/other").write_text("one")
    before = digest(tree)
    (tree / "dir/other").unlink()
    os.link(tree / "dir/file", tree / "dir/other")
    assert digest(tree) != before


def test_names_and_contents_cannot_be_moved_against_each_other(tmp_path: Path) -> None:
    for name, files in (("a", {"x": "yz"}), ("b", {"xy": "z"}), ("c", {"x": "y", "z": ""})):
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(content)
    assert len({digest(tmp_path / name) for name in "abc"}) == 3


def test_the_second_time_nothing_is_read(tree: Path, tmp_path: Path) -> None:
    aged(tree)
    path = str(tmp_path / "hashes")
    first = digest(tree, cache_path=path)
    with ContentHashes(path) as hashes, _directory(tree / "dir") as fd:
        hashes.of(fd, "file", os.stat(tree / "dir/file"), "file")
        assert hashes.read_bytes == 0
    assert digest(tree, cache_path=path) == first


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def test_a_change_of_the_same_size_and_time_is_seen(tree: Path, tmp_path: Path) -> None:
    """mtime can be set back by anybody; ctime can't."""
    aged(tree)
    path = str(tmp_path / "hashes")
    before = digest(tree, cache_path=path)
    times = os.stat(tree / "dir/file")
    (tree / "dir/file").write_text("eno")
    os.utime(tree / "dir/file", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest(tree, cache_path=path) != before


def test_what_was_just_written_is_not_remembered(tree: Path, tmp_path: Path) -> None:
    """It could be written again within the same tick, and no time would tell (git's racy entries)."""
    path = str(tmp_path / "hashes")
    (tree / "dir/file").write_text("now")
    digest(tree, cache_path=path)
    with ContentHashes(path) as hashes, _directory(tree / "dir") as fd:
        hashes.of(fd, "file", os.stat(tree / "dir/file"), "file")
        assert hashes.read_bytes == 3


def test_a_file_system_of_whole_seconds_gets_more_time(tree: Path) -> None:
    found = os.stat(tree / "dir/file")
    fields = {name: getattr(found, name) for name in dir(found) if name.startswith("st_") and name not in found.__match_args__}
    coarse = os.stat_result(tuple(found), {**fields, "st_mtime_ns": 5 * 10**9, "st_ctime_ns": 6 * 10**9})
    fine = os.stat_result(tuple(found), {**fields, "st_mtime_ns": 5 * 10**9, "st_ctime_ns": 6 * 10**9 + 4_000_000})
    assert contenthash._margin_ns(coarse) > 2 * 10**9 > contenthash._margin_ns(fine)


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_cache_is_begun_anew(tree: Path, tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "hashes"
    path.write_bytes(damage)
    aged(tree)
    assert digest(tree, cache_path=str(path)) == digest(tree)
    with ContentHashes(str(path)) as hashes, _directory(tree / "dir") as fd:
        hashes.of(fd, "file", os.stat(tree / "dir/file"), "file")
        assert hashes.read_bytes == 0


def test_a_cache_without_a_place_is_done_without(tree: Path) -> None:
    assert digest(tree, cache_path="/proc/nowhere/hashes") == digest(tree)


def test_a_cache_of_another_shape_is_replaced(tree: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "hashes")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE files (name TEXT)")
        database.commit()
    aged(tree)
    assert digest(tree, cache_path=path) == digest(tree)
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM files").fetchone() == (2,)


def test_a_killed_writer_leaves_a_cache_that_works(tree: Path, tmp_path: Path) -> None:
    aged(tree)
    path = str(tmp_path / "hashes")
    program = (
        "import os, sys\n"
        "from lamina.build.contenthash import ContentHashes\n"
        "hashes = ContentHashes(sys.argv[1])\n"
        "fd = os.open(sys.argv[2], os.O_RDONLY)\n"
        "hashes.of(fd, 'file', os.stat('file', dir_fd=fd), 'file')\n"
        "hashes._database.execute('BEGIN IMMEDIATE')\n"
        "hashes._database.execute('INSERT INTO files VALUES (1, 1, 1, 1, 1, \"\", zeroblob(0), 1)')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path, str(tree / "dir")], check=False)
    assert done.returncode == -9
    assert digest(tree, cache_path=path) == digest(tree)
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM files WHERE digest = ''").fetchone() == (0,)


def test_a_locked_cache_is_not_waited_for_in_vain(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aged(tree)
    path = str(tmp_path / "hashes")
    digest(tree, cache_path=path)
    monkeypatch.setattr(contenthash, "_LOCK_WAIT_S", 0.05)
    (tree / "dir/file").write_text("more")
    aged(tree)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("BEGIN IMMEDIATE")
        assert digest(tree, cache_path=path) == digest(tree)


def test_a_file_that_changes_while_it_is_read_gives_an_error_and_no_row(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is appended to at every read, as a log may be: it must not be read for ever."""
    aged(tree)
    path = str(tmp_path / "hashes")
    read = os.read

    def read_and_write(fd: int, size: int) -> bytes:
        data = read(fd, size)
        with open(tree / "dir/file", "ab") as file:
            file.write(b"x" * 10)
        return data

    with ContentHashes(path) as hashes, _directory(tree / "dir") as fd:
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", read_and_write)
            with pytest.raises(LaminaError, match="'file' changes while it is read"):
                hashes.of(fd, "file", os.stat(tree / "dir/file"), "file")
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM files").fetchone() == (0,)


@pytest.mark.parametrize("content", ["eno", "longer", ""])
def test_a_change_between_gathering_and_copying_is_an_error(tree: Path, content: str) -> None:
    gathered = gather(instruction("COPY dir/file /n"), SourceTree(path=str(tree), described="the build context"))
    (tree / "dir/file").write_text(content)
    reader = gathered.entries(base_root=None, working_dir="/", mtime_limit_ns=None)
    with pytest.raises(DockerfileError, match="'dir/file' was changed while it was being copied"):
        for _entry in reader:
            with reader.open() as file:
                file.read()
    reader = gathered.entries(base_root=None, working_dir="/", mtime_limit_ns=None)
    with pytest.raises(DockerfileError, match="'dir/file' was changed"), open(tree / "target", "wb") as target:
        for _entry in reader:
            reader.copy_to(target.fileno())


def test_a_file_that_becomes_a_symlink_or_goes_is_an_error(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("one")
    for change in (lambda path: path.symlink_to(tmp_path / "secret"), lambda path: None, os.mkfifo):
        gathered = gather(instruction("COPY dir/other /n"), SourceTree(path=str(tree), described="the build context"))
        (tree / "dir/other").unlink()
        change(tree / "dir/other")
        reader = gathered.entries(base_root=None, working_dir="/", mtime_limit_ns=None)
        with pytest.raises(DockerfileError, match="'dir/other' was changed"):
            for _entry in reader:
                with reader.open() as file:
                    file.read()
        with contextlib.suppress(FileNotFoundError):
            (tree / "dir/other").unlink()
        (tree / "dir/other").write_text("two")


def test_a_touch_between_gathering_and_copying_is_none(tree: Path) -> None:
    gathered = gather(instruction("COPY dir/file /n"), SourceTree(path=str(tree), described="the build context"))
    os.utime(tree / "dir/file")
    reader = gathered.entries(base_root=None, working_dir="/", mtime_limit_ns=None)
    for _entry in reader:
        with reader.open() as file:
            assert file.read() == b"one"


def test_no_heavy_module_is_imported_for_a_plain_copy(tree: Path) -> None:
    program = (
        "import sys\n"
        "from lamina.build.copying import SourceTree, gather\n"
        "from lamina.dockerfile.instructions import Copy\n"
        "copy = Copy(line=1, last_line=1, text='', is_add=False, sources=('.',), destination='/n/')\n"
        "gather(copy, SourceTree(path=sys.argv[1], described='x'))\n"
        "print(*sorted({'tarfile', 'urllib3', 'urllib.parse', 'tempfile', 'subprocess', 'difflib', 'asyncio', 'http.client', 'bz2'}"
        " & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tree)], capture_output=True, text=True, check=True)
    assert not done.stdout.split()
