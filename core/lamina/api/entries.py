"""What a layer holds and what it changes: an archive's entries, a diff's changes, and the trees that both are about. No I/O.

Apart from `types.py`, as a container is started without any of them.
"""

from collections.abc import Iterator
from enum import Enum
from typing import IO, NamedTuple, Protocol

from lamina.api.types import WhiteoutFormat
from lamina.dataclasses import dataclass, field


class ChangeKind(Enum):
    """Docker's letters for `diff`."""

    MODIFY = "C"
    ADD = "A"
    DELETE = "D"


class Change(NamedTuple):
    """One path that a layer adds, changes or deletes. `path` is relative, without a leading slash; "" is the root itself.

    A named tuple, as there may be thousands; write its fields by keyword.
    """

    path: str
    kind: ChangeKind


class EntryKind(Enum):
    """What a layer's entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hard link"
    CHAR_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    FIFO = "fifo"
    WHITEOUT = "whiteout"
    """`path` is gone from the layers below."""
    OPAQUE = "opaque"
    """Everything that lower layers have in the directory `path` is gone."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """One entry of an OCI layer, whiteouts already understood.

    `path` is relative and normalised: no leading slash, no `.` or `..` component, "" for the root. `link` is a symlink's text or a
    hard link's target path (normalised as `path`). Names are str with surrogateescape for bytes that aren't UTF-8.
    """

    path: str
    kind: EntryKind
    mode: int = 0o755
    """Permission bits, setuid, setgid and sticky included; no file type."""
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size_bytes: int = 0
    link: str = ""
    major: int = 0
    minor: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)


class LayerReader(Protocol):
    """A layer's entries in the order of the archive.

    Iterate; after an entry of kind FILE, `copy_to` may be called once before the next is taken.
    """

    def __iter__(self) -> Iterator[Entry]: ...

    def copy_to(self, fd: int) -> None:
        """Write the current file's bytes to `fd`, holes left as holes."""

    def open(self) -> IO[bytes]:
        """Read the current file's bytes instead of copying them."""


class Trees(Protocol):
    """A layer and what lies below it, mounted only when a path is asked for and gone when the hook returns."""

    @property
    def layer(self) -> str:
        """The layer united with its parents."""

    @property
    def parent(self) -> str | None:
        """The union of the parents alone, or None for a base layer."""

    @property
    def upper_dir(self) -> str | None:
        """As `View.upper_dir`."""

    @property
    def whiteouts(self) -> WhiteoutFormat:
        """The format in `upper_dir`."""

    @property
    def unchanged_before_ns(self) -> int | None:
        """An inode of the layer whose ctime is below this has not been touched since `storage_prepare`; None if not known."""
