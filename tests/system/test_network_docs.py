"""docs/networks.md: its commands, typed in a shell one after the other on a host of their own, print what the page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def steps() -> list[tuple[str, str]]:
    """Each command with the output that stands below it."""
    lines = "".join(BLOCK.findall(PAGE.read_text(encoding="utf-8"))).split("\n$ ")
    return [(command.removeprefix("$ "), output.strip()) for command, _, output in (line.partition("\n") for line in lines)]


def matches(printed: str, expected: str) -> bool:
    """Compare; `…` stands for anything within a line, and a line with nothing else for anything."""
    pattern = "[^\n]*".join(re.escape(part) for part in expected.split("…"))
    return expected == "…" or re.fullmatch(pattern, printed.strip()) is not None


def test_the_commands_print_what_the_page_says(root_dir: str, own_network: None) -> None:
    environment = {
        **os.environ, "LAMINA_ROOT": f"{root_dir}/store", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LAMINA_NETWORK": "bridge",
    }  # fmt: skip
    try:
        for command, expected in steps():
            done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, f"{command}: {done.stderr}"
            assert matches(done.stdout, expected), f"$ {command}\n{done.stdout}"
    finally:
        subprocess.run(["sh", "-c", "lamina rm -f $(lamina ps -aq)"], env=environment, capture_output=True, check=False)
    assert len(steps()) > 10
