"""Core's own answers to hooks that a driver may leave out. A plugin like any other, which answers last.

The engine registers it: `host.register(fallback, "fallback.core")`.
"""

import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lamina.api.hookspecs import hookimpl
from lamina.api.types import API_VERSION, Usage, View, VolumeSpec, WhiteoutFormat
from lamina.linux.fs import remove_tree, syncfs

if TYPE_CHECKING:
    from lamina.api.entries import Change, LayerReader, Trees


class Fallback:
    """What holds for any driver whose layers are files in `upper_dir`, or full trees."""

    name = "core"
    api_version = API_VERSION

    @hookimpl(trylast=True)
    def storage_changes(self, trees: "Trees") -> "Sequence[Change]":
        from lamina.archive.changes import compare_trees, read_upper

        if trees.upper_dir is not None and trees.whiteouts is not WhiteoutFormat.NONE:
            return read_upper(trees.upper_dir, trees.whiteouts, lambda: trees.parent)
        return compare_trees(trees.layer, trees.parent, trees.unchanged_before_ns)

    @hookimpl(trylast=True)
    def storage_apply(self, entries: "LayerReader", trees: "Trees") -> bool:
        from lamina.archive.apply import apply_layer

        if trees.upper_dir is not None and trees.whiteouts is not WhiteoutFormat.NONE:
            apply_layer(entries, into=trees.upper_dir, whiteouts=trees.whiteouts, parent=lambda: trees.parent)
        else:
            apply_layer(entries, into=trees.layer, whiteouts=WhiteoutFormat.NONE, parent=lambda: None)
        return True

    @hookimpl(trylast=True)
    def storage_seal(self, home: str) -> bool:
        syncfs(home)
        return True

    @hookimpl(trylast=True)
    def storage_sweep(self, home: str) -> bool:
        trash = os.path.join(home, "trash")
        try:
            names = os.listdir(trash)
        except FileNotFoundError:
            return True
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process sweeps too
                remove_tree(os.path.join(trash, name))
        return True

    @hookimpl(trylast=True)
    def storage_usage(self, view: View) -> Usage:
        return tree_usage(view.root if view.upper_dir is None else view.upper_dir)

    @hookimpl(trylast=True)
    def storage_describe(self, view: View) -> Mapping[str, str]:
        described = {"MergedDir": view.root}
        if view.upper_dir is not None:
            described["UpperDir"] = view.upper_dir
        return described

    @hookimpl(trylast=True)
    def storage_explain(self) -> Mapping[str, str]:
        return {}

    @hookimpl(trylast=True)
    def storage_before_mount(self) -> bool:
        return True

    @hookimpl(trylast=True)
    def storage_after_unmount(self) -> bool:
        return True

    @hookimpl(trylast=True)
    def network_setup(self) -> None:
        return None

    @hookimpl(trylast=True)
    def network_detach(self) -> bool:
        return True

    @hookimpl(trylast=True)
    def volume_mountpoint(self, spec: VolumeSpec) -> str:
        return ""


def tree_usage(path: str) -> Usage:
    """Count a tree as du(1) does: blocks of 512 bytes and inodes, each inode once, staying on its file system.

    What disappears meanwhile isn't counted.
    """
    found = os.stat(path)
    blocks, inodes = found.st_blocks, 1
    seen: set[int] = set()
    todo = [path]
    while todo:
        directory = todo.pop()
        try:
            # The root's path may be a descriptor's in /proc, which is a link; below it nothing is followed.
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if directory != path else 0))
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            for name in os.listdir(fd):
                try:
                    each = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if each.st_dev != found.st_dev:
                    continue
                if stat.S_ISDIR(each.st_mode):
                    todo.append(f"{directory}/{name}")
                elif each.st_nlink > 1:
                    if each.st_ino in seen:
                        continue
                    seen.add(each.st_ino)
                blocks += each.st_blocks
                inodes += 1
        finally:
            os.close(fd)
    return Usage(size_bytes=blocks * 512, inodes=inodes)


fallback = Fallback()
