"""A view's mounts, as data: the same layers, in each of the three ways. Reads which companions there are; changes nothing."""

import os
from collections.abc import Sequence

from lamina.api.types import View
from lamina.model.mount import Mount, MountFlag
from lamina_aufs import form
from lamina_aufs.method import Method
from lamina_aufs.names import companions_dir, diff_dir, empty_dir, mnt_dir, work_dir

AUFS_OPTIONS = ("dio", "dirperm1", "xino=/dev/shm/aufs.xino")
"""As Docker's driver gives them. Without `xino=` a read-only union writes a file into /tmp."""
FIRST_BRANCHES = 40
"""How many branches the first aufs mount gets at most.

The kernel was seen to take 83 in one call; 100 in one call are not to be tried."""
PAGE_BYTES = 4095

OVERLAY_OPTIONS: tuple[tuple[str, str | None], ...] = (("index", "off"), ("redirect_dir", "nofollow"), ("metacopy", "off"))
"""What keeps the upper directory complete in itself, so that it can be read, and turned into aufs's format, without the rest."""

REASONS = {
    "br:": "the layers, the container's own first and alone writable, those below read-only and with their whiteouts honoured",
    "append:": "one more layer below: a first mount with all of them wouldn't fit mount(2)'s page of options",
    "dio": "direct I/O works, as Docker's aufs driver has it",
    "dirperm1": "a directory's permissions are those of its topmost layer, so that an image can loosen what a layer below set",
    "xino": "aufs's table of inode numbers, in memory and not as a file in /tmp or in a layer",
    "lowerdir+": "a layer below, or one of its companions, which say in overlayfs's language what it deletes",
    "lowerdir": "the layers below",
    "upperdir": "the container's own layer: all that it changes lands here",
    "workdir": "overlayfs makes a file ready here before it appears in the upper directory",
    "index=off": "keeps the upper directory complete in itself, so that it can be turned into aufs's format",
    "redirect_dir=nofollow": "keeps the upper directory complete in itself, so that it can be turned into aufs's format",
    "metacopy=off": "keeps the upper directory complete in itself, so that it can be turned into aufs's format",
}
"""What `explain` says of each option, in whichever way layers are mounted."""


def view(home: str, key: str, parents: Sequence[str], *, readonly: bool, method: Method) -> View:
    """Unite a layer with its parents."""
    build = {Method.AUFS: _aufs, Method.OVERLAY: _overlay, Method.FUSE: _fuse}[method]
    changes_form = method is not Method.AUFS and os.path.isdir(work_dir(home, key))  # which is there until the layer is final
    return View(
        root=mnt_dir(home, key), mounts=build(home, key, parents, readonly), upper_dir=diff_dir(home, key),
        until_rest=readonly and changes_form,
    )  # fmt: skip


def _aufs(home: str, key: str, parents: Sequence[str], readonly: bool) -> tuple[Mount, ...]:
    branches = [f"{diff_dir(home, key)}={'ro+wh' if readonly else 'rw'}"]
    branches += [f"{diff_dir(home, parent)}=ro+wh" for parent in parents]
    room = PAGE_BYTES - len("br:,") - len(",".join(AUFS_OPTIONS))
    first, used = 0, 0
    while first < min(FIRST_BRANCHES, len(branches)) and used + len(os.fsencode(branches[first])) + 1 <= room:
        used += len(os.fsencode(branches[first])) + 1
        first += 1
    flags = MountFlag.RDONLY if readonly else MountFlag.NONE
    options = tuple((name, value or None) for name, _, value in (option.partition("=") for option in AUFS_OPTIONS))
    target = mnt_dir(home, key)
    mounts = [Mount(type="aufs", target=target, flags=flags, options=(("br:", ":".join(branches[:first])), *options))]
    for branch in branches[first:]:
        mounts.append(Mount(type="aufs", target=target, flags=flags | MountFlag.REMOUNT, options=(("append:", branch),)))
    return tuple(mounts)


def _overlay(home: str, key: str, parents: Sequence[str], readonly: bool) -> tuple[Mount, ...]:
    lowers = [path for parent in parents for path in with_companions(home, parent)]
    if readonly:
        now = form.read(home, key)
        is_mounted = now and now.is_mounted  # for writing, somewhere: it speaks overlayfs's language now
        lowers = ([diff_dir(home, key)] if is_mounted else with_companions(home, key)) + lowers
        if len(lowers) == 1:  # overlayfs wants two: overlayfs.rst, "Multiple lower layers"
            return (Mount(type="bind", target=mnt_dir(home, key), source=lowers[0], flags=MountFlag.BIND | MountFlag.RDONLY),)
        upper: tuple[tuple[str, str], ...] = ()
    else:
        upper = (("upperdir", diff_dir(home, key)), ("workdir", work_dir(home, key)))
    options = (*(("lowerdir+", path) for path in lowers or [empty_dir(home)]), *upper, *OVERLAY_OPTIONS)
    flags = MountFlag.RDONLY if readonly else MountFlag.NONE
    return (Mount(type="overlay", target=mnt_dir(home, key), flags=flags, options=options),)


def with_companions(home: str, key: str) -> list[str]:
    """List the directories that stand for a layer in overlayfs's stack, the uppermost first."""
    companions = companions_dir(home, key)
    layers = (f"{companions}/above", diff_dir(home, key), f"{companions}/below")
    return [path for number, path in enumerate(layers) if number == 1 or os.path.isdir(path)]


def _fuse(home: str, key: str, parents: Sequence[str], readonly: bool) -> tuple[Mount, ...]:
    lowers = [diff_dir(home, parent) for parent in parents]
    if readonly:
        lowers.insert(0, diff_dir(home, key))
    names = ":".join(_escape(path) for path in lowers or [empty_dir(home)])
    options: list[tuple[str, str | None]] = [("lowerdir", names)]
    if readonly:
        options.append(("ro", None))
    else:
        options += [("upperdir", _escape(diff_dir(home, key))), ("workdir", _escape(work_dir(home, key)))]
    return (Mount(type="fuse.fuse-overlayfs", target=mnt_dir(home, key), options=tuple(options)),)


def _escape(path: str) -> str:
    """Write a path for fuse-overlayfs, which takes a backslash before the characters that part its words."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
