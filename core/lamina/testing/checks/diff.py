"""What a layer changes, exactly: not a path too many and not one too few. `diff` prints it, and a commit is made from it."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

from lamina.api.types import Fidelity
from lamina.testing import tree
from lamina.testing.bench import Bench
from lamina.testing.check import Claim, check, require, same
from lamina.testing.checks.whiteouts import remove
from lamina.testing.samples import BASE
from lamina.testing.tree import ACCESS_ACL, ACL, FILE_CAPABILITY, TIME_NS, File, Kind, Link, Special, Symlink


@contextlib.contextmanager
def _same_time(*places: str) -> Iterator[None]:
    """Set the modification times back at the end."""
    before = [os.lstat(place).st_mtime_ns for place in places]
    yield
    for place, time_ns in zip(places, before, strict=True):
        os.utime(place, ns=(time_ns, time_ns), follow_symlinks=False)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _overwrite(path: str, text: str) -> None:
    with open(path, "r+", encoding="ascii") as file:
        file.write(text)


def _rewrite_keeping_time(root: str) -> None:
    with _same_time(f"{root}/file"):
        _overwrite(f"{root}/file", "FILE")


def _rewrite_by_rename(root: str) -> None:
    with _same_time(root):
        tree.make(root, {"": tree.Directory(), "new": File("FILE")})
        os.rename(f"{root}/new", f"{root}/file")


def _touch_and_undo(root: str) -> None:
    with open(f"{root}/file", "r+b"):
        pass
    for mode in (0o600, 0o644):
        os.chmod(f"{root}/dir/one", mode)
    with _same_time(f"{root}/dir"):
        tree.make(root + "/dir", {"": tree.Directory(), "passing": File("x")})
        os.unlink(f"{root}/dir/passing")


def _make_again(path: str) -> Callable[[str], object]:
    def change(root: str) -> None:
        with _same_time(root):
            shutil.rmtree(f"{root}/{path}")
            tree.make(root, {"": tree.Directory(), f"{path}/new": File("x")})

    return change


def _keeping(path: str, change: Callable[[str], object]) -> Callable[[str], object]:
    """Make a change whose directory gets its old time back, so that only the change itself is one."""

    def whole(root: str) -> None:
        with _same_time(f"{root}/{path}" if path else root):
            change(root)

    return whole


def _replace(path: str, new: tree.Tree) -> Callable[[str], object]:
    def change(root: str) -> None:
        with _same_time(root):
            remove(f"{root}/{path}")
            tree.make(root, {"": tree.Directory(), **{path + below: node for below, node in new.items()}})

    return change


def _add(declared: tree.Tree) -> Callable[[str], object]:
    """Add to the tree; the root gets its old time back."""
    return lambda root: tree.make(root, {**declared, "": tree.Directory()})


def _acl_of_the_same_mode(root: str) -> None:
    os.chmod(f"{root}/dir", 0o775)
    os.setxattr(f"{root}/dir", ACCESS_ACL, ACL)


Case = tuple[Callable[[str], object], list[str], Claim | None]


def _case(change: Callable[[str], object], *said: str, claim: Claim | None = None) -> Case:
    return change, list(said), claim


_CASES: dict[str, Case] = {
    "nothing": _case(lambda _root: None),
    "touched and undone": _case(_touch_and_undo),
    "content": _case(lambda root: _write(f"{root}/file", "longer"), "C file"),
    "content of the same size and time": _case(_rewrite_keeping_time, "C file"),
    "content by a rename": _case(_rewrite_by_rename, "C file"),
    "mode of a file": _case(lambda root: os.chmod(f"{root}/file", 0o600), "C file"),
    "mode of a directory": _case(lambda root: os.chmod(f"{root}/dir", 0o700), "C dir"),
    "setuid": _case(lambda root: os.chmod(f"{root}/script", 0o4755), "C script"),
    "owner": _case(lambda root: os.chown(f"{root}/file", 9, 9), "C file"),
    "owner of a symlink": _case(lambda root: os.chown(f"{root}/link", 9, 9, follow_symlinks=False), "C link"),
    "time": _case(lambda root: os.utime(f"{root}/file", ns=(1, TIME_NS + 10**9)), "C file"),
    "one nanosecond": _case(lambda root: os.utime(f"{root}/file", ns=(1, TIME_NS + 1)), "C file", claim=Fidelity.NANOSECONDS),
    "time of a directory": _case(lambda root: os.utime(f"{root}/dir", ns=(1, TIME_NS + 10**9)), "C dir"),
    "time of a symlink": _case(lambda root: os.utime(f"{root}/link", ns=(1, 1), follow_symlinks=False), "C link"),
    "access time alone": _case(lambda root: os.utime(f"{root}/file", ns=(1, TIME_NS))),
    "a new xattr": _case(lambda root: os.setxattr(f"{root}/file", "user.n", b"1"), "C file", claim=Fidelity.USER_XATTRS),
    "a directory's xattr": _case(lambda root: os.setxattr(f"{root}/dir", "user.n", b"1"), "C dir", claim=Fidelity.USER_XATTRS),
    "a capability": _case(
        lambda root: os.setxattr(f"{root}/script", "security.capability", FILE_CAPABILITY), "C script",
        claim=Fidelity.FILE_CAPABILITIES,
    ),
    "an ACL of the same mode": _case(
        _keeping("dir", _acl_of_the_same_mode), "C dir",
        claim=Fidelity.ACLS,
    ),
    "a root's mode": _case(lambda root: os.chmod(root, 0o700), "C "),
    "an added file": _case(_add({"new": File("x")}), "A new"),
    "an added tree": _case(
        _add({"n/a/f": File("x"), "n-b": File("x")}), "A n", "A n/a", "A n/a/f", "A n-b"
    ),
    "an added file in a directory": _case(_add({"dir/new": File("x")}), "C dir", "A dir/new"),
    "an added link": _case(_keeping("", lambda root: os.link(f"{root}/file", f"{root}/z")), "A z"),
    "an added fifo": _case(_add({"new": Special(Kind.FIFO)}), "A new"),
    "a deleted file": _case(_keeping("", lambda root: os.unlink(f"{root}/file")), "D file"),
    "a deleted tree": _case(_keeping("", lambda root: shutil.rmtree(f"{root}/dir")), "D dir"),
    "a deleted nested tree": _case(_keeping("dir", lambda root: shutil.rmtree(f"{root}/dir/sub")), "D dir/sub"),
    "a deleted one of two names": _case(_keeping("names", lambda root: os.unlink(f"{root}/names/first")), "D names/first"),
    "everything deleted": _case(
        _keeping("", lambda root: subprocess.run(["find", root, "-mindepth", "1", "-delete"], check=True)),
        *(f"D {name}" for name in sorted({path.partition("/")[0] for path in BASE})),
    ),
    "a directory made again": _case(_make_again("a"), "A a/new", "D a/x"),
    "a tree made again": _case(
        _replace("dir", {"": tree.Directory(), "/sub/three": File("dir/sub/three")}), "D dir/one", "D dir/sub/deep", "D dir/two"
    ),
    "a file by a directory": _case(_replace("file", {"/f": File("x")}), "C file", "A file/f"),
    "a directory by a file": _case(_replace("dir", {"": File("x")}), "C dir"),
    "a file by a symlink": _case(_replace("file", {"": Symlink("x")}), "C file"),
    "a symlink by a directory": _case(_replace("linkdir", {"/f": File("x")}), "C linkdir", "A linkdir/f"),
    "a symlink's text": _case(_replace("link", {"": Symlink("dir/two")}), "C link"),
    "a moved file": _case(_keeping("", lambda root: os.rename(f"{root}/file", f"{root}/z")), "D file", "A z"),
}  # fmt: skip


def _claim(case: Case) -> Claim | None:
    return case[2]


@check("diff", params=_CASES, claims=_claim)
def the_changes_are_exactly(bench: Bench, case: Case) -> None:
    """At rest, while mounted, and once sealed: three times the same, and what was done."""
    change, wanted, _ = case
    layer = bench.prepare(bench.made(BASE))
    with bench.writing(layer) as root:
        change(root)
        mounted = bench.said(layer)
    at_rest = bench.said(layer)
    bench.driver.seal(layer.key)
    same(at_rest, wanted, "changes")
    same(mounted, wanted, "changes while mounted")
    same(bench.said(layer), wanted, "changes of the sealed layer")


@check("diff")
def a_write_through_one_of_two_names_is_a_change_of_what_was_written(bench: Bench) -> None:
    """Of both names, if the driver keeps them one file, else of the one."""
    layer = bench.prepare(bench.made(BASE))
    bench.write(layer, lambda root: _overwrite(f"{root}/names/first", "NAMES"))
    both = Fidelity.HARD_LINKS in bench.claims.preserves
    same(bench.said(layer), ["C names/first", *(["C names/second"] if both else [])], "changes")


@check("diff")
def a_base_layers_changes_are_all_that_is_in_it(bench: Bench) -> None:
    """moby: "Changes(id, "")" is all ADD."""
    base = bench.made(BASE)
    same(sorted(bench.said(base)), sorted(f"A {path}" for path in bench.tree(base) if path), "changes")


@check("diff")
def a_layer_is_compared_with_all_below_it(bench: Bench) -> None:
    """What the middle one deleted and the top one made again is added; what the top one deletes of the lowest is gone."""
    middle = bench.prepare(bench.made(BASE))
    bench.write(middle, _keeping("", lambda root: os.unlink(f"{root}/file")))
    bench.driver.seal(middle.key)
    top = bench.prepare(middle)

    def change(root: str) -> None:
        with _same_time(root, f"{root}/dir"):
            _write(f"{root}/file", "again")
            os.unlink(f"{root}/dir/one")

    bench.write(top, change)
    same(bench.said(top), ["D dir/one", "A file"], "changes")
    same(bench.said(middle), ["D file"], "changes of the middle one")


@check("diff", params={str(depth): depth for depth in range(4)})
def deleting_and_making_again_at_a_depth(bench: Bench, depth: int) -> None:
    """containers/storage, "Echo": a subtree deleted in one layer and made again in the next; naive diffs had trouble here."""
    directory = "/".join(["d"] * (depth + 1))
    base = bench.made({f"{'d/' * at}f": File("x") for at in range(6)})
    second = bench.prepare(base)
    above = directory.rpartition("/")[0]
    bench.write(second, _keeping(above, lambda root: shutil.rmtree(f"{root}/{directory}")))
    bench.driver.seal(second.key)
    same(bench.said(second), [f"D {directory}"], "changes of the layer that deletes")
    third = bench.prepare(second)

    def again(root: str) -> None:
        with _same_time(f"{root}/{above}" if above else root):
            os.mkdir(f"{root}/{directory}")
            _write(f"{root}/{directory}/f", "x")

    bench.write(third, again)
    same(bench.said(third), [f"A {directory}", f"A {directory}/f"], "changes of the layer that makes again")


@check("diff")
def changes_are_sorted_by_components_parents_first(bench: Bench) -> None:
    """`a` before `a/x` before `a-b`: containerd's "RemoveDirectoryTreeWithDash"."""
    layer = bench.prepare(bench.made(BASE))

    def change(root: str) -> None:
        for at, folders, files in os.walk(root):
            for name in (*folders, *files):
                os.utime(f"{at}/{name}", ns=(1, 1), follow_symlinks=False)
        tree.make(root, {"a-": File(""), "a/y": File(""), "a.b": File(""), "\udcff": File(""), "é": File("")})

    bench.write(layer, change)
    paths = [each.path for each in bench.changes(layer)]
    same(paths, sorted(paths, key=lambda path: os.fsencode(path).split(b"/")), "order")
    same(len(paths), len(set(paths)), "paths, and different ones")


@check("diff")
def asking_for_changes_changes_nothing(bench: Bench) -> None:
    """Not the layer and not its parents; and the answer is the same twice."""
    base = bench.made(BASE)
    layer = bench.made({"dir/new": File("x")}, base)
    before = bench.tree(layer), bench.tree(base)
    same(bench.said(layer), bench.said(layer), "a second answer")
    same((bench.tree(layer), bench.tree(base)), before, "the layers")


@check("diff")
def a_layer_made_in_the_same_instant_is_compared_by_content(bench: Bench) -> None:
    """moby#21555: updates of the same size within one second were lost."""
    layer = bench.made({"f": File("0")})
    for number in range(1, 6):
        above = bench.prepare(layer)

        def update(root: str, number: int = number) -> None:
            with _same_time(f"{root}/f"):
                _write(f"{root}/f", str(number))

        bench.write(above, update)
        bench.driver.seal(above.key)
        same(bench.said(above), ["C f"], f"changes of layer {number}")
        layer = above


@check("diff")
def the_hint_of_what_was_never_touched_loses_nothing(bench: Bench) -> None:
    """The engine tells a copying driver when the layer was prepared; what changed since then must still be found."""
    layer = bench.prepare(bench.made(BASE))
    marker = f"{bench.driver.home}/.time"
    with open(marker, "wb"):
        stamp = os.stat(marker).st_ctime_ns
    os.unlink(marker)

    def change(root: str) -> None:
        _rewrite_keeping_time(root)
        with _same_time(f"{root}/dir/sub", f"{root}/dir"):
            os.unlink(f"{root}/dir/sub/three")
            os.link(f"{root}/dir/one", f"{root}/dir/linked")
        tree.make(root, {"names/third": Link("names/first"), "": tree.Directory()})

    bench.write(layer, change)
    said = [f"{each.kind.value} {each.path}" for each in bench.changes(layer, prepared_ns=stamp)]
    same(said, bench.said(layer), "changes with the hint, against those without")
    same({"C file", "D dir/sub/three", "A dir/linked"} - set(said), set(), "what was changed, and isn't said")
    require("A names/third" in said, "the new name is missing")
