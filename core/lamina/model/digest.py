"""Digests, the names of content (OCI image-spec, descriptor.md), and chain ids (config.md). Not the reading of any content."""

import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Self

from lamina.errors import UsageError

if TYPE_CHECKING:
    import hashlib

_HEX_DIGITS = {"sha256": 64, "sha512": 128}
_GRAMMAR = r"(sha256|sha512):([a-f0-9]+)"


class Digest(str):
    """`ALGORITHM:HEX`, checked when it is made: lower case, the algorithm's full length, nothing around it.

    It is a str so that it goes into SQL, JSON and paths as it is.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        match = re.fullmatch(_GRAMMAR, text)
        if not match:
            raise UsageError(f"not a digest: {text[:160]!r}", hint="a digest is sha256: and 64 lower-case hexadecimal digits")
        if len(match[2]) != _HEX_DIGITS[match[1]]:
            raise UsageError(f"not a digest: {text[:160]!r} has {len(match[2])} digits, {match[1]} has {_HEX_DIGITS[match[1]]}")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Compute the sha256 digest of a few bytes in memory."""
        return cls("sha256:" + _lean_sha256()(content).hexdigest())

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The twelve digits that people see."""
        return self.hex[:12]


@cache
def _lean_sha256() -> "Callable[[bytes], hashlib._Hash]":
    """The interpreter's own, as in the library's `random`: `hashlib` loads OpenSSL (3 ms), which is faster for what is long."""
    for name in ("_sha2", "_sha256", "hashlib"):  # Python 3.12's, 3.11's, everyone's
        with suppress(ImportError):
            found: Callable[[bytes], hashlib._Hash] = import_module(name).sha256
            return found
    raise ImportError("no module has sha256")


def chain_id(parent: Digest | None, diff_id: Digest) -> Digest:
    """Name a layer together with all layers below it: that of the first layer is its diff_id (config.md, "Layer ChainID")."""
    return diff_id if parent is None else Digest.of(f"{parent} {diff_id}".encode())


def chain_ids(diff_ids: list[Digest] | tuple[Digest, ...]) -> tuple[Digest, ...]:
    """Give the chain id of each layer, the base first."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(chain_id(chain[-1] if chain else None, diff_id))
    return tuple(chain)
