"""What a check is, how one is registered, and the list of all. Not here: running them (`run.py`).

A check is a plain function that takes a `Bench` and raises `Failed` if the driver doesn't keep what the check is about:

    @check("diff")
    def a_touched_file_is_no_change(bench: Bench) -> None: ...

With `params` it is one check for each of them, whose value the function gets as its second argument. With `claims` it is about
something that a driver may leave out: then a failure is one only of a driver that claims it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Any

from lamina.api.types import Behaviour, Capabilities, Fidelity

GROUPS = (
    "life cycle", "mounts", "fidelity", "copy-up", "diff", "apply", "cross-driver", "crash", "resources",
)  # fmt: skip
_MODULES = (
    "life_cycle", "processes", "mounts", "fidelity", "copy_up", "whiteouts", "renames", "diff", "commit", "apply", "hostile",
    "cross", "crash", "power", "resources", "quota",
)  # fmt: skip


class Feature(StrEnum):
    """What a driver claims by an attribute of its own in `Capabilities`."""

    NATIVE_DIFF = "native_diff"


Claim = Fidelity | Behaviour | Feature


class Failed(AssertionError):
    """The driver doesn't keep what the check is about."""


class Skipped(Exception):
    """The check can't be made here, or has no sense for this driver; the text says why."""


def require(condition: object, message: str) -> None:
    """Fail with the message unless the condition is true."""
    if not condition:
        raise Failed(message)


def same(found: object, wanted: object, what: str) -> None:
    """Fail unless both are equal."""
    if found != wanted:
        raise Failed(f"{what}: found {_shown(found)}, wanted {_shown(wanted)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 1500 else text[:1500] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: a group, a name that says what must hold, and what runs it."""

    group: str
    name: str
    about: str
    """A sentence: why it matters, or where it was seen to go wrong."""
    claim: Claim | None
    limit_s: int
    run: Callable[[Any], None]


def is_claimed(claim: Claim | None, capabilities: Capabilities) -> bool:
    """Whether a driver with these capabilities claims it; what isn't for a driver to choose is always claimed."""
    if claim is None:
        return True
    if isinstance(claim, Feature):
        return bool(getattr(capabilities, claim.value))
    return claim in (capabilities.preserves if isinstance(claim, Fidelity) else capabilities.behaves)


_checks: list[Check] = []


def check(
    group: str,
    *,
    claims: Claim | Callable[[Any], Claim | None] | None = None,
    params: Mapping[str, Any] | Sequence[str] | None = None,
    limit_s: int = 30,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a check, or with `params` one for each of them. `claims` may depend on the parameter's value."""
    if group not in GROUPS:
        raise ValueError(f"there is no group '{group}'")

    def register(function: Callable[..., None]) -> Callable[..., None]:
        name = function.__name__.replace("_", "-")
        about = " ".join((function.__doc__ or "").split())
        if params is None:
            claim = None if callable(claims) else claims
            _add(Check(group=group, name=name, about=about, claim=claim, limit_s=limit_s, run=function))
            return function
        items = params.items() if isinstance(params, Mapping) else [(value, value) for value in params]
        for label, value in items:
            claim = claims(value) if callable(claims) else claims
            run = _bound(function, value)
            _add(Check(group=group, name=f"{name}[{label}]", about=about, claim=claim, limit_s=limit_s, run=run))
        return function

    return register


def _bound(function: Callable[..., None], value: object) -> Callable[[Any], None]:
    return lambda bench: function(bench, value)


def _add(new: Check) -> None:
    if any(each.name == new.name for each in _checks):
        raise ValueError(f"there are two checks '{new.name}'")
    _checks.append(new)


def all_checks() -> list[Check]:
    """List every check, group by group."""
    for module in _MODULES:
        import_module(f"lamina.testing.checks.{module}")
    return sorted(_checks, key=lambda each: GROUPS.index(each.group))
