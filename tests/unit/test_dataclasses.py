"""Our dataclasses are the standard library's but for when their methods are made: the same classes, written by both."""

import copy
import dataclasses as standard
import pickle
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

import pytest

from lamina import dataclasses as ours


def classes(of: ModuleType) -> Any:
    """One of each kind, by the standard library or by ours."""

    class Made:
        @of.dataclass(frozen=True, slots=True, kw_only=True)
        class Point:
            """A point."""

            KIND: ClassVar[str] = "flat"
            x: int
            y: int = 2
            labels: Mapping[str, str] = of.field(default_factory=dict)
            secret: str = of.field(default="", repr=False)

            def moved(self, by: int) -> Any:
                return of.replace(self, x=self.x + by)

        @of.dataclass(slots=True, kw_only=True)
        class Counter:
            """A counter."""

            count: int = 0
            seen: list[int] = of.field(default_factory=list)

            def __post_init__(self) -> None:
                self.count += 1

        @of.dataclass(frozen=True, slots=True)
        class Pair:
            """A pair, by place."""

            left: int
            right: int = 0

    @of.dataclass(frozen=True, slots=True, kw_only=True)
    class Deeper(Made.Point):
        """A point with a depth, that is at 5 unless told."""

        z: int
        y: int = 5

    Made.Deeper = Deeper  # type: ignore[attr-defined]
    return Made


@pytest.fixture(params=[standard, ours], ids=["standard", "ours"])
def made(request: pytest.FixtureRequest) -> Any:
    return classes(request.param)


def test_values_are_equal_by_their_fields_and_hash_alike(made: Any):
    assert made.Pair(1) == made.Pair(1, 0) != made.Pair(1, right=1)
    assert {made.Pair(1), made.Pair(1)} == {made.Pair(1)}
    assert made.Pair(1) != made.Deeper(x=1, z=0)
    with pytest.raises(TypeError, match="unhashable"):
        hash(made.Counter())


def test_defaults_are_made_anew_for_each_object(made: Any):
    one, other = made.Counter(), made.Counter()
    one.seen.append(1)
    assert (one.count, other.seen) == (1, [])
    assert made.Point(x=1).labels == {}


def test_repr_shows_what_it_may(made: Any):
    assert repr(made.Point(x=1, secret="s")).endswith("Point(x=1, y=2, labels={})")


def test_a_frozen_value_and_its_copies_stay_as_they_are(made: Any):
    point = made.Point(x=1, labels={"a": "b"})
    for value in (point, copy.copy(point), copy.deepcopy(point), point.moved(0)):
        assert value == point
        with pytest.raises(standard.FrozenInstanceError):
            value.x = 2
        with pytest.raises(standard.FrozenInstanceError):
            del value.x
    assert point.moved(2).x == 3
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(point, "new", 1)  # it has slots


def test_what_does_not_fit_is_refused(made: Any):
    for values in ({}, {"x": 1, "w": 1}):
        with pytest.raises(TypeError):
            made.Point(**values)
    for words in ((1, 2, 3), (), (1,)):
        with pytest.raises(TypeError):
            made.Pair(*words, **({"left": 1} if len(words) == 1 else {}))
    with pytest.raises(TypeError):
        made.Point(1)
    with pytest.raises(TypeError):
        made.Pair(left=1, up=2)  # as many as it has fields
    with pytest.raises(TypeError):
        standard.replace(made.Pair(1), up=1)


def test_a_class_below_adds_fields_and_changes_defaults(made: Any):
    assert (made.Deeper(x=1, z=2).y, made.Deeper(x=1, z=2).moved(1)) == (5, made.Deeper(x=2, z=2))
    assert [each.name for each in standard.fields(made.Deeper)] == ["x", "y", "labels", "secret", "z"]


def test_the_standard_librarys_are_known(made: Any):
    assert ours.replace(made.Pair(1), right=2) == made.Pair(1, 2)
    assert [each.name for each in ours.fields(made.Pair)] == ["left", "right"]


def test_the_standard_library_knows_them(made: Any):
    assert standard.is_dataclass(made.Point)
    assert standard.replace(made.Point(x=1), y=9) == made.Point(x=1, y=9)
    assert standard.asdict(made.Deeper(x=1, z=0)) == {"x": 1, "y": 5, "labels": {}, "secret": "", "z": 0}
    match made.Pair(3, 4):
        case made.Pair(left, right):
            assert (left, right) == (3, 4)


@ours.dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a pickle finds again by its name."""

    text: str


def test_a_pickle_comes_back():
    assert pickle.loads(pickle.dumps(Sent(text="x"))) == Sent(text="x")
