"""Light modules: what stands for modules of the standard library to Lamina's own modules, click's and pluggy's, and to nobody else.

Each has what those ask for, made with less; for a name that it hasn't it gives the whole module's. The finder (`finder.py`) hands
them out, so they stand where a command runs; in tests, and for who uses Lamina as a library, the whole modules do.
"""

from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class LightModule(ModuleType):
    """A module of few things."""

    def __init__(self, name: str, **has: object) -> None:
        super().__init__(name)
        vars(self).update(has)

    def __getattr__(self, name: str) -> "Any":
        """Give what the whole module has."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(__import__(self.__name__), name)
