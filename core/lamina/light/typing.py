"""A `typing` for modules that tell type checkers much, of which nothing is asked while a command runs.

The whole one takes 3 ms to import; then it makes an object of each pair of a generic class and its argument, and compiles each
annotation of a `TypedDict` and each bound that is a text; and the first `compile` makes all classes of syntax trees: 4 ms more.
Here a name is a class that is the same with arguments as without.
"""

from lamina.light import LightModule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Light:
    """Is as general with arguments as without, and a base class that adds nothing."""

    __slots__ = ()

    def __class_getitem__(cls, _arguments: object) -> "type[Light]":
        """Give the class itself."""
        return cls


class TypedDict(dict[str, object]):
    """A dictionary that knows nothing of its keys."""

    def __init_subclass__(cls, **_options: bool) -> None:
        """Take any option."""


class _Fields(type):
    """Makes named tuples of classes with annotations, and leaves out a `Generic` beside."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: "dict[str, Any]") -> type:
        if not bases:
            return super().__new__(cls, name, bases, namespace)
        from collections import namedtuple

        fields = [*type(name, (), dict(namespace)).__annotations__]  # also where these are made when they are asked for
        defaults = [namespace.pop(field) for field in fields if field in namespace]
        made = namedtuple(name, fields, defaults=defaults, module=namespace["__module__"])  # type: ignore[misc]
        for key, value in namespace.items():
            if key not in {"__annotations__", "__module__", "__qualname__"}:
                setattr(made, key, value)
        return made


class NamedTuple(metaclass=_Fields):
    """A tuple with names for its fields, and methods."""


def cast(_type: object, value: object) -> object:
    """Give the value."""
    return value


def decorated(value: object) -> object:
    """Give what is decorated."""
    return value


class Module(LightModule):
    """Has a light class for the name of every other class."""

    def __getattr__(self, name: str) -> "Any":
        """Make it, once."""
        if not name[:1].isupper():
            return super().__getattr__(name)
        made = type(name, (Light,), {"__slots__": (), "__module__": "typing"})
        setattr(self, name, made)
        return made


def type_var(name: str, *_constraints: object, **_options: object) -> type:
    """Make a class that stands for any."""
    return type(name, (), {})


MODULE = Module(
    "typing", TYPE_CHECKING=False, NamedTuple=NamedTuple, TypedDict=TypedDict, TypeVar=type_var, ParamSpec=type_var, cast=cast,
    overload=decorated, final=decorated, runtime_checkable=decorated,
)  # fmt: skip
