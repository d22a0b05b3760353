"""Whose the copied files are: what `--chown` says, its names looked up in the image that is copied into.

Docker's rules: a number is taken as it is and is the group too if no group is given; a name's group is the user's own
(Dockerfile reference, "COPY --chown").
"""

import errno
import os

from lamina.errors import NotFoundError, UsageError
from lamina.runtime.users import LEAVE_IT, resolve_user


def check_chown(text: str) -> None:
    """Refuse what can't be an owner, before any file is looked at. Raises `UsageError`."""
    user, colon, group = text.partition(":")
    if not user or (colon and not group) or ":" in group or any(not part.isprintable() or "/" in part for part in (user, group)):
        raise UsageError(f"invalid owner '{text[:100]}'", hint="write USER, USER:GROUP, or numbers")
    for part in (user, group):
        if part.isascii() and part.isdigit() and (len(part) > 10 or int(part) >= LEAVE_IT):
            raise UsageError(f"the number '{part[:100]}' is too large for an owner")


def resolve_owner(text: str, base_root: str | None) -> tuple[int, int]:
    """Give uid and gid. Names are looked up beneath `base_root`, in /etc/passwd and /etc/group; without it only numbers can be.

    Raises `NotFoundError` for a name that isn't there, `OSError` for files that aren't what they should be.
    """
    user, _, group = text.partition(":")
    uid = _number(user)
    gid = _number(group) if group else uid
    if uid is not None and gid is not None:
        return uid, gid
    if base_root is None:
        raise NotFoundError(
            f"the owner '{text[:100]}' has a name, and with --link there is no /etc/passwd to look it up in", hint="write numbers"
        )
    root_fd = os.open(base_root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = resolve_user(f"{user}:{group}" if group else user, root_fd=root_fd)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        raise NotFoundError(f"there is no {_missing(error, user)} in the image", hint="write a number, or make it first") from None
    finally:
        os.close(root_fd)
    return (found.uid if uid is None else uid), found.gid


def _missing(error: OSError, user: str) -> str:
    name = str(error.filename)
    return f"user '{name}' in /etc/passwd" if name == user and "user" in (error.strerror or "") else f"group '{name}' in /etc/group"


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None
