"""rename(2) within a union, as the file systems below would do it."""

import ctypes
import errno
import os
import subprocess

from lamina.api.types import Behaviour
from lamina.testing import tree
from lamina.testing.bench import Bench
from lamina.testing.check import Skipped, check, require, same
from lamina.testing.checks.copy_up import text_of
from lamina.testing.samples import BASE
from lamina.testing.tree import Directory, File

_NOREPLACE, _EXCHANGE = 1, 2


def _rename2(source: str, target: str, flags: int) -> None:
    """renameat2(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source)


_FILES = {
    "to a new name": ("file", "new"), "into a directory": ("file", "dir/sub/new"), "over a file of below": ("file", "dir/one"),
    "a symlink": ("link", "new"), "out of a directory": ("dir/sub/deep/four", "four"), "one of two names": ("names/first", "new"),
}  # fmt: skip


@check("copy-up", params=_FILES)
def renaming_a_file(bench: Bench, case: tuple[str, str]) -> None:
    """The old name is gone, the new one has all of it; mounted and at rest."""
    source, target = case
    base = bench.made(BASE)
    facts = bench.tree(base)[source]
    child = bench.prepare(base)
    bench.write(child, lambda root: os.rename(f"{root}/{source}", f"{root}/{target}"))
    found = bench.tree(child)
    require(source not in found, "the old name is still there")
    same(
        (found[target].content, found[target].mode, found[target].mtime_ns), (facts.content, facts.mode, facts.mtime_ns), "the new"
    )
    same(len(found), len(bench.tree(base)) - (target in bench.tree(base)), "number of paths")


@check("copy-up")
def renaming_a_file_and_back_changes_nothing(bench: Bench) -> None:
    """Except the times of the directories, which are then set back."""
    child = bench.prepare(bench.made(BASE))

    def there_and_back(root: str) -> None:
        os.rename(f"{root}/dir/one", f"{root}/dir/sub/one")
        os.rename(f"{root}/dir/sub/one", f"{root}/dir/one")
        for path in ("dir/sub", "dir"):
            os.utime(f"{root}/{path}", ns=(tree.TIME_NS, tree.TIME_NS))

    bench.write(child, there_and_back)
    same(bench.said(child), [], "changes")


@check("copy-up", claims=Behaviour.DIRECTORY_RENAME)
def renaming_a_directory_of_below(bench: Bench) -> None:
    """EXDEV on aufs, and on overlayfs without redirect_dir: rpm, npm and dpkg met it."""
    child = bench.prepare(bench.made(BASE))
    bench.write(child, lambda root: os.rename(f"{root}/dir", f"{root}/moved"))
    found = bench.tree(child)
    require("moved/sub/deep/four" in found and "dir" not in found, "the directory was not moved whole")


@check("copy-up")
def moving_a_directory_of_below_by_mv(bench: Bench) -> None:
    """Where rename(2) says EXDEV, mv(1) copies: the result is the same."""
    base = bench.made(BASE)
    child = bench.prepare(base)
    bench.write(child, lambda root: subprocess.run(["mv", f"{root}/dir", f"{root}/moved"], check=True, capture_output=True))
    before = bench.tree(base)
    wanted = {f"moved{path[3:]}": facts for path, facts in before.items() if path == "dir" or path.startswith("dir/")}
    found = {path: facts for path, facts in bench.tree(child).items() if path.startswith("moved")}
    words = tree.differences(found, wanted, ignore=frozenset({"names"}))
    require(not words, "; ".join(words[:5]))
    same([path for path in bench.tree(child) if path == "dir" or path.startswith("dir/")], [], "what is left of the old name")


@check("copy-up")
def renaming_a_directory_of_the_layer(bench: Bench) -> None:
    """What was made here can be renamed everywhere, over an empty directory and over a deleted name, too."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        tree.make(root, {"new/d/f": File("x")})
        os.rename(f"{root}/new", f"{root}/newer")
        os.rename(f"{root}/newer/d", f"{root}/empty")
        os.unlink(f"{root}/a/x")
        os.rmdir(f"{root}/a")
        os.rename(f"{root}/newer", f"{root}/a")
        same(os.listdir(f"{root}/empty"), ["f"], "names in the directory that was empty")
        same(os.listdir(f"{root}/a"), [], "names in the directory whose name was deleted")
    found = set(bench.tree(child))
    require({"empty/f", "a"} <= found and not found & {"new", "newer", "a/x"}, f"at rest: {sorted(found)}")


@check("copy-up")
def a_rename_over_a_full_directory_is_refused(bench: Bench) -> None:
    """Also when all that is in it comes from below."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        os.mkdir(f"{root}/new")
        try:
            os.rename(f"{root}/new", f"{root}/dir")
        except OSError as error:
            require(error.errno in {errno.ENOTEMPTY, errno.EEXIST}, f"the error is {error.strerror}")
        else:
            require(False, "a full directory was replaced")
        require(os.path.exists(f"{root}/dir/one") and os.path.isdir(f"{root}/new"), "something is lost")


@check("copy-up")
def a_rename_without_replacing(bench: Bench) -> None:
    """RENAME_NOREPLACE: EEXIST for a name of below, success for one that was deleted."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        try:
            _rename2(f"{root}/file", f"{root}/script", _NOREPLACE)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise Skipped("RENAME_NOREPLACE isn't supported") from error
            same(error.errno, errno.EEXIST, "the error")
        else:
            require(False, "a file of below was replaced")
        os.unlink(f"{root}/script")
        _rename2(f"{root}/file", f"{root}/script", _NOREPLACE)
        same(text_of(f"{root}/script"), "file", "the new name's content")


@check("copy-up")
def two_files_can_be_exchanged(bench: Bench) -> None:
    """RENAME_EXCHANGE, one of below and one of the layer."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        tree.make(root, {"new": File("new")})
        try:
            _rename2(f"{root}/file", f"{root}/new", _EXCHANGE)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.EXDEV, errno.ENOSYS}:
                raise Skipped(f"RENAME_EXCHANGE isn't supported: {error.strerror}") from error
            raise
        same((text_of(f"{root}/file"), text_of(f"{root}/new")), ("new", "file"), "contents")
    with bench.reading(child) as root:
        same((text_of(f"{root}/file"), text_of(f"{root}/new")), ("new", "file"), "contents at rest")


@check("copy-up")
def renaming_onto_another_name_of_the_same_file_does_nothing(bench: Bench) -> None:
    """rename(2): "If oldpath and newpath are existing hard links referring to the same file, rename() does nothing"."""
    child = bench.prepare()
    with bench.writing(child) as root:
        tree.make(root, {"one": File("x"), "two": tree.Link("one")})
        os.rename(f"{root}/one", f"{root}/two")
        same(sorted(os.listdir(root)), ["one", "two"], "names")


@check("copy-up")
def a_case_only_rename(bench: Bench) -> None:
    """`Makefile` to `makefile` is a change on every Linux file system."""
    child = bench.prepare(bench.made({"Name": File("x"), "d": Directory()}))
    bench.write(child, lambda root: os.rename(f"{root}/Name", f"{root}/name"))
    same(sorted(bench.tree(child)), ["", "d", "name"], "paths")
    same(bench.said(child)[-2:], ["D Name", "A name"], "changes")


@check("copy-up")
def a_storm_of_renames(bench: Bench) -> None:
    """Eight names moved round and round, against a plain directory."""
    declared = {f"d{number % 2}/n{number}": File(str(number)) for number in range(8)}
    place = f"{bench.dir}/plain"
    os.mkdir(place, 0o755)
    tree.make(place, declared)
    child = bench.prepare(bench.made(declared))

    def storm(root: str) -> None:
        for turn in range(60):
            source, target = sorted(declared)[turn * 5 % 8], sorted(declared)[(turn * 3 + 1) % 8]
            if os.path.exists(f"{root}/{source}"):
                os.rename(f"{root}/{source}", f"{root}/{target}")
            if turn % 7 == 0:
                with open(f"{root}/{source}", "w", encoding="ascii") as file:
                    file.write(f"turn {turn}")

    storm(place)
    bench.write(child, storm)
    same({path: facts.content for path, facts in bench.tree(child).items()},
         {path: facts.content for path, facts in tree.read(place).items()}, "names and contents")  # fmt: skip
