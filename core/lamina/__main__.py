"""The program `lamina`, and `python -m lamina`: makes imports cheap, then runs the command line.

Half of a short command's time are imports. Two things that they cost here are not needed: the garbage collector, which looks for
cycles among modules that stay anyway, and `inspect`, which click imports for the sake of one function.
"""

import gc
import sys
from types import ModuleType
from typing import Any

COLLECT_AFTER = 100_000
"""Objects, net, before the collector looks for cycles; Python's own number is 700."""


class Later(ModuleType):
    """Stands for `inspect` until more of it is asked for than cleaning a line of help; then it is imported (3 to 6 ms)."""

    def cleandoc(self, text: str) -> str:
        """As inspect.cleandoc: what it does to a text of one line is done here."""
        cleaned: str = text.expandtabs().lstrip() if "\n" not in text else self.__getattr__("cleandoc")(text)
        return cleaned

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(__import__(self.__name__), name)


def run() -> None:
    """Run the command line and exit with its code."""
    gc.set_threshold(COLLECT_AFTER)
    sys.modules.setdefault("inspect", Later("inspect"))
    from lamina.cli.main import run as run_command_line

    run_command_line()


if __name__ == "__main__":
    run()
