"""Where a plugin may import a type from: its own module, and the one that it was in at first."""

import subprocess
import sys

import pytest

from lamina.api import entries, types

MOVED = ["Change", "ChangeKind", "Entry", "EntryKind", "LayerReader", "Trees"]


@pytest.mark.parametrize("name", MOVED)
def test_what_has_moved_is_found_where_it_was(name: str):
    assert getattr(types, name) is getattr(entries, name)


def test_what_is_nowhere_is_an_error_as_ever():
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from lamina.api.types import Nothing")


def test_the_types_alone_do_not_import_the_entries():
    program = "import sys, lamina.api.types; print('lamina.api.entries' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
