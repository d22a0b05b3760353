"""Views made real: the mounts that a driver answers with, carried out.

A container's union is attached at its place in the host's mount namespace, where commit, diff, cp and exec see it. Whatever else
needs a tree for a moment gets it *detached*: mounts that are nowhere but behind a descriptor, so that a killed process leaves none.
Mounts of a kind that can't be detached (aufs's remounts, FUSE helpers) are made at their place and taken away again.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from lamina.api.types import View
from lamina.dataclasses import replace
from lamina.errors import LaminaError, NotUsableError
from lamina.linux import mount as lm
from lamina.linux import namespace, process
from lamina.linux.fs import mount_of
from lamina.linux.libc import told
from lamina.model.mount import Mount, MountFlag


def attach(view: View, *, first_id: int = 0) -> None:
    """Make the view's mounts at its place in this mount namespace; on an error take back those already made.

    With `first_id` an overlay shows the ids of a container that has its own: what is 0 in its layers as that one.
    """
    made: list[str] = []
    try:
        for mount in view.mounts:
            os.makedirs(mount.target, mode=0o700, exist_ok=True)
            with told("mount", mount.describe):
                _attach_one(mount, first_id)
            if MountFlag.REMOUNT not in mount.flags:
                made.append(mount.target)
    except BaseException:
        for target in reversed(made):
            lm.unmount(target, detach=True)
        raise


def detach(view: View) -> None:
    """Take the view's mounts away, last first; no error for what isn't mounted.

    A place that only exists to be mounted on is left for the driver to remove.
    """
    for target in dict.fromkeys(mount.target for mount in reversed(view.mounts)):
        while True:
            try:
                with told("unmount", lambda target=target: f"umount -l {target}"):  # type: ignore[misc]
                    lm.unmount(target, detach=True)
            except OSError as error:
                if error.errno in {errno.EINVAL, errno.ENOENT}:
                    break  # not a mount point
                raise


def without_sync(view: View) -> View:
    """The same view, with what overlayfs writes left in memory at its end (overlayfs.rst, "Volatile mount")."""
    return replace(
        view,
        mounts=tuple(
            replace(mount, options=(*mount.options, ("volatile", None)))
            if mount.type == "overlay" and any(name == "upperdir" for name, _ in mount.options)
            else mount
            for mount in view.mounts
        ),
    )


def labelled(view: View, label: str) -> View:
    """The same view, in which every file has this label of SELinux: by a mount's option, and a plain tree's files each by itself.

    Files of an overlay's layers are labelled, too: the kernel asks what they have when a program maps them.
    """
    from lamina.linux.selinux import has_label, relabel, shared

    if all(mount.type == "bind" for mount in view.mounts):
        relabel(view.root, label)
        return view
    for key, value in (option for mount in view.mounts for option in mount.options):
        if key in {"lowerdir+", "upperdir"} and value is not None:
            wanted = shared(label) if key == "lowerdir+" else label
            if not has_label(value, wanted):  # a directory gets it last, so then all below it have it
                relabel(value, wanted)
    option = ("context", label)
    return replace(view, mounts=tuple(replace(mount, options=(*mount.options, option)) for mount in view.mounts))


@contextlib.contextmanager
def seen(view: View) -> Iterator[str]:
    """Give a path under which the view can be walked while the block runs: its root, or a descriptor's in /proc/self/fd."""
    if not view.mounts:
        yield view.root
    elif all(can_detach(mount) for mount in view.mounts) and len(view.mounts) == 1:
        with told("mount nowhere", lambda: f"{view.mounts[0].describe()} # detached: seen through a descriptor alone"):
            fd = detached(view.mounts[0])
        try:
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
    else:
        attach(view)
        try:
            yield view.root
        finally:
            detach(view)


def detached(mount: Mount) -> int:
    """Make one mount that is nowhere, and return its descriptor."""
    if mount.type == "bind":
        fd = lm.open_tree(mount.source, recursive=MountFlag.REC in mount.flags)
        flags = mount.flags & ~(MountFlag.BIND | MountFlag.REC)
        if flags:
            lm.set_attributes(fd, flags, recursive=MountFlag.REC in mount.flags)
        return fd
    if mount.type == "overlay" and lm.kernel_version() < (6, 7):  # it would say in its log each time that it knows no `lowerdir+`
        return _overlay_by_string(mount)
    try:
        return lm.fsmount(mount.type, mount.options, flags=mount.flags, source=mount.source)
    except OSError as error:
        if not _may_want_a_string(mount, error):
            raise
        return _overlay_by_string(mount, error)


def can_detach(mount: Mount) -> bool:
    """Whether a mount can be nowhere but behind a descriptor."""
    return not mount.type.startswith("fuse.") and mount.type != "aufs" and MountFlag.REMOUNT not in mount.flags


def is_mapped_by_layers(view: View) -> bool:
    """Whether a container's own ids are given to the view's layers: an overlay itself can't be given any. Else it is one tree.

    Raises `NotUsableError` for mounts of which neither can have other ids than the disk.
    """
    kinds = {mount.type for mount in view.mounts}
    if kinds - {"bind", "overlay"}:
        raise NotUsableError(
            f"the storage driver mounts {' and '.join(sorted(kinds))}, which can't show users of a container's own",
            hint="choose one that mounts overlay or plain directories with --storage-driver",
        )
    return "overlay" in kinds


def _attach_one(mount: Mount, first_id: int) -> None:
    if mount.type == "overlay" and first_id:
        fd = _overlay_mapped(mount, first_id)
        try:
            lm.move_mount(fd, mount.target)
        finally:
            os.close(fd)
    elif mount.type.startswith("fuse."):
        _run_helper(mount)
    elif can_detach(mount):
        fd = detached(mount)
        try:
            lm.move_mount(fd, mount.target)
        finally:
            os.close(fd)
    else:
        data = ",".join(_word(key, value, "" if key.endswith(":") else "=") for key, value in mount.options)
        lm.mount(mount.source, mount.target, mount.type, mount.flags, data)


def _overlay_by_string(mount: Mount, first: OSError | None = None) -> int:
    """Make a detached overlay mount on a kernel without `lowerdir+` (before 6.7), by mount(2) and one string.

    mount(2) needs a place. It gets one in a mount namespace that the host never sees.
    """

    try:
        return _in_own_namespace(lambda: _mounted_by_string(mount))
    except OSError as result:
        if first is None:
            raise
        first.add_note(f"by mount(2): {result}")
        raise first from result


def _overlay_mapped(mount: Mount, first_id: int) -> int:
    """Make a detached overlay mount whose layers show other ids than the disk: what is 0 there is `first_id` in the union.

    Files lie on disk as in any other container's layers, whoever wrote them. The kernel has that since 5.19 (mount_setattr(2)).
    Layers of one mount are given their ids together, as the upper and the work directory must be on the same one. Overlayfs does
    its own work, such as copying up, as the user who mounts, who must be one of these ids, too: the container's root.
    """
    layers = [value for key, value in mount.options if key in _LAYERS and value is not None]
    users = namespace.new_users(first_id)
    tops: dict[int, str] = {}
    held: dict[int, int] = {}
    try:
        for path in layers:
            number = mount_of(path)
            tops[number] = os.path.commonpath([tops.get(number, path), path])
        for number, top in tops.items():
            held[number] = lm.open_tree(top)
            lm.idmap(held[number], users)

        def mapped(path: str) -> str:
            number = mount_of(path)
            return f"/proc/self/fd/{held[number]}/{os.path.relpath(path, tops[number])}"

        options = tuple((key, mapped(value) if key in _LAYERS and value is not None else value) for key, value in mount.options)

        def mount_as_its_root() -> int:
            for fd in held.values():
                lm.move_mount(fd, mount.target)  # each over the one before; kernels before 6.15 want layers that are somewhere
            process.become_user_for_files(first_id, first_id)
            shown = replace(mount, options=options)
            try:
                return lm.fsmount(shown.type, shown.options, flags=shown.flags, source=shown.source)
            except OSError as error:
                if not _may_want_a_string(mount, error):
                    raise
                return _mounted_by_string(shown)

        return _in_own_namespace(mount_as_its_root)
    finally:
        for fd in (users, *held.values()):
            os.close(fd)


_LAYERS = frozenset({"lowerdir+", "upperdir", "workdir"})


def _in_own_namespace(work: Callable[[], int]) -> int:
    """Do the work in a mount namespace that only a thread of ours is in, and that ends with it: a kill leaves no mount."""
    import threading  # few kernels and few containers pay for it

    made: list[int | OSError] = []

    def run() -> None:
        try:
            namespace.unshare(namespace.CLONE_NEWNS)  # unshares the working directory too: unshare(2), CLONE_NEWNS
            lm.make_private()
            made.append(work())
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, OSError):
        raise result
    return result


def _may_want_a_string(mount: Mount, error: OSError) -> bool:
    """Whether the kernel may just be too old for an overlay's options one by one."""
    return mount.type == "overlay" and error.errno in {errno.EINVAL, errno.ENOSYS, errno.EPERM}


def _mounted_by_string(mount: Mount) -> int:
    """Mount an overlay by one string in this thread's mount namespace; gives a clone of it that is nowhere."""
    _mount_by_string(mount)
    return lm.open_tree("/proc")


def _mount_by_string(mount: Mount) -> None:
    """Mount an overlay over this thread's /proc, a place that is always there and that it needs no more.

    Directories are named by their descriptors' numbers, in /proc/self/fd, so that seven hundred of them fit mount(2)'s page, and so
    that none has a `,` or `:` to escape.
    """
    held: list[int] = []

    def short(path: str) -> str:
        held.append(os.open(path, lm.O_PATH | os.O_CLOEXEC))
        return str(held[-1])

    try:
        words = ["lowerdir=" + ":".join([short(value) for key, value in mount.options if key == "lowerdir+" and value])]
        for key, value in mount.options:
            if key in {"upperdir", "workdir"} and value:
                words.append(f"{key}={short(value)}")
            elif key != "lowerdir+":
                words.append(_word(key, value))
        os.chdir("/proc/self/fd")
        lm.mount(mount.source, "/proc", "overlay", mount.flags, ",".join(words))
    finally:
        for fd in held:
            os.close(fd)


def _word(key: str, value: str | None, between: str = "=") -> str:
    """One option of a string of them; a label has commas of its own (mount(8), "context")."""
    return key if value is None else f'{key}="{value}"' if key == "context" else f"{key}{between}{value}"


def _run_helper(mount: Mount) -> None:
    """Run a FUSE file system's program, which goes into the background by itself once it is mounted (mount.fuse(8))."""
    import subprocess

    name = mount.type.removeprefix("fuse.")
    words = ",".join(_word(key, value) for key, value in mount.options)
    try:
        done = subprocess.run(
            [name, "-o", words, mount.target], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError as error:
        raise LaminaError(f"the program '{name}' is not installed", hint=f"install the package {name}") from error
    if done.returncode:
        raise LaminaError(f"'{name}' could not mount '{mount.target}': {(done.stderr or done.stdout).strip()[-500:]}")
