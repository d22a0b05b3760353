"""A layer's tar stream read as entries: names made plain, whiteouts understood, what can't be right refused.

Nothing is written here; `apply` lays the entries down.
"""

from collections.abc import Iterator
from typing import IO

from lamina.api.entries import Entry, EntryKind
from lamina.archive import paths
from lamina.archive.compression import Readable
from lamina.archive.tarheader import Member
from lamina.archive.tarstream import TarReader
from lamina.errors import ArchiveError

_KINDS = {
    b"0": EntryKind.FILE,
    b"\0": EntryKind.FILE,
    b"7": EntryKind.FILE,
    b"S": EntryKind.FILE,
    b"1": EntryKind.HARD_LINK,
    b"2": EntryKind.SYMLINK,
    b"3": EntryKind.CHAR_DEVICE,
    b"4": EntryKind.BLOCK_DEVICE,
    b"5": EntryKind.DIRECTORY,
    b"D": EntryKind.DIRECTORY,
    b"6": EntryKind.FIFO,
}


class LayerTar:
    """An uncompressed layer archive as `lamina.api.entries.LayerReader`.

    `limit_bytes` bounds what the entries' sizes add up to, which a sparse file makes larger than the archive is. Without
    `whiteouts` it is an archive of files, not a layer: names with `.wh.` are names like others.
    """

    def __init__(
        self,
        stream: Readable,
        *,
        max_entries: int = 2_000_000,
        limit_bytes: int | None = None,
        limit_hint: str = "raise the limit if the archive is to be trusted",
        require_end: bool = True,
        whiteouts: bool = True,
    ) -> None:
        self._whiteouts = whiteouts
        self._tar = TarReader(stream, max_members=max_entries, require_end=require_end)
        self._limit_bytes = limit_bytes
        self._limit_hint = limit_hint

    def __iter__(self) -> Iterator[Entry]:
        total = 0
        for member in self._tar:
            total += member.size_bytes
            if self._limit_bytes is not None and total > self._limit_bytes:
                raise ArchiveError(
                    f"the files add up to more than the limit of {self._limit_bytes} bytes, with '{paths.shown(member.name)}'",
                    hint=self._limit_hint,
                )
            entry = _entry(member, whiteouts=self._whiteouts)
            if entry is not None:
                yield entry

    def copy_to(self, fd: int) -> None:
        """Write the current file's bytes to a descriptor, holes left as holes."""
        self._tar.copy_to(fd)

    def open(self) -> IO[bytes]:
        """Read the current file's bytes instead of copying them."""
        return self._tar.open()


def _entry(member: Member, *, whiteouts: bool) -> Entry | None:
    """Make an entry of a member; None for aufs's bookkeeping."""
    path = paths.normalise(member.name)
    if whiteouts and ".wh." in path:
        whiteout = _whiteout(path, member)
        if whiteout is not None:
            return whiteout if whiteout.path != "\0" else None
    kind = _KINDS[member.type]
    if kind is EntryKind.FILE and member.type != b"S" and member.name.endswith("/") and member.size_bytes == 0:
        kind = EntryKind.DIRECTORY  # tar before POSIX had no type for directories
    if not path and kind is not EntryKind.DIRECTORY:
        raise ArchiveError(f"the entry '{paths.shown(member.name)}' makes the root a {kind.value}")
    link = ""
    if kind is EntryKind.HARD_LINK:
        link = paths.normalise(member.link, f"hard link '{paths.shown(path)}' to")
        if not link:
            raise ArchiveError(f"the hard link '{paths.shown(path)}' points to the root")
    elif kind is EntryKind.SYMLINK:
        link = member.link
        if not link or "\0" in link or len(link.encode("utf-8", "surrogateescape")) > paths.MAX_PATH_BYTES:
            raise ArchiveError(f"the symlink '{paths.shown(path)}' has a text that no symlink can have")
    elif kind in {EntryKind.CHAR_DEVICE, EntryKind.BLOCK_DEVICE} and member.major == member.minor == 0:
        raise ArchiveError(
            f"the device node '{paths.shown(path)}' has the number 0:0, which is overlayfs's whiteout",
            hint="a whiteout in a layer is a file named .wh.NAME",
        )
    return Entry(
        path=path,
        kind=kind,
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=member.mtime_ns,
        size_bytes=member.size_bytes if kind is EntryKind.FILE else 0,
        link=link,
        major=member.major,
        minor=member.minor,
        xattrs=member.xattrs,
    )


def _whiteout(path: str, member: Member) -> Entry | None:
    """Understand a name with `.wh.` in it: an entry, one with the path "\\0" for what is to be skipped, or None for none at all."""
    directory, name = paths.split(path)
    for part in directory.split("/"):
        if part.startswith(paths.BOOKKEEPING_PREFIX):
            return Entry(path="\0", kind=EntryKind.WHITEOUT)
        if part.startswith(paths.WHITEOUT_PREFIX):
            raise ArchiveError(f"the entry '{paths.shown(path)}' lies below a whiteout")
    if not name.startswith(paths.WHITEOUT_PREFIX):
        return None
    if name == paths.OPAQUE_NAME:
        return Entry(path=directory, kind=EntryKind.OPAQUE, mtime_ns=member.mtime_ns)
    hidden = name.removeprefix(paths.WHITEOUT_PREFIX)
    if hidden in {"", ".", ".."}:
        raise ArchiveError(f"the whiteout '{paths.shown(path)}' names nothing that can be deleted")
    if name.startswith(paths.BOOKKEEPING_PREFIX):
        return Entry(path="\0", kind=EntryKind.WHITEOUT)
    return Entry(path=paths.join(directory, hidden), kind=EntryKind.WHITEOUT, mtime_ns=member.mtime_ns)
