"""A `re` for modules that make patterns when they are imported, of which few commands use any: here that is when they are compiled.

So most commands don't import the whole one, 2 ms with its parser.
"""

from lamina.light import LightModule
from lamina.light.typing import Light

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = {"ASCII": 256, "IGNORECASE": 2, "MULTILINE": 8, "DOTALL": 16, "VERBOSE": 64}


class Pattern:
    """Becomes the pattern when something is asked of it."""

    def __init__(self, pattern: str, flags: int) -> None:
        self.__asked = pattern, flags

    def __getattr__(self, name: str) -> "Any":
        """Have what the pattern has."""
        if name.startswith("__"):
            raise AttributeError(name)
        import re

        pattern = re.compile(*self.__asked)
        vars(self).update({each: getattr(pattern, each) for each in dir(pattern) if not each.startswith("_")})
        return getattr(pattern, name)


def compile_later(pattern: str, flags: int = 0) -> Pattern:
    """Stand for `re.compile`; a faulty pattern is known at its first use."""
    return Pattern(pattern, flags)


MODULE = LightModule("re", compile=compile_later, Pattern=Light, Match=Light, **FLAGS)
