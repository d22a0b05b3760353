"""The storage driver `fuse-overlayfs`: layers united by the program of that name. It shows how short a driver can be.

`home/<key>/diff` is what a layer changes, `home/trash` waits for the engine to empty it. The program marks an opaque directory by
a file `.wh..wh..opq` beside the xattr: so `diff` is not quite in overlayfs's form, and what changed is found by comparing trees.
"""

import os
from collections.abc import Mapping, Sequence
from shutil import which

from lamina.api.copytree import copy_root
from lamina.api.entries import Change, Trees
from lamina.api.hookspecs import hookimpl
from lamina.api.types import Behaviour, Capabilities, Probe, View, WhiteoutFormat
from lamina.archive.changes import compare_trees
from lamina.errors import UsageError
from lamina.linux.fs import removed_on_error
from lamina.model.mount import Mount, MountFlag

CAPABILITIES = Capabilities(  # `preserves` nothing: each copy-up loses something, at least the time of the directory above
    whiteouts=WhiteoutFormat.OVERLAY, native_diff=False, max_depth=200, forbidden_prefix=".wh.",
    behaves=frozenset(Behaviour) - {Behaviour.DIRECTORY_RENAME, Behaviour.STABLE_INODES},
)  # fmt: skip


class FuseOverlayfsDriver:
    """Each method is a hook; its contract is in `lamina.api.hookspecs`."""

    name = "fuse-overlayfs"
    api_version = 1

    @hookimpl
    def storage_probe(self, home: str) -> Probe:
        reason = ""
        if not which("fuse-overlayfs") or not os.path.exists("/dev/fuse"):
            reason = "the program fuse-overlayfs or the device /dev/fuse is not there"
        elif set(home) & set(":,\\"):
            reason = f"'{home}' has a character that parts the program's options"
        return Probe(usable=not reason, capabilities=CAPABILITIES, method="FUSE", reason=reason)

    @hookimpl
    def storage_prepare(self, home: str, key: str, parents: Sequence[str], options: Mapping[str, str]) -> bool:
        if options or key == "trash":
            raise UsageError(f"the fuse-overlayfs driver has no option '{next(iter(options), '')}' and no layer 'trash'")
        os.mkdir(f"{home}/{key}", 0o710)
        with removed_on_error(f"{home}/{key}"):
            for name in ("diff", "work"):
                os.mkdir(f"{home}/{key}/{name}")
            os.chmod(f"{home}/{key}/diff", 0o755)
            if parents:
                copy_root(f"{home}/{parents[0]}/diff", f"{home}/{key}/diff")
        return True

    @hookimpl
    def storage_mounts(self, home: str, key: str, parents: Sequence[str], readonly: bool) -> View:
        layer, flags = f"{home}/{key}", MountFlag.RDONLY if readonly else MountFlag.NONE
        root = f"{layer}/view" if readonly else f"{layer}/merged"
        lowers = [f"{home}/{each}/diff" for each in ([key, *parents] if readonly else parents)]
        words: list[tuple[str, str | None]] = [("allow_other", None), ("suid", None), ("dev", None), ("lowerdir", ":".join(lowers))]
        words += [("ro", None)] if readonly else [("upperdir", f"{layer}/diff"), ("workdir", f"{layer}/work")]
        mount = Mount(type="fuse.fuse-overlayfs", target=root, flags=flags, options=tuple(words))
        if not parents:
            mount = Mount(type="bind", source=f"{layer}/diff", target=root, flags=flags | MountFlag.BIND)
        return View(root=root, mounts=(mount,), upper_dir=f"{layer}/diff")

    @hookimpl
    def storage_discard(self, home: str, key: str) -> bool:
        if os.path.lexists(f"{home}/{key}"):
            os.makedirs(f"{home}/trash", mode=0o700, exist_ok=True)
            os.rename(f"{home}/{key}", f"{home}/trash/{key}-{os.urandom(6).hex()}")
        return True

    @hookimpl
    def storage_changes(self, trees: Trees) -> Sequence[Change]:
        return compare_trees(trees.layer, trees.parent, None)

    @hookimpl
    def storage_keys(self, home: str) -> list[str]:
        return [name for name in os.listdir(home) if name != "trash"]


plugin = FuseOverlayfsDriver()
