"""One image, one tree, one archive, whatever the driver: held against core's own unpacking into a plain directory.

That plain directory is what every driver is compared with, so two drivers that pass agree with each other.
"""

import io
import os

from lamina.api.types import WhiteoutFormat
from lamina.archive.apply import apply_layer
from lamina.archive.changes import compare_trees
from lamina.archive.layer import LayerTar
from lamina.archive.writer import write_layer, write_tree
from lamina.errors import LaminaError
from lamina.testing import tree
from lamina.testing.bench import Bench, Layer
from lamina.testing.check import Skipped, check, require, same
from lamina.testing.checks.fidelity import require_equal
from lamina.testing.checks.whiteouts import remove_all
from lamina.testing.samples import BASE, SAMPLES
from lamina.testing.tar import archive, archive_of, entry, opaque, whiteout
from lamina.testing.tree import Directory, File, Kind, Link, Special, Symlink

_IMAGES: dict[str, list[bytes]] = {
    "plain": [
        archive_of(BASE),
        archive_of({"etc/hosts": File("127.0.0.1 localhost\n"), "usr/bin/tool": File("tool", mode=0o755)}),
        archive_of({"file": File("again"), "dir/one": File("again", mode=0o600)}),
    ],
    "with whiteouts": [
        archive_of(BASE),
        archive(whiteout("file"), entry("dir/", Directory()), opaque("dir"), entry("dir/new", File("x")), whiteout("a")),
        archive(entry("file", Symlink("dir")), entry("a/", Directory()), entry("a/y", File("y")), whiteout("dir/new"),
                whiteout("link")),
        archive(opaque("a"), entry("dir/sub/", Directory(mode=0o700)), whiteout("names/first")),
    ],
    "with all kinds of files": [
        archive_of({
            "dev/null": Special(Kind.CHAR_DEVICE, device=(1, 3)), "run/fifo": Special(Kind.FIFO, mode=0o600),
            "bin/su": File("su", mode=0o4755), "bin/su-too": Link("bin/su"), "tmp": Directory(mode=0o1777),
            "bin/tool": File("tool"), "caf\udce9": File("not UTF-8"), "a:b,c\\d": File("odd"),
        }),
        archive_of({"bin/third": File("x", uid=1000, gid=100), "lib": Symlink("usr/lib"), "usr/lib/l": File("l")}),
        archive(entry("bin/tool-too", Link("bin/tool")), whiteout("bin/su"), entry("run", File("no directory any more"))),
    ],
}  # fmt: skip


def _image(bench: Bench, archives: list[bytes]) -> Layer:
    layer: Layer | None = None
    for data in archives:
        layer = bench.applied(data, layer)
    return layer or bench.prepare()


def _plain(bench: Bench, archives: list[bytes], name: str = "reference") -> str:
    """Unpack layers one over the other into a plain directory."""
    place = f"{bench.dir}/{name}"
    os.mkdir(place, 0o755)
    for data in archives:
        apply_layer(LayerTar(io.BytesIO(data)), into=place, whiteouts=WhiteoutFormat.NONE, parent=lambda: None)
    return place


def _exported(root: str) -> bytes:
    out = io.BytesIO()
    write_tree(out, root)
    return out.getvalue()


def _committed(root: str, below: str) -> bytes:
    out = io.BytesIO()
    write_layer(out, root, compare_trees(root, below))
    return out.getvalue()


def _edit(root: str) -> None:
    """What a container may do, without a hard link to below, whose other name a union leaves behind."""
    names = sorted(name for name in os.listdir(root) if not name.startswith("names"))
    remove_all(root, names[:2])
    tree.make(root, {f"{names[0]}/again": File("again"), "new/tree/file": File("new", mode=0o640, uid=5), "s": Symlink("new")})
    if not os.path.islink(f"{root}/{names[2]}"):
        os.chmod(f"{root}/{names[2]}", 0o700)


@check("cross-driver", params=_IMAGES)
def an_images_tree_is_the_reference(bench: Bench, archives: list[bytes]) -> None:
    """Every path and every attribute, the root's and the directories' times among them."""
    wanted = tree.read(_plain(bench, archives))
    layer = _image(bench, archives)
    found = bench.tree(layer)
    words = [word for word in tree.differences(found, wanted) if " of '' " not in word]
    require(not words, "; ".join(words[:8]))
    same((found[""].mode, found[""].uid), (wanted[""].mode, wanted[""].uid), "the root's mode and owner")
    require_equal(bench.tree(bench.made(below=layer)), found, "in a container's layer")


@check("cross-driver", params=_IMAGES)
def an_images_export_is_the_references_byte_for_byte(bench: Bench, archives: list[bytes]) -> None:
    """`export` of a container that did nothing is the same on every driver."""
    layer = bench.prepare(_image(bench, archives))
    require(bench.export(layer) == _exported(_plain(bench, archives)), "the archives differ")


@check("cross-driver", params=_IMAGES)
def a_containers_commit_is_the_references_byte_for_byte(bench: Bench, archives: list[bytes]) -> None:
    """The same work gives the same layer, and so the same digest, on every driver."""
    below, edited = _plain(bench, archives), _plain(bench, archives, "edited")
    layer = bench.prepare(_image(bench, archives))
    limit = tree.TIME_NS  # no two clocks show the same
    with bench.writing(layer) as root:
        _edit(root)
    _edit(edited)
    mine = bench.commit(layer, mtime_limit_ns=limit)
    out = io.BytesIO()
    write_layer(out, edited, compare_trees(edited, below), mtime_limit_ns=limit)
    require(mine == out.getvalue(), f"the archives differ: {_names(mine)} and {_names(out.getvalue())}")


def _names(data: bytes) -> list[str]:
    return [f"{each.path} ({each.kind.value})" for each in LayerTar(io.BytesIO(data))]


@check("cross-driver", params=_IMAGES)
def a_container_moves_away_and_back(bench: Bench, archives: list[bytes]) -> None:
    """This driver → a plain directory → this driver again: tree, changes and archive are the same, as `migrate` promises."""
    image = _image(bench, archives)
    layer = bench.prepare(image)
    bench.write(layer, _edit)
    first = bench.commit(layer)
    below, away = _plain(bench, archives), _plain(bench, [*archives, first], "away")
    second = _committed(away, below)
    require(first == second, f"the plain directory's archive differs: {_names(first)} and {_names(second)}")
    back = bench.applied(second, image)
    require_equal(bench.tree(back), bench.tree(layer), "back again")
    same(bench.said(back), bench.said(layer), "changes")
    require(bench.commit(back) == first, "the archive of what came back differs")


@check("cross-driver", limit_s=60)
def everything_at_once_moves_away_and_back(bench: Bench) -> None:
    """All samples that an archive can hold, side by side in one layer."""
    kept = bench.claims.preserves
    declared = {
        f"{number}/{path}": node if node.kind is not Kind.LINK else Link(f"{number}/{node.link}")
        for number, sample in enumerate(SAMPLES.values())
        if sample.in_archive and not sample.has_hole and (sample.claim is None or sample.claim in kept)
        for path, node in sample.tree.items()
        if len(sample.tree) < 300
    }
    layer = bench.prepare()
    bench.write(layer, declared)
    first = bench.commit(layer)
    away = _plain(bench, [first])
    wanted, found = bench.tree(layer), tree.read(away)
    words = [word for word in tree.differences(found, wanted) if " of '' " not in word]
    require(not words, "; ".join(words[:8]))
    require(bench.commit(bench.applied(first)) == first, "the archive of what came back differs")


@check("cross-driver", limit_s=60)
def every_installed_driver_agrees(bench: Bench) -> None:
    """The same image and the same work on each driver that can work here: the same tree and the same archive."""
    archives = _IMAGES["with whiteouts"]

    def result(own: Bench) -> tuple[dict[str, tree.Facts], bytes, bytes]:
        layer = own.prepare(_image(own, archives))
        own.write(layer, _edit)
        found = {path: facts for path, facts in own.tree(layer).items() if path}
        return found, own.commit(layer, mtime_limit_ns=tree.TIME_NS), own.export(own.prepare(_image(own, archives[:2])))

    mine = result(bench)
    compared: list[str] = []
    for name in bench.host.names("storage"):
        try:
            plugin = bench.host.get("storage", name)
        except LaminaError:
            continue
        if plugin is bench.driver.plugin or plugin.name in {*compared, bench.name}:
            continue
        os.makedirs(f"{bench.dir}/others", exist_ok=True)
        other = Bench(host=bench.host, name=name, dir=f"{bench.dir}/others")
        try:
            theirs = result(other)
        except Skipped:
            continue
        compared.append(plugin.name)
        words = tree.differences(mine[0], theirs[0], ignore=frozenset({"mtime_ns"}))
        require(not words, f"against {name}: {'; '.join(words[:8])}")
        require(mine[1] == theirs[1], f"the commit differs from that of {name}")
        require(mine[2] == theirs[2], f"the export differs from that of {name}")
    if not compared:
        raise Skipped("no other driver is installed that can work here")
    bench.note(f"compared with {', '.join(compared)}")
