"""docs/plugins/reference.md is what the source makes of it, and leaves no hook and no type out."""

import re
from pathlib import Path

from lamina.api import hookspecs, types
from lamina.api.reference import reference

PAGE = (Path(__file__).parents[2] / "docs/plugins/reference.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_source_makes() -> None:
    assert reference() == PAGE, "make it anew: python -m lamina.api.reference > docs/plugins/reference.md"


def test_every_hook_and_every_type_has_a_section() -> None:
    sections = set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE))
    hooks = {name for name, value in vars(hookspecs).items() if hasattr(value, "lamina_spec")}
    kinds = {name for name, value in vars(types).items() if isinstance(value, type) and value.__module__ == types.__name__}
    assert len(hooks) > 15
    assert hooks | kinds <= sections


def test_every_argument_of_a_hook_is_in_its_signature() -> None:
    signatures = dict(re.findall(r"^def (\w+)\((.*)\) -> ", PAGE, re.MULTILINE))
    for name, value in vars(hookspecs).items():
        if hasattr(value, "lamina_spec"):
            arguments = value.__code__.co_varnames[: value.__code__.co_argcount]
            assert re.findall(r"(\w+): ", signatures[name]) == list(arguments)
