"""What a work and its contenders are. A work is declared in `catalogue.py`; its contenders are made by the modules of `works/`.

A contender is one engine's form of the work. What it does in `run` is timed by itself; all else is not.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamina_bench.report import Figures, Target

if TYPE_CHECKING:
    from lamina_bench.lab import Lab


class AbsentError(Exception):
    """An engine isn't here, or can't do this; the text says why."""


class FailedError(Exception):
    """What should have worked didn't; the text says what was run and what it said."""


class Contender:
    """One engine's form of a work. The steps are called in the order in which they stand here."""

    def __init__(self, label: str) -> None:
        self.label = label

    def set_up(self) -> None:
        """Make what all runs need, once. Raises `AbsentError` if the engine can't do the work here."""

    def before(self) -> None:
        """Make what the next run needs."""

    def run(self) -> Figures:
        """Do the work once; gives what it took."""
        raise NotImplementedError

    def after(self) -> None:
        """Take away what the last run made."""

    def tear_down(self) -> None:
        """Take away what `set_up` made; called after a failure too."""


Maker = Callable[["Lab"], Iterable["Contender | Missing"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """In a contender's place: it can't take part."""

    label: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A work: what it is called, what is done exactly, who does it, how often, and what is asked of the figures."""

    name: str
    title: str
    what: str
    contenders: Maker
    rounds: int
    targets: Sequence[Target] = field(default=())
    warm_up: int = 1
    settle: bool = False
    """Whether all that was written before a run goes to the disk first, so that nobody pays for another's writing."""
