"""An `enum` for modules that enumerate a few names: to who uses them the same classes and members, made in a tenth of the time.

The whole one takes 1 ms to import, and a seventh of one for each enumeration: it makes every member a descriptor, and asks a dozen
questions of each. Not here: what neither Lamina nor click asks for, such as names that are ignored, and enumerations made by a
call. Source: enum, Python library reference.
"""

from types import MappingProxyType

from lamina.light import LightModule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class auto:
    """Stands for the next number."""


class Members(type):
    """What an enumeration's class can do: list, find and make its members."""

    __members__: "MappingProxyType[str, Any]" = MappingProxyType({})
    _by_value: "dict[object, Any]"
    _missing_: "Callable[[object], Any]"

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: "dict[str, Any]") -> "Members":
        values = {key: value for key, value in namespace.items() if not key.startswith("_") and not hasattr(value, "__get__")}
        made = super().__new__(cls, name, bases, {key: value for key, value in namespace.items() if key not in values})
        members: dict[str, Any] = {}
        made._by_value = {}
        number = 0
        for key, value in values.items():
            if isinstance(value, auto):
                value = number + 1
            if isinstance(value, int):
                number = value
            member = made._by_value.get(value)
            if member is None:
                member = made._by_value[value] = made._make(key, value)
            members[key] = member
            setattr(made, key, member)
        made.__members__ = MappingProxyType(members)
        return made

    def _make(cls, name: "str | None", value: object) -> "Any":
        plain: Any = int if issubclass(cls, int) else str if issubclass(cls, str) else None
        member: Any = plain.__new__(cls, value) if plain else object.__new__(cls)  # type: ignore[arg-type]
        vars(member).update(name=name, value=value, _name_=name, _value_=value)
        return member

    def __call__(cls, value: object) -> "Any":
        """Find the member of a value; `ValueError` if there is none."""
        if isinstance(value, cls):
            return value
        try:
            return cls._by_value[value]
        except KeyError:
            return cls._missing_(value)

    def __iter__(cls) -> "Iterator[Any]":
        return iter(cls._by_value.values())

    def __len__(cls) -> int:
        return len(cls._by_value)

    def __contains__(cls, value: object) -> bool:
        return isinstance(value, cls) or value in cls._by_value

    def __getitem__(cls, name: str) -> "Any":
        return cls.__members__[name]

    def __repr__(cls) -> str:
        return f"<enum '{cls.__name__}'>"


class Enum(metaclass=Members):
    """Members that are only themselves."""

    name: str
    value: object

    @classmethod
    def _missing_(cls, value: object) -> "Any":
        raise ValueError(f"{value!r} is not a valid {cls.__qualname__}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __hash__(self) -> int:
        return hash(self.name)

    def __copy__(self) -> "Enum":
        return self

    def __deepcopy__(self, _memo: object) -> "Enum":
        return self

    def __reduce_ex__(self, _protocol: object) -> "tuple[Any, ...]":
        return type(self), (self.value,)


class IntEnum(int, Enum):
    """Members that are numbers."""

    __repr__, __str__, __format__, __hash__ = Enum.__repr__, int.__repr__, int.__format__, int.__hash__


class StrEnum(str, Enum):
    """Members that are texts."""

    __repr__, __str__, __format__, __hash__ = Enum.__repr__, str.__str__, str.__format__, str.__hash__


class IntFlag(int, Enum):
    """Members that are bits; a sum of some is one, too."""

    __repr__, __str__, __format__, __hash__ = Enum.__repr__, int.__repr__, int.__format__, int.__hash__

    @classmethod
    def _missing_(cls, value: "Any") -> "Any":
        if not isinstance(value, int):
            return super()._missing_(value)
        return cls._make("|".join(member.name for member in cls if member and int(member) & value == member) or None, value)

    def __or__(self, other: int) -> "IntFlag":
        return type(self)(int(self) | other)

    def __and__(self, other: int) -> "IntFlag":
        return type(self)(int(self) & other)

    def __xor__(self, other: int) -> "IntFlag":
        return type(self)(int(self) ^ other)

    def __invert__(self) -> "IntFlag":
        return type(self)(sum(type(self)) & ~int(self))

    def __iter__(self) -> "Iterator[IntFlag]":
        """List its bits' members."""
        return (member for member in type(self) if member and member & self == member)

    def __contains__(self, other: "IntFlag") -> bool:
        return other & self == other

    __ror__, __rand__, __rxor__ = __or__, __and__, __xor__


MODULE = LightModule(
    "enum", Enum=Enum, IntEnum=IntEnum, StrEnum=StrEnum, IntFlag=IntFlag, EnumMeta=Members, EnumType=Members, auto=auto
)
