"""docs/migrate.md: its commands, typed in a shell one after the other, print what it says that they print."""

import os
import subprocess
import sys
from pathlib import Path

from test_readme_tour import BLOCK, matches

PAGE = Path(__file__).parents[2] / "docs" / "migrate.md"
ARCHIVE = Path(__file__).parents[1] / "data" / "docker-overlay2.tar.gz"


def test_the_page_prints_what_it_says(root_dir: str, own_mounts: None) -> None:
    subprocess.run(
        ["tar", "-xzp", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-f", str(ARCHIVE), "-C", root_dir], check=True
    )
    environment = {**os.environ, "LAMINA_ROOT": f"{root_dir}/store", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    lines = "".join(BLOCK.findall(PAGE.read_text(encoding="utf-8"))).split("\n$ ")
    assert len(lines) > 8
    try:
        for line in lines:
            command, _, expected = line.removeprefix("$ ").partition("\n")
            typed = command.replace("/var/lib/docker", f"{root_dir}/docker")
            done = subprocess.run(["sh", "-c", typed], env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}: {done.stderr}"
            assert matches(done.stdout, expected.strip()), f"$ {command}\n{done.stdout}"
    finally:
        subprocess.run(["sh", "-c", "lamina rm -f $(lamina ps -aq)"], env=environment, capture_output=True, check=False)
