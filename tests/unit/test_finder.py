"""The finder gives a module all that Python's own search gives it, and leaves to that what it doesn't know."""

import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder

import pytest

import lamina
import lamina.model
from lamina.finder import Finder


@pytest.fixture(autouse=True)
def asked_first() -> Iterator[None]:
    sys.meta_path.insert(0, Finder)
    yield
    sys.meta_path.remove(Finder)


def test_a_module_is_found_as_the_search_finds_it():
    mine = Finder.find_spec("lamina.model.digest", lamina.model.__path__)
    theirs = PathFinder.find_spec("lamina.model.digest", lamina.model.__path__)
    assert mine is not None
    assert theirs is not None
    for name in ("name", "origin", "cached", "parent", "has_location", "submodule_search_locations"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert type(mine.loader) is type(theirs.loader)


def test_packages_and_what_is_not_there_are_left_to_the_search():
    assert Finder.find_spec("lamina.model", lamina.__path__) is None
    assert Finder.find_spec("lamina.nothing", lamina.__path__) is None
    assert Finder.find_spec("lamina", None) is None
    assert Finder.find_spec("json.decoder", ["/nowhere"]) is None
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'lamina\.nothing'"):
        importlib.import_module("lamina.nothing")
