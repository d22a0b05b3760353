"""`dataclass`, `field`, `fields` and `replace` as the standard library's, but without a compiler at import.

The standard library writes each class's methods as source text and compiles it: half a millisecond for each class, a quarter of
what a short command takes. Here the methods go over the fields' names. A class made here counts as a dataclass everywhere, and the
standard library's functions work with it. Making an object takes about three times as long, so what is made by the thousand (an
archive's entries) keeps the standard library's. Source: dataclasses, Python library reference; to mypy these are those.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass", "field", "fields", "replace"]

if TYPE_CHECKING:
    from dataclasses import dataclass, field, fields, replace
else:
    _NONE = object()

    class field:
        """A field's default, or the function that makes a new one for each object; and whether `repr` may show it."""

        __slots__ = ("default", "default_factory", "kw_only", "name", "repr", "type")

        def __init__(self, *, default: Any = _NONE, default_factory: Any = _NONE, repr: bool = True) -> None:  # noqa: A002
            self.default = default
            self.default_factory = default_factory
            self.repr = repr

        def value(self, owner: type) -> Any:
            """Give the default; `TypeError` if there is none."""
            if self.default is not _NONE:
                return self.default
            if self.default_factory is _NONE:
                raise TypeError(f"{owner.__name__}() misses '{self.name}'")
            return self.default_factory()

        def standard(self) -> Any:
            """Make the standard library's field of it."""
            import dataclasses

            default = dataclasses.MISSING if self.default is _NONE else self.default
            factory = dataclasses.MISSING if self.default_factory is _NONE else self.default_factory
            return dataclasses.field(default=default, default_factory=factory, repr=self.repr, kw_only=self.kw_only)

    def fields(class_or_value: Any) -> tuple[field, ...]:
        """List the fields, in their order."""
        if hasattr(class_or_value, "__fields__"):
            return class_or_value.__fields__
        import dataclasses  # one of the standard library's

        return dataclasses.fields(class_or_value)

    def replace(value: Any, **changes: Any) -> Any:
        """Give a copy with some fields changed."""
        return type(value)(**{each.name: getattr(value, each.name) for each in fields(value)} | changes)

    def dataclass(*, frozen: bool = False, slots: bool = True, kw_only: bool = False, eq: bool = True) -> Callable[[type], type]:
        """Make a dataclass of a class. `slots` is there to be read: it always has them."""

        def make(cls: type) -> type:
            inherited = {each.name: each for base in cls.__mro__[-2:0:-1] for each in getattr(base, "__fields__", ())}
            own = {}
            body = dict(vars(cls))
            body.pop("__dict__", None)
            body.pop("__weakref__", None)
            for name, annotation in body.get("__annotations__", {}).items():
                if not _is_of_class(annotation):
                    default = body.pop(name, _NONE)
                    own[name] = each = default if isinstance(default, field) else field(default=default)
                    each.name, each.type, each.kw_only = name, annotation, kw_only
            every = inherited | own
            body |= {
                "__slots__": tuple(name for name in own if name not in inherited),
                "__fields__": tuple(every.values()),
                "__field_names__": frozenset(every),
                "__match_args__": tuple(name for name, each in every.items() if not each.kw_only),
                "__dataclass_fields__": _STANDARD_FIELDS,
            }
            if frozen:
                methods = {"__init__": _init_frozen, "__setattr__": _refuse, "__delattr__": _refuse, "__setstate__": _set_state}
            else:
                methods = {"__init__": _init}
            methods["__repr__"] = _repr
            if eq:
                methods |= {"__eq__": _eq, "__hash__": _hash if frozen else None}
            made = type(cls)(cls.__name__, cls.__bases__, {**methods, **body})
            made.__qualname__ = cls.__qualname__
            return made

        return make

    def _is_of_class(annotation: object) -> bool:
        if isinstance(annotation, str):
            return "ClassVar" in annotation
        return type(annotation).__module__ == "typing" and "ClassVar" in str(annotation)

    def _names(value: Any) -> Iterator[str]:
        return (each.name for each in value.__fields__)

    def _init(self: Any, *positional: Any, **given: Any) -> None:
        _fill(self, setattr, positional, given)

    def _init_frozen(self: Any, *positional: Any, **given: Any) -> None:
        _fill(self, object.__setattr__, positional, given)

    def _fill(self: Any, put: Callable[[Any, str, Any], None], positional: tuple[Any, ...], given: dict[str, Any]) -> None:
        if positional:
            names = self.__match_args__[: len(positional)]
            if len(names) < len(positional) or not given.keys().isdisjoint(names):
                raise TypeError(f"{type(self).__name__}() got too many values")
            given |= zip(names, positional, strict=True)
        if given.keys() != self.__field_names__:
            unknown = given.keys() - self.__field_names__
            if unknown:
                raise TypeError(f"{type(self).__name__}() has no field '{unknown.pop()}'")
            given = {each.name: each.value(type(self)) for each in self.__fields__ if each.name not in given} | given
        for name, value in given.items():
            put(self, name, value)
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    def _refuse(self: Any, name: str, *_value: Any) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to or delete field '{name}'")

    def _set_state(self: Any, state: tuple[None, dict[str, Any]]) -> None:
        for name, value in state[1].items():  # copy and pickle would set them
            object.__setattr__(self, name, value)

    def _repr(self: Any) -> str:
        shown = (each.name for each in self.__fields__ if each.repr)
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def _eq(self: Any, other: object) -> Any:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _names(self))

    def _hash(self: Any) -> int:
        return hash(tuple(getattr(self, name) for name in _names(self)))

    class _StandardFields:
        """By this the standard library knows a dataclass; made when it first looks."""

        def __get__(self, _value: object, owner: type) -> dict[str, Any]:
            import dataclasses

            pattern = dataclasses.make_dataclass(
                owner.__name__, [(each.name, each.type, each.standard()) for each in owner.__fields__]
            )
            owner.__dataclass_fields__ = pattern.__dataclass_fields__
            return owner.__dataclass_fields__

    _STANDARD_FIELDS = _StandardFields()
