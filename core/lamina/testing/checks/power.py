"""The power cut: what is on the disk the moment after a seal has returned is all there is, and it must be the whole layer.

The store lies on a file system in a file. That file is copied right after the seal, while everything else is still in the kernel's
memory, and the copy is mounted in its place, as after a reboot.
"""

import contextlib
from collections.abc import Callable, Iterator

from lamina.errors import LaminaError
from lamina.testing.bench import Bench, Layer
from lamina.testing.check import Skipped, check, require, same
from lamina.testing.checks.fidelity import require_equal
from lamina.testing.checks.whiteouts import remove_all
from lamina.testing.disks import disk_in_a_file
from lamina.testing.samples import BASE
from lamina.testing.tar import archive, archive_of, entry, whiteout
from lamina.testing.tree import Directory, File, Link

_TYPES = ("ext4", "xfs", "btrfs")
_BIG = archive(entry("d/", Directory()), *(entry(f"d/{number}", File(bytes([number]) * 100_000)) for number in range(20)),
               entry("d/link", Link("d/1")), whiteout("file"))  # fmt: skip


@contextlib.contextmanager
def _after_a_power_cut(bench: Bench, fstype: str, work: Callable[[Bench], Layer]) -> Iterator[tuple[Bench, Layer]]:
    """Have a layer made on a disk of its own, cut the power, and give what is there when it is back."""
    if bench.filesystem and bench.filesystem != fstype:
        raise Skipped(f"the driver needs {bench.filesystem}")
    with disk_in_a_file(bench.dir, fstype) as disk:
        home = f"{disk.place}/{bench.name}"
        with bench.elsewhere(home) as other:
            layer = work(other)
        disk.cut_power()
        with bench.elsewhere(home) as other:
            yield other, layer


@check("crash", params=_TYPES)
def a_sealed_image_layer_survives_a_power_cut(bench: Bench, fstype: str) -> None:
    """Docker's layers are not synced: after a power cut there are empty files in images that are said to be whole."""
    trees = []

    def work(other: Bench) -> Layer:
        layer = other.prepare(other.applied(archive_of(BASE)))
        other.apply(layer, _BIG)
        other.driver.seal(layer.key)
        trees.append(other.tree(layer))
        return layer

    with _after_a_power_cut(bench, fstype, work) as (other, layer):
        require_equal(other.tree(layer), trees[0], "after the power cut")
        same(sorted(other.driver.keys()), sorted(layer.chain), "keys")
        child = other.made({"new": File("x")}, layer)
        require("new" in other.tree(child), "no layer can be put on it")


@check("crash", params=_TYPES)
def a_sealed_layer_that_a_container_wrote_survives_a_power_cut(bench: Bench, fstype: str) -> None:
    """Deletions, too."""
    trees = []

    def edit(root: str) -> None:
        remove_all(root, ["dir/sub", "file"])
        for number in range(10):
            with open(f"{root}/dir/{number}", "wb") as file:
                file.write(bytes([number + 1]) * 50_000)

    def work(other: Bench) -> Layer:
        layer = other.prepare(other.applied(archive_of(BASE)))
        other.write(layer, edit)
        other.driver.seal(layer.key)
        trees.append(other.tree(layer))
        return layer

    with _after_a_power_cut(bench, fstype, work) as (other, layer):
        require_equal(other.tree(layer), trees[0], "after the power cut")


@check("crash", params=_TYPES)
def what_was_not_sealed_can_be_discarded_after_a_power_cut(bench: Bench, fstype: str) -> None:
    """Files may be empty, names may lack (podman#12337, storage#1064); what was sealed before is whole."""
    trees = []

    def work(other: Bench) -> Layer:
        base = other.applied(archive_of(BASE))
        trees.append(other.tree(base))
        layer = other.prepare(base)
        other.apply(layer, _BIG)
        other.write(other.prepare(base, key="unsealed"), {"x": File("x")})
        return layer

    with _after_a_power_cut(bench, fstype, work) as (other, layer):
        base = Layer(key=layer.parents[0])
        require_equal(other.tree(base), trees[0], "the sealed layer")
        try:
            for key in (layer.key, "unsealed"):
                other.driver.discard(key)
            other.driver.sweep()
        except (OSError, LaminaError) as error:
            require(False, f"it can't be discarded: {error}")
        same(other.driver.keys(), [base.key], "keys")
        again = other.prepare(base, key="unsealed")
        require_equal(other.tree(again), trees[0], "made again")
