"""Names in archives: made relative and plain, or refused; and the names that are whiteouts.

Source: OCI image-spec, layer.md, "Whiteouts". Docker, too, takes a leading slash away; `..` it resolves, here it is refused.
"""

from lamina.errors import ArchiveError

WHITEOUT_PREFIX = ".wh."
OPAQUE_NAME = ".wh..wh..opq"
BOOKKEEPING_PREFIX = ".wh..wh."
"""What aufs keeps for itself in a branch's root. Never content."""

MAX_DEPTH = 256
"""How deep a tree may be. What walks trees holds a descriptor for each level."""
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4095
OVERLAY_PREFIX = "trusted.overlay."
"""Of xattrs that are overlayfs's own notes. From an archive they would be orders to the kernel: to hide, to redirect. Never taken,
never given."""


def shown(name: str) -> str:
    """Make a name fit for a message: bytes that aren't UTF-8, and line breaks, are escaped."""
    if name.isprintable():
        return name if len(name) <= 300 else name[:300] + "…"
    return ascii(name)[1:-1][:300]


def normalise(name: str, what: str = "entry") -> str:
    """Make a path relative, without empty and `.` components; refuse what can't be one. "" is the root."""
    if "\0" in name:
        raise ArchiveError(f"the {what} '{shown(name)}' has a zero byte in its name")
    path, parts = name, name.split("/")
    if "" in parts or "." in parts:
        parts = [part for part in parts if part and part != "."]
        path = "/".join(parts)
    if ".." in parts:
        raise ArchiveError(f"the {what} '{shown(name)}' has '..' in its path", hint="the archive may be hostile; don't use it")
    if len(parts) > MAX_DEPTH:
        raise ArchiveError(f"the {what} '{shown(name)}' lies deeper than {MAX_DEPTH} directories")
    if len(path) > MAX_NAME_BYTES // 4:  # shorter ones can't have too many bytes
        if len(_bytes(path)) > MAX_PATH_BYTES:
            raise ArchiveError(f"the {what} '{shown(name)}' has a longer path than the kernel takes")
        for part in parts:
            if len(_bytes(part)) > MAX_NAME_BYTES:
                raise ArchiveError(f"the {what} '{shown(name)}' has a name of more than {MAX_NAME_BYTES} bytes")
    return path


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def split(path: str) -> tuple[str, str]:
    """Split a normalised path into its directory and its last name."""
    head, _, tail = path.rpartition("/")
    return head, tail


def join(directory: str, name: str) -> str:
    """Put a name below a normalised directory path."""
    return f"{directory}/{name}" if directory else name


def sort_key(path: str) -> tuple[bytes, ...]:
    """Order paths by components as bytes, a directory before what is in it (`a/b` comes before `a-b`)."""
    return tuple(_bytes(path).split(b"/")) if path else ()
