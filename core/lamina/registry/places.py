"""Places of images as people write them, such as `oci:/srv/layout:1`: understood, and opened as a source or a destination.

The words are those of containers-transports(5), and `lamina:` for our own image store. Not here: what any transport does.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from lamina.errors import UsageError
from lamina.model.reference import Reference

if TYPE_CHECKING:
    from lamina.registry.transport import Destination, Source
    from lamina.store.images import ImageStore


class Transport(StrEnum):
    """The word before the colon."""

    REGISTRY = "docker"
    DOCKER_ARCHIVE = "docker-archive"
    DOCKER_DAEMON = "docker-daemon"
    OCI = "oci"
    OCI_ARCHIVE = "oci-archive"
    DIRECTORY = "dir"
    STORE = "lamina"

    @property
    def holds_indexes(self) -> bool:
        """Whether an image for several platforms can be put there."""
        return self in {Transport.REGISTRY, Transport.OCI, Transport.OCI_ARCHIVE, Transport.DIRECTORY}

    @property
    def wants_plain_layers(self) -> bool:
        """Whether layers lie there unpacked, so that it would be a waste to pack them on the way."""
        return self in {Transport.DOCKER_ARCHIVE, Transport.DOCKER_DAEMON}


FORMS = {
    Transport.REGISTRY: "docker://NAME[:TAG|@DIGEST]",
    Transport.DOCKER_ARCHIVE: "docker-archive:PATH[:NAME[:TAG]|:@NUMBER]",
    Transport.DOCKER_DAEMON: "docker-daemon:NAME[:TAG]|ID",
    Transport.OCI: "oci:PATH[:TAG|:@NUMBER]",
    Transport.OCI_ARCHIVE: "oci-archive:PATH[:TAG|:@NUMBER]",
    Transport.DIRECTORY: "dir:PATH",
    Transport.STORE: "lamina:NAME[:TAG]|ID",
}
STANDARD_STREAM = "-"

_UNSUPPORTED = {
    "containers-storage": "use `podman save IMAGE | lamina load`",
    "docker-tar": "the name is docker-archive",
    "docker-registry": "write docker://NAME",
    "ostree": "",
    "sif": "",
    "tarball": "`lamina import` takes the tar of a root file system",
}
_WORD = re.compile(r"([a-z][a-z0-9-]*):(.*)", re.DOTALL)
_ID = re.compile(r"(?:sha256:)?([a-f0-9]{64})")
_SHORT_ID = re.compile(r"(?:sha256:)?[a-f0-9]{1,64}")
_TAG = re.compile(r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*")
"""What `org.opencontainers.image.ref.name` may be (OCI image-spec, annotations.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place of one image. Which of the fields are set depends on the transport."""

    transport: Transport
    path: str = ""
    """A file or directory; `-` is standard input or output."""
    tag: str = ""
    """What a layout calls the image: any text, often a tag alone."""
    reference: Reference | None = None
    number: int | None = None
    """Which image of an archive or a layout, from 0."""
    id: str = ""
    """An image of the store or of a Docker daemon, by its id or an id's beginning. With a `reference`, it may be a name too."""

    @property
    def described(self) -> str:
        """The place as a person would write it."""
        if self.transport is Transport.REGISTRY:
            return f"docker://{self.reference.familiar}" if self.reference is not None else "docker://"
        if self.transport is Transport.DOCKER_DAEMON or self.transport is Transport.STORE:
            return f"{self.transport}:{self.reference.familiar if self.reference is not None else self.id}"
        which = self.reference.familiar if self.reference is not None else self.tag
        which = f"@{self.number}" if self.number is not None else which
        return f"{self.transport}:{self.path}" + (f":{which}" if which else "")


def parse_place(text: str, *, bare: Transport) -> Place:
    """Read a place; a name without a transport is one of the transport `bare`. Raise UsageError.

    A colon ends a path, as in containers/image.
    """
    found = _WORD.fullmatch(text)
    word, rest = (found[1], found[2]) if found else ("", text)
    if word in set(Transport):
        return _parse(Transport(word), rest, text)
    if word in _UNSUPPORTED:
        raise UsageError(f"the transport '{word}' of '{text}' is not supported", hint=_UNSUPPORTED[word] or _listed())
    _refuse_misspelt(word, rest, text)
    return _parse_name(bare, text)


def is_place(text: str) -> bool:
    """Whether a word names a transport, and so is a place and not an image's name."""
    found = _WORD.fullmatch(text)
    return found is not None and (found[1] in set(Transport) or found[1] in _UNSUPPORTED)


def _refuse_misspelt(word: str, rest: str, text: str) -> None:
    """`docker-archve:x.tar` could be an image's name. That nobody means it so is a better guess."""
    if not word:
        return
    from difflib import get_close_matches  # 7 ms, and only for a word with a colon

    near = get_close_matches(word, list(Transport), n=1, cutoff=0.8)
    means_place = rest.startswith(("/", "./", "../", "//", "~")) or (near and "-" in near[0] and "-" in word)
    if means_place:
        hint = f"did you mean '{FORMS[Transport(near[0])]}'?" if near else _listed()
        raise UsageError(f"unknown transport '{word}' in '{text}'", hint=hint)


def _listed() -> str:
    return "places are " + ", ".join(FORMS.values())


def _parse(transport: Transport, rest: str, text: str) -> Place:
    if transport is Transport.REGISTRY:
        if not rest.startswith("//"):
            raise _wrong(transport, text, "two slashes are missing")
        return _parse_name(transport, rest[2:])
    if transport is Transport.STORE or transport is Transport.DOCKER_DAEMON:
        if not rest or rest.startswith("//"):
            raise _wrong(transport, text, "it has no name" if not rest else "it takes no slashes")
        return _parse_name(transport, rest)
    if transport is Transport.DIRECTORY:  # which holds one image, so that a colon may be part of the path
        path, which = rest, ""
    else:
        path, _, which = rest.partition(":")
    if not path or "\0" in path:
        raise _wrong(transport, text, "it has no path")
    if path == STANDARD_STREAM and transport not in {Transport.DOCKER_ARCHIVE, Transport.OCI_ARCHIVE}:
        raise UsageError(f"'{text}' can't be a stream: it is a directory", hint="use oci-archive:- or docker-archive:-")
    if which.startswith("@"):
        if not which[1:].isdecimal() or not which.isascii() or len(which) > 9:
            raise _wrong(transport, text, f"'{which}' is not '@' and a number")
        return Place(transport=transport, path=path, number=int(which[1:]))
    if transport is Transport.DOCKER_ARCHIVE and which:
        reference = Reference.parse(which)
        if reference.digest is not None:
            raise _wrong(transport, text, "names in a docker archive have no digest")
        return Place(transport=transport, path=path, reference=reference)
    if which and not _TAG.fullmatch(which):
        raise _wrong(transport, text, f"'{which}' can't be a tag in a layout")
    return Place(transport=transport, path=path, tag=which)


def _parse_name(transport: Transport, name: str) -> Place:
    if transport in {Transport.STORE, Transport.DOCKER_DAEMON} and (found := _ID.fullmatch(name)):
        return Place(transport=transport, id=f"sha256:{found[1]}")
    is_id = transport in {Transport.STORE, Transport.DOCKER_DAEMON} and _SHORT_ID.fullmatch(name) is not None
    if is_id and name.startswith("sha256:"):
        return Place(transport=transport, id=name)
    return Place(transport=transport, reference=Reference.parse(name), id=name if is_id else "")


def _wrong(transport: Transport, text: str, why: str) -> UsageError:
    return UsageError(f"invalid place '{text}': {why}", hint=f"write {FORMS[transport]}")


def open_source(
    place: Place, images: "ImageStore", *, plain_layers: bool = False, warn: Callable[[str], None] = lambda _text: None
) -> "Source":
    """Open what a place holds, to be closed by the caller. Raise NotFoundError, ArchiveError, UsageError, TransferError.

    `plain_layers`: the layers go where they lie unpacked (`Transport.wants_plain_layers`); a place that has them unpacked then
    offers them so, and else packed. `warn` is told what a person should know about accounts at registries.
    """
    images.content.prepare()
    spool_dir = images.content.tmp_dir
    match place.transport:
        case Transport.DOCKER_ARCHIVE:
            from lamina.registry.docker_archive import open_docker_archive

            return open_docker_archive(place, spool_dir=spool_dir, plain_layers=plain_layers)
        case Transport.OCI_ARCHIVE:
            from lamina.registry.oci_layout import open_oci_archive

            return open_oci_archive(place, spool_dir=spool_dir)
        case Transport.OCI:
            from lamina.registry.oci_layout import open_oci_layout

            return open_oci_layout(place)
        case Transport.DIRECTORY:
            from lamina.registry.directory import DirectorySource

            return DirectorySource(place)
        case Transport.DOCKER_DAEMON:
            from lamina.registry.docker_daemon import open_docker_daemon

            return open_docker_daemon(place, spool_dir=spool_dir, plain_layers=plain_layers)
        case Transport.STORE:
            from lamina.registry.local import StoreSource

            return StoreSource(place, images)
        case Transport.REGISTRY:
            from lamina.registry.opening import open_access, open_registry_source

            assert place.reference is not None
            return open_registry_source(place.reference, access=open_access(warn=warn))


def open_destination(
    place: Place, images: "ImageStore", *, names: Sequence[Reference] = (), warn: Callable[[str], None] = lambda _text: None
) -> "Destination":
    """Open a place to put one image into, to be closed by the caller. Raise UsageError, LaminaError.

    `names` are what an archive calls the image when the place itself doesn't say it. Not for our own store, into which
    `lamina.registry.pull` copies.
    """
    images.content.prepare()
    spool_dir = images.content.tmp_dir
    if place.number is not None:
        raise UsageError(f"'{place.described}' has a number, which only chooses what to read", hint="give a name or tag")
    match place.transport:
        case Transport.DOCKER_ARCHIVE:
            from lamina.registry.docker_archive import create_docker_archive

            return create_docker_archive(place, spool_dir=spool_dir, names=names)
        case Transport.OCI_ARCHIVE:
            from lamina.registry.oci_archive import OciArchiveDestination

            return OciArchiveDestination(place, spool_dir=spool_dir, names=names)
        case Transport.OCI:
            from lamina.registry.oci_layout import OciLayoutDestination

            return OciLayoutDestination(place)
        case Transport.DIRECTORY:
            from lamina.registry.directory import DirectoryDestination

            return DirectoryDestination(place)
        case Transport.DOCKER_DAEMON:
            from lamina.registry.docker_daemon import DockerDaemonDestination

            return DockerDaemonDestination(place, spool_dir=spool_dir)
        case Transport.REGISTRY:
            from lamina.registry.opening import open_access, open_registry_destination

            assert place.reference is not None
            return open_registry_destination(place.reference, access=open_access(warn=warn))
        case Transport.STORE:
            raise UsageError(f"'{place.described}' is the image store, into which is pulled")
