"""The options of `run` and `create` about memory, processor, processes, devices, and how their texts become a `Limits`.

Its values are imported where an option asks for them: a container of which nothing is asked pays for nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamina.model.limits import Limits

LIMITS_OPTIONS: tuple[Any, ...] = ()


def read_limits(options: dict[str, Any]) -> "Limits | None":
    """Take this module's options out of all; give what they ask for, None for nothing. Raises `UsageError`."""
    del options
    return None
