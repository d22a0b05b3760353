"""Companions: two small directories that say to overlayfs what a layer's aufs whiteouts say to aufs.

overlayfs knows nothing of `.wh.NAME`. So the layer stays as it is, and in the stack of lower layers it gets neighbours:

    above/   directly above the layer: a whiteout (a device 0:0) for each hidden NAME, which hides it in this layer too, as aufs
             does, and one for each `.wh.` name itself, so that nobody sees it
    below/   directly below the layer, if it has opaque directories: those directories, empty, with `trusted.overlay.opaque=y`

The directories in `above` are merged with the layer's and on top of them, so they have the layer's owners, modes, times and
xattrs. A layer without any `.wh.` name needs neither, and its `companions/KEY` is empty.

Made once a layer's bytes are final, without touching them, by anyone at any time: the directory comes to its place by rename.
Those of a container's layer stay while it is mounted, and are made anew just before it comes to rest: so whoever looks at the
layer in the middle of a change of form sees what is right, for they hide what is hidden in either form.
"""

import errno
import os
import stat
from contextlib import suppress

from lamina.api.copytree import copy_root
from lamina.linux.fs import remove_tree
from lamina_aufs.form import Findings, is_own
from lamina_aufs.layout import half_made, set_aside
from lamina_aufs.names import OPAQUE, OVERLAY_OPAQUE, PREFIX, companions_dir, diff_dir


def ensure(home: str, key: str) -> None:
    """Make a layer's companions if they aren't there."""
    if not os.path.isdir(companions_dir(home, key)):
        make(home, key)


def make(home: str, key: str, findings: Findings | None = None) -> None:
    """Make a layer's companions anew: for what it has, or for what it will have when a change of its form is done."""
    target = companions_dir(home, key)
    with half_made(home, key) as temporary:
        os.mkdir(temporary, 0o700)
        if findings is None:
            findings = search(diff_dir(home, key))
        if findings.whiteouts:
            _make_above(diff_dir(home, key), f"{temporary}/above", findings.whiteouts)
        if findings.opaque:
            _make_below(f"{temporary}/below", findings.opaque)
        forget(home, key)
        try:
            os.rename(temporary, target)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise  # else another process was faster with the same


def forget(home: str, key: str) -> None:
    """Take the companions of a layer that is about to change away."""
    if removing := set_aside(companions_dir(home, key)):
        remove_tree(removing)


def search(root: str) -> Findings:
    """Find a layer's whiteouts, with aufs's own eyes.

    Any regular file `.wh.NAME` hides NAME. One that is a directory or a link makes aufs answer EIO for NAME and leave it out of
    listings: here it hides NAME too. An opaque mark counts if it is a regular file, and never in the root.
    """
    findings = Findings()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        below: list[str] = []
        hidden: set[str] = set()
        with os.scandir(f"{root}/{folder}") as entries:
            for entry in entries:
                if not entry.name.startswith(PREFIX):
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                    continue
                findings.whiteouts.append(folder + entry.name)
                name = entry.name.removeprefix(PREFIX)
                if entry.name == OPAQUE:
                    if folder and entry.is_file(follow_symlinks=False):
                        findings.opaque.append(folder.rstrip("/"))
                elif name and not name.startswith(PREFIX):
                    hidden.add(name)
        findings.whiteouts += [folder + name for name in sorted(hidden)]
        waiting += [f"{folder}{name}/" for name in below if name not in hidden]
    return findings


def _make_above(layer: str, target: str, whiteouts: list[str]) -> None:
    made = _make_directories(target, [os.path.dirname(path) for path in whiteouts])
    for path in whiteouts:
        os.mknod(f"{target}/{path}", stat.S_IFCHR | 0o000, 0)
    for folder in reversed(made):  # the deepest first: what is made in a directory changes its times
        copy_root(f"{layer}/{folder}", f"{target}/{folder}")
        for name in filter(is_own, os.listxattr(f"{target}/{folder}")):  # the layer's form may be a mounted one's yet
            os.removexattr(f"{target}/{folder}", name)


def _make_below(target: str, opaque: list[str]) -> None:
    _make_directories(target, opaque)
    for folder in opaque:
        os.setxattr(f"{target}/{folder}", OVERLAY_OPAQUE, b"y")


def _make_directories(target: str, folders: list[str]) -> list[str]:
    """Make directories and those above them; return them all, parents before children."""
    made = [""]
    os.mkdir(target)
    for folder in folders:
        parts = folder.split("/") if folder else []
        for depth in range(1, len(parts) + 1):
            with suppress(FileExistsError):
                os.mkdir(f"{target}/{'/'.join(parts[:depth])}")
                made.append("/".join(parts[:depth]))
    return made
