"""Mounts as data: what a driver answers, that the answer touches nothing, and that what is mounted is what was promised."""

import contextlib
import errno
import os
import signal
from collections.abc import Callable

from lamina.api.types import View, WhiteoutFormat
from lamina.linux import mount as lm
from lamina.linux import mountinfo, namespace
from lamina.model.mount import Mount, MountFlag
from lamina.store import views
from lamina.testing import tree
from lamina.testing.bench import Bench, Layer
from lamina.testing.check import Skipped, check, require, same
from lamina.testing.checks.fidelity import require_equal
from lamina.testing.checks.processes import watched
from lamina.testing.checks.whiteouts import remove_all
from lamina.testing.samples import BASE
from lamina.testing.tree import File

_WAYS = {"writable": False, "read-only": True}


def _two(bench: Bench) -> tuple[Layer, Layer]:
    base = bench.made(BASE)
    return base, bench.prepare(base)


@check("mounts", params=_WAYS)
def the_answer_is_the_same_each_time(bench: Bench, readonly: bool) -> None:
    """The engine asks again to unmount: another answer would leave a mount."""
    for layer in _two(bench):
        answers = [bench.view(layer, readonly=readonly) for _ in range(3)]
        same(answers[1:], answers[:1] * 2, "answers")
        if not readonly:
            with bench.writing(layer):
                same(bench.view(layer), answers[0], "the answer while it is mounted")


@check("mounts", params=_WAYS)
def the_answer_changes_nothing_on_disk(bench: Bench, readonly: bool) -> None:
    """Not a name and not a time."""
    layers = _two(bench)
    before = _stamps(bench.driver.home)
    for layer in layers:
        bench.view(layer, readonly=readonly)
    same(_stamps(bench.driver.home), before, "the driver's folder")


def _stamps(place: str) -> dict[str, tuple[int, int, int]]:
    found = {}
    for at, folders, files in os.walk(place):
        for path in (at, *(f"{at}/{name}" for name in (*folders, *files))):
            info = os.lstat(path)
            found[path] = (info.st_ino, info.st_ctime_ns, info.st_size)
    return found


@check("mounts", params=_WAYS)
def the_answer_makes_no_changing_system_call(bench: Bench, readonly: bool) -> None:
    """Watched call by call."""
    layers = _two(bench)
    for layer in layers:
        bench.view(layer, readonly=readonly)  # what is imported on the first call is no part of it
    seen = watched(lambda: [bench.view(layer, readonly=readonly) for layer in layers])
    require(not seen.error, seen.error)
    same(seen.calls, (), "system calls that change something")


@check("mounts")
def the_answer_is_data_that_can_be_shown(bench: Bench) -> None:
    """`run --trace` prints it, and JSON carries it."""
    base = bench.prepare()
    for layer in (base, bench.prepare(base)):
        for readonly in (False, True):
            view = bench.view(layer, readonly=readonly)
            require(isinstance(view.mounts, tuple), f"mounts is a {type(view.mounts).__name__}, not a tuple")
            for mount in view.mounts:
                require(isinstance(mount, Mount), f"{mount!r} is no Mount")
                require(isinstance(mount.flags, MountFlag), f"flags {mount.flags!r} are no MountFlag")
                words = [word for option in mount.options for word in option if word is not None]
                require(all(isinstance(word, str) for word in (mount.type, mount.source, *words)), f"not text in {mount!r}")
                require(all(len(option) == 2 for option in mount.options), f"an option of {mount!r} is no pair")
                require(mount.describe().startswith("mount "), "it can't be described")


@check("mounts")
def every_place_lies_in_the_drivers_folder(bench: Bench) -> None:
    """Where the union is seen, where it is mounted, where the changes lie."""
    home = bench.driver.home + "/"
    base = bench.prepare()
    for layer in (base, bench.prepare(base)):
        for readonly in (False, True):
            view = bench.view(layer, readonly=readonly)
            places = [view.root, *(mount.target for mount in view.mounts), *([view.upper_dir] if view.upper_dir else [])]
            same([place for place in places if not os.path.normpath(place).startswith(home)], [], "places outside")


@check("mounts")
def the_root_is_seen_once_the_mounts_are_made(bench: Bench) -> None:
    """`root` is what commit, cp and exec go to."""
    for layer in _two(bench):
        with bench.writing(layer) as root:
            require("file" in os.listdir(root), f"nothing of the layer is seen at '{root}'")


def _owned(view: View) -> set[str]:
    """What a writable view writes to."""
    owned = {view.root, *([view.upper_dir] if view.upper_dir else [])}
    for mount in view.mounts:
        owned.add(mount.target)
        owned |= {value for key, value in mount.options if key in {"upperdir", "workdir"} and value}
        if mount.type == "bind":
            owned.add(mount.source)
    return {os.path.normpath(path) for path in owned}


@check("mounts")
def no_two_layers_write_to_the_same_place(bench: Bench) -> None:
    """overlayfs.rst: an upper directory shared by two mounts is undefined behaviour, and the kernel only warns."""
    base, one = _two(bench)
    other, above = bench.prepare(base), bench.prepare(one)
    owned = [_owned(bench.view(layer)) for layer in (base, one, other, above)]
    for number, mine in enumerate(owned):
        for theirs in owned[number + 1 :]:
            same(mine & theirs, set(), "places that two layers write to")


@check("mounts")
def what_one_layer_writes_no_other_has(bench: Bench) -> None:
    """The same, by writing: a hundred files in each of two mounted layers."""
    base, one = _two(bench)
    other = bench.prepare(base)
    with bench.writing(one) as first, bench.writing(other) as second:
        for number in range(100):
            tree.make(first, {f"first-{number}": File("1")})
            tree.make(second, {f"second-{number}": File("2")})
        same([name for name in os.listdir(first) if name.startswith("second")], [], "the second's files in the first")
        same([name for name in os.listdir(second) if name.startswith("first")], [], "the first's files in the second")
    same(len([name for name in bench.tree(other) if name.startswith("first")]), 0, "the first's files in the second, at rest")


def _setxattr(root: str) -> None:
    os.setxattr(f"{root}/file", "user.x", b"x")


_WRITES: dict[str, Callable[[str], object]] = {
    "create": lambda root: os.close(os.open(f"{root}/new", os.O_CREAT | os.O_WRONLY)),
    "open for writing": lambda root: os.close(os.open(f"{root}/file", os.O_WRONLY)),
    "truncate": lambda root: os.truncate(f"{root}/file", 0),
    "unlink": lambda root: os.unlink(f"{root}/dir/one"),
    "rename": lambda root: os.rename(f"{root}/file", f"{root}/other"),
    "mkdir": lambda root: os.mkdir(f"{root}/dir/new"),
    "chmod": lambda root: os.chmod(f"{root}/file", 0o600),
    "set an xattr": _setxattr,
}


@check("mounts", params=_WRITES)
def a_readonly_view_refuses(bench: Bench, write: Callable[[str], object]) -> None:
    """With EROFS, in a base layer's view and in a union."""
    for layer in _two(bench):
        before = bench.tree(layer)
        with bench.reading(layer) as root:
            try:
                write(root)
            except OSError as error:
                same(errno.errorcode[error.errno or 0], "EROFS", "the error")
            else:
                require(False, "a write through a read-only view was taken")
        require_equal(bench.tree(layer), before, "the layer")


@check("mounts")
def readonly_views_may_be_many_beside_a_writable_one(bench: Bench) -> None:
    """A diff and a commit read while the container runs."""
    base, layer = _two(bench)
    with bench.reading(base) as first, bench.reading(base) as second, bench.writing(layer) as root:
        with bench.reading(layer) as third, bench.reading(base) as fourth:
            tree.make(root, {"new": File("new")})
            for number, place in enumerate((first, second, third, fourth)):
                require(os.path.exists(f"{place}/dir/one"), f"view {number} shows nothing")
            with open(f"{first}/file", encoding="ascii") as file:
                same(file.read(), "file", "a file in the first view")


@check("mounts")
def a_readonly_view_can_be_attached(bench: Bench) -> None:
    """Not only behind a descriptor: at its place, beside the writable one's."""
    _, layer = _two(bench)
    view = bench.view(layer, readonly=True)
    require(view.mounts, "a read-only view without a mount can be written to")
    views.attach(view)
    try:
        require(os.path.exists(f"{view.root}/dir/one"), "nothing is seen")
        with_error = False
        try:
            os.mkdir(f"{view.root}/new")
        except OSError:
            with_error = True
        require(with_error, "a write was taken")
    finally:
        views.detach(view)
    bench.discard(layer)


def _delete(root: str) -> None:
    remove_all(root, ["dir/one", "a"])
    tree.make(root, {"a/new": File("new")})


@check("mounts")
def a_view_stays_right_when_the_layer_is_mounted(bench: Bench) -> None:
    """A container is started while somebody copies files out of it."""
    _, layer = _two(bench)
    bench.write(layer, _delete)
    wanted = set(bench.tree(layer))
    with bench.reading(layer) as seen:
        bench.driver.before_mount(layer.key, layer.parents)
        view = bench.view(layer)
        views.attach(view)
        same(set(tree.read(seen)), wanted, "paths")
        views.detach(view)
        same(set(tree.read(seen)), wanted, "paths, unmounted again")
    bench.driver.after_unmount(layer.key)


@check("mounts")
def a_view_stays_right_when_the_layer_comes_to_rest(bench: Bench) -> None:
    """A container ends while it is exported. A view that says `until_rest` makes its end wait."""
    _, layer = _two(bench)
    with bench.writing(layer) as root:
        if bench.view(layer, readonly=True).until_rest:
            raise Skipped("the view says that it is right until the layer comes to rest: then nobody looks")
        _delete(root)
        wanted = set(bench.tree(layer))
        stack = contextlib.ExitStack()
        seen = stack.enter_context(bench.reading(layer))
    with stack:
        same(set(tree.read(seen)), wanted, "paths")


@check("mounts")
def unmounting_twice_is_no_error_and_leaves_no_mount(bench: Bench) -> None:
    """`rm -f` and recovery unmount what may be gone."""
    _, layer = _two(bench)
    before = mountinfo.mounts()
    with bench.writing(layer):
        pass
    views.detach(bench.view(layer))
    bench.driver.after_unmount(layer.key)
    same(mountinfo.mounts(), before, "mounts")


@check("mounts")
def a_copy_of_the_mount_in_another_namespace_stops_nothing(bench: Bench) -> None:
    """Every program that unshares its mounts copies ours: moby had EBUSY for years."""
    base, layer = _two(bench)
    ready, hold = os.pipe(), os.pipe()
    with bench.writing(layer):
        pid = os.fork()
        if pid == 0:
            os.close(hold[1])
            namespace.unshare(namespace.CLONE_NEWNS)
            lm.make_private()
            os.write(ready[1], b"x")
            os.read(hold[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
    try:
        bench.discard(layer)
        same(bench.driver.keys(), [base.key], "keys")
        again = bench.prepare(base, key=layer.key)
        with bench.writing(again) as root:
            tree.make(root, {"new": File("x")})
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for fd in (*ready, *hold):
            os.close(fd)


@check("mounts")
def a_crashed_engines_mount_can_be_taken_away_and_made_again(bench: Bench) -> None:
    """What is mounted when the engine dies stays; the next one finds it by the same answer."""
    _, layer = _two(bench)
    bench.driver.before_mount(layer.key, layer.parents)
    views.attach(bench.view(layer))
    tree.make(bench.view(layer).root, {"new": File("new")})
    views.detach(bench.view(layer))  # by another engine, which never heard of the first
    bench.driver.after_unmount(layer.key)
    with bench.writing(layer) as root:
        require(os.path.exists(f"{root}/new"), "what was written is lost")


@check("mounts")
def a_view_that_is_mounted_can_be_brought_to_rest_after_a_reboot(bench: Bench) -> None:
    """After a power cut nothing is mounted and nothing was brought to rest."""
    base, layer = _two(bench)
    bench.driver.before_mount(layer.key, layer.parents)
    view = bench.view(layer)
    views.attach(view)
    tree.make(view.root, {"new": File("new")})
    os.unlink(f"{view.root}/dir/one")
    for mount in reversed(view.mounts):
        lm.unmount(mount.target, detach=True)
    found = set(bench.tree(layer))
    require("new" in found and "dir/one" not in found, "the layer, read before it was brought to rest, lacks its changes")
    bench.driver.after_unmount(layer.key)
    found = set(bench.tree(layer))
    require("new" in found and "dir/one" not in found, "the layer lacks its changes")
    require("dir/one" in bench.tree(base), "the parent")


@check("mounts")
def an_upper_directory_is_claimed_where_there_is_one(bench: Bench) -> None:
    """`native_diff` promises one, and whiteouts are in it; a full tree has neither."""
    claims = bench.claims
    _, layer = _two(bench)
    upper = bench.view(layer).upper_dir
    if claims.whiteouts is WhiteoutFormat.NONE:
        require(not claims.native_diff, "native_diff is claimed without a whiteout format")
        same(upper, None, "upper_dir of a driver without whiteouts")
    else:
        require(upper is not None and os.path.isdir(upper), f"upper_dir is {upper!r}")
        with bench.writing(layer) as root:
            tree.make(root, {"only-here": File("x")})
        require(os.path.exists(f"{upper}/only-here"), "upper_dir doesn't have what was written")
        require(not os.path.exists(f"{upper}/dir/one"), "upper_dir has what the parents have")


_MARKS = {"deleted file": "file", "deleted directory": "dir", "replaced directory": "opaque"}


@check("mounts", params=_MARKS)
def the_claimed_whiteout_format_is_what_lies_on_disk(bench: Bench, case: str) -> None:
    """Tools that know the format read it, and an image's layer is made from it. At rest, not while mounted."""
    claims = bench.claims
    if claims.whiteouts is WhiteoutFormat.NONE:
        raise Skipped("the driver claims to have no whiteouts")
    _, layer = _two(bench)

    def fill(root: str) -> None:
        import shutil

        if case == "file":
            os.unlink(f"{root}/dir/one")
        else:
            shutil.rmtree(f"{root}/dir")
            if case == "opaque":
                tree.make(root, {"dir/new": File("new")})

    bench.write(layer, fill)
    upper = bench.view(layer).upper_dir
    require(upper is not None, "there is no upper_dir")
    if case == "opaque":
        if claims.whiteouts is WhiteoutFormat.OVERLAY:
            same(os.getxattr(f"{upper}/dir", "trusted.overlay.opaque"), b"y", "trusted.overlay.opaque of 'dir'")
        else:
            require(os.path.isfile(f"{upper}/dir/.wh..wh..opq"), "'dir' has no file '.wh..wh..opq'")
        return
    path = "dir/one" if case == "file" else "dir"
    head, _, name = path.rpartition("/")
    if claims.whiteouts is WhiteoutFormat.OVERLAY:
        info = os.lstat(f"{upper}/{path}")
        require(info.st_rdev == 0 and info.st_mode & 0o170000 == 0o020000, f"'{path}' is no character device 0:0")
    else:
        marker = f"{upper}/{head}/.wh.{name}"
        require(os.path.isfile(marker), f"there is no '{os.path.relpath(marker, upper)}'")
