"""The writable layer's two forms, and the way from one to the other.

At rest `diff/KEY` is in aufs's format. While overlayfs or fuse-overlayfs writes into it it is in theirs. Each step of the way
leaves the directory understandable, and each conversion may be killed anywhere and begun again:

- the link `form` says which form the whole directory has. It is taken away before the first change and made again after the
  last, so that without it both kinds of whiteout count, whichever is met;
- a name gets its new whiteout before it loses the old one;
- a directory whose entries change carries its times in an xattr meanwhile.

The one thing that can't be told from its form is a `.wh.NAME` that a container made while overlayfs was in force, where it is a
name like any other. Such names are moved to `work/KEY/refused/` while `form` still says overlay. (aufs wouldn't have let them be
made. They belong to no layer, so they don't come back when the container starts again.)

Not here: the layers below, which are never written (companions.py).
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from lamina_aufs.names import (
    BASE,
    BOOKKEEPING,
    FUSE_XATTRS,
    MTIME_XATTR,
    OPAQUE,
    OVERLAY_ESCAPED,
    OVERLAY_OPAQUE,
    OVERLAY_XATTRS,
    PREFIX,
    Form,
    diff_dir,
    work_dir,
)

_NAME_MAX = 255
FUSE_OPAQUE = ".wh..opq"
"""What fuse-overlayfs puts beside `.wh..wh..opq` and the xattr: a device 0:0, which is the whiteout of nothing."""


def read(home: str, key: str) -> Form | None:
    """Say in which form the layer is; None for one that another engine wrote, or whose conversion was cut off."""
    try:
        return Form(os.readlink(f"{work_dir(home, key)}/form"))
    except (FileNotFoundError, ValueError):
        return None


def write(home: str, key: str, value: Form) -> None:
    """Record the form."""
    link = f"{work_dir(home, key)}/form"
    with suppress(FileNotFoundError):
        os.unlink(f"{link}.new")
    os.symlink(value, f"{link}.new")
    os.rename(f"{link}.new", link)


def forget(home: str, key: str) -> None:
    """From here on nothing is known of the form."""
    with suppress(FileNotFoundError):
        os.unlink(f"{work_dir(home, key)}/form")


@dataclass(slots=True, kw_only=True)
class Findings:
    """A layer's whiteouts, as paths relative to its root."""

    whiteouts: list[str] = field(default_factory=list)
    """Every path to be covered by a device 0:0: the hidden ones and the `.wh.` ones."""
    opaque: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Directory:
    """What one directory of the layer holds that has to change."""

    path: str
    odd: list[str] = field(default_factory=list)
    """Names beginning with `.wh.`."""
    devices: list[str] = field(default_factory=list)
    """Names that are a character device 0:0."""
    xattrs: list[tuple[str, str]] = field(default_factory=list)
    """Attributes (path, name) that overlayfs made, the directory's own among them."""
    interrupted: bool = False

    @property
    def opaque(self) -> bool:
        return (self.path, OVERLAY_OPAQUE) in self.xattrs

    def __bool__(self) -> bool:
        return bool(self.odd or self.devices or self.xattrs or self.interrupted)


def to_mounted(home: str, key: str, target: Form) -> None:
    """Bring the layer from aufs's form or any mix into the one that overlayfs or fuse-overlayfs reads and writes."""
    now = read(home, key)
    if now is target:
        return
    root = diff_dir(home, key)
    os.makedirs(f"{work_dir(home, key)}/aside", mode=0o700, exist_ok=True)
    forget(home, key)
    _move_bookkeeping(root, f"{work_dir(home, key)}/aside")
    for directory in _walk(root, fuse=False) if now is not Form.PLAIN else ():
        own = [name for path, name in directory.xattrs if path == directory.path]
        if not directory.odd and not directory.interrupted:
            continue
        with _keeping_times(directory.path):
            for name in directory.odd:
                _show_whiteout(home, key, directory.path, name, root=root, is_opaque=OVERLAY_OPAQUE in own)
    write(home, key, target)


def _show_whiteout(home: str, key: str, folder: str, name: str, *, root: str, is_opaque: bool) -> None:
    """Replace one `.wh.` entry by what it means to overlayfs."""
    path = f"{folder}/{name}"
    is_file = stat.S_ISREG(os.lstat(path).st_mode)
    hidden = name.removeprefix(PREFIX)
    if name == OPAQUE:
        if is_file and folder != root and not is_opaque:  # aufs pays no heed to one in a branch's root
            os.setxattr(folder, OVERLAY_OPAQUE, b"y")
    elif hidden and not hidden.startswith(PREFIX):
        with suppress(FileNotFoundError):
            if not _is_whiteout(f"{folder}/{hidden}"):
                _refuse(home, key, f"{folder}/{hidden}")  # aufs hides a name that has a whiteout beside it
        with suppress(FileExistsError):
            os.mknod(f"{folder}/{hidden}", stat.S_IFCHR | 0o000, 0)
    if is_file:
        os.unlink(path)
    else:
        _refuse(home, key, path)  # a directory or a link, at which aufs answers EIO


def to_rest(home: str, key: str, parents: Sequence[str], tell: Callable[[Findings], object]) -> None:
    """Bring the layer from any form or mix into aufs's, bookkeeping entries included.

    `tell` is called with the whiteouts that there will be, before the first of them is made: not for a mix, whose are known from
    before. `parents` tell an opaque mark that hides something from one that doesn't: overlayfs gives one to a new directory that is
    renamed, fuse-overlayfs to every new one, aufs only to one that takes a name of below. Without `parents` all are kept.
    """
    now = read(home, key)
    if now in {Form.AUFS, Form.PLAIN}:
        return
    root, aside = diff_dir(home, key), f"{work_dir(home, key)}/aside"
    os.makedirs(aside, mode=0o700, exist_ok=True)
    is_fuse = now is not None and now.is_fuse
    found = list(_walk(root, fuse=is_fuse))
    if now is not None and any(directory.odd or (is_fuse and FUSE_OPAQUE in directory.devices) for directory in found):
        write(home, key, Form.FUSE_ENDING if is_fuse else Form.OVERLAY_ENDING)
        for directory in found:
            _refuse_names(home, key, directory, fuse=is_fuse)
    kept = {each.path for each in found if each.opaque and each.path != root and _is_below(home, parents, each.path[len(root) :])}
    if now is not None:
        tell(_findings(root, found, kept))
    forget(home, key)
    _make_bookkeeping(root, aside)
    base, plain = f"{root}/{BASE}", True
    for directory in found:
        opaque = directory.path in kept
        marks = [name for name in directory.odd if name not in BOOKKEEPING or directory.path != root]
        plain = plain and not (directory.devices or opaque or marks)
        if not directory:
            continue
        with _keeping_times(directory.path):
            for name in directory.devices:
                _hide(base, directory.path, name)
            if opaque:
                _link(base, f"{directory.path}/{OPAQUE}")
            for path, name in directory.xattrs:
                with suppress(OSError):  # gone with what was moved away
                    os.removexattr(path, name, follow_symlinks=False)
    write(home, key, Form.PLAIN if plain else Form.AUFS)


def _findings(root: str, found: Sequence[_Directory], opaque: Set[str]) -> Findings:
    """Say what a layer in overlayfs's form will have in aufs's."""
    findings = Findings(whiteouts=list(BOOKKEEPING))
    for directory in found:
        inside = directory.path[len(root) + 1 :]
        at = f"{inside}/" if inside else ""
        for name in directory.devices:
            findings.whiteouts.append(at + name)
            if _has_whiteout(name):
                findings.whiteouts.append(f"{at}{PREFIX}{name}")
        if directory.path in opaque:
            findings.whiteouts.append(at + OPAQUE)
            findings.opaque.append(inside)
    return findings


def _has_whiteout(name: str) -> bool:
    """Whether aufs can have one of that name: one of more than 251 bytes stays what it is."""
    return len(os.fsencode(PREFIX + name)) <= _NAME_MAX


def _hide(base: str, folder: str, name: str) -> None:
    """Replace a device 0:0 by aufs's whiteout of that name."""
    if _has_whiteout(name):
        _link(base, f"{folder}/{PREFIX}{name}")
        os.unlink(f"{folder}/{name}")


def _refuse_names(home: str, key: str, directory: _Directory, *, fuse: bool) -> None:
    """Take away the names that the container made and aufs wouldn't have let it make; and what fuse-overlayfs left."""
    if not directory.odd and not (fuse and FUSE_OPAQUE in directory.devices):
        return
    with _keeping_times(directory.path):
        for name in directory.odd:
            path = f"{directory.path}/{name}"
            if fuse and name == OPAQUE and stat.S_ISREG(os.lstat(path).st_mode):
                os.unlink(path)
            else:
                _refuse(home, key, path)
        if fuse and FUSE_OPAQUE in directory.devices:
            os.unlink(f"{directory.path}/{FUSE_OPAQUE}")
            directory.devices.remove(FUSE_OPAQUE)
    directory.odd.clear()


def _refuse(home: str, key: str, path: str) -> None:
    """Move something out of the layer, to where a person can find it as long as the container is there."""
    folder = f"{work_dir(home, key)}/refused"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    number = len(os.listdir(folder))
    while os.path.lexists(target := f"{folder}/{number:06d}-{os.path.basename(path)[:40]}"):
        number += 1
    os.rename(path, target)


def _walk(root: str, *, fuse: bool) -> Iterator[_Directory]:
    """Yield every directory of a layer with what in it isn't plain; a directory with a `.wh.` name isn't entered."""
    waiting = [root]
    while waiting:
        directory = _Directory(path=waiting.pop())
        for name in os.listxattr(directory.path):
            if name == MTIME_XATTR:
                directory.interrupted = True
            elif _is_unions(name, fuse=fuse):
                directory.xattrs.append((directory.path, name))
        with os.scandir(directory.path) as entries:
            for entry in entries:
                if entry.name.startswith(PREFIX) and not (fuse and entry.name == FUSE_OPAQUE):
                    directory.odd.append(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif _may_be_device(entry) and _is_whiteout(entry.path):
                    directory.devices.append(entry.name)
                else:
                    names = os.listxattr(entry.path, follow_symlinks=False)
                    directory.xattrs += [(entry.path, name) for name in names if _is_unions(name, fuse=fuse)]
        yield directory


def _may_be_device(entry: os.DirEntry[str]) -> bool:
    return not entry.is_symlink() and not entry.is_file(follow_symlinks=False)


def _is_whiteout(path: str) -> bool:
    status = os.lstat(path)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_own(name: str) -> bool:
    """Whether an attribute is a mounted form's, or that of a conversion, and none of the layer's."""
    return name == MTIME_XATTR or _is_unions(name, fuse=True)


def _is_unions(name: str, *, fuse: bool) -> bool:
    if name == MTIME_XATTR or name.startswith(OVERLAY_ESCAPED):
        return False
    return name.startswith(OVERLAY_XATTRS) or (fuse and name.startswith(FUSE_XATTRS))


def _is_below(home: str, parents: Sequence[str], inside: str) -> bool:
    return not parents or any(os.path.lexists(diff_dir(home, parent) + inside) for parent in parents)


@contextmanager
def _keeping_times(path: str) -> Iterator[None]:
    """Let a directory's entries change and its times not, even if this process ends in between and another does the rest."""
    status = os.lstat(path)
    times = (status.st_atime_ns, status.st_mtime_ns)
    try:
        before, _, after = os.getxattr(path, MTIME_XATTR).partition(b" ")
        times = (int(before), int(after))
    except (OSError, ValueError):
        os.setxattr(path, MTIME_XATTR, b"%d %d" % times)
    yield
    os.utime(path, ns=times)
    with suppress(OSError):
        os.removexattr(path, MTIME_XATTR)


def _link(base: str, path: str) -> None:
    """Make a whiteout, a hard link as aufs makes them; an own file where the file system allows no more links."""
    try:
        os.link(base, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444))
        os.chmod(path, 0o444)


def _move_bookkeeping(root: str, aside: str) -> None:
    """Take aufs's bookkeeping entries out of the layer's root."""
    there = [name for name in BOOKKEEPING if os.path.lexists(f"{root}/{name}")]
    if there:
        with _keeping_times(root):
            for name in there:
                os.rename(f"{root}/{name}", f"{aside}/{name}")


def _make_bookkeeping(root: str, aside: str) -> None:
    """Put aufs's bookkeeping entries into the layer's root: those set aside, else new ones as its mount would make them."""
    missing = [name for name in BOOKKEEPING if not os.path.lexists(f"{root}/{name}")]
    if not missing:
        return
    with _keeping_times(root):
        for name in missing:
            try:
                os.rename(f"{aside}/{name}", f"{root}/{name}")
            except FileNotFoundError:
                _make_one(f"{root}/{name}", is_file=name == BASE)


def _make_one(path: str, *, is_file: bool) -> None:
    if is_file:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        os.chmod(path, 0o444)
    else:
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)
