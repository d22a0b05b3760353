"""Layers made, listed, stacked and taken away: what the engine's own records rely on."""

import errno
import os
import stat
from collections.abc import Callable

from lamina.api.types import Fidelity
from lamina.errors import LaminaError, PluginError, UsageError
from lamina.testing import disks, tree
from lamina.testing.bench import Bench, Layer
from lamina.testing.check import Claim, Skipped, check, require, same
from lamina.testing.checks.fidelity import require_equal
from lamina.testing.samples import BASE
from lamina.testing.tree import ACCESS_ACL, ACL, Directory, File


def inodes_below(place: str) -> set[str]:
    """List every path below a directory."""
    return {os.path.join(at, name) for at, folders, files in os.walk(place) for name in (*folders, *files)}


@check("life cycle")
def a_base_layer_is_an_empty_directory_0755_of_roots(bench: Bench) -> None:
    """Whatever the umask: moby's driver tests have this first."""
    for umask in (0o000, 0o022, 0o077):
        os.umask(umask)
        layer = bench.prepare()
        found = bench.tree(layer)
        same(sorted(found), [""], "paths in a new base layer")
        same((oct(found[""].mode), found[""].uid, found[""].gid), (oct(0o755), 0, 0), f"its root with the umask {umask:03o}")


@check("life cycle")
def a_new_layer_equals_its_parent(bench: Bench) -> None:
    """Seen read-only and mounted for writing."""
    base = bench.made(BASE)
    child = bench.prepare(base)
    wanted = bench.tree(base)
    require_equal(bench.tree(child), wanted, "read-only")
    with bench.writing(child) as root:
        require_equal(tree.read(root), wanted, "mounted for writing")


_ROOTS = {
    "mode": (Directory(mode=0o1711), Fidelity.MODE),
    "owner": (Directory(uid=11, gid=12), Fidelity.OWNER),
    "time": (Directory(mtime_ns=1_111_111_111_111_111_111), Fidelity.NANOSECONDS),
    "xattr": (Directory(xattrs={"user.root": b"value"}), Fidelity.USER_XATTRS),
    "ACL": (Directory(mode=0o775, xattrs={ACCESS_ACL: ACL}), Fidelity.ACLS),
}


def _root_claim(value: tuple[tree.Node, Claim]) -> Claim:
    return value[1]


@check("life cycle", params=_ROOTS, claims=_root_claim)
def the_root_is_as_its_parents(bench: Bench, value: tuple[tree.Node, Claim]) -> None:
    """The root directory has no entry above it that could bring its attributes: the driver must."""
    base = bench.made({"": value[0], "file": File("x", mtime_ns=value[0].mtime_ns)})
    wanted = bench.tree(base)
    middle = bench.prepare(base)
    require_equal(bench.tree(middle), wanted, "one layer up")
    bench.driver.seal(middle.key)
    top = bench.prepare(middle)
    with bench.writing(top) as root:
        require_equal(tree.read(root), wanted, "two layers up, mounted")


def _append(root: str) -> None:
    with open(f"{root}/file", "a", encoding="ascii") as file:
        file.write("more")


def _write_by_link(root: str) -> None:
    with open(f"{root}/names/second", "r+", encoding="ascii") as file:
        file.write("NAMES")


def _swap(root: str) -> None:
    os.rename(f"{root}/file", f"{root}/aside")
    os.rename(f"{root}/script", f"{root}/file")


_CHANGES: dict[str, Callable[[str], object]] = {
    "append": _append,
    "truncate": lambda root: os.truncate(f"{root}/big", 3),
    "write through a hard link": _write_by_link,
    "chmod": lambda root: os.chmod(f"{root}/dir", 0o700),
    "chown": lambda root: os.chown(f"{root}/dir/one", 7, 8),
    "set a time": lambda root: os.utime(f"{root}/dir", ns=(1, 1)),
    "unlink": lambda root: os.unlink(f"{root}/dir/one"),
    "rename": _swap,
    "add": lambda root: tree.make(root, {"dir/new": File("new")}),
}


@check("life cycle", params=_CHANGES)
def a_change_is_never_seen_below_or_beside(bench: Bench, change: Callable[[str], object]) -> None:
    """A layer is shared by all containers of an image: not a byte, a time or an inode of it may move."""
    base = bench.made(BASE)
    before = bench.tree(base)
    stamps = _stamps(bench, base)
    child, sibling = bench.prepare(base), bench.prepare(base)
    bench.write(child, change)
    require(bench.tree(child) != before, "the change is not seen in the layer itself")
    require_equal(bench.tree(base), before, "the parent")
    require_equal(bench.tree(sibling), before, "a sibling")
    same(_stamps(bench, base), stamps, "inodes and change times of the parent")


def _stamps(bench: Bench, layer: Layer) -> dict[str, tuple[int, int]]:
    with bench.reading(layer) as root:
        found = {}
        for path in bench.tree(layer):
            info = os.lstat(f"{root}/{path}" if path else f"{root}/.")
            found[path] = (info.st_ino, info.st_ctime_ns)
        return found


@check("life cycle")
def two_layers_of_one_parent_can_be_mounted_at_once(bench: Bench) -> None:
    """Two containers of an image, each with its own files."""
    base = bench.made(BASE)
    one, other = bench.prepare(base), bench.prepare(base)
    with bench.writing(one) as first, bench.writing(other) as second:
        _append(first)
        os.unlink(f"{second}/file")
        same(os.path.exists(f"{first}/file"), True, "the file in the first")
        os.mkdir(f"{second}/second")
        same(os.path.exists(f"{first}/second"), False, "the second's directory in the first")


@check("life cycle")
def a_key_that_is_there_is_refused_and_unharmed(bench: Bench) -> None:
    """containerd: multiple calls to Prepare with the same key should fail."""
    base = bench.made(BASE)
    before = bench.tree(base)
    other = bench.made({"other": File("x")})
    _must_raise(lambda: bench.prepare(key=base.key), "preparing a key that is there")
    _must_raise(lambda: bench.prepare(other, key=base.key), "preparing a key that is there on another layer")
    require_equal(bench.tree(base), before, "the layer that was there")


def _must_raise(
    call: Callable[[], object], what: str, kinds: tuple[type[BaseException], ...] = (OSError, LaminaError)
) -> BaseException:
    """Call, and fail unless it raises what a driver may raise."""
    try:
        call()
    except PluginError as error:
        require(False, f"{what}: the driver raised what it may not: {error}")
        raise
    except kinds as error:
        return error
    require(False, f"{what} was taken")
    raise AssertionError


@check("life cycle")
def a_missing_parent_is_an_error_that_leaves_nothing(bench: Bench) -> None:
    """moby's aufs leaves three directories here."""
    bench.made(BASE)
    before = inodes_below(bench.dir)
    _must_raise(lambda: bench.driver.prepare(bench.new_key(), ("0" * 64,), {}), "a parent that isn't there")
    same(inodes_below(bench.dir) - before, set(), "left behind")
    same(len(bench.driver.keys()), 1, "keys afterwards")


@check("life cycle")
def an_unknown_option_is_refused_as_wrong_usage_and_leaves_nothing(bench: Bench) -> None:
    """A --storage-opt that is ignored is a promise that nobody keeps."""
    bench.made(BASE)
    before = inodes_below(bench.dir)
    error = _must_raise(lambda: bench.prepare(options={"no-such-option-ever": "1"}), "an option that nobody knows", (UsageError,))
    require("no-such-option-ever" in str(error), f"the error doesn't name the option: {error}")
    same(inodes_below(bench.dir) - before, set(), "left behind")


@check("life cycle", limit_s=60)
def a_prepare_that_fails_leaves_nothing(bench: Bench) -> None:
    """The disk may be full at any of its steps; each is tried, by a file system that has one inode more each time."""
    if bench.filesystem:
        raise Skipped(f"needs a memory disk, and the driver needs {bench.filesystem}")
    place = f"{bench.dir}/small"
    with disks.memory_disk(place, size_bytes=16 << 20, inodes=10_000), bench.elsewhere(f"{place}/{bench.name}") as small:
        base = small.made({f"d{number}/f": File("x") for number in range(6)})
        small.discard(small.prepare(base))  # what a driver makes once and keeps, such as a trash, is there now
        used = _used_inodes(place)
        for more in range(200):
            disks.limit_inodes(place, used + more + 1)
            key = small.new_key()
            try:
                small.driver.prepare(key, base.chain, {})
            except PluginError:
                raise
            except (OSError, LaminaError) as error:
                if isinstance(error, OSError):
                    same(error.errno, errno.ENOSPC, "the error of a full disk")
                same(small.driver.keys(), [base.key], f"keys after a failure with room for {more} inodes")
                same(_used_inodes(place), used, f"inodes after a failure with room for {more}")
            else:
                require(more > 0, "a layer that takes no inode")
                return
        require(False, "never enough room")


def _used_inodes(place: str) -> int:
    info = os.statvfs(place)
    return info.f_files - info.f_ffree


@check("life cycle")
def a_discarded_layer_is_gone_from_the_keys_at_once(bench: Bench) -> None:
    """Before it is swept: what is set aside is no layer."""
    base = bench.made(BASE)
    child = bench.made({"x": File("x")}, base)
    bench.driver.discard(child.key)
    same(bench.driver.keys(), [base.key], "keys after the discard")
    bench.driver.sweep()
    same(bench.driver.keys(), [base.key], "keys after the sweep")


@check("life cycle")
def discarding_what_is_not_there_is_no_error(bench: Bench) -> None:
    """Recovery discards what may never have been made; also in a folder that has never had a layer."""
    bench.driver.discard("0" * 64)
    base = bench.made(BASE)
    bench.driver.discard("0" * 64)
    bench.driver.discard(base.key)
    bench.driver.discard(base.key)
    same(bench.driver.keys(), [], "keys")


@check("life cycle")
def a_key_can_be_used_again_and_nothing_comes_back(bench: Bench) -> None:
    """Also before the trash was emptied, and several times."""
    base = bench.made(BASE)
    key = bench.new_key()
    for number in range(4):
        layer = bench.prepare(base if number % 2 else None, key=key)
        wanted = bench.tree(base) if number % 2 else {}
        found = bench.tree(layer)
        same(sorted(path for path in found if path), sorted(path for path in wanted if path), f"use {number} of one key")
        bench.write(layer, {"ghost": File("x"), "dir/ghost": File("x")})
        bench.driver.discard(key)
    bench.driver.sweep()
    same(bench.driver.keys(), [base.key], "keys")


@check("life cycle")
def the_keys_are_exactly_the_layers(bench: Bench) -> None:
    """Empty, filled, sealed, mounted: each once, and nothing that the driver keeps for itself."""
    same(sorted(bench.driver.keys()), [], "keys of a new folder")
    base = bench.made(BASE)
    layers = [base, bench.prepare(), bench.prepare(base), bench.made({"x": File("x")}, base)]
    mounted = bench.prepare(base)
    with bench.writing(mounted):
        same(sorted(bench.driver.keys()), sorted(each.key for each in [*layers, mounted]), "keys while one is mounted")
    with bench.reading(base):
        same(sorted(bench.driver.keys()), sorted(each.key for each in [*layers, mounted]), "keys while one is read")


@check("life cycle")
def discarding_a_child_spares_its_parent_and_siblings(bench: Bench) -> None:
    """What a driver shares between layers must not go with one of them."""
    base = bench.made(BASE)
    gone, stays = bench.made({"x": File("x")}, base), bench.made({"y": File("y")}, base)
    wanted = [bench.tree(base), bench.tree(stays)]
    bench.discard(gone)
    require_equal(bench.tree(base), wanted[0], "the parent")
    require_equal(bench.tree(stays), wanted[1], "a sibling")


@check("life cycle")
def a_swept_layer_leaves_nothing(bench: Bench) -> None:
    """Not a byte and not an inode of it."""
    keeper = bench.made({"x": File("x")})
    bench.discard(bench.made(BASE, keeper))
    before = inodes_below(bench.driver.home)
    for below in (None, keeper):
        layer = bench.made(BASE, below)
        with bench.reading(layer):
            pass
        bench.discard(layer)
    same(inodes_below(bench.driver.home) - before, set(), "left behind")


@check("life cycle")
def sweeping_may_be_done_at_any_time_and_spares_what_lives(bench: Bench) -> None:
    """On a new folder, twice, and while layers are mounted and read."""
    bench.driver.sweep()
    base = bench.made(BASE)
    wanted = bench.tree(base)
    layer = bench.prepare(base)
    with bench.writing(layer) as root, bench.reading(base) as below:
        _append(root)
        bench.driver.sweep()
        bench.driver.sweep()
        require_equal(tree.read(below), wanted, "a layer that is read")
        same(os.stat(f"{root}/file").st_size, 8, "size of a file in a mounted layer")


@check("life cycle")
def an_immutable_file_does_not_stop_the_sweep(bench: Bench) -> None:
    """containers/storage: "delete-container-with-immutable"; chattr +i is for the container, not for the engine."""
    import fcntl

    layer = bench.prepare()

    def fill(root: str) -> None:
        tree.make(root, {"d/f": File("x")})
        for path in ("d/f", "d"):
            fd = os.open(f"{root}/{path}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, 0x40086602, (0x10).to_bytes(8, "little"))  # FS_IOC_SETFLAGS, FS_IMMUTABLE_FL
            except OSError as error:
                raise Skipped(f"a file can't be made immutable here: {error.strerror}") from error
            finally:
                os.close(fd)

    bench.write(layer, fill)
    key = layer.key
    bench.discard(layer)
    same(bench.driver.keys(), [], "keys")
    same([path for path in inodes_below(bench.driver.home) if key in path], [], "left behind")


_KEYS = ("0", "-dash", ".dot", "A.b_c-9", "trash", "l", "tmp", "dir", "new", "diff", "x-removing", "x" * 128)


@check("life cycle", params={("128 characters" if len(key) == 128 else key): key for key in _KEYS})
def a_key_is_taken_whole_or_refused(bench: Bench, key: str) -> None:
    """Keys are [a-zA-Z0-9_.-]{1,128}; one that a driver can't have is wrong usage, not a clash with its own files."""
    base = bench.made(BASE)
    before = inodes_below(bench.dir)
    try:
        layer = bench.prepare(base, key=key)
    except UsageError as error:
        bench.note(f"refused: {error}")
        same(inodes_below(bench.dir) - before, set(), "left behind by a refusal")
        return
    bench.write(layer, {"new": File("new")})
    bench.driver.seal(key)
    child = bench.made(below=layer)
    require("new" in bench.tree(child), "what was written is not seen in a child")
    same(sorted(bench.driver.keys()), sorted([base.key, key, child.key]), "keys")
    bench.discard(child)
    bench.discard(layer)
    same(bench.driver.keys(), [base.key], "keys after the discard")


@check("life cycle")
def the_probe_leaves_nothing_and_says_the_same_each_time(bench: Bench) -> None:
    """`driver ls` asks every driver, on any machine."""
    place = f"{bench.dir}/not/yet/made"
    os.makedirs(os.path.dirname(place))
    before, stamp = inodes_below(bench.dir), os.stat(os.path.dirname(place)).st_mtime_ns
    caller = bench.host.caller(bench.driver.plugin, "storage_probe")
    before |= inodes_below(bench.dir)
    answers = [caller(home=place) for _ in range(3)]
    require(answers[0].usable, f"the driver can't work here: {answers[0].reason}")
    same(answers[1:], answers[:1] * 2, "answers")
    same(inodes_below(bench.dir) - before, set(), "left behind")
    same(os.stat(os.path.dirname(place)).st_mtime_ns, stamp, "the time of the directory above")


@check("life cycle")
def sealing_twice_is_no_error(bench: Bench) -> None:
    """Recovery seals again what may have been sealed."""
    layer = bench.made(BASE)
    wanted = bench.tree(layer)
    bench.driver.seal(layer.key)
    require_equal(bench.tree(layer), wanted, "sealed twice")


@check("life cycle")
def making_ready_and_bringing_to_rest_may_be_repeated(bench: Bench) -> None:
    """A crashed engine's views are brought to rest again, and made ready again."""
    layer = bench.prepare(bench.made(BASE))
    bench.driver.after_unmount(layer.key)  # never mounted
    bench.driver.before_mount(layer.key, layer.parents)
    with bench.writing(layer) as root:
        os.unlink(f"{root}/dir/one")
        tree.make(root, {"new": File("new")})
    bench.driver.after_unmount(layer.key)
    wanted = bench.tree(layer)
    bench.driver.before_mount(layer.key, layer.parents)
    bench.driver.before_mount(layer.key, layer.parents)
    bench.driver.after_unmount(layer.key)
    bench.driver.after_unmount(layer.key)
    require_equal(bench.tree(layer), wanted, "the layer")
    require("new" in wanted and "dir/one" not in wanted, "the changes are lost")


@check("life cycle", params={str(depth): depth for depth in (2, 42, 127, 128, 500)}, limit_s=60)
def a_chain_of_layers_shows_what_each_brought(bench: Bench, depth: int) -> None:
    """The limits that drivers had: 42 branches, 127 and 128 layers, a page of mount options, 500 lower directories."""
    limit = bench.claims.max_depth
    if limit is not None and depth > limit:
        raise Skipped(f"the driver claims {limit} layers at most")
    layer: Layer | None = None
    marks = {number for number in range(depth - 1) if number % 64 == 0 or number > depth - 4}
    for number in range(depth - 1):
        layer = bench.prepare(layer)
        if number in marks:
            bench.write(layer, {f"layer-{number}": File(str(number))})
        if number in marks or number % 16 == 0:
            bench.driver.seal(layer.key)
    top = bench.prepare(layer)
    wanted = {f"layer-{number}" for number in marks}
    with bench.writing(top) as root:
        same(set(os.listdir(root)), wanted, f"names in {depth} layers, mounted")
        with open(f"{root}/layer-0", "a", encoding="ascii") as file:
            file.write("+")
    with bench.reading(top) as root:
        same(set(os.listdir(root)), wanted, f"names in {depth} layers, read-only")
        with open(f"{root}/layer-0", encoding="ascii") as file:
            same(file.read(), "0+", "the lowest layer's file, changed in the highest")


@check("life cycle", params={str(length): length for length in (150, 260, 1200)})
def a_long_path_to_the_store_works(bench: Bench, length: int) -> None:
    """Option strings were cut at 255 and at 4095 bytes, also in the middle of a path (moby's aufs tests)."""
    place = bench.dir
    while len(place) < length:
        place += "/" + "p" * min(100, length - len(place))
    os.makedirs(place)
    _works(bench, f"{place}/{bench.name}", 12)


_CHARACTERS = {"colon": ":", "comma": ",", "backslash": "\\", "blank": " ", "equals sign": "=", "quotes": "'\"", "not ASCII": "é☃",
               "not UTF-8": "\udce9", "line break": "\n"}  # fmt: skip


@check("life cycle", params=_CHARACTERS)
def a_path_to_the_store_may_have_any_character(bench: Bench, text: str) -> None:
    """In an option string `:` and `,` part words. A driver may say of such a place that it can't work there."""
    os.mkdir(f"{bench.dir}/a{text}b")
    _works(bench, f"{bench.dir}/a{text}b/{bench.name}", 3)


def _works(bench: Bench, home: str, depth: int) -> None:
    with bench.elsewhere(home) as other:
        layer: Layer | None = None
        for number in range(depth):
            layer = other.made({f"layer-{number}": File("x")}, layer)
        top = other.prepare(layer)
        wanted = {f"layer-{number}" for number in range(depth)}
        with other.writing(top) as root:
            same(set(os.listdir(root)), wanted, "names, mounted")
            os.unlink(f"{root}/layer-0")
        with other.reading(top) as root:
            same(set(os.listdir(root)), wanted - {"layer-0"}, "names, read-only")
        for each in [top.key, *top.parents]:
            other.driver.discard(each)
        other.driver.sweep()
        same(other.driver.keys(), [], "keys")


@check("life cycle")
def what_is_described_is_there(bench: Bench) -> None:
    """`inspect` shows these paths, and people follow them."""
    layer = bench.prepare(bench.made(BASE))
    with bench.writing(layer) as root:
        described = bench.driver.describe(layer.key, layer.parents)
        require(all(isinstance(text, str) for pair in described.items() for text in pair), f"not text: {described!r}")
        same(described.get("MergedDir"), root, "MergedDir")
        for name, value in described.items():
            for path in value.split(":") if value.startswith("/") else ():
                require(os.path.lexists(path), f"{name} names '{path}', which isn't there")
                require(stat.S_ISDIR(os.stat(path).st_mode), f"{name} names '{path}', which is no directory")
