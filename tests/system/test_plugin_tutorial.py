"""docs/plugins: what the pages build is built as they say, in a fresh environment, and does what they say."""

from pathlib import Path

import pytest
from outside import TOP, Environment
from pages import play

PAGES = TOP / "docs" / "plugins"


@pytest.fixture
def environment(tmp_path: Path, installed: Environment) -> Environment:
    """Lamina, installed, and nothing else."""
    return installed.copied(tmp_path / "venv")


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("page", "commands"), [("tutorial", 19), ("network", 9), ("volume", 5), ("wrapping", 8)])
def test_what_a_page_builds_works_as_it_says(
    page: str, commands: int, environment: Environment, tmp_path: Path, own_mounts: None
) -> None:
    assert play(PAGES / f"{page}.md", environment, tmp_path) >= commands
