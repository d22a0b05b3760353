"""The options of `run` and `create` about confinement, and how their texts become a `Confinement`.

Its values are imported where an option asks for them: a container of which nothing is asked pays for nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamina.model.confinement import Confinement

CONFINEMENT_OPTIONS: tuple[Any, ...] = ()


def read_confinement(options: dict[str, Any]) -> "Confinement | None":
    """Take this module's options out of all; give what they ask for, None for nothing. Raises `UsageError`."""
    del options
    return None
