"""The storage driver `vfs`: every layer is a full copy of the one below, as an ordinary directory. No union, no whiteouts.

It works on every file system, costs a copy for each layer (on XFS a reflink, which shares the blocks; on btrfs a snapshot, which
takes the same time whatever is in it), and is the driver to read before you write one: each of the contract's required hooks is
here, in its shortest form. What isn't here is core's part: mounting, locks, tar, the comparison of two trees that gives `diff`,
deleting what lies in the trash.

A map of `home` (`/var/lib/lamina/vfs`), where `dir` is as Docker's vfs has it:

    dir/<key>/              a layer: the whole tree, and nothing but the tree
    tmp/<key>/              a layer while it is being copied; renamed to dir/<key> when it is whole
    ro/<key>/               an empty directory, only there to mount a read-only view on
    quota/<key>             of a layer whose size is limited: see lamina.api.quota
    trash/<key>-<random>/   a discarded layer that waits for the engine to delete it
"""

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from lamina.api import quota
from lamina.api.copytree import clone_tree, copy_tree, kept_here, make_tree
from lamina.api.hookspecs import hookimpl
from lamina.api.types import API_VERSION, Behaviour, Capabilities, Fidelity, Probe, View, WhiteoutFormat
from lamina.errors import UsageError
from lamina.linux.fs import can_clone, nearest_directory, removed_on_error
from lamina.model.mount import Mount, MountFlag


class VfsDriver:
    """Full copies. Each method is a hook; its contract is in `lamina.api.hookspecs`."""

    name = "vfs"
    api_version = API_VERSION

    @hookimpl
    def storage_probe(self, home: str) -> Probe:
        """Usable everywhere; what it costs depends on whether files can share blocks here."""
        place = nearest_directory(home)
        reflink, kept, reason, hint = False, frozenset[Fidelity](), "", ""
        no_quota_reason, no_quota_hint = quota.missing(place)
        try:
            reflink, kept = can_clone(place), kept_here(place)
        except OSError as error:
            reason = f"'{place}' can't be written: {error.strerror}"
            hint = "" if os.geteuid() == 0 else "run as root"
        else:
            hint = "" if reflink else "on btrfs, or on XFS made with reflink=1, layers share their blocks"
        return Probe(
            usable=not reason,
            capabilities=Capabilities(
                whiteouts=WhiteoutFormat.NONE,
                native_diff=False,
                quota=not no_quota_reason,
                preserves=kept,
                # A plain tree; what a directory's link count says is the file system's affair (btrfs: nothing).
                behaves=frozenset(Behaviour) - ({Behaviour.DIRECTORY_LINKS} if os.stat(place).st_nlink < 2 else set()),
            ),
            method="reflink" if reflink else "copy",
            reason=reason,
            hint=hint,
            no_quota_reason=no_quota_reason,
            no_quota_hint=no_quota_hint,
        )

    @hookimpl
    def storage_prepare(
        self, home: str, key: str, parents: Sequence[str], options: Mapping[str, str], size_bytes: int | None = None
    ) -> bool:
        """Copy the parent aside, then give it its name: under `dir` there are only whole layers.

        A limited layer's copy is counted from its first file on, and what it takes when it is whole doesn't count as its growth.
        """
        if options:
            raise UsageError(f"the vfs driver doesn't know the option '{next(iter(options))}'", hint="it has none but size")
        layer, half_made = f"{home}/dir/{key}", f"{home}/tmp/{key}"
        for taken in (layer, half_made):
            if os.path.lexists(taken):
                raise FileExistsError(errno.EEXIST, "the layer is there already", taken)
        for directory in ("dir", "tmp", "trash"):  # the trash while there is room: on a full disk a removal has none for it
            os.makedirs(f"{home}/{directory}", mode=0o700, exist_ok=True)
        with removed_on_error(half_made), ExitStack() as undo:
            if size_bytes is not None:
                undo.callback(quota.forget, home, key)
                os.mkdir(half_made)
                quota.begin(home, key, [half_made])
                if parents:
                    copy_tree(f"{home}/dir/{parents[0]}", half_made, target_is_made=True)
                else:
                    os.chmod(half_made, 0o755)  # mkdir(2) takes the umask away, chmod(2) doesn't
                quota.limit(home, key, [half_made], size_bytes)
            elif parents:
                clone_tree(f"{home}/dir/{parents[0]}", half_made)
            else:
                make_tree(half_made)
            os.rename(half_made, layer)
            undo.pop_all()
        return True

    @hookimpl
    def storage_mounts(self, home: str, key: str, readonly: bool) -> View:
        """A layer is seen where it lies. Read-only it is seen elsewhere, so that both ways can be in use at once."""
        layer = f"{home}/dir/{key}"
        if not readonly:
            return View(root=layer)
        place = f"{home}/ro/{key}"
        return View(root=place, mounts=(Mount(type="bind", source=layer, target=place, flags=MountFlag.BIND | MountFlag.RDONLY),))

    @hookimpl
    def storage_before_mount(self, home: str, key: str) -> bool:
        """Nothing is to be made ready; a limit must still be in force."""
        if quota.is_limited(home, key):
            quota.check(home, key, [f"{home}/dir/{key}"])
        return True

    @hookimpl
    def storage_describe(self, home: str, key: str) -> dict[str, str]:
        """Give the path that Docker's `inspect` shows."""
        return {"MergedDir": f"{home}/dir/{key}", **quota.describe(home, key)}

    @hookimpl
    def storage_discard(self, home: str, key: str) -> bool:
        """Rename the layer into the trash, whole or half made."""
        quota.forget(home, key)
        os.makedirs(f"{home}/trash", mode=0o700, exist_ok=True)
        for place in ("dir", "tmp"):
            try:
                os.rename(f"{home}/{place}/{key}", f"{home}/trash/{key}-{os.urandom(6).hex()}")
            except FileNotFoundError:
                pass
        try:
            os.rmdir(f"{home}/ro/{key}")
        except FileNotFoundError:
            pass
        return True

    @hookimpl
    def storage_keys(self, home: str) -> list[str]:
        """List the layers, and those that a killed engine was copying."""
        return sorted({*_names(f"{home}/dir"), *_names(f"{home}/tmp")})


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []  # nothing was ever prepared here


plugin = VfsDriver()
