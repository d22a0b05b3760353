"""What a probe is: one question to a container's file system, with why it matters and what a plain file system answers.

Answers are short texts of a small vocabulary, so that two are the same exactly when the behaviour is. An OSError that a probe lets
through is an answer too: its name (`EXDEV`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamina.compare.lab import Lab

MODULES = (
    "identity", "descriptors", "copy_up", "renames", "links", "names", "attributes", "special", "directories", "data"
)  # fmt: skip
"""In the order in which a reader meets them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question."""

    id: str
    group: str
    title: str
    why: str
    """A sentence: why the answer matters, and to whom."""
    plain: str
    """What a plain directory on ext4 answers."""
    ask: "Callable[[Lab], str]"
    is_alone: bool
    """Whether it needs a container of its own: it restarts it, or measures its layer."""


_found: dict[str, Probe] = {}


def outside(title: str, *, why: str, plain: str, is_alone: bool = True) -> "Callable[[Callable[[Lab], str]], Callable[[Lab], str]]":
    """Make a probe of a function that gets the lab: it may run functions in the container, restart it, look at its layer."""

    def register(function: "Callable[[Lab], str]") -> "Callable[[Lab], str]":
        group = function.__module__.rpartition(".")[2].replace("_", "-")
        name = function.__name__.replace("_", "-")
        _found[name] = Probe(id=name, group=group, title=title, why=why, plain=plain, ask=function, is_alone=is_alone)
        return function

    return register


def inside(
    title: str, *, why: str, plain: str, user: str = "", privileged: bool = False
) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Make a probe of a function that runs in the container, where the known files are.

    As root with a container's usual capabilities, as `user`, or `privileged`: with all that Lamina itself has.
    """

    def register(function: Callable[[], str]) -> Callable[[], str]:
        def ask(lab: "Lab") -> str:
            return str(lab.inside(function, user=user, privileged=privileged))

        ask.__module__, ask.__name__ = function.__module__, function.__name__
        outside(title, why=why, plain=plain, is_alone=False)(ask)
        return function

    return register


def catalogue() -> tuple[Probe, ...]:
    """List every probe, group by group."""
    for module in MODULES:
        import_module(f"lamina.compare.probes.{module}")
    order = [module.replace("_", "-") for module in MODULES]
    return tuple(sorted(_found.values(), key=lambda probe: order.index(probe.group)))  # stable: as they stand in their file
