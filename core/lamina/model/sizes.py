"""Sizes as people write them."""

import re

from lamina.errors import UsageError

_SIZE = r"(?ai)(\d+(?:\.\d*)?|\.\d+)(?: ?(?:([kmgtp])(?:i?b)?|b))?"


def parse_size(text: str) -> int:
    """Read a size in bytes: a number and, in powers of 1024, k, m, g, t or p, also as kb or kib; 1.5g is allowed.

    Raises `UsageError`.
    """
    match = re.fullmatch(_SIZE, text)
    if not match:
        raise UsageError(f"invalid size '{text}'", hint="give a number with an optional unit b, k, m, g, t or p, as in 64m")
    number, unit = match.groups()
    factor = 1024 ** ("kmgtp".index(unit.lower()) + 1) if unit else 1
    whole, _, part = number.partition(".")
    if len(number) > 40 or int(whole or 0) * factor >= 1 << 63:
        raise UsageError(f"invalid size '{text}': more than 8 EiB")
    return int(whole or 0) * factor + (int(part) * factor // 10 ** len(part) if part else 0)
