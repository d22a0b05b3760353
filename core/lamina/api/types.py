"""The values that pass between the engine and its plugins. No I/O."""

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

from lamina.dataclasses import dataclass, field
from lamina.model.mount import Mount

if TYPE_CHECKING:
    from lamina.api.networks import ContainerLink, Forwarding
    from lamina.linux.nftables import Element, Set

API_VERSION = 1
"""The contract's version. A plugin states the one that it was written for as its attribute `api_version`."""


class WhiteoutFormat(StrEnum):
    """How a driver's `upper_dir` says that a name of a lower layer is gone."""

    OVERLAY = "overlay"
    """A character device 0:0 of that name; an opaque directory has the xattr `trusted.overlay.opaque=y` (kernel: overlayfs.rst)."""
    AUFS = "aufs"
    """A regular file `.wh.NAME`; an opaque directory has a file `.wh..wh..opq` (OCI: layer.md)."""
    NONE = "none"
    """There are no whiteouts: a layer is a full tree, and what is gone is simply not there."""


class Fidelity(StrEnum):
    """What a driver keeps of a file when a layer is copied, unioned or copied up."""

    OWNER = "owner"
    MODE = "mode"
    NANOSECONDS = "nanoseconds"
    HARD_LINKS = "hard-links"
    HOLES = "holes"
    DEVICES = "devices"
    SOCKETS = "sockets"
    USER_XATTRS = "user-xattrs"
    TRUSTED_XATTRS = "trusted-xattrs"
    FILE_CAPABILITIES = "file-capabilities"
    ACLS = "acls"


class Behaviour(StrEnum):
    """What a driver's writable union does as a plain file system would. Unions may differ here; a driver says where it doesn't."""

    DIRECTORY_RENAME = "directory-rename"
    """rename(2) of a directory of a lower layer works; else it is EXDEV, and mv(1) copies."""
    OPEN_FILES = "open-files"
    """What was open for reading before the first write to a file sees that write."""
    MAPPINGS = "mappings"
    """A shared mapping made before the first write to a file sees that write."""
    LOCKS = "locks"
    """A lock taken before the first write to a file excludes one taken after it."""
    STABLE_INODES = "stable-inodes"
    """A file's device and inode number are the same before and after its first change."""
    DIRECTORY_LINKS = "directory-links"
    """A directory's link count is the number of its subdirectories and two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a driver claims. The engine acts on these alone, never on a driver's name; the conformance kit checks each."""

    whiteouts: WhiteoutFormat
    native_diff: bool
    """`upper_dir` holds exactly what the layer changes, so that a diff need not read the layers below."""
    max_depth: int | None = None
    """The greatest number of layers in one union, the writable one included; None for no limit."""
    quota: bool = False
    """A layer's size can be limited here: `storage_prepare` keeps `size_bytes`."""
    preserves: frozenset[Fidelity] = frozenset()
    behaves: frozenset[Behaviour] = frozenset()
    forbidden_prefix: str = ""
    """Names with this beginning can't be made in a container (aufs: `.wh.`)."""
    max_name_bytes: int = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Whether a driver can work in a place, and how."""

    usable: bool
    capabilities: Capabilities
    method: str = ""
    """How it mounts here, in a few words ("kernel overlayfs, companion directories")."""
    reason: str = ""
    """Why it can't work, if it can't."""
    hint: str = ""
    """What would make it work, or work better."""
    no_quota_reason: str = ""
    """Why a layer's size can't be limited here, if the driver could do it elsewhere."""
    no_quota_hint: str = ""
    """What would let it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A layer united with its parents, as data.

    `root` is the absolute path where the union is seen once `mounts` are made, in their order. With no mounts the tree lies at
    `root` as it is. `upper_dir` is the directory in which the layer's own changes lie in the claimed whiteout format, or None for
    a driver whose layers are full trees. `until_rest`: what the view shows is right only until `storage_after_unmount` is called
    for its layer, which the engine puts off while somebody looks.
    """

    root: str
    mounts: tuple[Mount, ...] = ()
    upper_dir: str | None = None
    until_rest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a layer alone takes: bytes of disk as du(1) counts them (blocks × 512) and inodes, each hard-linked inode once."""

    size_bytes: int
    inodes: int


class NetworkNamespace(Enum):
    """Which network namespace a container gets."""

    HOST = "host"
    NEW = "new"
    JOIN = "join"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What a network driver wants done: data for the engine to carry out and, later, to show."""

    namespace: NetworkNamespace
    path: str = ""
    """With `JOIN`: the namespace to enter, such as `/proc/PID/ns/net`."""
    loopback: bool = True
    """Bring `lo` up in a new namespace."""
    links: "tuple[ContainerLink, ...]" = ()
    """With `NEW`: the links that the container gets, made once its namespace is there and before its command runs."""
    elements: "tuple[tuple[Set, Element], ...]" = ()
    """Elements of sets and maps of the network's set-up, such as published ports, with the container's id as their comment."""
    forwardings: "tuple[Forwarding, ...]" = ()
    """Published ports for which a process carries the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSpec:
    """A named volume as its driver sees it. `home` is the driver's own folder."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEvent:
    """Something that happened to a container: `action` is created, starting, started, exited or removed."""

    action: str
    container_id: str
    name: str
    time_ns: int
    attributes: Mapping[str, str] = field(default_factory=dict)


_ENTRIES = frozenset({"Change", "ChangeKind", "Entry", "EntryKind", "LayerReader", "Trees"})


def __getattr__(name: str) -> Any:
    """Give what `entries.py` has by this name, too: it was here, and a plugin that worked goes on working (PEP 562)."""
    if name not in _ENTRIES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from lamina.api import entries

    return getattr(entries, name)
