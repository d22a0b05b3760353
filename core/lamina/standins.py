"""Stand-ins for modules of the standard library that click, pluggy and we ourselves import for a few small functions each.

A stand-in has those functions and becomes the whole module as soon as more is asked of it, a plugin's `inspect.signature` say. So a
short command doesn't pay for it: 4 to 6 ms for `inspect` with `ast` and `dis`, 1.5 for `platform`, which `uuid` asks for one
word, and 1.5 for `gettext` with `locale`, which looks for translations that neither click nor Lamina has. For `signal` stands its
C half, where signals are plain numbers: to make enumerations of them takes 1.5 ms.
"""

import _signal  # type: ignore[import-not-found] # typeshed doesn't have it
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any


class StandIn(ModuleType):
    """A module that has some functions of its own until another is asked for."""

    def __init__(self, name: str, **functions: Any) -> None:
        super().__init__(name)
        self.__dict__.update(functions)

    def __getattr__(self, attribute: str) -> Any:
        """Become the module. A name that it has not is an `AttributeError`, as of the module itself."""
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        self.__dict__.update(vars(the_whole(self.__name__)))
        return getattr(the_whole(self.__name__), attribute)


def the_whole(name: str) -> ModuleType:
    """Import a module in earnest, whatever stands in for it."""
    if isinstance(sys.modules.get(name), StandIn):
        del sys.modules[name]
    return __import__(name)


def put_in() -> None:
    """Put them where an import looks first; a module that is there stays."""
    for name, functions in FUNCTIONS.items():
        sys.modules.setdefault(name, StandIn(name, **{function.__name__.strip("_"): function for function in functions}))
    of_signal = {name: value for name, value in vars(_signal).items() if not name.startswith("_")}
    sys.modules.setdefault("signal", StandIn("signal", **of_signal))


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


def system() -> str:
    """As platform.system, on the one system that there are containers on."""
    return "Linux"


def gettext(message: str) -> str:
    """As gettext.gettext without a translation."""
    return message


def ngettext(singular: str, plural: str, number: int) -> str:
    """As gettext.ngettext without a translation."""
    return singular if number == 1 else plural


FUNCTIONS: dict[str, tuple[Callable[..., Any], ...]] = {
    "inspect": (cleandoc, isclass, isfunction, ismethod, ismodule, isroutine, unwrap, getattr_static),
    "platform": (system,),
    "gettext": (gettext, ngettext),
}
