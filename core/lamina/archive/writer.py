"""Layers and whole trees written as tar: the same tree gives the same bytes.

The tree may belong to a running container and change while it is read, or lure: nothing is followed, everything is opened by
descriptors below the root; what has gone is left out, and a file that became shorter is filled up with zeros.

The headers are ustar, with a pax header before them where something doesn't fit: long or non-ASCII names, nanoseconds, large
numbers, xattrs (as SCHILY.xattr.NAME, the key that Docker, Go and GNU tar share). User and group names are left empty.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence

from lamina.api.entries import Change, ChangeKind, EntryKind, LayerReader
from lamina.archive import attributes, paths, pax, tarheader
from lamina.archive.compression import CHUNK_BYTES, Writable
from lamina.errors import LaminaError

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GONE = frozenset([errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE])
_MAX_RECORDS_BYTES = 1 << 20  # what our own reader, and Go's, take


def write_layer(
    out: Writable, root: str, changes: Sequence[Change], *, parents: bool = True, mtime_limit_ns: int | None = None
) -> None:
    """Write a layer with the changes that were found in the tree at `root`: entries, and whiteouts for what was deleted.

    With `parents`, the directories above a change have entries too, changed or not, as in Docker's layers: programs that unpack
    a layer by itself would else make them up. A time later than `mtime_limit_ns` becomes that (SOURCE_DATE_EPOCH). Sockets, which
    tar can't hold, are left out. Raises `LaminaError` for a file whose name would be read as a whiteout.
    """
    writer = _Writer(out, root, mtime_limit_ns)
    try:
        for path, kind in _in_order(changes, parents=parents):
            if kind is ChangeKind.DELETE:
                writer.whiteout(path)
            else:
                if paths.split(path)[1].startswith(paths.WHITEOUT_PREFIX):
                    raise LaminaError(
                        f"the file '{paths.shown(path)}' can't be in a layer: its name means that another one is deleted",
                        hint="rename or delete the file",
                    )
                writer.add(path)
        writer.end()
    finally:
        writer.close()


def write_tree(out: Writable, root: str, *, mtime_limit_ns: int | None = None) -> None:
    """Write everything below `root`, as `export` does; the root itself has no entry."""
    writer = _Writer(out, root, mtime_limit_ns)
    try:
        for path in _walk(writer):
            writer.add(path)
        writer.end()
    finally:
        writer.close()


def write_entries(out: Writable, entries: LayerReader) -> None:
    """Write what a reader gives, the inverse of `LayerTar`. A file that became shorter is filled up with zeros."""
    for entry in entries:
        if entry.kind in {EntryKind.WHITEOUT, EntryKind.OPAQUE}:
            head, name = (entry.path, paths.OPAQUE_NAME) if entry.kind is EntryKind.OPAQUE else paths.split(entry.path)
            marked = name if entry.kind is EntryKind.OPAQUE else paths.WHITEOUT_PREFIX + name
            _write_header(
                out,
                paths.join(head, marked),
                b"0",
                mode=0o444,
                uid=0,
                gid=0,
                mtime_ns=0,
                size=0,
                link="",
                numbers=(0, 0),
                xattrs={},
            )
            continue
        path = entry.path + "/" if entry.kind is EntryKind.DIRECTORY and entry.path else entry.path or "./"
        _write_header(
            out, path, _CODES[entry.kind], mode=entry.mode, uid=entry.uid, gid=entry.gid, mtime_ns=entry.mtime_ns,
            size=entry.size_bytes, link=entry.link, numbers=(entry.major, entry.minor), xattrs=entry.xattrs,
        )  # fmt: skip
        if entry.kind is EntryKind.FILE and entry.size_bytes:
            with entries.open() as file:
                _write_data(out, file.read, entry.size_bytes)
    out.write(bytes(2 * tarheader.BLOCK_BYTES))


_CODES = {
    EntryKind.FILE: b"0",
    EntryKind.HARD_LINK: b"1",
    EntryKind.SYMLINK: b"2",
    EntryKind.CHAR_DEVICE: b"3",
    EntryKind.BLOCK_DEVICE: b"4",
    EntryKind.DIRECTORY: b"5",
    EntryKind.FIFO: b"6",
}


def _in_order(changes: Iterable[Change], *, parents: bool) -> list[tuple[str, ChangeKind]]:
    """Sort by components, a directory's whiteouts right after the directory, and add the directories above."""
    wanted = {change.path: change.kind for change in changes}
    if parents:
        for path in list(wanted):
            head = paths.split(path)[0]
            while head and head not in wanted:
                wanted[head] = ChangeKind.MODIFY
                head = paths.split(head)[0]

    def key(item: tuple[str, ChangeKind]) -> tuple[tuple[int, bytes], ...]:
        parts = paths.sort_key(item[0])
        last = 0 if item[1] is ChangeKind.DELETE else 1
        return (*((1, part) for part in parts[:-1]), (last, parts[-1])) if parts else ()

    return sorted(wanted.items(), key=key)


def _walk(writer: "_Writer") -> Iterator[str]:
    """List all paths of the tree, parents before children, siblings by bytes."""
    todo = [""]
    while todo:
        path = todo.pop()
        if path:
            yield path
        fd = writer.directory(path)
        if fd is None:
            continue
        try:
            names = sorted(os.listdir(fd), key=os.fsencode, reverse=True)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            continue
        todo.extend(paths.join(path, name) for name in names)


class _Writer:
    """The tree that is read and the archive that is written."""

    def __init__(self, out: Writable, root: str, mtime_limit_ns: int | None) -> None:
        self._out = out
        self._mtime_limit_ns = mtime_limit_ns
        self._linked: dict[tuple[int, int], str] = {}
        self._open: list[tuple[str, int]] = [("", os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))]

    def close(self) -> None:
        """Close the directories that are open."""
        for _, fd in self._open:
            os.close(fd)
        self._open.clear()

    def end(self) -> None:
        """Write the two zero blocks that end an archive."""
        self._out.write(bytes(2 * tarheader.BLOCK_BYTES))

    def directory(self, path: str) -> int | None:
        """Open a directory by way of those above it, which stay open for what comes next. None if it is no directory (any more)."""
        while self._open[-1][0] and not (path + "/").startswith(self._open[-1][0] + "/"):
            os.close(self._open.pop()[1])
        if path.count("/") >= paths.MAX_DEPTH:
            raise LaminaError(f"'{paths.shown(path)}' lies deeper than {paths.MAX_DEPTH} directories")
        at, fd = self._open[-1]
        for part in path[len(at) :].split("/"):
            if part:
                try:
                    fd = os.open(part, _OPEN_DIRECTORY, dir_fd=fd)
                except OSError as error:
                    if error.errno in _GONE:
                        return None
                    raise
                at = paths.join(at, part)
                self._open.append((at, fd))
        return fd

    def whiteout(self, path: str) -> None:
        """Write that a name is gone."""
        head, name = paths.split(path)
        if name.startswith(paths.WHITEOUT_PREFIX):
            raise LaminaError(f"the deletion of '{paths.shown(path)}' can't be written: the name itself means a deletion")
        self._header(paths.join(head, paths.WHITEOUT_PREFIX + name), b"0", mode=0o444, uid=0, gid=0, mtime_ns=0)

    def add(self, path: str) -> None:
        """Write one file, without what is below it."""
        head, name = paths.split(path)
        dir_fd = self.directory(head)
        if dir_fd is None:
            return
        try:
            found = os.stat(name or ".", dir_fd=dir_fd, follow_symlinks=False)
            kind = stat.S_IFMT(found.st_mode)
            if kind == stat.S_IFREG and self._add_link(path, found):
                return
            fd = os.open(name or ".", _OPEN_FILE, dir_fd=dir_fd) if kind in {stat.S_IFREG, stat.S_IFDIR} else -1
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        if fd >= 0:
            try:
                self._add_open(path, fd)
            finally:
                os.close(fd)
        else:
            self._add_other(path, dir_fd, name, found)

    def _add_link(self, path: str, found: os.stat_result) -> bool:
        """Write a hard link if another name of the same file is in the archive already."""
        if found.st_nlink < 2:
            return False
        first = self._linked.get((found.st_dev, found.st_ino))
        if first is None:
            return False
        self._header(path, b"1", found=found, link=first)
        return True

    def _add_open(self, path: str, fd: int) -> None:
        found = os.fstat(fd)
        xattrs = attributes.content_xattrs(fd)
        if stat.S_ISDIR(found.st_mode):
            self._header(path + "/" if path else "./", b"5", found=found, xattrs=xattrs)
        elif stat.S_ISREG(found.st_mode):
            if found.st_nlink > 1:
                self._linked[found.st_dev, found.st_ino] = path
            self._header(path, b"0", found=found, xattrs=xattrs, size=found.st_size)
            self._data(fd, found.st_size)

    def _add_other(self, path: str, dir_fd: int, name: str, found: os.stat_result) -> None:
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFSOCK:
            return
        if kind == stat.S_IFCHR and found.st_rdev == 0:
            raise LaminaError(f"the device node '{paths.shown(path)}' can't be in a layer: 0:0 is overlayfs's whiteout")
        link = ""
        try:
            if self._add_link(path, found):
                return
            if kind == stat.S_IFLNK:
                link = os.readlink(name, dir_fd=dir_fd)
            xattrs = attributes.content_xattrs(f"/proc/self/fd/{dir_fd}/{name}")
        except OSError as error:
            if error.errno in _GONE | {errno.EINVAL}:
                return
            raise
        if found.st_nlink > 1:
            self._linked[found.st_dev, found.st_ino] = path
        code = {stat.S_IFLNK: b"2", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFIFO: b"6"}[kind]
        self._header(path, code, found=found, xattrs=xattrs, link=link, device=kind in {stat.S_IFCHR, stat.S_IFBLK})

    def _data(self, fd: int, size: int) -> None:
        _write_data(self._out, lambda count: os.read(fd, count), size)

    def _header(
        self,
        path: str,
        kind: bytes,
        *,
        found: os.stat_result | None = None,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int = 0,
        size: int = 0,
        link: str = "",
        device: bool = False,
        xattrs: dict[str, bytes] | None = None,
    ) -> None:
        numbers = (0, 0)
        if found is not None:
            mode, uid, gid, mtime_ns = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns
            if device:
                numbers = os.major(found.st_rdev), os.minor(found.st_rdev)
        if self._mtime_limit_ns is not None:
            mtime_ns = min(mtime_ns, self._mtime_limit_ns)
        _write_header(
            self._out,
            path,
            kind,
            mode=mode,
            uid=uid,
            gid=gid,
            mtime_ns=mtime_ns,
            size=size,
            link=link,
            numbers=numbers,
            xattrs=xattrs,
        )


def _write_data(out: Writable, read: Callable[[int], bytes], size: int) -> None:
    left = size
    while left:
        data = read(min(left, CHUNK_BYTES))
        if not data:
            data = bytes(min(left, CHUNK_BYTES))
        out.write(data)
        left -= len(data)
    if size % tarheader.BLOCK_BYTES:
        out.write(bytes(-size % tarheader.BLOCK_BYTES))


def _write_header(
    out: Writable,
    path: str,
    kind: bytes,
    *,
    mode: int,
    uid: int,
    gid: int,
    mtime_ns: int,
    size: int,
    link: str,
    numbers: tuple[int, int],
    xattrs: dict[str, bytes] | None,
) -> None:
    name, target = os.fsencode(path), os.fsencode(link)
    records: list[tuple[bytes, bytes]] = []
    if not _is_text(name) or not _is_text(target):
        records.append((b"hdrcharset", b"BINARY"))
    if not (name.isascii() and tarheader.fits(name)):
        records.append((b"path", name))
    if not target.isascii() or len(target) > 100:
        records.append((b"linkpath", target))
    seconds, rest = divmod(mtime_ns, 1_000_000_000)
    if rest or not 0 <= seconds < 8**11:
        records.append((b"mtime", pax.ns_to_seconds(mtime_ns)))
    for key, value, limit in ((b"size", size, 8**11), (b"uid", uid, 8**7), (b"gid", gid, 8**7)):
        if value >= limit:
            records.append((key, b"%d" % value))
    for xattr in sorted(xattrs or ()):
        records.append((b"SCHILY.xattr." + os.fsencode(xattr).replace(b"=", b"%3D"), (xattrs or {})[xattr]))
    if records:
        data = pax.build_records(records)
        if len(data) > _MAX_RECORDS_BYTES:
            raise LaminaError(f"the extended attributes of '{paths.shown(path)}' are too large for an archive")
        out.write(
            tarheader.build(
                name=b"PaxHeaders/" + name[-80:].strip(b"/"), kind=b"x", mode=0o644, uid=0, gid=0, size=len(data), mtime_s=0
            )
            + data
            + bytes(-len(data) % tarheader.BLOCK_BYTES)
        )
    out.write(
        tarheader.build(
            name=name,
            kind=kind,
            mode=mode,
            uid=uid,
            gid=gid,
            size=size,
            mtime_s=max(0, seconds),
            link=target,
            major=numbers[0],
            minor=numbers[1],
        )
    )


def _is_text(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
