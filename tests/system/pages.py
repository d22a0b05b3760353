"""A page of the documentation as a session: its files are written, its commands typed, and what they print compared.

    `place/file.py`:            a line that ends in a file's name and a colon, before a block: the block is that file from now on
    ```console                  lines with `$ ` are typed, the others are what is printed; `…` stands for anything, also for lines

Everything runs in one directory, in a fresh environment with lamina, on a store of its own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from outside import Environment

_BLOCK = re.compile(r"(?:^[^\n]*`(?P<file>[\w./-]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


def play(page: Path, environment: Environment, place: Path) -> int:
    """Play a page in the directory `place`; give how many commands were typed. Fails on one that doesn't do what the page says."""
    _make_pip(environment)
    work = place / "work"
    work.mkdir()
    typed = 0
    for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["file"]:
            target = work / block["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block["text"], encoding="utf-8")
        elif block["kind"] == "console":
            for command, expected in _commands(block["text"]):
                _type(command, expected, environment, work, place)
                typed += 1
    return typed


def _commands(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]


def _type(command: str, expected: str, environment: Environment, work: Path, place: Path) -> None:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "LAMINA", "PYTEST"))
    }
    clean |= {
        "PATH": f"{environment.place}/bin:{os.environ['PATH']}", "LAMINA_ROOT": f"{place}/store", "LAMINA_CONFIG": "",
        "LAMINA_NETWORK": "none",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", command], cwd=work, env=clean, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    printed = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    pattern = ".*".join(re.escape(part) for part in expected.split("…"))
    assert re.fullmatch(pattern, printed, re.DOTALL), f"$ {command}\nprinted:\n{printed}\nand not:\n{expected}"


def _make_pip(environment: Environment) -> None:
    """Give the environment a `pip`: ours, working there."""
    script = environment.place / "bin" / "pip"
    script.write_text(f'#!/bin/sh\nPIP_QUIET=1 exec {sys.executable} -m pip --python {environment.place} "$@"\n')
    script.chmod(0o755)
