"""Layer archives made entry by entry, so that they may also be what no honest program writes. By the standard library's tarfile.

archive(entry("etc/", Directory()), entry("etc/hosts", File("…")), whiteout("etc/old"), opaque("var"))
"""

import io
import tarfile
from collections.abc import Mapping

from lamina.testing.tree import TIME_NS, Directory, File, Kind, Node, Tree

_TYPES = {
    Kind.FILE: tarfile.REGTYPE, Kind.DIRECTORY: tarfile.DIRTYPE, Kind.SYMLINK: tarfile.SYMTYPE, Kind.FIFO: tarfile.FIFOTYPE,
    Kind.CHAR_DEVICE: tarfile.CHRTYPE, Kind.BLOCK_DEVICE: tarfile.BLKTYPE, Kind.LINK: tarfile.LNKTYPE,
}  # fmt: skip
Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, node: Node | None = None, *, pax: Mapping[str, str] | None = None) -> Entry:
    """Make one entry; the name is written as it is given."""
    node = node or File()
    info = tarfile.TarInfo(name)
    info.type = _TYPES[node.kind]
    info.mode, info.uid, info.gid, info.linkname = node.mode, node.uid, node.gid, node.link
    info.devmajor, info.devminor = node.device
    seconds, rest = divmod(node.mtime_ns, 1_000_000_000)
    info.mtime = seconds
    headers = dict(pax or {})
    if rest:
        headers["mtime"] = f"{seconds}.{rest:09d}"
    for key, value in node.xattrs.items():
        headers[f"SCHILY.xattr.{key}"] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = headers
    content = bytes(node.at) + node.content
    if node.size_bytes is not None:
        content = content.ljust(node.size_bytes, b"\0")
    info.size = len(content) if node.kind is Kind.FILE else 0
    return info, content if node.kind is Kind.FILE else b""


def whiteout(path: str) -> Entry:
    """Make the entry that says that a path of the layers below is gone."""
    head, _, name = path.rpartition("/")
    return entry(f"{head}/.wh.{name}" if head else f".wh.{name}")


def opaque(path: str) -> Entry:
    """Make the entry that says that everything of the layers below in a directory is gone."""
    return whiteout(f"{path}/.wh..opq" if path else ".wh..opq")


def archive(*entries: Entry, form: int = tarfile.PAX_FORMAT, pax: Mapping[str, str] | None = None) -> bytes:
    """Write the entries in their order, and the end; `form` is one of tarfile's formats."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape", pax_headers=dict(pax or {})
    ) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def archive_of(tree: Tree, *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Write a declared tree, with entries for the directories above each path. Sockets can't be in an archive."""
    entries: dict[str, Entry] = {}
    if "" not in tree:
        entries[""] = entry("./", Directory(mtime_ns=TIME_NS))
    for path, node in tree.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if above not in entries and above not in tree:
                entries[above] = entry(f"{above}/", Directory())
        name = f"{path or '.'}/" if node.kind is Kind.DIRECTORY else path
        entries[path] = entry(name, node)
    return archive(*entries.values(), form=form)


def names(data: bytes) -> list[str]:
    """List an archive's members by name, in their order."""
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        return [member.name for member in tar]
