"""Drivers that are broken on purpose, each in one way, and the check that must catch it: the conformance kit's own test.

Each is a working driver with a few lines changed. Several are what a driver of another engine does, or once did.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lamina.api.copytree import copy_tree
from lamina.api.entries import Change, ChangeKind, EntryKind, LayerReader, Trees
from lamina.api.hookspecs import hookimpl
from lamina.api.types import Behaviour, Fidelity, Probe, Usage, View, WhiteoutFormat
from lamina.archive.apply import apply_layer
from lamina.archive.changes import compare_trees, read_upper
from lamina.archive.fallback import tree_usage
from lamina.linux import mount as lm
from lamina.linux.fs import remove_tree
from lamina.model.mount import MountFlag
from lamina_overlay.driver import OverlayDriver
from lamina_vfs.driver import VfsDriver


class Vfs(VfsDriver):
    """Full copies."""

    name = "broken"


class Overlay(OverlayDriver):
    """A union."""

    name = "broken"


# ---------------------------------------------------------------------------------------------------------------- fidelity


class Spoiler(Vfs):
    """Copies well, then spoils each path of the copy."""

    @hookimpl
    def storage_prepare(self, home: str, key: str, parents: Sequence[str], options: Mapping[str, str]) -> bool:
        VfsDriver.storage_prepare(self, home, key, parents, options)
        root = f"{home}/dir/{key}"
        for at, folders, files in os.walk(root) if parents else ():
            for path in [f"{at}/{name}" for name in (*folders, *files)]:
                self.spoil(path, os.lstat(path))
        return True

    def spoil(self, path: str, found: os.stat_result) -> None:
        raise NotImplementedError


class BreaksHardLinks(Spoiler):
    def spoil(self, path, found):
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            shutil.copy2(path, f"{path}.new")
            os.rename(f"{path}.new", path)


class DropsXattrs(Spoiler):
    def spoil(self, path, found):
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith("user."):
                os.removexattr(path, name, follow_symlinks=False)


class DropsAcls(Spoiler):
    def spoil(self, path, found):
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith("system."):
                os.removexattr(path, name)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(path, stat.S_IMODE(found.st_mode))
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


class DropsCapabilities(Spoiler):
    def spoil(self, path, found):
        os.chown(path, found.st_uid, found.st_gid, follow_symlinks=False)  # chown(2) takes them away


class MakesSocketsFifos(Spoiler):
    """As moby's vfs does."""

    def spoil(self, path, found):
        if stat.S_ISSOCK(found.st_mode):
            os.unlink(path)
            os.mkfifo(path, stat.S_IMODE(found.st_mode))
            os.chown(path, found.st_uid, found.st_gid)
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


class MakesDevicesFiles(Spoiler):
    def spoil(self, path, found):
        if stat.S_ISCHR(found.st_mode):
            os.unlink(path)
            with open(path, "wb"):
                pass


class FillsHoles(Spoiler):
    def spoil(self, path, found):
        if stat.S_ISREG(found.st_mode) and found.st_blocks * 512 < found.st_size < 1 << 30:
            with open(path, "r+b") as file:
                data = file.read()
                file.seek(0)
                file.write(data)
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


class TruncatesTimes(Spoiler):
    def spoil(self, path, found):
        os.utime(path, ns=(0, found.st_mtime_ns // 10**9 * 10**9), follow_symlinks=False)


class LosesSetuid(Spoiler):
    def spoil(self, path, found):
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(path, stat.S_IMODE(found.st_mode) & 0o777)


class LosesOddNames(Spoiler):
    def spoil(self, path, found):
        if not os.path.basename(path).isprintable():
            remove_tree(path)


class DoesNotInheritTheRoot(Vfs):
    @hookimpl
    def storage_prepare(self, home, key, parents, options):
        VfsDriver.storage_prepare(self, home, key, parents, options)
        os.chmod(f"{home}/dir/{key}", 0o755)
        return True


class FollowsTheUmask(Vfs):
    @hookimpl
    def storage_prepare(self, home, key, parents, options):
        VfsDriver.storage_prepare(self, home, key, parents, options)
        if not parents:
            os.rmdir(f"{home}/dir/{key}")
            os.mkdir(f"{home}/dir/{key}")
        return True


# -------------------------------------------------------------------------------------------------------------- life cycle


class LeaksWhenThePrepareFails(Vfs):
    @hookimpl
    def storage_prepare(self, home, key, parents, options):
        if not parents or not os.path.isdir(f"{home}/dir/{parents[0]}") or os.path.lexists(f"{home}/dir/{key}"):
            return VfsDriver.storage_prepare(self, home, key, parents, options)
        copy_tree(f"{home}/dir/{parents[0]}", f"{home}/dir/{key}")
        return True


class LeaksWhenTheParentIsMissing(Overlay):
    """As moby's aufs does."""

    @hookimpl
    def storage_prepare(self, home, key, parents, options):
        try:
            return OverlayDriver.storage_prepare(self, home, key, parents, options)
        except FileNotFoundError:
            os.mkdir(f"{home}/{key}")
            raise


class RaisesWhatItMayNot(Overlay):
    @hookimpl
    def storage_prepare(self, home, key, parents, options):
        known = {name: name for name in os.listdir(home)}
        for parent in parents:
            known[parent]
        return OverlayDriver.storage_prepare(self, home, key, parents, options)


class IgnoresOptions(Vfs):
    @hookimpl
    def storage_prepare(self, home, key, parents, options):
        return VfsDriver.storage_prepare(self, home, key, parents, {})


class OverwritesLayers(Vfs):
    @hookimpl
    def storage_prepare(self, home, key, parents, options):
        remove_tree(f"{home}/dir/{key}")
        return VfsDriver.storage_prepare(self, home, key, parents, options)


class BringsLayersBack(Vfs):
    @hookimpl
    def storage_prepare(self, home, key, parents, options):
        VfsDriver.storage_prepare(self, home, key, parents, options)
        for name in os.listdir(f"{home}/trash") if os.path.isdir(f"{home}/trash") else ():
            if name.startswith(key):
                remove_tree(f"{home}/dir/{key}")
                os.rename(f"{home}/trash/{name}", f"{home}/dir/{key}")
                break
        return True


class WritesIntoTheParent(Vfs):
    """moby's overlay2 marks a parent as committed; this one where it is seen."""

    @hookimpl
    def storage_prepare(self, home, key, parents, options):
        VfsDriver.storage_prepare(self, home, key, parents, options)
        for parent in parents[:1]:
            os.chmod(f"{home}/dir/{parent}", os.stat(f"{home}/dir/{parent}").st_mode)
        return True


class SharesItsFilesWithTheParent(Vfs):
    """Hard links instead of copies: cheap, until someone writes."""

    @hookimpl
    def storage_prepare(self, home, key, parents, options):
        VfsDriver.storage_prepare(self, home, key, parents, options)
        if parents:
            below, layer = f"{home}/dir/{parents[0]}", f"{home}/dir/{key}"
            for at, _, files in os.walk(layer):
                for name in files:
                    path = f"{at}/{name}"
                    os.unlink(path)
                    os.link(f"{below}/{os.path.relpath(path, layer)}", path, follow_symlinks=False)
        return True


class ForgetsAKey(Vfs):
    @hookimpl
    def storage_keys(self, home):
        return VfsDriver.storage_keys(self, home)[1:]


class ListsItsTrash(Vfs):
    @hookimpl
    def storage_keys(self, home):
        trash = f"{home}/trash"
        aside = [name.rpartition("-")[0] for name in os.listdir(trash)] if os.path.isdir(trash) else []
        return [*VfsDriver.storage_keys(self, home), *aside]


class DiscardsHalfMadeLayersNot(Vfs):
    @hookimpl
    def storage_discard(self, home, key):
        if os.path.isdir(f"{home}/dir/{key}"):
            VfsDriver.storage_discard(self, home, key)
        return True


class RaisesForWhatIsNotThere(Vfs):
    @hookimpl
    def storage_discard(self, home, key):
        os.stat(f"{home}/dir/{key}")
        return VfsDriver.storage_discard(self, home, key)


class DeletesAtOnce(Vfs):
    @hookimpl
    def storage_discard(self, home, key):
        remove_tree(f"{home}/dir/{key}")
        return VfsDriver.storage_discard(self, home, key)


class NeverSweeps(Vfs):
    @hookimpl
    def storage_sweep(self, home):
        return True


class CanBeMadeReadyOnce(Overlay):
    @hookimpl
    def storage_before_mount(self, home, key, parents):
        os.mkdir(f"{home}/{key}/merged")
        return True


class LeavesDescriptorsOpen(Vfs):
    @hookimpl
    def storage_keys(self, home):
        os.open(home, os.O_RDONLY)
        return VfsDriver.storage_keys(self, home)


class Prints(Vfs):
    @hookimpl
    def storage_discard(self, home, key):
        print(f"discarding {key}", file=sys.stderr)
        return VfsDriver.storage_discard(self, home, key)


class ChangesTheDirectory(Vfs):
    @hookimpl
    def storage_keys(self, home):
        os.chdir(home)
        return VfsDriver.storage_keys(self, home)


class MountsByItself(Vfs):
    @hookimpl
    def storage_before_mount(self, home, key):
        lm.mount(f"{home}/dir/{key}", f"{home}/dir/{key}", None, lm.MS_BIND)
        return True


class RunsPrograms(Vfs):
    @hookimpl
    def storage_discard(self, home, key):
        subprocess.run(["sync", home], check=True)
        return VfsDriver.storage_discard(self, home, key)


class WritesElsewhere(Vfs):
    @hookimpl
    def storage_discard(self, home, key):
        with open(f"{home}.log", "a", encoding="ascii") as file:
            file.write(key)
        return VfsDriver.storage_discard(self, home, key)


# ------------------------------------------------------------------------------------------------------------------ mounts


class MakesPlacesWhenAsked(Overlay):
    @hookimpl
    def storage_mounts(self, home, key, parents, readonly):
        os.makedirs(f"{home}/{key}/merged", exist_ok=True)
        return OverlayDriver.storage_mounts(self, home, key, parents, readonly)


class AnswersDifferently(Overlay):
    @hookimpl
    def storage_mounts(self, home, key, parents, readonly):
        view = OverlayDriver.storage_mounts(self, home, key, parents, readonly)
        target = f"{home}/{key}/{os.urandom(4).hex()}"
        return View(root=target, mounts=(replace(view.mounts[0], target=target),), upper_dir=view.upper_dir)


class AnswersNonsense(Overlay):
    @hookimpl
    def storage_mounts(self, home, key, parents, readonly):
        return View(root="merged", mounts=("mount -t overlay",), upper_dir=None)


class AnswersInNumbers(Overlay):
    @hookimpl
    def storage_mounts(self, home, key, parents, readonly):
        view = OverlayDriver.storage_mounts(self, home, key, parents, readonly)
        return replace(view, mounts=tuple(replace(mount, flags=0) for mount in view.mounts))


class SharesTheUpperDirectory(Overlay):
    @hookimpl
    def storage_mounts(self, home, key, parents, readonly):
        view = OverlayDriver.storage_mounts(self, home, key, parents, readonly)
        if readonly or not parents:
            return view
        for name in ("shared", "shared-work"):
            os.makedirs(f"{home}/l/{name}", exist_ok=True)
        shared = {"upperdir": f"{home}/l/shared", "workdir": f"{home}/l/shared-work"}
        options = tuple((name, shared.get(name, value)) for name, value in view.mounts[0].options)
        return replace(view, mounts=(replace(view.mounts[0], options=options),), upper_dir=f"{home}/l/shared")


class CanBeWrittenReadOnly(Vfs):
    """As moby's vfs: "Parent layers are writable through Get"."""

    @hookimpl
    def storage_mounts(self, home, key, readonly):
        view = VfsDriver.storage_mounts(self, home, key, readonly)
        return replace(view, mounts=tuple(replace(mount, flags=MountFlag.BIND) for mount in view.mounts))


class MountsWithoutDevices(Overlay):
    @hookimpl
    def storage_mounts(self, home, key, parents, readonly):
        view = OverlayDriver.storage_mounts(self, home, key, parents, readonly)
        return replace(view, mounts=tuple(replace(mount, flags=mount.flags | MountFlag.NODEV) for mount in view.mounts))


# ------------------------------------------------------------------------------------------------------------------ claims


def _claiming(probe: Probe, **claims: object) -> Probe:
    return replace(probe, capabilities=replace(probe.capabilities, **claims))


class ClaimsHardLinks(Overlay):
    @hookimpl
    def storage_probe(self, home):
        probe = OverlayDriver.storage_probe(self, home)
        return _claiming(probe, preserves=frozenset(Fidelity))


class ClaimsDirectoryRenames(Overlay):
    @hookimpl
    def storage_probe(self, home):
        return _claiming(OverlayDriver.storage_probe(self, home), behaves=frozenset({Behaviour.DIRECTORY_RENAME}))


class ClaimsMoreDepthThanItHas(Overlay):
    @hookimpl
    def storage_mounts(self, home, key, parents, readonly):
        return OverlayDriver.storage_mounts(self, home, key, parents[:100], readonly)


class ClaimsANativeDiff(Vfs):
    @hookimpl
    def storage_probe(self, home):
        return _claiming(VfsDriver.storage_probe(self, home), native_diff=True, whiteouts=WhiteoutFormat.OVERLAY)

    @hookimpl
    def storage_mounts(self, home, key, readonly):
        return replace(VfsDriver.storage_mounts(self, home, key, readonly), upper_dir=f"{home}/dir/{key}")


class ClaimsAnotherWhiteoutFormat(Overlay):
    @hookimpl
    def storage_probe(self, home):
        return _claiming(OverlayDriver.storage_probe(self, home), whiteouts=WhiteoutFormat.AUFS)


class ClaimsQuotas(Vfs):
    @hookimpl
    def storage_probe(self, home):
        return _claiming(VfsDriver.storage_probe(self, home), quota=True)

    @hookimpl
    def storage_prepare(self, home, key, parents, options):
        return VfsDriver.storage_prepare(self, home, key, parents, options)  # and not size_bytes


class ClaimsLittle(Vfs):
    """Not broken: it does more than it says, which must be pointed out and is no failure."""

    @hookimpl
    def storage_probe(self, home):
        return _claiming(VfsDriver.storage_probe(self, home), behaves=frozenset(), preserves=frozenset())


# ------------------------------------------------------------------------------------------------------- diff and whiteouts


class LosesAWhiteout(Overlay):
    @hookimpl
    def storage_after_unmount(self, home, key):
        for at, _, files in os.walk(f"{home}/{key}/diff"):
            for name in files:
                found = os.lstat(f"{at}/{name}")
                if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                    os.unlink(f"{at}/{name}")
        return OverlayDriver.storage_after_unmount(self, home, key)


class LosesOpaqueDirectories(Overlay):
    @hookimpl
    def storage_after_unmount(self, home, key):
        for at, _, _ in os.walk(f"{home}/{key}/diff"):
            if "trusted.overlay.opaque" in os.listxattr(at):
                os.removexattr(at, "trusted.overlay.opaque")
        return OverlayDriver.storage_after_unmount(self, home, key)


def _compared(trees: Trees) -> list[Change]:
    return compare_trees(trees.layer, trees.parent)


def _same_stat(trees: Trees, change: Change) -> bool:
    if change.kind is not ChangeKind.MODIFY or trees.parent is None:
        return False
    one, other = (os.lstat(f"{root}/{change.path}") for root in (trees.layer, trees.parent))
    return all(getattr(one, name) == getattr(other, name) for name in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_size"))


class MissesXattrs(Vfs):
    """As containerd: only what stat(2) tells, and content if the times differ."""

    @hookimpl
    def storage_changes(self, trees):
        def same_content(path: str) -> bool:
            places = [f"{root}/{path}" for root in (trees.layer, trees.parent)]
            return not os.path.isfile(places[0]) or open(places[0], "rb").read() == open(places[1], "rb").read()

        return [each for each in _compared(trees) if not (_same_stat(trees, each) and same_content(each.path))]


class MissesRewritesOfTheSameSize(Vfs):
    """As moby: size and time are taken for the content."""

    @hookimpl
    def storage_changes(self, trees):
        return [each for each in _compared(trees) if not (_same_stat(trees, each) and os.path.isfile(f"{trees.layer}/{each.path}"))]


class MissesDeletions(Overlay):
    @hookimpl
    def storage_changes(self, trees):
        found = read_upper(trees.upper_dir, trees.whiteouts, lambda: trees.parent)
        return [each for each in found if each.kind is not ChangeKind.DELETE]


class ReportsWhatWasOnlyTouched(Overlay):
    @hookimpl
    def storage_changes(self, home, key, trees):
        found = read_upper(trees.upper_dir, trees.whiteouts, lambda: trees.parent)
        known = {each.path for each in found}
        for at, folders, files in os.walk(f"{home}/{key}/diff"):
            for name in (*folders, *files):
                path = os.path.relpath(f"{at}/{name}", f"{home}/{key}/diff")
                if path not in known:
                    found.append(Change(path=path, kind=ChangeKind.MODIFY))
        return sorted(found, key=lambda each: os.fsencode(each.path).split(b"/"))


class SortsByText(Vfs):
    @hookimpl
    def storage_changes(self, trees):
        return sorted(_compared(trees), key=lambda each: each.path)


# ------------------------------------------------------------------------------------------------------------------- apply


class EscapesWhileApplying(Vfs):
    """Joins names to the root and opens them."""

    @hookimpl
    def storage_apply(self, entries: LayerReader, trees: Trees):
        for entry in entries:
            path = f"{trees.layer}/{entry.path}"
            if entry.kind is EntryKind.SYMLINK:
                os.symlink(entry.link, path)
            elif entry.kind is EntryKind.DIRECTORY:
                os.makedirs(path, exist_ok=True)
            elif entry.kind is EntryKind.FILE:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    entries.copy_to(file.fileno())
        return True


class _Without:
    """Entries without those of some kinds."""

    def __init__(self, entries, *kinds):
        self._entries, self._kinds = entries, kinds

    def __iter__(self):
        return (entry for entry in self._entries if entry.kind not in self._kinds)

    def __getattr__(self, name):
        return getattr(self._entries, name)


class IgnoresWhiteouts(Vfs):
    @hookimpl
    def storage_apply(self, entries, trees):
        left = _Without(entries, EntryKind.WHITEOUT)
        apply_layer(left, into=trees.layer, whiteouts=WhiteoutFormat.NONE, parent=lambda: None)
        return True


class IgnoresOpaqueMarks(Vfs):
    @hookimpl
    def storage_apply(self, entries, trees):
        left = _Without(entries, EntryKind.OPAQUE)
        apply_layer(left, into=trees.layer, whiteouts=WhiteoutFormat.NONE, parent=lambda: None)
        return True


class HidesWhatItsOwnLayerBrings(Vfs):
    @hookimpl
    def storage_apply(self, entries, trees):
        hidden = []

        def seen():
            for entry in entries:
                if entry.kind is EntryKind.WHITEOUT:
                    hidden.append(entry.path)
                else:
                    yield entry

        class Reader(_Without):
            def __iter__(self):
                return seen()

        apply_layer(Reader(entries), into=trees.layer, whiteouts=WhiteoutFormat.NONE, parent=lambda: None)
        for path in hidden:
            remove_tree(f"{trees.layer}/{path}")
        return True


class SwallowsATruncatedArchive(Vfs):
    @hookimpl
    def storage_apply(self, entries, trees):
        try:
            apply_layer(entries, into=trees.layer, whiteouts=WhiteoutFormat.NONE, parent=lambda: None)
        except Exception:  # noqa: BLE001 - it is broken
            pass
        return True


# ------------------------------------------------------------------------------------------------------ crash and resources


class SealsWithoutMakingDurable(Overlay):
    """As moby and containerd do."""

    @hookimpl
    def storage_seal(self, home, key):
        return True


class SealsNamesWithoutContents(Vfs):
    @hookimpl
    def storage_seal(self, home, key):
        for at, _, _ in os.walk(f"{home}/dir/{key}"):
            fd = os.open(at, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(fd)
            os.close(fd)
        return True


class RewritesItsWhiteoutsAtRest(Overlay):
    """Takes them away and makes them again: nothing, if nobody is killed in between."""

    @hookimpl
    def storage_after_unmount(self, home, key):
        found = []
        for at, _, files in os.walk(f"{home}/{key}/diff"):
            found += [f"{at}/{name}" for name in files if stat.S_ISCHR(os.lstat(f"{at}/{name}").st_mode)]
        times = [(at, os.stat(at).st_mtime_ns) for at in {os.path.dirname(path) for path in found}]
        for path in found:
            os.unlink(path)
        for path in found:
            os.mknod(path, stat.S_IFCHR, 0)
        for at, time_ns in times:
            os.utime(at, ns=(time_ns, time_ns))
        return OverlayDriver.storage_after_unmount(self, home, key)


class CopiesItsLayerWhenMounted(Overlay):
    """And deletes what it was, under the eyes of whoever reads it."""

    @hookimpl
    def storage_before_mount(self, home, key, parents):
        _copied(f"{home}/{key}/diff")
        return OverlayDriver.storage_before_mount(self, home, key, parents)


class CopiesItsLayerAtRest(Overlay):
    """And doesn't say that whoever reads it must be waited for."""

    @hookimpl
    def storage_after_unmount(self, home, key):
        _copied(f"{home}/{key}/diff")
        return OverlayDriver.storage_after_unmount(self, home, key)


def _copied(directory):
    os.rename(directory, f"{directory}.old")
    copy_tree(f"{directory}.old", directory)
    remove_tree(f"{directory}.old")


class MovesItsTrashBeforeItSweeps(Vfs):
    """By a name that only this sweep knows."""

    @hookimpl
    def storage_sweep(self, home):
        if os.path.isdir(f"{home}/trash"):
            aside = f"{home}/sweeping-{os.urandom(4).hex()}"
            os.rename(f"{home}/trash", aside)
            remove_tree(aside)
        return True


class LeavesAnEmptyFileWhenKilled(Overlay):
    """Half a layer that neither its own list nor a discard knows of."""

    @hookimpl
    def storage_prepare(self, home, key, parents, options):
        os.makedirs(f"{home}/l", exist_ok=True)
        with open(f"{home}/l/{key}.lock", "w", encoding="ascii"):
            OverlayDriver.storage_prepare(self, home, key, parents, options)
        os.unlink(f"{home}/l/{key}.lock")
        return True


class GivesDirectoriesNewTimes(Vfs):
    """Files made in them came later, and so the same image is not the same."""

    @hookimpl
    def storage_apply(self, entries, trees):
        apply_layer(entries, into=trees.layer, whiteouts=WhiteoutFormat.NONE, parent=lambda: None)
        for at, _, _ in os.walk(trees.layer):
            os.utime(at)
        return True


class SaysThatNothingIsUsed(Overlay):
    @hookimpl
    def storage_usage(self):
        return Usage(size_bytes=0, inodes=0)


class CountsHoles(Overlay):
    """As moby: sizes, not blocks."""

    @hookimpl
    def storage_usage(self, home, key):
        upper = f"{home}/{key}/diff"
        size = sum(os.lstat(f"{at}/{name}").st_size for at, _, files in os.walk(upper) for name in files)
        return Usage(size_bytes=size, inodes=tree_usage(upper).inodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A broken driver, the check that must fail, and a part of what that must say."""

    driver: type
    check: str
    says: str


_KEPT = "kept-in-a-child"
BROKEN = [
    Broken(driver=driver, check=check, says=says)
    for driver, check, says in (
        (BreaksHardLinks, f"{_KEPT}[hard links]", "names of"),
        (DropsXattrs, f"{_KEPT}[user xattr]", "xattrs of 'f'"),
        (DropsAcls, f"{_KEPT}[access ACL]", "xattrs of"),
        (DropsCapabilities, f"{_KEPT}[file capability]", "xattrs of 'f'"),
        (MakesSocketsFifos, f"{_KEPT}[socket]", "'fifo'"),
        (MakesDevicesFiles, f"{_KEPT}[character device]", "kind of 'node'"),
        (FillsHoles, f"{_KEPT}[holes]", "its hole was filled"),
        (TruncatesTimes, f"{_KEPT}[nanoseconds]", "mtime_ns of"),
        (LosesSetuid, f"{_KEPT}[setuid and setgid]", "mode of 'f'"),
        (LosesOddNames, f"{_KEPT}[name with a line break]", "is not there"),
        (DoesNotInheritTheRoot, "the-root-is-as-its-parents[mode]", "mode of ''"),
        (FollowsTheUmask, "a-base-layer-is-an-empty-directory-0755-of-roots", "with the umask"),
        (LeaksWhenThePrepareFails, "a-prepare-that-fails-leaves-nothing", "keys after a failure"),
        (LeaksWhenTheParentIsMissing, "a-missing-parent-is-an-error-that-leaves-nothing", "left behind"),
        (RaisesWhatItMayNot, "a-missing-parent-is-an-error-that-leaves-nothing", "failed in 'storage_prepare': KeyError"),
        (IgnoresOptions, "an-unknown-option-is-refused-as-wrong-usage-and-leaves-nothing", "was taken"),
        (OverwritesLayers, "a-key-that-is-there-is-refused-and-unharmed", "was taken"),
        (BringsLayersBack, "a-key-can-be-used-again-and-nothing-comes-back", "use 1 of one key"),
        (WritesIntoTheParent, "a-change-is-never-seen-below-or-beside[append]", "change times of the parent"),
        (SharesItsFilesWithTheParent, "a-change-is-never-seen-below-or-beside[append]", "the parent"),
        (ForgetsAKey, "the-keys-are-exactly-the-layers", "keys"),
        (ListsItsTrash, "a-discarded-layer-is-gone-from-the-keys-at-once", "keys after the discard"),
        (DiscardsHalfMadeLayersNot, "prepare-killed", "keys, killed before"),
        (RaisesForWhatIsNotThere, "discarding-what-is-not-there-is-no-error", "FileNotFoundError"),
        (DeletesAtOnce, "discarding-takes-no-longer-for-a-large-layer", "changing calls for 3 files"),
        (NeverSweeps, "a-swept-layer-leaves-nothing", "left behind"),
        (CanBeMadeReadyOnce, "making-ready-and-bringing-to-rest-may-be-repeated", "FileExistsError"),
        (LeavesDescriptorsOpen, "no-hook-leaves-a-descriptor-open", "descriptors more"),
        (Prints, "no-hook-prints", "discarding"),
        (ChangesTheDirectory, "no-hook-changes-the-process", "directory"),
        (MountsByItself, "no-hook-mounts", "mounts after a hook"),
        (RunsPrograms, "no-hook-starts-a-process", "processes started"),
        (WritesElsewhere, "a-driver-writes-nowhere-but-in-its-folder", "broken.log"),
        (MakesPlacesWhenAsked, "the-answer-makes-no-changing-system-call[writable]", "mkdir"),
        (AnswersDifferently, "the-answer-is-the-same-each-time[writable]", "answers"),
        (AnswersNonsense, "the-answer-is-data-that-can-be-shown", "answered 'storage_mounts' with nonsense"),
        (AnswersInNumbers, "the-answer-is-data-that-can-be-shown", "answered 'storage_mounts' with nonsense"),
        (SharesTheUpperDirectory, "no-two-layers-write-to-the-same-place", "l/shared"),
        (CopiesItsLayerWhenMounted, "a-view-stays-right-when-the-layer-is-mounted", "paths"),
        (CopiesItsLayerWhenMounted, "making-ready-killed", "paths seen in the middle"),
        (CopiesItsLayerAtRest, "a-view-stays-right-when-the-layer-comes-to-rest", "paths"),
        (CopiesItsLayerAtRest, "bringing-to-rest-killed", "seen in the middle, killed before its call"),
        (CanBeWrittenReadOnly, "a-readonly-view-refuses[create]", "was taken"),
        (MountsWithoutDevices, "a-device-in-a-layer-can-be-opened", "PermissionError"),
        (ClaimsHardLinks, "a-write-through-one-name-is-seen-through-all", "through the other name"),
        (ClaimsDirectoryRenames, "renaming-a-directory-of-below", "cross-device"),
        (ClaimsMoreDepthThanItHas, "a-chain-of-layers-shows-what-each-brought[128]", "names in 128 layers"),
        (ClaimsANativeDiff, "an-upper-directory-is-claimed-where-there-is-one", "has what the parents have"),
        (ClaimsAnotherWhiteoutFormat, "the-claimed-whiteout-format-is-what-lies-on-disk[deleted file]", "there is no"),
        (ClaimsQuotas, "a-quota-bounds-what-a-container-writes", "were written into 4"),
        (LosesAWhiteout, "deletions-last-through-layers-above", "deleted paths that are seen"),
        (LosesOpaqueDirectories, "a-directory-removed-and-made-again-is-empty", "one layer up"),
        (MissesXattrs, "the-changes-are-exactly[a new xattr]", "changes: found []"),
        (MissesRewritesOfTheSameSize, "the-changes-are-exactly[content of the same size and time]", "changes: found []"),
        (MissesDeletions, "the-changes-are-exactly[a deleted file]", "changes: found []"),
        (ReportsWhatWasOnlyTouched, "the-changes-are-exactly[touched and undone]", "wanted []"),
        (SortsByText, "changes-are-sorted-by-components-parents-first", "order"),
        (EscapesWhileApplying, "breakout-by[through an absolute symlink]", "what lies outside"),
        (IgnoresWhiteouts, "whiteout-of[a file]", "what is seen"),
        (IgnoresOpaqueMarks, "whiteout-of[opaque]", "what is seen"),
        (HidesWhatItsOwnLayerBrings, "whiteout-of[after its own entry]", "what is seen"),
        (SwallowsATruncatedArchive, "refused[cut off in a file]", "it was taken"),
        (SealsWithoutMakingDurable, "a-sealed-image-layer-survives-a-power-cut[ext4]", ""),
        (SealsNamesWithoutContents, "a-sealed-image-layer-survives-a-power-cut[xfs]", ""),
        (RewritesItsWhiteoutsAtRest, "bringing-to-rest-killed", "killed before its call"),
        (MovesItsTrashBeforeItSweeps, "sweep-killed", "left behind"),
        (LeavesAnEmptyFileWhenKilled, "prepare-killed", ".lock"),
        (GivesDirectoriesNewTimes, "an-images-tree-is-the-reference[plain]", "mtime_ns"),
        (SaysThatNothingIsUsed, "usage-is-what-discarding-gives-back[one large file]", "usage says 0 bytes"),
        (CountsHoles, "usage-is-what-discarding-gives-back[a sparse file]", "discarding gave back"),
    )
]
