"""Stand-ins for modules of the standard library that click, pluggy and we ourselves import for a few small functions each.

A stand-in has those functions, and what the module's C half has, and becomes the whole module as soon as more is asked of it, a
plugin's `inspect.signature` say. So a short command doesn't pay for it: 4 to 6 ms for `inspect` with `ast` and `dis`; 1.5 for
`gettext` with `locale`, which looks for translations that neither click nor Lamina has, and for `signal`, which makes enumerations
of plain numbers; 1 for `datetime`, which is written once more in Python; half of one for `threading` and for `sqlite3`.
"""

import _thread
import os
import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

TYPE_CHECKING = False  # as typing's, which a monitor does without
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
else:
    Any = object


class StandIn(ModuleType):
    """A module that has some functions of its own, and a C half's, until another is asked for."""

    def __init__(self, name: str, half: str = "", **functions: Any) -> None:
        super().__init__(name)
        self.__dict__.update(functions)
        self.__half = half

    def __getattr__(self, attribute: str) -> Any:
        """Give what the C half has, or become the module; what that has not is an `AttributeError` as ever."""
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        if half := self.__half:
            self.__half = ""
            self.__dict__.update({name: value for name, value in vars(__import__(half)).items() if not name.startswith("_")})
            return getattr(self, attribute)
        self.__dict__.update(vars(the_whole(self.__name__)))
        return getattr(the_whole(self.__name__), attribute)

    def __dir__(self) -> list[str]:
        """List what the module has."""
        return dir(the_whole(self.__name__))


def the_whole(name: str) -> ModuleType:
    """Import a module in earnest, whatever stands in for it."""
    if isinstance(sys.modules.get(name), StandIn):
        sys.modules.pop(name, None)  # another thread may have
    return __import__(name)


def put_in() -> None:
    """Put them where an import looks first; a module that is there stays."""
    for name in {**FUNCTIONS, **HALVES}:
        functions = {function.__name__.strip("_"): function for function in FUNCTIONS.get(name, ())}
        stand_in = StandIn(name, HALVES.get(name, ""), **functions)
        if name in PACKAGES:
            stand_in.__path__ = [f"{os.path.dirname(os.__file__)}/{name}"]
        sys.modules.setdefault(name, stand_in)


def cleandoc(text: str) -> str:
    """As inspect.cleandoc; of one line only the blanks and tabs are of interest."""
    cleaned: str = the_whole("inspect").cleandoc(text) if "\n" in text else text.expandtabs().lstrip()
    return cleaned


def isclass(value: object) -> bool:
    """As inspect.isclass."""
    return isinstance(value, type)


def isfunction(value: object) -> bool:
    """As inspect.isfunction."""
    return isinstance(value, FunctionType)


def ismethod(value: object) -> bool:
    """As inspect.ismethod."""
    return isinstance(value, MethodType)


def ismodule(value: object) -> bool:
    """As inspect.ismodule."""
    return isinstance(value, ModuleType)


def isroutine(value: object) -> bool:
    """As inspect.isroutine; a rarer descriptor is left to it."""
    if isinstance(value, FunctionType | MethodType | BuiltinFunctionType):
        return True
    answer: bool = hasattr(type(value), "__get__") and the_whole("inspect").isroutine(value)
    return answer


def unwrap(function: Any) -> Any:
    """As inspect.unwrap; what is wrapped is left to it."""
    return the_whole("inspect").unwrap(function) if hasattr(function, "__wrapped__") else function


def getattr_static(value: object, name: str, *default: object) -> Any:
    """As inspect.getattr_static: for a module, and for what an instance's class has; the rest is left to it."""
    if type(value) is ModuleType and name in value.__dict__:
        return value.__dict__[name]
    if not isinstance(value, type) and name not in getattr(value, "__dict__", ()):
        for each in type(value).__mro__:
            if name in each.__dict__:
                return each.__dict__[name]
    return the_whole("inspect").getattr_static(value, name, *default)


def gettext(message: str) -> str:
    """As gettext.gettext without a translation."""
    return message


def ngettext(singular: str, plural: str, number: int) -> str:
    """As gettext.ngettext without a translation."""
    return singular if number == 1 else plural


FUNCTIONS: "dict[str, tuple[Callable[..., Any], ...]]" = {
    "inspect": (cleandoc, isclass, isfunction, ismethod, ismodule, isroutine, unwrap, getattr_static),
    "gettext": (gettext, ngettext),
    "threading": (_thread._local,),
}
HALVES = {"signal": "_signal", "datetime": "_datetime", "sqlite3": "_sqlite3"}
PACKAGES = ("sqlite3",)
"""Those that have submodules, which are found as ever."""
