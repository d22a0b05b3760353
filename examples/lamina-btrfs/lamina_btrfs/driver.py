"""The storage driver `btrfs`: every layer is a subvolume, made as a snapshot of the one below.

A snapshot shares all blocks with its origin until one of the two is written, and takes the same time whatever its size. So a layer
is a full tree, as with vfs, without the copy: no union, no whiteouts, no copy-up, and a container writes at the file system's own
speed. What isn't here is core's part: mounting, locks, tar, the comparison of two trees that gives `diff`.

A map of `home` (`/var/lib/lamina/btrfs`, on btrfs):

    subvolumes/<key>         a layer, a subvolume: the whole tree, and nothing but the tree
    ro/<key>/                an empty directory, only there to mount a read-only view on
    trash/<key>-<random>     a discarded layer that waits for `storage_sweep`

A subvolume that a container makes within its own root is deleted with the layer. A layer on top shows it as an empty directory:
a snapshot stops at the border of its subvolume.
"""

import os
from collections.abc import Mapping, Sequence

from lamina.api.copytree import kept_here
from lamina.api.hookspecs import hookimpl
from lamina.api.types import API_VERSION, Behaviour, Capabilities, Fidelity, Probe, Usage, View, WhiteoutFormat
from lamina.errors import UsageError
from lamina.linux.fs import filesystem_type, nearest_directory, syncfs
from lamina.model.mount import Mount, MountFlag
from lamina_btrfs import subvolume


class BtrfsDriver:
    """Snapshots. Each method is a hook; its contract is in `lamina.api.hookspecs`."""

    name = "btrfs"
    api_version = API_VERSION

    @hookimpl
    def storage_probe(self, home: str) -> Probe:
        """Usable on btrfs, by root."""
        place = nearest_directory(home)
        kept, reason, hint, has_quotas = frozenset(Fidelity), "", "", False
        if (kind := filesystem_type(place)) != "btrfs":
            reason, hint = f"'{place}' is on {kind}, not on btrfs", "put the store on btrfs: mkfs.btrfs, mount, and --root there"
        elif os.geteuid() != 0:
            reason, hint = "deleting subvolumes needs root", "run as root"
        else:
            try:
                kept = kept_here(place)
                has_quotas = subvolume.has_quotas(place)
            except OSError as error:
                reason = f"'{place}' can't be written: {error.strerror}"
        return Probe(
            usable=not reason,
            capabilities=Capabilities(
                whiteouts=WhiteoutFormat.NONE,
                native_diff=False,
                quota=has_quotas,
                preserves=kept,
                behaves=frozenset(Behaviour) - {Behaviour.DIRECTORY_LINKS},  # st_nlink of a directory is 1 on btrfs
            ),
            method="snapshots",
            reason=reason,
            hint=hint,
            no_quota_reason="" if has_quotas else f"quotas are not enabled on the btrfs of '{place}'",
            no_quota_hint="" if has_quotas else f"run btrfs quota enable {place}",
        )

    @hookimpl
    def storage_prepare(
        self, home: str, key: str, parents: Sequence[str], options: Mapping[str, str], size_bytes: int | None = None
    ) -> bool:
        """Snapshot the parent, or make an empty subvolume. Either is one step: there or not there."""
        if options:
            raise UsageError(f"the btrfs driver doesn't know the option '{next(iter(options))}'", hint="it has none but size")
        os.makedirs(f"{home}/subvolumes", mode=0o700, exist_ok=True)
        if parents:
            subvolume.snapshot(f"{home}/subvolumes/{parents[0]}", f"{home}/subvolumes", key)
        else:
            subvolume.create(f"{home}/subvolumes", key)
            os.chmod(f"{home}/subvolumes/{key}", 0o755)  # the umask was taken away
        if size_bytes is not None:
            try:
                subvolume.limit(f"{home}/subvolumes/{key}", size_bytes)
            except OSError:
                subvolume.destroy(f"{home}/subvolumes", key)
                raise
        return True

    @hookimpl
    def storage_mounts(self, home: str, key: str, readonly: bool) -> View:
        """A layer is seen where it lies; read-only it is seen elsewhere, so that both ways can be in use at once."""
        layer = f"{home}/subvolumes/{key}"
        if not readonly:
            return View(root=layer)
        place = f"{home}/ro/{key}"
        return View(root=place, mounts=(Mount(type="bind", source=layer, target=place, flags=MountFlag.BIND | MountFlag.RDONLY),))

    @hookimpl
    def storage_discard(self, home: str, key: str) -> bool:
        """Rename the subvolume into the trash, with all that is in it."""
        os.makedirs(f"{home}/trash", mode=0o700, exist_ok=True)
        try:
            os.rename(f"{home}/subvolumes/{key}", f"{home}/trash/{key}-{os.urandom(6).hex()}")
        except FileNotFoundError:
            pass
        try:
            os.rmdir(f"{home}/ro/{key}")
        except FileNotFoundError:
            pass
        return True

    @hookimpl
    def storage_sweep(self, home: str) -> bool:
        """Delete the subvolumes in the trash, which unlink(2) can't."""
        for name in _names(f"{home}/trash"):
            try:
                number = subvolume.number(f"{home}/trash/{name}")
            except FileNotFoundError:
                continue  # another process was faster
            subvolume.destroy(f"{home}/trash", name)
            subvolume.forget_quota(home, number)
        return True

    @hookimpl
    def storage_usage(self, home: str, key: str) -> Usage:
        """Count what was written since the snapshot; what is still in memory has to be written first to be counted."""
        syncfs(home)
        size_bytes, inodes = subvolume.written(f"{home}/subvolumes/{key}")
        return Usage(size_bytes=size_bytes, inodes=inodes)

    @hookimpl
    def storage_keys(self, home: str) -> list[str]:
        """List the subvolumes."""
        return sorted(_names(f"{home}/subvolumes"))


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []  # nothing was ever put here


plugin = BtrfsDriver()
