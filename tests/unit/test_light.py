"""What stands for `typing` and `re` while commands run does what those do, as far as anybody asks."""

import subprocess
import sys
import typing
from typing import Any

import pytest

from lamina.light_re import MODULE as LIGHT_RE
from lamina.light_typing import MODULE as LIGHT_TYPING

BOTH = pytest.mark.parametrize("module", [LIGHT_TYPING, typing], ids=["light", "whole"])


@BOTH
def test_a_named_tuple_is_the_same(module: Any):
    class Point(module.NamedTuple):
        """A place."""

        x: int
        y: "int | Nowhere" = 2  # type: ignore[name-defined]  # noqa: F821

        @property
        def sum(self) -> int:
            return self.x + self.y

        @classmethod
        def at(cls, x: int) -> "Point":
            return cls(x=x)

        def __add__(self, other: "Point") -> "Point":
            return Point(self.x + other.x, self.y + other.y)

    one = Point.at(1)
    assert (one, one.sum, one + one, one._asdict()) == ((1, 2), 3, (2, 4), {"x": 1, "y": 2})
    assert (Point._fields, Point._field_defaults, one._replace(y=5)) == (("x", "y"), {"y": 2}, (1, 5))
    assert (Point.__name__, Point.__module__, Point.__doc__, Point.__bases__) == ("Point", __name__, "A place.", (tuple,))
    assert repr(one) == "Point(x=1, y=2)" and hash(one) == hash((1, 2))
    with pytest.raises(TypeError, match="missing 1 required"):
        Point()
    with pytest.raises(AttributeError):
        one.x = 3


@BOTH
def test_what_is_written_for_type_checkers_can_be_written(module: Any):
    first = module.TypeVar("first", bound="Later", covariant=True)

    class Table(module.TypedDict, total=False):
        row: "list[Unknown]"  # type: ignore[name-defined]  # noqa: F821

    class Shelf(module.Generic[first]):
        def get(self, _at: module.Any | None, _how: module.Literal[1, 2] | None = None) -> first | None:
            return None

    class Reader(module.Protocol):
        def read(self, _out: module.IO[bytes] | module.TextIO) -> module.NoReturn: ...

        known: module.ClassVar[int] = 1

    class Book(Shelf[int], Reader):
        def __init__(self, title: str) -> None:
            self.title = title

    @module.final
    def over(one: object) -> object:
        return one

    work = module.Callable[[str, module.Sequence["Later"]], module.Union[object, module.List[object]]]
    assert work is not None
    assert (Book("x").title, Book("x").get(None), Book.known, over(3), Table(row=[1])) == ("x", None, 1, 3, {"row": [1]})
    assert module.cast("int", 5) == 5
    assert not module.TYPE_CHECKING


def test_a_name_that_typing_has_not_is_an_error():
    for module in (LIGHT_TYPING, typing):
        with pytest.raises(AttributeError):
            _ = module.nothing


def test_every_name_that_we_import_is_there():
    """Those that `typing` hasn't would be found by type checkers; here, those that the light one might lack."""
    from pathlib import Path

    import lamina

    names = set()
    for path in Path(lamina.__file__).parent.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("from typing import "):
                names |= {name.strip() for name in line.removeprefix("from typing import ").split(",")}
    assert {"Any", "NamedTuple", "Protocol", "TYPE_CHECKING"} <= names
    assert not {name for name in names if not hasattr(LIGHT_TYPING, name)}


def test_a_pattern_is_compiled_when_it_is_first_used():
    import re

    text = r"(?P<name>[a-z]+) # letters"
    flags = LIGHT_RE.VERBOSE | LIGHT_RE.IGNORECASE | LIGHT_RE.ASCII
    assert flags == re.VERBOSE | re.IGNORECASE | re.ASCII and (LIGHT_RE.DOTALL, LIGHT_RE.MULTILINE) == (re.DOTALL, re.MULTILINE)
    light, whole = LIGHT_RE.compile(text, flags), re.compile(text, flags)
    assert light.match("Abc1")["name"] == whole.match("Abc1")["name"] == "Abc"
    assert light.sub("-", "ab 12 c") == whole.sub("-", "ab 12 c") == "- 12 -"
    assert (light.pattern, light.flags, light.groupindex) == (whole.pattern, whole.flags, whole.groupindex)
    with pytest.raises(AttributeError):
        _ = light.no_such_thing
    faulty = LIGHT_RE.compile("(")
    with pytest.raises(re.error):
        faulty.match("")
    assert LIGHT_RE.split is re.split and LIGHT_RE.error is re.error


def test_re_is_imported_with_the_first_use_and_not_before():
    program = """
import sys
from lamina import finder
finder.put_in()
from lamina.model import limits
assert "re" not in sys.modules and "typing" not in sys.modules, "too early"
print(limits._CPUS.fullmatch("0-3,7") is not None, limits._CPUS.fullmatch("x"), "re" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True None True\n", "")
