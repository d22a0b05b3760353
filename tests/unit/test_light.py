"""What stands for `typing`, `re` and `enum` while commands run does what those do, as far as anybody asks."""

import copy
import enum
import json
import pickle
import sqlite3
import subprocess
import sys
import typing
from types import ModuleType
from typing import Any

import pytest

from lamina.light.enum import MODULE as LIGHT_ENUM
from lamina.light.re import MODULE as LIGHT_RE
from lamina.light.typing import MODULE as LIGHT_TYPING

BOTH = pytest.mark.parametrize("module", [LIGHT_TYPING, typing], ids=["light", "whole"])
BOTH_ENUMS = pytest.mark.parametrize("module", [LIGHT_ENUM, enum], ids=["light", "whole"])


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


@pytest.mark.parametrize("module", [LIGHT_TYPING, LIGHT_RE, LIGHT_ENUM], ids=lambda module: module.__name__)
def test_what_a_light_module_has_not_the_whole_one_gives(module: ModuleType):
    whole = {"typing": typing.get_type_hints, "re": __import__("re").purge, "enum": enum.unique}[module.__name__]
    assert getattr(module, whole.__name__) is whole
    with pytest.raises(AttributeError):
        _ = module.nothing


def test_every_name_that_we_import_is_there():
    """So that no command imports the whole one after all."""
    from pathlib import Path

    import lamina

    names = set()
    for path in Path(lamina.__file__).parent.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("from typing import "):
                names |= {name.strip() for name in line.removeprefix("from typing import ").split(",")}
    assert {"Any", "NamedTuple", "Protocol", "TYPE_CHECKING"} <= names
    assert not {name for name in names if name[0].islower() and name not in vars(LIGHT_TYPING)}


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


@BOTH_ENUMS
def test_members_of_an_enumeration_are_the_same(module: Any):
    class Kind(module.Enum):
        """What it is."""

        FILE = "file"
        DIRECTORY = ("directory", 5)
        FOLDER = ("directory", 5)
        """Another name for the same."""

        @property
        def is_file(self) -> bool:
            return self is Kind.FILE

        @classmethod
        def of(cls, text: str) -> "Kind":
            return cls(text)

    assert [each.name for each in Kind] == ["FILE", "DIRECTORY"] and len(Kind) == 2
    assert (Kind.FOLDER is Kind.DIRECTORY, Kind["FOLDER"].name, list(Kind.__members__)) == (
        True,
        "DIRECTORY",
        ["FILE", "DIRECTORY", "FOLDER"],
    )
    assert (Kind.of("file"), Kind(Kind.FILE), Kind.FILE.value, Kind.FILE.is_file) == (Kind.FILE, Kind.FILE, "file", True)
    assert (str(Kind.FILE), repr(Kind.FILE), f"{Kind.FILE}", repr(Kind)) == (
        "Kind.FILE",
        "<Kind.FILE: 'file'>",
        "Kind.FILE",
        "<enum 'Kind'>",
    )
    assert {Kind.FILE: 1}[Kind("file")] == 1 and Kind.FILE != "file" and Kind.__doc__ == "What it is."
    assert copy.deepcopy([Kind.FILE])[0] is copy.copy(Kind.FILE) is Kind.FILE and Kind.FILE in Kind
    assert isinstance(Kind.FILE, module.Enum) and isinstance(Kind, module.EnumMeta)
    with pytest.raises(ValueError, match=r"^'socket' is not a valid .*Kind$"):
        Kind("socket")
    with pytest.raises(KeyError):
        _ = Kind["SOCKET"]
    with pytest.raises(AttributeError):
        _ = Kind.SOCKET


@BOTH_ENUMS
def test_texts_of_an_enumeration_are_the_same(module: Any):
    class Status(module.StrEnum):
        RUNNING = "running"
        ENDED = "ended"

    one = Status("running")
    assert one is Status.RUNNING and one == "running" and hash(one) == hash("running") and isinstance(one, str)
    assert (str(one), f"{one:>9}", repr(one), one.upper(), [*Status]) == (
        "running",
        "  running",
        "<Status.RUNNING: 'running'>",
        "RUNNING",
        ["running", "ended"],
    )
    assert json.dumps({one: one}) == '{"running": "running"}'
    assert sqlite3.connect(":memory:").execute("SELECT ?", (one,)).fetchone() == ("running",)
    assert sorted(Status) == ["ended", "running"] and {"running": 1}[one] == 1


@BOTH_ENUMS
def test_numbers_and_bits_of_an_enumeration_are_the_same(module: Any):
    class Order(module.IntEnum):
        FIRST = module.auto()
        SECOND = module.auto()
        TENTH = 10
        NEXT = module.auto()

    class Flag(module.IntFlag):
        NONE = 0
        READ = 1
        WRITE = 2
        RUN = 1 << 20

    assert (
        [*map(int, Order)] == [1, 2, 10, 11]
        and Order.FIRST < Order.SECOND
        and str(Order.TENTH) == "10"
        and Order(2) is Order.SECOND
    )
    both = Flag.READ | Flag.WRITE
    assert (both, type(both), both & Flag.WRITE, both & ~Flag.READ, both ^ Flag.READ) == (3, Flag, 2, 2, 2)
    assert [type(each) for each in (both & Flag.READ, both & ~Flag.READ, Flag.NONE | 4, 1 | Flag.WRITE, ~both)] == [Flag] * 5
    assert (both & Flag.WRITE is Flag.WRITE, bool(Flag.NONE), bool(both & Flag.RUN), Flag.READ in both, Flag.RUN in both) == (
        True,
        False,
        False,
        True,
        False,
    )
    assert ([*both], repr(both), str(both), f"{both:x}") == ([Flag.READ, Flag.WRITE], "<Flag.READ|WRITE: 3>", "3", "3")
    assert (~both & Flag.RUN, ~both & Flag.READ) == (Flag.RUN, Flag.NONE)
    assert Flag(3) == both and hash(both) == hash(Flag(3)) and Flag(0) is Flag.NONE
    with pytest.raises(ValueError, match="is not a valid"):
        Flag("read")


@BOTH_ENUMS
def test_a_pickled_member_comes_back_as_itself(module: Any, monkeypatch: pytest.MonkeyPatch):
    made = (
        type(module.Enum)("Made", (module.Enum,), {"__module__": __name__, "ONE": 1})
        if module is LIGHT_ENUM
        else module.Enum("Made", {"ONE": 1}, module=__name__)
    )
    monkeypatch.setitem(globals(), "Made", made)
    assert pickle.loads(pickle.dumps(made.ONE)) is made.ONE


def test_our_own_enumerations_are_the_same_in_a_command():
    """Made with the light module as with the whole one: names, values, texts."""
    program = """
import sys
if "light" in sys.argv:
    from lamina import finder
    finder.put_in()
from lamina.api import types
from lamina.api.entries import ChangeKind, EntryKind
from lamina.archive.compression import Compression
from lamina.model.container import Status
from lamina.model.mount import MountFlag
own = [each for each in vars(types).values() if hasattr(each, "__members__")]
kinds = [Status, MountFlag, Compression, ChangeKind, EntryKind, *own]
print([(kind.__name__, [(each.name, each.value, str(each), repr(each)) for each in kind.__members__.values()]) for kind in kinds])
print("enum" in sys.modules, file=sys.stderr)
"""
    light, whole = (
        subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True, check=True)
        for word in ("light", "whole")
    )
    assert light.stdout == whole.stdout and "'running'" in whole.stdout
    assert (light.stderr, whole.stderr) == ("False\n", "True\n")
