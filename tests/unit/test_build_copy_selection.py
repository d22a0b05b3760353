"""Which paths of a context COPY and ADD mean, on real trees."""

import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.build.copying import Gathered, SourceTree, gather
from lamina.build.selection import always
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.ignore import Ignore, glob_match
from lamina.dockerfile.instructions import Copy
from lamina.dockerfile.parse import parse


def instruction(text: str) -> Copy:
    """Read one COPY or ADD."""
    (found,) = parse(f"FROM scratch\n{text}\n".encode()).stages[0].instructions
    assert isinstance(found, Copy)
    return found


def context(path: Path, ignore: str = "") -> SourceTree:
    rules = Ignore.parse(ignore)
    return SourceTree(path=str(path), described="the build context", hides=rules.hides, may_unhide_below=rules.may_unhide_below)


def gathered(text: str, tree: SourceTree) -> Gathered:
    return gather(instruction(text), tree)


def laid_out(text: str, tree: SourceTree, base: Path | None = None) -> dict[str, str]:
    """Gather and lay out; gives path to kind and content of all but the directories that the base has."""
    reader = gathered(text, tree).entries(base_root=None if base is None else str(base), working_dir="/work", mtime_limit_ns=None)
    found = {}
    for entry in reader:
        content = entry.link
        if entry.kind.value == "file":
            with reader.open() as file:
                content = file.read().decode()
        found[entry.path] = f"{entry.kind.value} {content}".rstrip()
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path in ("dir/a.txt", "dir/b.md", "dir/sub/c.txt", "dir/sub/deep/d.txt", "x.txt", "y.txt", "arr[0].txt", "other/a.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("dir")
    (tmp_path / "flink").symlink_to("dir/a.txt")
    return tmp_path


def test_a_directorys_contents_are_copied_and_not_itself(tree: Path) -> None:
    assert laid_out("COPY dir /new", context(tree)) == {
        "new": "directory",
        "new/a.txt": "file dir/a.txt",
        "new/b.md": "file dir/b.md",
        "new/sub": "directory",
        "new/sub/c.txt": "file dir/sub/c.txt",
        "new/sub/deep": "directory",
        "new/sub/deep/d.txt": "file dir/sub/deep/d.txt",
    }


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("COPY x.txt /n", {"n": "x.txt"}),
        ("COPY x.txt /n/", {"n/x.txt": "x.txt"}),
        ("COPY x.txt .", {"work/x.txt": "x.txt"}),
        ("COPY x.txt n", {"work/n": "x.txt"}),
        ("COPY /x.txt/ /n/", {"n/x.txt": "x.txt"}),
        ("COPY x.txt y.txt /n/", {"n/x.txt": "x.txt", "n/y.txt": "y.txt"}),
        ("COPY ?.txt /n/", {"n/x.txt": "x.txt", "n/y.txt": "y.txt"}),
        ("COPY [x-y].txt /n/", {"n/x.txt": "x.txt", "n/y.txt": "y.txt"}),
        ("COPY arr[[]0].txt /n/", {"n/arr[0].txt": "arr[0].txt"}),
        ("COPY */a.txt /n/", {"n/a.txt": "other/a.txt"}),
        ("COPY d*/s* /n/", {"n/c.txt": "dir/sub/c.txt", "n/deep/d.txt": "dir/sub/deep/d.txt"}),
        ("COPY flink /n/", {"n/flink": "dir/a.txt"}),
        ("COPY link/sub /n/", {"n/c.txt": "dir/sub/c.txt", "n/deep/d.txt": "dir/sub/deep/d.txt"}),
        ("COPY nothing* x.txt /n/", {"n/x.txt": "x.txt"}),
        ("COPY --exclude=*.md --exclude=sub dir /n/", {"n/a.txt": "dir/a.txt"}),
        ("COPY --exclude=**/*.txt dir /n/", {"n/b.md": "dir/b.md"}),
        ("COPY --exclude=x* ?.txt /n/", {"n/y.txt": "y.txt"}),
        ("COPY --exclude=* --exclude=!sub/c.txt dir /n/", {"n/sub/c.txt": "dir/sub/c.txt"}),
        ("COPY --parents dir/sub/c.txt x.txt /n/", {"n/dir/sub/c.txt": "dir/sub/c.txt", "n/x.txt": "x.txt"}),
        ("COPY --parents dir/./sub/c.txt /n/", {"n/sub/c.txt": "dir/sub/c.txt"}),
        ("COPY --parents d*/./sub/c.txt /n/", {"n/sub/c.txt": "dir/sub/c.txt"}),
        ("COPY --parents **/*.md /n/", {"n/dir/b.md": "dir/b.md"}),
        ("COPY --parents dir/*/deep /n/", {"n/dir/sub/deep/d.txt": "dir/sub/deep/d.txt"}),
        ("COPY --parents --exclude=dir/sub/deep dir/sub /n/", {"n/dir/sub/c.txt": "dir/sub/c.txt"}),
    ],
)  # fmt: skip
def test_sources_are_found_by_dockers_rules(tree: Path, text: str, files: dict[str, str]) -> None:
    found = laid_out(text, context(tree))
    assert {path: kind.removeprefix("file ") for path, kind in found.items() if kind.startswith("file")} == files


def test_a_directory_is_made_with_parents_only_for_what_is_in_it(tree: Path) -> None:
    assert laid_out("COPY --parents */*.md /n/", context(tree)).keys() == {"n", "n/dir", "n/dir/b.md"}


def test_symlinks_within_a_directory_are_kept(tree: Path) -> None:
    found = laid_out("COPY . /n/", context(tree))
    assert found["n/link"] == "symlink dir"
    assert found["n/flink"] == "symlink dir/a.txt"
    assert found["n/empty"] == "directory"


def test_heredocs_are_files(tree: Path) -> None:
    assert laid_out("COPY <<one <<two x.txt /n/\nfirst\none\nsecond\ntwo", context(tree)) == {
        "n": "directory",
        "n/x.txt": "file x.txt",
        "n/one": "file first",
        "n/two": "file second",
    }


def test_a_later_source_replaces_a_file_of_an_earlier_one(tree: Path) -> None:
    (tree / "other/sub").mkdir(mode=0o700)
    reader = gathered("COPY dir other /n/", context(tree)).entries(base_root=None, working_dir="/", mtime_limit_ns=None)
    entries = []
    for entry in reader:
        entries.append((entry.path, oct(entry.mode)))
        if entry.path == "n/a.txt":
            with reader.open() as file:
                assert file.read() == b"other/a.txt"
    assert [path for path, _ in entries].count("n/a.txt") == 1
    assert entries.index(("n/sub", "0o700")) < entries.index(("n/sub/c.txt", "0o644"))


def test_hard_links_keep_their_bytes_when_a_name_is_replaced(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    os.link(tmp_path / "one/a", tmp_path / "one/b")
    reader = gathered("COPY one two /n/", context(tmp_path)).entries(base_root=None, working_dir="/", mtime_limit_ns=None)
    found = []
    for entry in reader:
        with reader.open() if entry.kind.value == "file" else contextlib.nullcontext() as file:
            found.append((entry.path, entry.link or (file.read().decode() if file else "")))
    assert found == [("n", ""), ("n/a", "one"), ("n/b", "n/a"), ("n/a", "two")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COPY missing /n", "'missing' isn't in the build context"),
        ("COPY dir/missing /n", "'dir/missing' isn't in the build context"),
        ("COPY x.txt/y /n", "'x.txt/y' isn't in the build context"),
        ("COPY nothing* /n/", "nothing in the build context matches 'nothing\\*'"),
        ("COPY --parents nothing/* /n/", "nothing in the build context matches"),
        ("COPY --parents dir/missing /n/", "'dir/missing' isn't in the build context"),
        ("COPY ../x /n", "leads out of the build context"),
        ("COPY x.txt y.txt /n", "must be a directory"),
        ("COPY https://example.invalid/x /n", "is a URL"),
        ("COPY --chmod=999 x.txt /n", "invalid mode '999'"),
        ("COPY --chown=a:b:c x.txt /n", "invalid owner"),
        ("COPY [ /n", "invalid pattern"),
        ("COPY --exclude=a --exclude=[ . /n", "--exclude: invalid pattern"),
    ],
)
def test_what_cannot_be_meant_is_one_line_with_its_place(tree: Path, text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message) as error:
        gathered(text, context(tree))
    assert error.value.message.startswith("Dockerfile:2: COPY: ")
    assert "\n" not in error.value.message


def test_a_name_that_is_nearly_right_is_suggested(tree: Path) -> None:
    with pytest.raises(DockerfileError) as error:
        gathered("COPY dir/sbu /n", context(tree))
    assert error.value.hint == "did you mean 'dir/sub'?"


def test_symlinks_never_lead_out_of_the_context(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    ctx = tmp_path / "ctx"
    ctx.mkdir()
    (ctx / "up").symlink_to("../secret")
    (ctx / "absolute").symlink_to(tmp_path / "secret")
    (ctx / "updir").symlink_to("..")
    (ctx / "loop").symlink_to("loop")
    for source in ("up", "absolute", "updir/secret", "loop"):
        with pytest.raises(DockerfileError, match="the build context"):
            gathered(f"COPY {source} /n", context(ctx))
    # A link that leads up ends at the context's top, as it would in a root of its own.
    assert laid_out("COPY updir /n/", context(ctx))["n/up"] == "symlink ../secret"


def test_an_absolute_symlink_begins_at_the_contexts_top(tree: Path) -> None:
    (tree / "dir/absolute").symlink_to("/other")
    (tree / "dir/up").symlink_to("../../../other/a.txt")
    assert laid_out("COPY dir/absolute /n/", context(tree))["n/a.txt"] == "file other/a.txt"
    assert laid_out("COPY dir/up /n/", context(tree))["n/up"] == "file other/a.txt"


def test_what_is_ignored_is_not_there(tree: Path) -> None:
    ignoring = context(tree, "dir\n!dir/sub/c.txt\nx.txt\n")
    assert laid_out("COPY . /n/", ignoring).keys() >= {"n/dir", "n/dir/sub", "n/dir/sub/c.txt", "n/y.txt"}
    assert not laid_out("COPY . /n/", ignoring).keys() & {"n/dir/a.txt", "n/x.txt", "n/dir/sub/deep"}
    with pytest.raises(DockerfileError) as error:
        gathered("COPY x.txt /n", ignoring)
    assert error.value.hint == "it is there, but .dockerignore leaves it out"
    assert laid_out("COPY ?.txt /n/", ignoring).keys() == {"n", "n/y.txt"}
    with pytest.raises(DockerfileError, match="isn't in the build context"):
        gathered("COPY flink /n", ignoring)  # what it points to is ignored
    assert laid_out("COPY link/sub /n/", ignoring).keys() == {"n", "n/c.txt"}


def test_a_tree_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    with pytest.raises(DockerfileError, match="lies deeper than 256 directories"):
        gathered("COPY . /n/", context(tmp_path))


def test_a_socket_is_left_out_and_an_asked_for_one_refused(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
    os.mkfifo(tmp_path / "fifo")
    assert laid_out("COPY . /n/", context(tmp_path)) == {"n": "directory", "n/fifo": "fifo"}
    with pytest.raises(DockerfileError, match="'sock' is a socket"):
        gathered("COPY sock /n", context(tmp_path))


def test_hard_links_of_one_source_stay_hard_links(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_text("a")
    os.link(tmp_path / "d/a", tmp_path / "d/b")
    os.link(tmp_path / "d/a", tmp_path / "outside")
    assert laid_out("COPY d /n", context(tmp_path)) == {"n": "directory", "n/a": "file a", "n/b": "hard link n/a"}
    assert laid_out("COPY d/b outside /n/", context(tmp_path)) == {"n": "directory", "n/b": "file a", "n/outside": "file a"}


_NAMES = st.sampled_from(["a", "b", "ab", "a.txt", "b.txt", "c"])
_PATHS = st.lists(st.lists(_NAMES, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8)
_PIECES = st.sampled_from(["a", "b", "*", "?", "a*", "*.txt", "[ab]", "[^a]*", "ab"])
_PATTERNS = st.lists(_PIECES, min_size=1, max_size=3).map("/".join)


def _made(top: Path, paths: list[str]) -> None:
    for path in paths:
        parent = (top / path).parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue


def _all(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


@settings(max_examples=150, deadline=None)
@given(paths=_PATHS, pattern=_PATTERNS)
def test_globs_match_what_a_naive_walk_matches(tmp_path_factory: pytest.TempPathFactory, paths: list[str], pattern: str) -> None:
    """Go's rule: every path of the tree is matched whole; what is below a match isn't looked at."""
    top = tmp_path_factory.mktemp("glob")
    _made(top, paths)
    matches = [path for path in _all(top) if glob_match(pattern, path)] if "*" in pattern or "?" in pattern or "[" in pattern else [
        path for path in _all(top) if path == pattern
    ]  # fmt: skip
    wanted = sorted(
        {
            file.name if one.is_file() else str(file.relative_to(one))
            for one in (top / match for match in matches)
            for file in ([one] if one.is_file() else [path for path in one.rglob("*") if path.is_file()])
        }
    )
    try:
        found = laid_out(f"COPY {pattern} /n/", context(top))
    except DockerfileError as error:
        # Nothing matched, or matched directories bring a file and a directory of one name.
        assert not matches or "can't be copied to" in error.message
        return
    assert sorted(path.removeprefix("n/") for path, kind in found.items() if kind.startswith("file")) == wanted


@settings(max_examples=150, deadline=None)
@given(paths=_PATHS, rules=st.lists(st.tuples(st.booleans(), _PATTERNS), max_size=4), pruned=st.booleans())
def test_what_is_hidden_is_what_the_rules_hide_path_by_path(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], rules: list[tuple[bool, str]], pruned: bool
) -> None:
    top = tmp_path_factory.mktemp("ignore")
    _made(top, paths)
    rules_text = "\n".join(("!" if back else "") + pattern for back, pattern in rules)
    ignore = Ignore.parse(rules_text)
    may: Callable[[str], bool] = ignore.may_unhide_below if pruned else always
    tree = SourceTree(path=str(top), described="the build context", hides=ignore.hides, may_unhide_below=may)
    found = laid_out("COPY . /n/", tree)
    wanted = {path for path in _all(top) if not ignore.hides(path) and (top / path).is_file()}
    assert {path.removeprefix("n/") for path, kind in found.items() if kind.startswith("file")} == wanted
    directories = {path for path in _all(top) if (top / path).is_dir() and not ignore.hides(path)}
    directories |= {str(parent) for path in wanted | directories for parent in Path(path).parents if str(parent) != "."}
    assert {path.removeprefix("n/") for path, kind in found.items() if kind == "directory" and path != "n"} == directories


def test_the_order_of_entries_does_not_depend_on_the_directory(tmp_path: Path) -> None:
    names = [f"f{number}" for number in range(50)]
    lists = []
    for turn in range(2):
        top = tmp_path / str(turn)
        top.mkdir()
        random.Random(turn).shuffle(names)
        for name in names:
            (top / name).write_text(name)
        lists.append(list(laid_out("COPY . /n/", context(top))))
    assert lists[0] == lists[1]
