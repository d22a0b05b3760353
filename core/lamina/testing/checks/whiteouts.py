"""What was deleted stays deleted, and what is made anew in its place is what was made: mounted, at rest, and in layers above."""

import os
import shutil
from collections.abc import Callable

from lamina.testing import tree
from lamina.testing.bench import Bench
from lamina.testing.check import check, require, same
from lamina.testing.checks.fidelity import require_equal
from lamina.testing.samples import BASE
from lamina.testing.tree import Directory, File, Kind, Link, Special, Symlink, Tree


def remove(path: str) -> None:
    """Remove a file or a whole tree."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def remove_all(root: str, paths: list[str]) -> None:
    """Remove several."""
    for path in paths:
        remove(f"{root}/{path}")


_OLD: dict[str, str] = {"file": "file", "directory": "dir", "symlink": "link"}
_NEW: dict[str, Tree] = {
    "file": {"": File("new")},
    "directory": {"": Directory(), "/new": File("new")},
    "symlink": {"": Symlink("elsewhere")},
    "fifo": {"": Special(Kind.FIFO)},
}
_REPLACEMENTS = {f"{old} by {new}": (path, tree_) for old, path in _OLD.items() for new, tree_ in _NEW.items()}


@check("copy-up", params=_REPLACEMENTS)
def replacing(bench: Bench, case: tuple[str, Tree]) -> None:
    """Deleted and made anew as something else, or as the same kind: nothing of the old shows (moby#25244, fuse-overlayfs#279)."""
    path, new = case
    declared = {f"{path}{below}": node for below, node in new.items()}
    middle = bench.prepare(bench.made(BASE))

    def fill(root: str) -> None:
        remove(f"{root}/{path}")
        require(not os.path.lexists(f"{root}/{path}"), "it is still there after its deletion")
        tree.make(root, declared)

    def seen(root: str) -> None:
        found = [each for each in tree.read(root) if each == path or each.startswith(f"{path}/")]
        same(found, sorted(declared), "what is seen")
        same(tree.read(root)[path].kind, declared[path].kind, "its kind")

    with bench.writing(middle) as root:
        fill(root)
        seen(root)
    with bench.writing(middle) as root:
        seen(root)
    bench.driver.seal(middle.key)
    with bench.reading(bench.made({"dir-later": File("x")}, middle)) as root:
        seen(root)


@check("copy-up")
def deletions_last_through_layers_above(bench: Bench) -> None:
    """moby: "DeletedFilesInChildSnapshot", also through an empty layer and one that has other things."""
    second = bench.prepare(bench.made(BASE))
    bench.write(second, lambda root: remove_all(root, ["file", "dir/sub", "link", "a"]))
    bench.driver.seal(second.key)
    third = bench.made(below=second)
    fourth = bench.made({"dir/new": File("x")}, third)
    for layer in (third, fourth):
        found = bench.tree(layer)
        gone = [path for path in found if path in {"file", "link", "a"} or path.startswith(("dir/sub", "a/"))]
        same(gone, [], "deleted paths that are seen")
        require("dir/one" in found and "a-b/x" in found, "more than that is gone")


@check("copy-up")
def a_directory_removed_and_made_again_is_empty(bench: Bench) -> None:
    """moby#25244, and again one layer up where something is added to it."""
    second = bench.prepare(bench.made(BASE))

    def again(root: str) -> None:
        shutil.rmtree(f"{root}/dir")
        os.mkdir(f"{root}/dir")
        same(os.listdir(f"{root}/dir"), [], "names in the new directory")

    bench.write(second, again)
    bench.driver.seal(second.key)
    third = bench.made({"dir/sub/new": File("x")}, second)
    same([path for path in bench.tree(third) if path.startswith("dir/")], ["dir/sub", "dir/sub/new"], "names in it one layer up")


@check("copy-up")
def nested_directories_made_again_are_empty(bench: Bench) -> None:
    """fuse-overlayfs#136, #478: an opaque directory within a new one within an old one, over three layers."""
    base = bench.made({"a/b/c/d/f": File("x"), "a/b/g": File("x"), "a/h": File("x")})
    second = bench.prepare(base)

    def deep(root: str) -> None:
        shutil.rmtree(f"{root}/a/b/c")
        tree.make(root, {"a/b/c/d/new": File("n")})

    bench.write(second, deep)
    bench.driver.seal(second.key)
    third = bench.prepare(second)

    def higher(root: str) -> None:
        shutil.rmtree(f"{root}/a/b")
        tree.make(root, {"a/b/c/only": File("o")})

    bench.write(third, higher)
    wanted = ["", "a", "a/b", "a/b/c", "a/b/c/only", "a/h"]
    same(sorted(bench.tree(third)), wanted, "paths")
    same(sorted(bench.tree(second)), ["", "a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/new", "a/b/g", "a/h"], "paths one below")


@check("copy-up")
def a_deletion_in_the_root_hides_no_name_further_down(bench: Bench) -> None:
    """fuse-overlayfs#151."""
    child = bench.prepare(bench.made({"name": File("x"), "d/name": File("y"), "d/e/name": File("z")}))
    bench.write(child, lambda root: os.unlink(f"{root}/name"))
    same(sorted(bench.tree(child)), ["", "d", "d/e", "d/e/name", "d/name"], "paths")


@check("copy-up")
def a_directory_with_only_deleted_names_can_be_removed(bench: Bench) -> None:
    """rmdir(2) of what looks empty; and of what isn't, ENOTEMPTY."""
    import errno

    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        try:
            os.rmdir(f"{root}/a")
        except OSError as error:
            require(error.errno in {errno.ENOTEMPTY, errno.EEXIST}, f"rmdir of a full directory says {error.strerror}")
        else:
            require(False, "a directory that holds a file could be removed")
        os.unlink(f"{root}/a/x")
        same(os.listdir(f"{root}/a"), [], "names")
        os.rmdir(f"{root}/a")
        require(not os.path.lexists(f"{root}/a"), "it is still there")
    require("a" not in bench.tree(child), "it is back at rest")


@check("copy-up")
def no_whiteout_is_seen_by_a_container(bench: Bench) -> None:
    """Neither as a device, nor as a file, nor in a directory's size of names."""
    child = bench.prepare(bench.made({f"d/{number}": File("x") for number in range(20)}))
    with bench.writing(child) as root:
        for number in range(20):
            os.unlink(f"{root}/d/{number}")
        same(os.listdir(f"{root}/d"), [], "names")
        same(os.listdir(root), ["d"], "names in the root")
        for number in (3, 4):
            require(not os.path.lexists(f"{root}/d/{number}"), "lstat finds it")
    with bench.writing(child) as root:
        same(os.listdir(f"{root}/d"), [], "names when mounted again")


@check("copy-up")
def deleting_and_making_the_same_name_many_times(bench: Bench) -> None:
    """A lock file's life: forty times, each time with its own content."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        for number in range(40):
            os.unlink(f"{root}/file")
            with open(f"{root}/file", "x", encoding="ascii") as file:
                file.write(str(number))
    with bench.reading(child) as root, open(f"{root}/file", encoding="ascii") as file:
        same(file.read(), "39", "content")


@check("copy-up")
def a_name_deleted_below_and_made_again_above_is_new(bench: Bench) -> None:
    """Neither its mode, nor its xattrs, nor its links come back."""
    base = bench.made({"f": File("old", mode=0o4755, uid=5, xattrs={"user.old": b"1"}), "g": Link("f")})
    second = bench.prepare(base)
    bench.write(second, lambda root: os.unlink(f"{root}/f"))
    bench.driver.seal(second.key)
    third = bench.made({"f": File("new")}, second)
    found = bench.tree(third)["f"]
    same((found.mode, found.uid, found.xattrs, found.names), (0o644, 0, (), ("f",)), "mode, owner, xattrs and names")


_CASES: dict[str, Callable[[str], object]] = {
    "everything": lambda root: remove_all(root, os.listdir(root)),
    "everything in a directory": lambda root: remove_all(f"{root}/dir", os.listdir(f"{root}/dir")),
    "a name that another begins with": lambda root: remove_all(root, ["a"]),
}


@check("copy-up", params=_CASES)
def deleting(bench: Bench, delete: Callable[[str], object]) -> None:
    """Mounted, at rest, and one layer up, against a plain directory from which the same is deleted."""
    place = f"{bench.dir}/plain"
    os.mkdir(place, 0o755)
    tree.make(place, BASE)
    delete(place)
    child = bench.prepare(bench.made(BASE))
    bench.write(child, delete)
    bench.driver.seal(child.key)
    wanted = {path: facts.kind for path, facts in tree.read(place).items()}
    same({path: facts.kind for path, facts in bench.tree(child).items()}, wanted, "at rest")
    above = bench.prepare(child)
    require_equal(bench.tree(above), bench.tree(child), "one layer up")
