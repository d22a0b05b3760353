"""README.md's tour: its commands, typed in a shell one after the other, print what it says that they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def steps() -> list[tuple[str, str]]:
    """Each command with the output that stands below it."""
    lines = "".join(BLOCK.findall(README.read_text(encoding="utf-8"))).split("\n$ ")
    return [(command.removeprefix("$ "), output.strip()) for command, _, output in (line.partition("\n") for line in lines)]


def matches(printed: str, expected: str) -> bool:
    """Compare; `…` stands for anything within a line, and spaces at the ends of lines don't count."""
    printed = "\n".join(line.rstrip() for line in printed.splitlines())
    return re.fullmatch("[^\n]*".join(re.escape(part) for part in expected.split("…")), printed) is not None


def test_the_tour_prints_what_it_says(root_dir: str) -> None:
    environment = {**os.environ, "LAMINA_ROOT": f"{root_dir}/store", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    try:
        for command, expected in steps():
            done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}: {done.stderr}"
            assert matches(done.stdout, expected), f"$ {command}\n{done.stdout}"
    finally:
        subprocess.run(["sh", "-c", "lamina rm -f $(lamina ps -aq)"], env=environment, capture_output=True, check=False)
    assert len(steps()) > 10
