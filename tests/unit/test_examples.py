"""The examples are what they are for: packages of their own, that import only what anyone's plugin may."""

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
EXAMPLES = sorted((TOP / "examples").glob("lamina-*"))
TEMPLATES = sorted((TOP / "core/lamina/templates/driver").rglob("*.py.template"))
MAY = ("lamina.api", "lamina.errors", "lamina.linux", "lamina.model", "lamina.archive")


def imports(source: str) -> set[str]:
    """The modules of lamina that a source imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.split(".")[0] == "lamina"}


def test_there_are_examples_and_templates() -> None:
    assert len(EXAMPLES) >= 2
    assert len(TEMPLATES) >= 3


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_imports_only_what_a_third_party_may(example: Path) -> None:
    for path in example.rglob("*.py"):
        may = (*MAY, "lamina.testing") if "tests" in path.relative_to(example).parts else MAY
        wrong = [name for name in imports(path.read_text(encoding="utf-8")) if not name.startswith(may)]
        assert wrong == [], path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_has_all_that_a_package_needs(example: Path) -> None:
    project = (example / "pyproject.toml").read_text(encoding="utf-8")
    assert (example / "README.md").is_file()
    assert list((example / "tests").glob("test_*.py"))
    assert re.search(r"^\[project\.entry-points\.lamina\]\n\"storage\.[a-z-]+\" = ", project, re.MULTILINE)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_imports_only_what_a_third_party_may(template: Path) -> None:
    source = template.read_text(encoding="utf-8").replace("{{module}}", "lamina_x").replace("{{class}}", "XDriver")
    may = (*MAY, "lamina.testing") if template.parent.name == "tests" else MAY
    assert [name for name in imports(source) if not name.startswith(may)] == []
