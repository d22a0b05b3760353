"""Archives that want out: nothing outside the layer is written, deleted, linked or read, whatever the entries say."""

import os

from lamina.errors import LaminaError
from lamina.testing import tree
from lamina.testing.bench import Bench
from lamina.testing.check import check, require, same
from lamina.testing.samples import BASE
from lamina.testing.tar import Entry, archive, archive_of, entry, opaque, whiteout
from lamina.testing.tree import Directory, File, Link, Symlink, Tree

VICTIM: Tree = {"secret": File("secret", mode=0o600), "dir/file": File("victim"), "empty": Directory()}
"""What lies outside, at a path that the archives know."""


def _cases() -> dict[str, list[Entry]]:
    up, out = "../../../../../../../../../..", "%OUT%"
    return {
        "a name with dots": [entry(f"{up}{out}/new", File("x"))],
        "a name with dots inside": [entry(f"a/b/../../{up}{out}/new", File("x"))],
        "an absolute name": [entry(f"{out}/new", File("x"))],
        "through an absolute symlink": [entry("s", Symlink(out)), entry("s/new", File("x"))],
        "through a symlink with dots": [entry("s", Symlink(f"{up}{out}")), entry("s/new", File("x"))],
        "through two symlinks": [entry("s", Symlink(out)), entry("t", Symlink("s")), entry("t/new", File("x"))],
        "through a symlink to the root": [entry("s", Symlink("/")), entry(f"s{out}/new", File("x"))],
        "through a symlink of below": [entry("out/new", File("x"))],
        "a directory through a symlink": [entry("s", Symlink(out)), entry("s/dir/", Directory(mode=0o777))],
        "a symlink made a directory": [
            entry("s", Symlink(f"{out}/dir")),
            entry("s/", Directory(mode=0o777)),
            entry("s/new", File("x")),
        ],
        "over a symlink to a file": [entry("s", Symlink(f"{out}/secret")), entry("s", File("owned"))],
        "a hard link with dots": [entry("l", Link(f"{up}{out}/secret")), entry("l", File("owned"))],
        "an absolute hard link": [entry("l", Link(f"{out}/secret"))],
        "a hard link through a symlink": [entry("s", Symlink(out)), entry("l", Link("s/secret"))],
        "a hard link to a symlink": [entry("s", Symlink(f"{out}/secret")), entry("l", Link("s")), entry("l", File("owned"))],
        "a hard link through a symlink of below": [entry("l", Link("out/secret"))],
        "a whiteout with dots": [whiteout(f"{up}{out}/secret")],
        "a whiteout through a symlink": [entry("s", Symlink(out)), whiteout("s/secret")],
        "a whiteout through a symlink of below": [whiteout("out/secret"), whiteout("out/dir")],
        "a whiteout of the parent": [entry("d/.wh...", File(""))],
        "an opaque mark through a symlink": [entry("s", Symlink(out)), opaque("s/dir"), opaque("s")],
        "an opaque mark through a symlink of below": [opaque("out"), opaque("out/dir")],
        "a whiteout below a whiteout": [entry(".wh.dir/.wh.one", File(""))],
        "a directory that becomes a symlink": [entry("d/", Directory()), entry("d", Symlink(out)), entry("d/new", File("x"))],
    }


@check("apply", params=_cases())
def breakout_by(bench: Bench, entries: list[Entry]) -> None:
    """It may be refused, or be kept within the layer: outside nothing changes, and nothing of outside is seen."""
    outside = f"{bench.dir}/outside"
    os.mkdir(outside)
    tree.make(outside, VICTIM)
    before = tree.read(outside)
    base = bench.applied(archive_of({**BASE, "out": Symlink(outside)}))
    below = bench.tree(base)
    for info, _ in entries:
        info.name, info.linkname = (text.replace("%OUT%", outside) for text in (info.name, info.linkname))
    layer = bench.prepare(base)
    try:
        bench.apply(layer, archive(*entries))
    except LaminaError:
        pass
    same(tree.read(outside), before, "what lies outside")
    found = bench.tree(layer)
    stolen = [path for path, facts in found.items() if facts.content == before["secret"].content and facts.content]
    same(stolen, [], "paths that have the secret's content")
    same(bench.tree(base), below, "the layer below")
    require(not os.path.exists("/new"), "a file was made in the host's root")
    bench.discard(layer)
    same(tree.read(outside), before, "what lies outside, after the discard")


@check("apply")
def a_sweep_never_follows_a_symlink(bench: Bench) -> None:
    """Deleting a layer deletes links, not what they point to."""
    outside = f"{bench.dir}/outside"
    os.mkdir(outside)
    tree.make(outside, VICTIM)
    before = tree.read(outside)
    layer = bench.applied(archive(entry("s", Symlink(outside)), entry("d/", Directory()), entry("d/s", Symlink(f"{outside}/dir"))))
    bench.discard(layer)
    same(tree.read(outside), before, "what lies outside")
