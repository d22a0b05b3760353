"""The commands of images and of the system without a store: imports, filters, the progress bar, files that appear whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lamina.cli.files import open_output
from lamina.cli.filters import flag_filter, labels_match, parse_filters, path_pattern
from lamina.cli.progress import line_of
from lamina.errors import UsageError

PROGRAM = """
import json, sys
from lamina.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""
BUDGET = {"version": 115, "images": 240, "driver": 250, "completion": 135}
"""Modules in all; Python's own start and click are about 105 of them."""
NEVER = {
    "asyncio",
    "email",
    "http",
    "importlib.metadata",
    "lamina.cli.template",
    "lamina.archive.compression",
    "ssl",
    "tarfile",
    "tempfile",
}


def run(*words: str) -> tuple[int, set[str], str]:
    done = subprocess.run([sys.executable, "-I", "-c", PROGRAM, *words], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules), done.stdout


@pytest.mark.parametrize("words", [("version",), ("images",), ("driver", "ls"), ("completion", "bash")], ids=lambda words: words[0])
def test_a_quick_command_imports_little(words: tuple[str, ...], tmp_path: Path) -> None:
    for _ in range(2):  # the first call in a root directory looks for the installed plugins, and remembers them
        _, modules, _ = run("--root", str(tmp_path / "root"), *words)
    assert not modules & NEVER
    assert len(modules) <= BUDGET[words[0]]


def test_version_opens_no_store(tmp_path: Path) -> None:
    code, modules, said = run("--root", str(tmp_path / "root"), "version")
    assert code == 0
    assert said.startswith("Client:\n Version:")
    assert not [name for name in modules if name.startswith(("lamina.engine", "lamina.store", "sqlite3"))]
    assert not (tmp_path / "root").exists()


def test_completion_offers_commands_without_importing_them(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom lamina.cli.main import cli\n"
        "try:\n    cli.main(prog_name='lamina', standalone_mode=False)\n"
        "except SystemExit:\n    pass\n"
        "print([name for name in sys.modules if name.startswith('lamina.cli.commands.')])"
    )

    def complete(words: str, at: int) -> list[str]:
        environment = {**os.environ, "_LAMINA_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return [line for line in done.stdout.splitlines() if line]

    assert complete("lamina im", 1) == ["plain,image", "plain,images", "plain,import", "[]"]
    assert complete("lamina volume p", 2) == ["plain,prune", "[]"]
    assert complete(f"lamina --root {tmp_path}/none rmi x", 4) == ["['lamina.cli.commands.rmi']"]


def test_a_pattern_stops_at_a_slash() -> None:
    assert path_pattern("a*").fullmatch("abc")
    assert not path_pattern("a*").fullmatch("a/b")
    assert path_pattern("*/b?").fullmatch("a/bc")
    assert path_pattern("[a-c]x").fullmatch("bx")
    assert not path_pattern("[^a]x").fullmatch("ax")
    assert path_pattern("a.b\\*").fullmatch("a.b*")
    assert not path_pattern("a.b").fullmatch("axb")
    for wrong in ("[", "[]", "[z-a]"):
        with pytest.raises(UsageError):
            path_pattern(wrong)


def test_filters_are_read_once_and_unknown_ones_refused() -> None:
    filters = parse_filters(["label=a=b", "label!=c", "dangling=1"], known=("label", "label!", "dangling"))
    assert labels_match({"a": "b"}, filters)
    assert not labels_match({"a": "b", "c": ""}, filters)
    assert not labels_match({"a": "x"}, filters)
    assert flag_filter(filters, "dangling") is True
    for wrong in ("colour=red", "label", "dangling"):
        with pytest.raises(UsageError):
            parse_filters([wrong], known=("label",))


@pytest.mark.parametrize("columns", [10, 20, 40, 80, 200])
def test_the_bar_never_wraps(columns: int) -> None:
    for done in (0, 1, 500, 1000, 2000):
        assert len(line_of("loading", done, 1000, columns=columns)) < columns
        assert len(line_of("loading", done, None, columns=columns)) < columns
    assert "100%" in line_of("loading", 1000, 1000, columns=80)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), open_output(str(path)) as out:
        out.write(b"new")
        raise KeyError
    assert path.read_bytes() == b"old"
    with open_output(str(path)) as out:
        out.write(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]
