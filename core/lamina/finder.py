"""Finds modules whose place is known, those of Lamina and what it always imports, without the search that Python makes for each.

The search asks first whether a module is built in, or frozen, or an extension by one of three names: 20 µs for each of 120 modules.
What isn't a source file in its package's directory is left to it, and so is the loading: bytecode is checked and kept as ever.
Source: importlib, Python library reference ("meta path finder", `ModuleSpec`).
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType

PACKAGES = ("lamina.", "click.", "pluggy.")
"""Of source files alone: an extension by the same name would be the one to take."""


class Finder:
    """A meta path finder."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Say where a module is; None for one that has to be searched for."""
        if path is None or not name.startswith(PACKAGES):
            return None
        file = f"{path[0]}/{name.rpartition('.')[2]}.py"
        try:
            os.stat(file)
        except OSError:
            return None
        spec = ModuleSpec(name, SourceFileLoader(name, file), origin=file)
        spec.has_location = True
        return spec


def put_in() -> None:
    """Have imports ask it first."""
    sys.meta_path.insert(0, Finder)
