"""The hooks. What they promise is in `lamina.api.hookspecs`; this module only says which part of the driver keeps it."""

import os
from collections.abc import Mapping, Sequence

from lamina.api import quota
from lamina.api.entries import Change, Trees
from lamina.api.hookspecs import hookimpl
from lamina.api.types import Probe, Usage, View, WhiteoutFormat
from lamina.errors import NotUsableError, UsageError
from lamina.linux.fs import remove_tree, syncfs
from lamina_aufs import companions, form, layout, stack
from lamina_aufs import method as methods
from lamina_aufs.method import Choice, Method
from lamina_aufs.names import PREFIX, Form, companions_dir, diff_dir, mnt_dir, work_dir

_MOUNTED_FORM = {Method.OVERLAY: Form.OVERLAY, Method.FUSE: Form.FUSE}


class Driver:
    """The aufs driver.

    `method` fixes the way of mounting; without it the best that the kernel has is chosen once for each home.
    """

    name = "aufs"
    api_version = 1

    def __init__(self, method: Method | None = None) -> None:
        self._fixed = method
        self._choices: dict[str, Choice] = {}

    def _choose(self, home: str) -> Choice:
        if self._fixed is not None:
            return Choice(method=self._fixed)
        if home not in self._choices:
            self._choices[home] = methods.choose(home)
        return self._choices[home]

    def _method(self, home: str) -> Method:
        choice = self._choose(home)
        if choice.method is None:
            raise NotUsableError(f"the aufs driver can't work here: {choice.reason}", hint=choice.hint)
        return choice.method

    @hookimpl
    def storage_probe(self, home: str) -> Probe:
        """See which way of mounting there is."""
        return methods.probe(home, self._choose(home))

    @hookimpl
    def storage_prepare(
        self, home: str, key: str, parents: Sequence[str], options: Mapping[str, str], size_bytes: int | None = None
    ) -> bool:
        """Make Docker's three entries and a work directory."""
        for option in options:
            raise UsageError(f"the aufs driver has no option '{option}'", hint="it has none but size")
        layout.prepare(home, key, parents, size_bytes)
        return True

    @hookimpl
    def storage_mounts(self, home: str, key: str, parents: Sequence[str], readonly: bool) -> View:
        """Stack the branches."""
        return stack.view(home, key, parents, readonly=readonly, method=self._method(home))

    @hookimpl
    def storage_before_mount(self, home: str, key: str, parents: Sequence[str]) -> bool:
        """Bring the layer into its mounted form; make companions that a parent from elsewhere lacks."""
        method = self._method(home)
        layout.make_folders(home)
        os.makedirs(mnt_dir(home, key), mode=0o755, exist_ok=True)
        os.makedirs(work_dir(home, key), mode=0o700, exist_ok=True)
        if quota.is_limited(home, key):
            quota.check(home, key, layout.limited(home, key))
        with quota.lifted(home, key):
            if method is Method.AUFS:
                _to_rest(home, key)
                companions.forget(home, key)
                form.write(home, key, Form.AUFS)  # which it stays, mounted or not
                return True
            if method is Method.OVERLAY:
                for parent in parents:
                    companions.ensure(home, parent)
                # A `volatile` mount that ended without its sync leaves it, and the kernel refuses the next (overlayfs.rst).
                remove_tree(f"{work_dir(home, key)}/work/incompat")
            target = _MOUNTED_FORM[method]
            if (now := form.read(home, key)) and now.is_mounted and now is not target:
                _to_rest(home, key)  # another kernel's, or another engine's, that ended without a word
            form.to_mounted(home, key, target)
        return True

    @hookimpl
    def storage_after_unmount(self, home: str, key: str) -> bool:
        """Bring the layer back into aufs's format."""
        if not os.path.isdir(diff_dir(home, key)):
            return True
        os.makedirs(work_dir(home, key), mode=0o700, exist_ok=True)
        with quota.lifted(home, key):
            _to_rest(home, key)
        if self._choose(home).method is Method.OVERLAY:
            companions.ensure(home, key)
        return True

    @hookimpl
    def storage_apply(self, home: str, key: str) -> None:
        """Leave the work to the fallback, which writes in aufs's format: what was known of the form isn't any more."""
        form.forget(home, key)
        companions.forget(home, key)

    @hookimpl
    def storage_seal(self, home: str, key: str) -> bool:
        """Make the companions of the final layer, and all of it durable."""
        layout.make_folders(home)
        if (now := form.read(home, key)) and now.is_mounted:
            _to_rest(home, key)
        if self._choose(home).method is Method.OVERLAY:
            companions.ensure(home, key)
        syncfs(home)
        if removing := layout.set_aside(work_dir(home, key)):  # it is never mounted for writing again
            remove_tree(removing)
        return True

    @hookimpl
    def storage_changes(self, home: str, key: str, trees: Trees) -> list[Change]:
        """Read the layer's own directory in the form that is in force.

        A name that aufs wouldn't have let a container make belongs to no layer, so it is no change either.
        """
        from lamina.archive.changes import read_upper  # brings in the tar reader, which a start doesn't need

        now = form.read(home, key)
        whiteouts = WhiteoutFormat.OVERLAY if now and now.is_mounted else WhiteoutFormat.AUFS
        found = read_upper(diff_dir(home, key), whiteouts, lambda: trees.parent)
        return [change for change in found if not any(part.startswith(PREFIX) for part in change.path.split("/"))]

    @hookimpl
    def storage_discard(self, home: str, key: str) -> bool:
        """Rename as Docker does."""
        layout.discard(home, key)
        return True

    @hookimpl
    def storage_sweep(self, home: str) -> bool:
        """Delete what was renamed."""
        layout.sweep(home)
        return True

    @hookimpl
    def storage_usage(self, home: str, key: str) -> Usage:
        """Count the layer and its companions."""
        from lamina.archive.fallback import tree_usage

        found = [tree_usage(path) for path in (diff_dir(home, key), companions_dir(home, key)) if os.path.isdir(path)]
        return Usage(size_bytes=sum(each.size_bytes for each in found), inodes=sum(each.inodes for each in found))

    @hookimpl
    def storage_keys(self, home: str) -> list[str]:
        """List what any of the directories has."""
        return layout.keys(home)

    @hookimpl
    def storage_explain(self) -> dict[str, str]:
        """Say why each option is there."""
        return stack.REASONS

    @hookimpl
    def storage_describe(self, home: str, key: str, view: View) -> dict[str, str]:
        """Docker's driver gives null here."""
        paths = {"MergedDir": view.root, "UpperDir": diff_dir(home, key), "Method": self._method(home).value}
        return {**paths, **quota.describe(home, key)}


def _to_rest(home: str, key: str) -> None:
    """Bring a layer into aufs's format, its companions before it."""
    form.to_rest(home, key, layout.read_layers(home, key), lambda found: companions.make(home, key, found))
