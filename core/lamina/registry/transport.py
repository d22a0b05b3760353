"""Places that images come from and go to. Each transport is a module here with a `Source`, a `Destination`, or both.

`pull` copies from a source into the store, `push` from the store to a destination, `copy` from one place to another. What is
copied are documents and blobs by digest; who copies verifies every digest, a transport need not.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from lamina.archive.compression import Readable
from lamina.dataclasses import dataclass
from lamina.model.digest import Digest
from lamina.model.image import Descriptor
from lamina.model.reference import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A manifest or an index, byte for byte, with the media type that its place gives it."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        """What names it."""
        return Digest.of(self.content)


class Source(Protocol):
    """One image, or an index of several platforms' images, at some place. Used by several threads at once."""

    @property
    def described(self) -> str:
        """What messages call it, such as `127.0.0.1:5000/app:1` or `oci:/srv/layout:1`. Never has a secret in it."""

    @property
    def names(self) -> Sequence[Reference]:
        """The names that the image has there; empty for a place that knows none."""

    def document(self, digest: Digest | None = None) -> Document:
        """Give the image's manifest or index, or with `digest` a manifest that the index names. Raises `NotFoundError`."""

    def blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Readable]:
        """Open a blob from `offset` bytes on, to be read once. The content isn't verified here, and no longer than announced.

        Raises `NotFoundError`; `TransferError` if the place can't be reached or the stream breaks off, which may be tried again.
        """

    def close(self) -> None:
        """Let go of connections and files. May be called twice."""


class Destination(Protocol):
    """A place for one image. Used by several threads at once, but for `put_document`."""

    @property
    def described(self) -> str:
        """What messages call it."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether a blob is there already, or could be had from elsewhere in the same place (a cross-repository mount)."""

    def put_blob(self, descriptor: Descriptor, content: Readable) -> None:
        """Store a blob. Its bytes have been verified, or are while they are read; after an error nothing of it is left visible."""

    def put_document(self, document: Document, *, is_root: bool) -> None:
        """Store a manifest or index whose blobs are there. The root comes last and makes the image visible under its name."""

    def close(self) -> None:
        """Let go of connections and files; makes archives complete. Without a root document nothing is left behind."""
