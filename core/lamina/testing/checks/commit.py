"""The archive of a layer's changes: what a commit makes an image's layer of, and what another driver, or Docker, is given."""

import io
import os
import tarfile

from lamina.archive.layer import LayerTar
from lamina.errors import LaminaError
from lamina.testing import tree
from lamina.testing.bench import Bench
from lamina.testing.check import check, require, same
from lamina.testing.checks.fidelity import require_equal, require_hole
from lamina.testing.checks.whiteouts import remove_all
from lamina.testing.samples import ARCHIVED, BASE, Sample, claim_of
from lamina.testing.tar import names
from lamina.testing.tree import File, Kind, Link, Special


@check("diff", params=ARCHIVED, claims=claim_of)
def kept_by_a_commit(bench: Bench, sample: Sample) -> None:
    """Written in a container, committed, and unpacked again by the same driver: the same tree."""
    layer = bench.prepare()
    bench.write(layer, sample.tree)
    wanted = bench.tree(layer)
    again = bench.applied(bench.commit(layer))
    found = bench.tree(again)
    words = tree.differences(found, wanted)
    require(not [word for word in words if "''" not in word], f"unpacked again: {'; '.join(words[:8])}")
    with bench.reading(again) as root:
        require(not sample.has_hole or _is_sparse_or_small(root, sample), "a hole was filled")


def _is_sparse_or_small(root: str, sample: Sample) -> bool:
    try:
        require_hole(root, sample)
    except AssertionError:
        return all(os.lstat(f"{root}/{path}").st_size < 64 << 20 for path in sample.tree)  # a tar layer says nothing of holes
    return True


def _edit(root: str) -> None:
    remove_all(root, ["file", "dir/sub", "a", "linkdir"])
    tree.make(root, {"a/new": File("in a new directory"), "dir/two-more": File("x"), "names/third": Link("names/first"),
                     "dir/fifo": Special(Kind.FIFO)})  # fmt: skip
    os.chmod(f"{root}/empty", 0o700)
    with open(f"{root}/big", "r+b") as file:
        file.seek(5000)
        file.write(b"changed")


@check("diff")
def a_commit_on_the_same_parent_gives_the_same_tree(bench: Bench) -> None:
    """moby: "DriverTestDiffApply"."""
    base = bench.made(BASE)
    layer = bench.prepare(base)
    bench.write(layer, _edit)
    again = bench.applied(bench.commit(layer), base)
    words = tree.differences(bench.tree(again), bench.tree(layer), ignore=frozenset({"names"}))
    require(not words, "; ".join(words[:8]))
    same(bench.said(again), bench.said(layer), "changes")


@check("diff")
def a_commits_entries_are_the_changes(bench: Bench) -> None:
    """moby's overlay2 has `Changes` and `Diff` from two algorithms, which can disagree."""
    layer = bench.prepare(bench.made(BASE))
    bench.write(layer, _edit)
    said = {each.path: each.kind.value for each in bench.changes(layer)}
    listed = {entry.path: entry.kind.value for entry in LayerTar(io.BytesIO(bench.commit(layer)))}
    hidden, gone = ({path for path, kind in each.items() if kind in {"whiteout", "D"}} for each in (listed, said))
    same(hidden, gone, "whiteouts")
    above = {path for path in listed if any(each.startswith(f"{path}/") for each in said)}
    same(set(listed) - set(said) - above, set(), "entries that are no change, nor above one")
    same(set(said) - set(listed), set(), "changes without an entry")


@check("diff")
def a_commit_has_whiteouts_before_their_siblings(bench: Bench) -> None:
    """OCI layer.md: "whiteouts SHOULD be before sibling entries", so that a stream can be unpacked as it comes."""
    layer = bench.prepare(bench.made(BASE))
    bench.write(layer, _edit)
    seen: dict[str, bool] = {}
    for name in names(bench.commit(layer)):
        head, _, last = name.rstrip("/").rpartition("/")
        if last.startswith(".wh."):
            require(not seen.get(head, False), f"'{name}' comes after a sibling")
        else:
            seen[head] = True


@check("diff")
def a_commit_has_each_name_once_and_parents_first(bench: Bench) -> None:
    """Duplicates MUST NOT be (layer.md), and what is in a directory comes after it."""
    layer = bench.prepare(bench.made(BASE))
    bench.write(layer, _edit)
    listed = [name.rstrip("/") for name in names(bench.commit(layer))]
    same(len(listed), len(set(listed)), "entries, and different ones")
    for number, name in enumerate(listed):
        head = name.rpartition("/")[0]
        require(not head or head in listed[:number], f"'{name}' comes before its directory")


@check("diff")
def a_commit_has_a_hard_links_file_before_the_link(bench: Bench) -> None:
    """moby: "HardLinkOrder"; the target by the path of an entry of the same archive."""
    layer = bench.prepare()
    bench.write(layer, {"z": File("x"), "a": Link("z"), "m/b": Link("z")})
    seen = set()
    with tarfile.open(fileobj=io.BytesIO(bench.commit(layer))) as tar:
        for member in tar:
            require(
                not member.islnk() or member.linkname in seen, f"'{member.name}' links to '{member.linkname}', which comes later"
            )
            seen.add(member.name)
    same(len(seen & {"a", "z", "m/b"}), 3, "entries")


@check("diff")
def two_commits_of_one_layer_are_the_same_bytes(bench: Bench) -> None:
    """Else each commit would be a new layer, and no digest could be reproduced."""
    layer = bench.prepare(bench.made(BASE))
    bench.write(layer, _edit)
    first = bench.commit(layer)
    require(bench.commit(layer) == first, "a second commit differs")
    with bench.writing(layer):
        require(bench.commit(layer) == first, "a commit of the mounted layer differs")
    bench.driver.seal(layer.key)
    require(bench.commit(layer) == first, "a commit of the sealed layer differs")


@check("diff")
def a_commit_can_be_the_same_tomorrow(bench: Bench) -> None:
    """SOURCE_DATE_EPOCH: two containers in which the same was done at different times."""
    base = bench.made(BASE)
    archives = []
    for _ in range(2):
        layer = bench.prepare(base)
        bench.write(layer, _edit)
        os.utime(bench.driver.home)
        archives.append(bench.commit(layer, mtime_limit_ns=tree.TIME_NS))
    require(archives[0] == archives[1], "two commits differ")


@check("diff")
def a_commit_leaves_sockets_out(bench: Bench) -> None:
    """tar can't hold them (containerd: "IgnoreSockets"); the rest is there."""
    layer = bench.prepare(bench.made(BASE))
    bench.write(layer, {"d/s": Special(Kind.SOCKET), "d/f": File("x")})
    listed = names(bench.commit(layer))
    require("d/f" in listed and "d/s" not in listed, f"entries: {listed}")


@check("diff")
def a_commit_has_nothing_of_the_drivers_own(bench: Bench) -> None:
    """No bookkeeping name, no xattr of a union, no device 0:0."""
    layer = bench.prepare(bench.made(BASE))
    bench.write(layer, _edit)
    with tarfile.open(fileobj=io.BytesIO(bench.commit(layer))) as tar:
        for member in tar:
            own = [key for key in member.pax_headers if "overlay" in key or "aufs" in key]
            same(own, [], f"xattrs of '{member.name}'")
            require(not (member.ischr() and member.devmajor == member.devminor == 0), f"'{member.name}' is a whiteout device")
            require(not member.name.rpartition("/")[2].startswith(".wh..wh."), f"'{member.name}' is aufs's bookkeeping")


@check("diff")
def an_empty_commit_is_an_empty_archive(bench: Bench) -> None:
    """And unpacks to nothing."""
    layer = bench.made(below=bench.made(BASE))
    same(names(bench.commit(layer)), [], "entries")


@check("diff")
def a_name_that_would_delete_another_is_refused(bench: Bench) -> None:
    """A file `.wh.x` that a container made would delete `x` on whoever unpacks the layer; or the driver let none be made."""
    layer = bench.prepare(bench.made({"x": File("x")}))
    with bench.writing(layer) as root:
        try:
            tree.make(root, {".wh.x": File("")})
        except OSError:
            return
    try:
        listed = names(bench.commit(layer))
    except LaminaError as error:
        require(".wh.x" in str(error), f"the error doesn't name the file: {error}")
        return
    require(".wh.x" not in listed, "the commit deletes 'x'")


@check("diff")
def an_export_has_the_whole_tree(bench: Bench) -> None:
    """All layers, nothing hidden, twice the same."""
    layer = bench.prepare(bench.made(BASE))
    bench.write(layer, _edit)
    data = bench.export(layer)
    same(sorted(name.rstrip("/") for name in names(data)), sorted(path for path in bench.tree(layer) if path), "names")
    require(bench.export(layer) == data, "a second export differs")
    require_equal(
        {path: facts for path, facts in bench.tree(bench.applied(data)).items() if path},
        {path: facts for path, facts in bench.tree(layer).items() if path},
        "unpacked again",
    )


@check("diff")
def a_directory_that_replaced_one_hides_the_old_one_after_a_commit(bench: Bench) -> None:
    """moby#37313: opaque directories, in a native diff."""
    base = bench.made({"d/e/old": File("x"), "d/keep": File("x")})
    layer = bench.prepare(base)

    def replace(root: str) -> None:
        remove_all(root, ["d/e"])
        tree.make(root, {"d/e/new": File("n")})

    bench.write(layer, replace)
    again = bench.applied(bench.commit(layer), base)
    same(sorted(bench.tree(again)), ["", "d", "d/e", "d/e/new", "d/keep"], "paths")
