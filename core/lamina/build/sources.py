"""How sources and destinations of COPY and ADD are written. Texts alone: no file is looked at."""

import posixpath
import re

from lamina.archive import paths
from lamina.errors import UsageError

_ACCOUNT = re.compile(r"(https?://)[^\s/?#@\"']+(?:@[^\s/?#@\"']+)*@", re.IGNORECASE)


def is_remote(source: str) -> bool:
    """Tell whether a source is downloaded: a URL, or what git takes as `USER@HOST:PATH`."""
    return source.startswith(("http://", "https://", "git://", "ssh://", "git@"))


def shown_url(url: str) -> str:
    """Make a URL fit for a message: without user, password and query, and without what breaks lines."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return paths.shown(url)
    host, slash, path = rest.partition("/")
    return paths.shown(f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}")


def without_accounts(text: str) -> str:
    """Strike the names and passwords, or tokens, out of all URLs in a text that is kept or shown."""
    return _ACCOUNT.sub(r"\1xxxxx@", text) if "@" in text else text


def is_called_directory(path: str) -> bool:
    """Tell whether a destination says itself that it is a directory."""
    return path in {".", ".."} or path.endswith(("/", "/.", "/.."))


def check_climb(source: str, described: str) -> None:
    """Refuse a source whose `..` lead out of the tree, which Docker reads as if they weren't there."""
    depth = 0
    for part in source.split("/"):
        depth += 0 if part in {"", "."} else -1 if part == ".." else 1
        if depth < 0:
            raise UsageError(
                f"the source '{paths.shown(source)}' leads out of {described}", hint="only what is in it can be copied"
            )


def plain(path: str) -> str:
    """Make a source relative to its tree's top, without `.`, `..` and needless slashes; "" is the top."""
    return posixpath.normpath("/" + path.lstrip("/")).lstrip("/")


def split_wildcards(path: str) -> tuple[str, str]:
    """Split a path before its first name with a wildcard in it. A backslash alone doesn't make one, as with Docker."""
    parts = path.split("/")
    for index, part in enumerate(parts):
        if _has_wildcards(part):
            return "/".join(parts[:index]), "/".join(parts[index:])
    return path, ""


def _has_wildcards(name: str) -> bool:
    is_escaped = False
    for character in name:
        if is_escaped:
            is_escaped = False
        elif character == "\\":
            is_escaped = True
        elif character in "*?[":
            return True
    return False
