"""The storage driver `overlay`: layers united by the kernel's overlayfs. Its other name is `overlay2`.

A layer holds only what it changes, in the kernel's own form (a whiteout is a character device 0:0, an opaque directory has the
xattr `trusted.overlay.opaque`). The union is one mount whose lower directories are given one by one (`lowerdir+`), so neither the
page that mount(2) copies its options into nor a `:` or `,` in a path is a limit; the kernel's is 500 lower directories.

A map of `home` (`/var/lib/lamina/overlay`), laid out as Docker's overlay2 directory:

    l/<26 characters>       symlink to ../<key>/diff: a layer's short name
    <key>/diff/             what the layer adds, changes and deletes: the upper directory, later a lower one
    <key>/link              the layer's short name, without a newline
    <key>/lower             `l/A:l/B:…`, the short names of the layers below, nearest first; not in a base layer
    <key>/work/             overlayfs's own (same file system as diff; overlayfs.rst, "workdir"); not in a base layer
    <key>/merged/           where the union is mounted; there only while it is
    <key>/view/             where a read-only union is mounted, if ever
    quota/<key>             of a layer whose size is limited: see lamina.api.quota
    trash/<key>-<random>/   a discarded layer that waits for the engine to delete it

`l`, `link` and `lower` are there for people and tools that know Docker's directory. The driver itself goes by the keys that the
engine gives it, so a lost symlink or an empty file after a power cut harms nothing.
"""

import errno
import os
from collections.abc import Mapping, Sequence

from lamina.api import quota
from lamina.api.copytree import copy_root
from lamina.api.hookspecs import hookimpl
from lamina.api.types import API_VERSION, Probe, View
from lamina.errors import UsageError
from lamina.linux.fs import remove_tree, removed_on_error
from lamina.model.digest import Digest
from lamina.model.mount import Mount, MountFlag

OWN_NAMES = frozenset({"l", "quota", "trash"})
"""What lies in `home` beside the layers."""

OPTIONS: tuple[tuple[str, str | None], ...] = (
    ("index", "off"),  # an index ties a layer to its lowers' file handles: a copied or restored store would not mount (ESTALE)
    ("redirect_dir", "nofollow"),  # a renamed directory is copied, and `diff` alone says what the layer is
    ("metacopy", "off"),  # a chmod copies the file's bytes too, for the same reason
)
"""Whatever the kernel's module parameters say, a layer's `diff` must mean the same to tar, to Docker and to the next mount."""

REASONS = {
    "lowerdir+": "a layer below, given one by one: no page of options to overflow, no `:` or `,` in a path to escape",
    "upperdir": "the container's own layer: all that it changes lands here",
    "workdir": "overlayfs makes a file ready here before it appears in the upper directory",
    "index=off": "an index would tie the layer to its lower files' handles: a copied or restored store would not mount",
    "redirect_dir=nofollow": "a renamed directory is copied, so that the layer's directory alone says what the layer is",
    "metacopy=off": "a chmod copies the file's bytes too, so that the layer's directory alone says what the layer is",
}
"""What `explain` says of each option."""


_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


class OverlayDriver:
    """Kernel overlayfs. Each method is a hook; its contract is in `lamina.api.hookspecs`."""

    name = "overlay"
    api_version = API_VERSION

    @hookimpl
    def storage_probe(self, home: str) -> Probe:
        """Look for overlayfs in the kernel, and at what it needs of the file system below."""
        from lamina_overlay.probe import probe  # not needed by a `run` on a store that has been probed

        return probe(home)

    @hookimpl
    def storage_prepare(
        self, home: str, key: str, parents: Sequence[str], options: Mapping[str, str], size_bytes: int | None = None
    ) -> bool:
        """Make the layer's directories. Every `run` waits for this: no sync, and no reading of the layers below."""
        if options:
            raise UsageError(f"the overlay driver doesn't know the option '{next(iter(options))}'", hint="it has none but size")
        if key in OWN_NAMES:
            raise UsageError(f"'{key}' can't be a layer's key: the overlay driver keeps something of its own by that name")
        layer, link = f"{home}/{key}", short_name(key)
        os.mkdir(layer, 0o710)  # raises if the layer is there already, which is then none of ours to remove
        with removed_on_error(layer):
            os.mkdir(f"{layer}/diff")
            _write(f"{layer}/link", link)
            if parents:
                copy_root(f"{home}/{parents[0]}/diff", f"{layer}/diff")
                _write(f"{layer}/lower", ":".join([f"l/{short_name(parent)}" for parent in parents]))
                os.mkdir(f"{layer}/work", 0o700)
            else:
                os.chmod(f"{layer}/diff", 0o755)  # mkdir(2) takes the umask away, chmod(2) doesn't
            if size_bytes is not None:
                quota.limit(home, key, [f"{layer}/diff", *([f"{layer}/work"] if parents else [])], size_bytes)
            try:
                _symlink(f"../{key}/diff", f"{home}/l", link)
            except BaseException:
                quota.forget(home, key)
                raise
        return True

    @hookimpl
    def storage_mounts(self, home: str, key: str, parents: Sequence[str], readonly: bool) -> View:
        """Unite with overlayfs, or bind `diff` where a single directory is all there is."""
        layer = f"{home}/{key}"
        diff, root = f"{layer}/diff", f"{layer}/view" if readonly else f"{layer}/merged"
        flags = MountFlag.RDONLY if readonly else MountFlag.NONE
        lowers = [f"{home}/{parent}/diff" for parent in parents]
        options: list[tuple[str, str | None]]
        if not parents:
            mount = Mount(type="bind", source=diff, target=root, flags=flags | MountFlag.BIND)
        else:
            if readonly:
                options = [("lowerdir+", lower) for lower in (diff, *lowers)]
            else:
                options = [("lowerdir+", lower) for lower in lowers]
                options += [("upperdir", diff), ("workdir", f"{layer}/work")]
            mount = Mount(type="overlay", source="overlay", target=root, flags=flags, options=(*options, *OPTIONS))
        return View(root=root, mounts=(mount,), upper_dir=diff)

    @hookimpl
    def storage_before_mount(self, home: str, key: str, parents: Sequence[str]) -> bool:
        """Make the work directory and the mount point, and let a volatile mount's mark not stand in the way."""
        layer = f"{home}/{key}"
        for name in ("work", "merged") if parents else ("merged",):
            try:
                os.mkdir(f"{layer}/{name}", 0o700)
            except FileExistsError:
                pass
        if quota.is_limited(home, key):
            quota.check(home, key, [f"{layer}/diff", *([f"{layer}/work"] if parents else [])])
        # Left by a `volatile` mount that ended without its sync; the kernel refuses the next one (overlayfs.rst, "Volatile mount").
        remove_tree(f"{layer}/work/work/incompat")
        return True

    @hookimpl
    def storage_after_unmount(self, home: str, key: str) -> bool:
        """Remove the mount point, as Docker does: that also ends the mount in namespaces that have a copy of it."""
        try:
            os.rmdir(f"{home}/{key}/merged")
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTEMPTY}:
                raise
        return True

    @hookimpl
    def storage_discard(self, home: str, key: str) -> bool:
        """Take the short name and the limit away, then the layer aside."""
        _unlink(f"{home}/l/{short_name(key)}")
        quota.forget(home, key)
        trash = f"{home}/trash/{key}-{os.urandom(6).hex()}"
        try:
            os.rename(f"{home}/{key}", trash)
        except FileNotFoundError:
            if os.path.lexists(f"{home}/{key}"):  # so it is the trash that isn't there
                os.makedirs(f"{home}/trash", mode=0o700, exist_ok=True)
                os.rename(f"{home}/{key}", trash)
        return True

    @hookimpl
    def storage_keys(self, home: str) -> list[str]:
        """List the layers' directories."""
        with os.scandir(home) as entries:
            return sorted(entry.name for entry in entries if entry.name not in OWN_NAMES and entry.is_dir(follow_symlinks=False))

    @hookimpl
    def storage_explain(self) -> dict[str, str]:
        """Say why each option is there."""
        return REASONS

    @hookimpl
    def storage_describe(self, home: str, key: str, parents: Sequence[str]) -> dict[str, str]:
        """Give the paths that Docker's `inspect` shows for overlay2, by the same names."""
        layer = f"{home}/{key}"
        paths = {"MergedDir": f"{layer}/merged", "UpperDir": f"{layer}/diff", "WorkDir": f"{layer}/work"}
        if parents:
            paths = {"LowerDir": ":".join(f"{home}/{parent}/diff" for parent in parents), **paths}
        return {**paths, **quota.describe(home, key)}


def short_name(key: str) -> str:
    """Make a layer's name in `l/`: 26 characters as Docker's are, but always the same ones for a key.

    Docker draws them by lot and must read `link` of each layer below to write `lower`.
    """
    number = int(Digest.of(key.encode()).hex, 16)
    return "".join(_BASE32[number >> shift & 31] for shift in range(256 - 5, 256 - 27 * 5, -5))


def _write(path: str, text: str) -> None:
    """Write a small file under another name first, so that by its own name it is never seen half written."""
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
    os.rename(temporary, path)


def _symlink(target: str, directory: str, name: str) -> None:
    for _ in range(2):
        try:
            os.symlink(target, f"{directory}/{name}")
            return
        except FileExistsError:
            return  # left by a prepare that was killed; it can only be the same
        except FileNotFoundError:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            os.makedirs(f"{os.path.dirname(directory)}/trash", mode=0o700, exist_ok=True)  # while there is room for it
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


plugin = OverlayDriver()
