"""A `typing` for modules that tell type checkers much, of which nothing is asked while they run: click's and pluggy's.

The whole one makes an object of each pair of a generic class and its argument, and compiles each annotation of a `TypedDict` and
each bound that is a text; and the first `compile` makes all classes of syntax trees: 4 ms in all. The finder has those modules, and
no others, meet this one.
"""

import typing
from types import ModuleType
from typing import Any


class TypedDict(dict[str, object]):
    """A dictionary that knows nothing of its keys."""

    def __init_subclass__(cls, **_options: bool) -> None:
        """Take any option."""


class Generic:
    """Is as general with arguments as without."""

    __slots__ = ()

    def __class_getitem__(cls, _arguments: object) -> "type[Generic]":
        """Give the class itself."""
        return cls


def type_var(name: str, *constraints: Any, bound: object = None, **options: bool) -> Any:
    """Make one without its bound."""
    return _TypeVar(name, *constraints, **options)


_TypeVar = typing.TypeVar
MODULE = ModuleType("typing")
vars(MODULE).update(vars(typing), TypedDict=TypedDict, Generic=Generic, TypeVar=type_var)
