"""The finder gives a module all that Python's own search gives it, and leaves to that what it doesn't know."""

import importlib
import marshal
import os
import py_compile
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import cache_from_source, module_from_spec
from pathlib import Path

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
    assert isinstance(mine.loader, SourceFileLoader)
    assert mine.loader.is_package("lamina.model.digest") is False
    assert mine.loader.get_source("lamina.model.digest") == Path(str(mine.origin)).read_text(encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which `lamina.sample` is looked for, with its bytecode of now."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    source = tmp_path / "sample.py"
    source.write_text("VALUE = 1\n")
    os.utime(source, (1_000_000_000, 1_000_000_000))
    assert value(tmp_path) == 1
    assert bytecode(tmp_path).exists(), "Python hasn't kept the bytecode"
    return tmp_path


def bytecode(package: Path) -> Path:
    return Path(cache_from_source(str(package / "sample.py")))


def value(package: Path) -> int:
    spec = Finder.find_spec("lamina.sample", [str(package)])
    assert spec is not None
    module = module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    assert module.__file__ == str(package / "sample.py")
    found: int = module.VALUE
    return found


def test_bytecode_is_taken_as_it_lies(package: Path):
    old = bytecode(package).read_bytes()
    code = marshal.dumps(compile("VALUE = 5", "sample.py", "exec"))
    bytecode(package).write_bytes(old[:16] + code)
    assert value(package) == 5


@pytest.mark.parametrize("what", ["newer", "larger", "cut", "another Python's", "checked by hash", "gone", "huge"])
def test_bytecode_that_is_not_the_sources_is_made_anew(package: Path, what: str):
    source, compiled = package / "sample.py", bytecode(package)
    content = compiled.read_bytes()
    if what in {"newer", "larger"}:
        source.write_text("VALUE = 2\n" if what == "newer" else "VALUE = 2  \n")
        if what == "larger":
            os.utime(source, (1_000_000_000, 1_000_000_000))
    elif what == "cut":
        compiled.write_bytes(content[:9])
    elif what == "another Python's":
        compiled.write_bytes(b"\0\0\r\n" + content[4:])
    elif what == "checked by hash":
        py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        source.write_text("VALUE = 2\n")
    elif what == "gone":
        compiled.unlink()
    else:
        source.write_text(f"TEXT = {'x' * 200_000!r}\nVALUE = 2\n")
        py_compile.compile(str(source))
    assert value(package) == (1 if what in {"cut", "another Python's", "gone"} else 2)
    assert value(package) == (1 if what in {"cut", "another Python's", "gone"} else 2), "the second time"
    assert compiled.exists()


@pytest.mark.parametrize("option", [["-O"], ["-X", "pycache_prefix=/nowhere"]], ids=lambda words: words[0])
def test_where_bytecode_is_made_otherwise_the_search_is_not_replaced(option: list[str]):
    program = "import sys; from lamina import finder; finder.put_in(); print(finder.Finder in sys.meta_path)"
    done = subprocess.run([sys.executable, *option, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_packages_and_what_is_not_there_are_left_to_the_search():
    assert Finder.find_spec("lamina.model", lamina.__path__) is None
    assert Finder.find_spec("lamina.nothing", lamina.__path__) is None
    assert Finder.find_spec("lamina", None) is None
    assert Finder.find_spec("json.decoder", ["/nowhere"]) is None
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'lamina\.nothing'"):
        importlib.import_module("lamina.nothing")


def test_others_tell_type_checkers_nothing_and_who_asks_for_typing_has_the_whole():
    program = """
import sys
from lamina import finder
finder.put_in()
compiled = []
sys.addaudithook(lambda event, arguments: event == "compile" and compiled.append(arguments[0]))
import click, pluggy, click.types
assert not [text for text in compiled if not text.startswith(b"lambda _cls")], compiled  # collections.namedtuple's
assert not hasattr(click.types.ParamTypeInfoDict, "__required_keys__")
import typing
T = typing.TypeVar("T", bound="int")
class Table(typing.TypedDict, typing.Generic[T]):
    row: "list[T]"
class Level(click.ParamType[int]):
    name = "level"
    def convert(self, value, param, ctx):
        return int(value)
assert typing.get_type_hints(Table) == {"row": list[T]} and T.__bound__ == typing.ForwardRef("int")
print(click.Option(["--level"], type=Level()).type.convert("3", None, None), pluggy.PluginManager("x").project_name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 x\n", "")
