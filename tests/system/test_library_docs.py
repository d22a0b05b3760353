"""docs/library.md is a program that runs: its snippets, from top to bottom, on each storage driver, print what the page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lamina.container import ContainerHandle
from lamina.containers import ContainersAPI
from lamina.engine import Engine
from lamina.images import ImagesAPI
from lamina.usecases.networks import Networks
from lamina.usecases.system import System
from lamina.usecases.volumes import Volumes

PAGE = Path(__file__).parents[2] / "docs" / "library.md"
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXPECTED = "# → "


def snippets() -> list[str]:
    return SNIPPET.findall(PAGE.read_text(encoding="utf-8"))


def outputs_of(snippet: str) -> str:
    """What a snippet says that it prints."""
    lines = [line.strip() for line in snippet.splitlines()]
    return "\n".join(line.removeprefix(EXPECTED) for line in lines if line.startswith(EXPECTED))


def matches(printed: str, expected: str) -> bool:
    """Compare line by line; `…` stands for anything within a line."""
    pattern = ".*".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, "\n".join(line for line in printed.splitlines() if line)) is not None


@pytest.mark.parametrize("driver", ["overlay"])
def test_every_snippet_prints_what_the_page_says(driver: str, root_dir: str, own_network: None) -> None:
    end = "\x1e"
    program = f"\nprint({end!r}, flush=True)\n".join(snippets())
    environment = {
        "PATH": os.environ["PATH"],
        "LAMINA_ROOT": f"{root_dir}/store",
        "LAMINA_STORAGE_DRIVER": driver,
        "LAMINA_CONFIG": "",
        "LAMINA_NETWORK": "none",
        "TMPDIR": root_dir,
    }
    done = subprocess.run(
        [sys.executable, "-u", "-W", "error", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    for snippet, printed in zip(snippets(), done.stdout.split(end), strict=True):
        assert matches(printed, outputs_of(snippet)), f"{snippet}\nprinted:\n{printed}"


@pytest.mark.parametrize(
    ("kind", "called_on"),
    [
        (Engine, "engine"),
        (ContainersAPI, "engine.containers"),
        (ContainerHandle, ""),
        (ImagesAPI, "engine.images"),
        (System, "engine.system"),
        (Volumes, "engine.volumes"),
        (Networks, "engine.networks"),
    ],
)
def test_the_page_shows_every_public_method_by_use(kind: type, called_on: str) -> None:
    inner = {  # how use cases speak to each other
        "begin_removal", "complete", "content", "control", "creation", "entering", "fill_from_image", "finish_removal",
        "for_request", "half_made", "networking", "starter",
    }  # fmt: skip
    code = "\n".join(snippets())
    public = {name for name in vars(kind) if not name.startswith("_")} - inner
    assert [name for name in sorted(public) if not re.search(rf"{re.escape(called_on)}\.{name}\b", code)] == []
