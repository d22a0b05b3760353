"""Start-up is a feature: what the quick commands may import, counted in a fresh interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BUDGET = {"ps": 128, "images": 128, "run": 172, "exec": 128, "diff": 125}
"""Modules in all, those of Python's own start and of click (about 95) among them. To exceed it is a decision, not an accident."""

HEAVY = {
    "ast", "asyncio", "concurrent", "difflib", "email", "hashlib", "http", "importlib.metadata", "lamina.cli.template",
    "lamina.archive.compression", "locale", "logging", "multiprocessing", "re", "rich", "selectors", "shutil", "socket",
    "socketserver", "ssl", "tarfile", "tempfile", "tomllib", "typing", "urllib", "uuid", "xml", "zipfile",
}  # fmt: skip

PROGRAM = """
import sys
from lamina import finder, standins
finder.put_in()
standins.put_in()
from lamina.cli.main import main
code = main(sys.argv[1:])
names = sorted(sys.modules)
import json
print(json.dumps(names), file=sys.stderr)
"""


def imported(root: Path, *words: str) -> set[str]:
    environment = {**os.environ, "LAMINA_CONFIG": ""}
    for _ in range(2):  # the first call in a root directory looks for the installed plugins, and remembers them
        done = subprocess.run(
            [sys.executable, "-I", "-c", PROGRAM, "--root", str(root), *words],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "words",
    [("ps",), ("images",), ("run", "-d", "nowhere", "true"), ("exec", "nowhere", "true"), ("diff", "nowhere")],
    ids=lambda words: words[0],
)
def test_a_quick_command_imports_little(words: tuple[str, ...], tmp_path: Path):
    modules = imported(tmp_path / "root", *words)
    heavy = {name for name in modules if name in HEAVY or name.split(".")[0] in HEAVY}
    assert not heavy
    assert len(modules) <= BUDGET[words[0]]


def test_no_command_is_imported_but_the_one_that_was_named(tmp_path: Path):
    modules = imported(tmp_path / "root", "ps")
    commands = {name for name in modules if name.startswith("lamina.cli.commands.")}
    assert commands == {"lamina.cli.commands.ps"}


def test_help_imports_nothing_of_the_engine(tmp_path: Path):
    modules = imported(tmp_path / "root", "--help")
    assert not {name for name in modules if name.startswith(("lamina.engine", "lamina.store", "lamina.cli.commands.", "_sqlite3"))}
