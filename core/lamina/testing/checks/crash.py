"""The engine killed in the middle of a hook, before each system call that changes something; then what the next command does.

A hook with more calls than `_POINTS` is killed at that many of them: at its beginning, at its end, and evenly in between.
"""

import os
import shutil
from collections.abc import Callable, Iterator

from lamina.store import views
from lamina.testing import tree
from lamina.testing.bench import Bench, Layer
from lamina.testing.check import check, require, same
from lamina.testing.checks.fidelity import require_equal
from lamina.testing.checks.life_cycle import inodes_below
from lamina.testing.checks.processes import watched
from lamina.testing.samples import BASE
from lamina.testing.tar import archive, archive_of, entry, opaque, whiteout
from lamina.testing.tree import Directory, File

_POINTS = 24
_SMALL = {path: node for path, node in BASE.items() if path != "big"}
_LAYER = archive(
    entry("dir/", Directory(mode=0o700)), whiteout("dir/one"), entry("new", File("new", xattrs={"user.a": b"1"})), opaque("a"),
    entry("a/y", File("y")), whiteout("file"), entry("deep/er/f", File("x")),
)  # fmt: skip


def _killed(bench: Bench, setup: Callable[[], Layer], hook: Callable[[Layer], object]) -> Iterator[tuple[str, Layer]]:
    """Yield, for each call that changes something, a layer on which the hook was killed before that call."""
    layer = setup()
    whole = watched(lambda: hook(layer))
    require(not whole.error, f"without a kill: {whole.error}")
    count = len(whole.calls)
    bench.note(f"killed before {min(count, _POINTS)} of {count} changing calls")
    yield "after its last call", layer
    third = _POINTS // 3
    points = set(range(count)) if count <= _POINTS else {
        *range(third), *range(count - third, count), *range(third, count - third, max(1, (count - 2 * third) // third)),
    }  # fmt: skip
    for point in sorted(points):
        layer = setup()
        seen = watched(lambda layer=layer: hook(layer), kill_at=point)  # type: ignore[misc]
        if not seen.killed:
            require(not seen.error, seen.error)
            return
        yield f"killed before its call {point + 1} ({whole.calls[point] if point < count else '?'})", layer


def _ready(bench: Bench) -> tuple[Layer, set[str]]:
    """A base layer, and what the folder holds when every hook was called once and all it made was discarded."""
    base = bench.applied(archive_of(_SMALL))
    layer = bench.prepare(base)
    with bench.reading(base):
        bench.write(layer, {"x": File("x")})
    bench.discard(layer)
    return base, inodes_below(bench.driver.home)


def _recovered(bench: Bench, base: Layer, before: set[str], layer: Layer, when: str) -> None:
    """Discard, as the next command does, twice; fail for what is left."""
    bench.driver.keys()
    for _ in range(2):
        bench.driver.discard(layer.key)
        bench.driver.sweep()
        same(bench.driver.keys(), [base.key], f"keys, {when}")
    same(inodes_below(bench.driver.home) - before, set(), f"left behind, {when}")


@check("crash", limit_s=60)
def prepare_killed(bench: Bench) -> None:
    """What is half made can be discarded, and made again by the same key."""
    base, before = _ready(bench)
    wanted = bench.tree(base)

    def setup() -> Layer:
        return Layer(key=bench.new_key(), parents=base.chain)

    for when, layer in _killed(bench, setup, lambda layer: bench.driver.prepare(layer.key, layer.parents, {})):
        _recovered(bench, base, before, layer, when)
        bench.driver.prepare(layer.key, layer.parents, {})
        require_equal(bench.tree(layer), wanted, f"made again, {when}")
        bench.discard(layer)
    require_equal(bench.tree(base), wanted, "the parent")


@check("crash", limit_s=60)
def apply_killed(bench: Bench) -> None:
    """A half unpacked layer leaves nothing, and the layers below are whole."""
    base, before = _ready(bench)
    wanted = bench.tree(base)
    for when, layer in _killed(bench, lambda: bench.prepare(base), lambda layer: bench.apply(layer, _LAYER)):
        _recovered(bench, base, before, layer, when)
    require_equal(bench.tree(base), wanted, "the parent")


@check("crash", limit_s=60)
def seal_killed(bench: Bench) -> None:
    """Sealed again, the layer is whole, and layers can be put on it."""
    base, before = _ready(bench)
    wanted = bench.tree(bench.applied(_LAYER, base, key="wanted"))

    def setup() -> Layer:
        layer = bench.prepare(base)
        bench.apply(layer, _LAYER)
        return layer

    for when, layer in _killed(bench, setup, lambda layer: bench.driver.seal(layer.key)):
        bench.driver.seal(layer.key)
        ours = {path: facts for path, facts in bench.tree(layer).items() if path}
        require_equal(ours, {path: facts for path, facts in wanted.items() if path}, when)
        child = bench.made(below=layer)
        same(set(bench.tree(child)), set(wanted), f"paths in a child, {when}")
        bench.discard(child)
        bench.discard(layer)
    bench.driver.discard("wanted")
    bench.driver.sweep()
    same(inodes_below(bench.driver.home) - before, set(), "left behind")


@check("crash", limit_s=60)
def discard_killed(bench: Bench) -> None:
    """Discarded again, it is gone."""
    base, before = _ready(bench)
    for when, layer in _killed(bench, lambda: bench.applied(_LAYER, base), lambda layer: bench.driver.discard(layer.key)):
        _recovered(bench, base, before, layer, when)


@check("crash", limit_s=60)
def sweep_killed(bench: Bench) -> None:
    """A half emptied trash is emptied by the next."""
    base, before = _ready(bench)

    def setup() -> Layer:
        layer = bench.applied(_LAYER, base)
        bench.driver.discard(layer.key)
        return layer

    for when, layer in _killed(bench, setup, lambda _layer: bench.driver.sweep()):
        _recovered(bench, base, before, layer, when)


def _edit(root: str) -> None:
    os.unlink(f"{root}/dir/one")
    shutil.rmtree(f"{root}/a")
    tree.make(root, {"a/new": File("new"), "dir/sub/new": File("new"), "": Directory()})
    shutil.rmtree(f"{root}/dir/sub/deep")


@check("crash", limit_s=60)
def making_ready_killed(bench: Bench) -> None:
    """`storage_before_mount` called again finishes the work, and the layer is what it was, also to who looks in the middle."""
    base, _ = _ready(bench)

    def setup() -> Layer:
        layer = bench.prepare(base)
        bench.write(layer, _edit)
        return layer

    first = setup()
    wanted, said = set(bench.tree(first)), bench.said(first)
    for when, layer in _killed(bench, setup, lambda layer: bench.driver.before_mount(layer.key, layer.parents)):
        same(set(bench.tree(layer)), wanted, f"paths seen in the middle, {when}")
        with bench.writing(layer) as root:
            same(set(tree.read(root)), wanted, f"paths, {when}")
        same(bench.said(layer), said, f"changes, {when}")


@check("crash", limit_s=60)
def bringing_to_rest_killed(bench: Bench) -> None:
    """`storage_after_unmount` called again finishes the work, no change is lost, and who looks in the middle sees them all."""
    base, _ = _ready(bench)
    first = bench.prepare(base)
    bench.write(first, _edit)
    wanted, said = set(bench.tree(first)), bench.said(first)

    def setup() -> Layer:
        layer = bench.prepare(base)
        bench.driver.before_mount(layer.key, layer.parents)
        view = bench.view(layer)
        views.attach(view)
        _edit(view.root)
        views.detach(view)
        return layer

    for when, layer in _killed(bench, setup, lambda layer: bench.driver.after_unmount(layer.key)):
        same(set(bench.tree(layer)), wanted, f"paths seen in the middle, {when}")
        bench.driver.after_unmount(layer.key)
        same(bench.said(layer), said, f"changes, {when}")
        same(set(bench.tree(layer)), wanted, f"paths, {when}")


@check("crash", limit_s=60)
def bringing_to_rest_killed_then_mounted(bench: Bench) -> None:
    """A restart policy may mount again without another rest in between; the container finds its files."""
    base, _ = _ready(bench)
    first = bench.prepare(base)
    bench.write(first, _edit)
    wanted, said = set(bench.tree(first)), bench.said(first)

    def setup() -> Layer:
        layer = bench.prepare(base)
        bench.driver.before_mount(layer.key, layer.parents)
        view = bench.view(layer)
        views.attach(view)
        _edit(view.root)
        views.detach(view)
        return layer

    for when, layer in _killed(bench, setup, lambda layer: bench.driver.after_unmount(layer.key)):
        with bench.writing(layer) as root:
            same(set(tree.read(root)), wanted, f"paths, {when}")
        same(bench.said(layer), said, f"changes, {when}")
