"""Digests, the names of content (OCI image-spec, descriptor.md), and chain ids (config.md). Not the reading of any content."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Self

from lamina.errors import UsageError

if TYPE_CHECKING:
    import hashlib

_HEX_DIGITS = {"sha256": 64, "sha512": 128}


def is_hex(text: str) -> bool:
    """Whether a text is of lower-case hexadecimal digits, at least one, and nothing else."""
    return bool(text) and not text.strip("0123456789abcdef")


class Digest(str):
    """`ALGORITHM:HEX`, checked when it is made: lower case, the algorithm's full length, nothing around it.

    It is a str so that it goes into SQL, JSON and paths as it is.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        algorithm, _, digits = text.partition(":")
        if algorithm not in _HEX_DIGITS or not is_hex(digits):
            raise UsageError(f"not a digest: {text[:160]!r}", hint="a digest is sha256: and 64 lower-case hexadecimal digits")
        if len(digits) != _HEX_DIGITS[algorithm]:
            raise UsageError(f"not a digest: {text[:160]!r} has {len(digits)} digits, {algorithm} has {_HEX_DIGITS[algorithm]}")
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
