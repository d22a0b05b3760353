"""The options of `run` and `create` about namespaces, ulimits, sysctls, groups, and how their texts become a `Isolation`.

Its values are imported where an option asks for them: a container of which nothing is asked pays for nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamina.model.isolation import Isolation

ISOLATION_OPTIONS: tuple[Any, ...] = ()


def read_isolation(options: dict[str, Any]) -> "Isolation | None":
    """Take this module's options out of all; give what they ask for, None for nothing. Raises `UsageError`."""
    del options
    return None
