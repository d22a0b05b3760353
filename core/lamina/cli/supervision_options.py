"""The options of `run` and `create` about restarts, health checks, the log, and how their texts become a `Supervision`.

Its values are imported where an option asks for them: a container of which nothing is asked pays for nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamina.model.supervision import Supervision

SUPERVISION_OPTIONS: tuple[Any, ...] = ()


def read_supervision(options: dict[str, Any]) -> "Supervision | None":
    """Take this module's options out of all; give what they ask for, None for nothing. Raises `UsageError`."""
    del options
    return None
