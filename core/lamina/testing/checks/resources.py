"""What layers cost, said truly: disk, inodes, descriptors, and calls that must not grow with a layer."""

import contextlib
import os
from collections.abc import Iterator

from lamina.errors import LaminaError
from lamina.linux.ptrace import SYNCS
from lamina.testing import disks
from lamina.testing.bench import Bench, Fill, Layer
from lamina.testing.check import Skipped, check, require, same
from lamina.testing.checks.processes import watched
from lamina.testing.checks.whiteouts import remove_all
from lamina.testing.samples import BASE
from lamina.testing.tree import File, Link

_SLACK_BYTES, _SLACK_INODES = 48 << 10, 12
"""What a driver may keep for a layer beside its files: a few directories and names."""


@contextlib.contextmanager
def _disk(bench: Bench) -> Iterator[tuple[Bench, str]]:
    """Give a bench on a file system in memory, which counts every page and inode at once."""
    if bench.filesystem:
        raise Skipped(f"needs a memory disk, and the driver needs {bench.filesystem}")
    place = f"{bench.dir}/small"
    with disks.memory_disk(place, size_bytes=64 << 20, inodes=20_000), bench.elsewhere(f"{place}/{bench.name}") as small:
        yield small, place


def _sparse(root: str) -> None:
    with open(f"{root}/sparse", "wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"x" * 8192)


_FILLS: dict[str, Fill] = {
    "nothing": None,
    "one large file": {"large": File(b"x" * (5 << 20))},
    "many small files": {f"d{number % 10}/f{number}": File("x") for number in range(400)},
    "a sparse file": _sparse,
    "hard links": {"one": File(b"x" * (1 << 20)), **{f"two{number}": Link("one") for number in range(9)}},
    "deletions": lambda root: remove_all(root, ["dir", "a", "file"]),
}


@check("resources", params=_FILLS)
def usage_is_what_discarding_gives_back(bench: Bench, fill: Fill) -> None:
    """`system df` and `ps --size` say it; here the file system itself is asked, before and after. Nobody's drivers agree on it."""
    with _disk(bench) as (small, place):
        base = small.made({**BASE, "more": File(b"y" * (1 << 20))})
        small.discard(small.made({"x": File("x")}, base))
        layer = small.prepare(base)
        small.write(layer, fill)
        usage, before = small.usage(layer), disks.free(place)
        small.discard(layer)
        after = disks.free(place)
        freed, inodes = after[0] - before[0], after[1] - before[1]
        require(abs(freed - usage.size_bytes) <= _SLACK_BYTES, f"usage says {usage.size_bytes} bytes, discarding gave back {freed}")
        links = 9 if fill is _FILLS["hard links"] else 0  # tmpfs counts each name as an inode
        require(
            -_SLACK_INODES <= inodes - usage.inodes <= _SLACK_INODES + links,
            f"usage says {usage.inodes} inodes, discarding gave back {inodes}",
        )


@check("resources")
def usage_counts_what_is_not_shared(bench: Bench) -> None:
    """What a container adds is in its own usage, and not in that of the layer below or of another container."""
    base = bench.made(BASE)
    one, other = bench.prepare(base), bench.prepare(base)
    before = [bench.usage(layer).size_bytes for layer in (base, one, other)]
    bench.write(one, {"new": File(b"x" * (3 << 20))})
    after = [bench.usage(layer).size_bytes for layer in (base, one, other)]
    same((after[0], after[2]), (before[0], before[2]), "usage of the layer below and of another")
    grown = after[1] - before[1]
    require(3 << 20 <= grown <= (3 << 20) + _SLACK_BYTES, f"3 MiB more are said to be {grown} bytes")


@check("resources")
def usage_of_a_mounted_layer_is_the_same(bench: Bench) -> None:
    """`ps --size` asks while the container runs."""
    layer = bench.prepare(bench.made(BASE))
    bench.write(layer, {"new": File(b"x" * (1 << 20))})
    at_rest = bench.usage(layer)
    with bench.writing(layer):
        mounted = bench.usage(layer)
    require(abs(mounted.size_bytes - at_rest.size_bytes) <= _SLACK_BYTES, f"mounted {mounted}, at rest {at_rest}")
    require(abs(mounted.inodes - at_rest.inodes) <= _SLACK_INODES, f"mounted {mounted}, at rest {at_rest}")


@check("resources")
def all_space_comes_back(bench: Bench) -> None:
    """When the last layer is swept, the folder is as good as empty."""
    with _disk(bench) as (small, place):
        start = disks.free(place)
        layers = [small.made({**BASE, "big": File(b"x" * (2 << 20))})]
        for number in range(5):
            layers.append(small.made({f"f{number}": File(b"x" * (1 << 20))}, layers[-1]))
        for layer in reversed(layers):
            small.discard(layer)
        now = disks.free(place)
        require(start[0] - now[0] <= _SLACK_BYTES, f"{start[0] - now[0]} bytes are lost")
        require(start[1] - now[1] <= _SLACK_INODES, f"{start[1] - now[1]} inodes are lost")


@check("resources")
def a_failed_unpacking_leaves_no_byte(bench: Bench) -> None:
    """A pull that was cut off, tidied up: free space is what it was."""
    from lamina.testing.tar import archive, entry

    with _disk(bench) as (small, place):
        base = small.made(BASE)
        small.discard(small.made({"x": File("x")}, base))
        before = disks.free(place)
        layer = small.prepare(base)
        try:
            small.apply(layer, archive(*(entry(f"f{number}", File(b"x" * 100_000)) for number in range(20)))[:1_500_000])
        except LaminaError:
            pass
        small.discard(layer)
        same(disks.free(place), before, "free bytes and inodes")


@check("resources")
def discarding_takes_no_longer_for_a_large_layer(bench: Bench) -> None:
    """It is a rename: the number of changing calls is the same for 3 files as for 300. The sweep may take its time."""
    counts = []
    for number in (3, 300):
        layer = bench.made({f"d{each % 30}/f{each}": File("x") for each in range(number)})
        seen = watched(lambda layer=layer: bench.driver.discard(layer.key))  # type: ignore[misc]
        require(not seen.error, seen.error)
        counts.append(len(seen.calls))
    require(counts[1] <= counts[0] + 2, f"{counts[0]} changing calls for 3 files, {counts[1]} for 300")


@check("resources")
def a_child_costs_no_calls_for_what_its_parent_holds(bench: Bench) -> None:
    """Recorded, not judged: a copying driver pays here, a union doesn't."""
    counts = []
    for number in (3, 300):
        base = bench.made({f"d{each % 30}/f{each}": File("x") for each in range(number)})
        key = bench.new_key()
        seen = watched(lambda base=base, key=key: bench.driver.prepare(key, base.chain, {}))  # type: ignore[misc]
        require(not seen.error, seen.error)
        counts.append(len(seen.calls))
    bench.note(f"a layer on one of 3 files takes {counts[0]} changing calls, on one of 300 files {counts[1]}")


@check("resources")
def a_containers_start_and_end(bench: Bench) -> None:
    """Recorded, not judged: how often a container's layer makes its user wait for the disk (fsync, syncfs). Only a seal must."""
    base = bench.made(BASE)
    layer = Layer(key=bench.new_key(), parents=base.chain)
    waits = {}
    for name, hook in (
        ("prepare", lambda: bench.driver.prepare(layer.key, layer.parents, {})),
        ("before_mount", lambda: bench.driver.before_mount(layer.key, layer.parents)),
        ("after_unmount", lambda: bench.driver.after_unmount(layer.key)),
    ):
        seen = watched(hook)
        require(not seen.error, seen.error)
        waits[name] = sum(call in SYNCS for call in seen.calls)
    bench.note(", ".join(f"{name} waits {count} times" for name, count in waits.items()))


@check("resources")
def a_small_change_to_a_large_file(bench: Bench) -> None:
    """Recorded, not judged: how many bytes a chmod and a write of one byte to a file of 8 MiB take."""
    layer = bench.prepare(bench.made({"big": File(os.urandom(8 << 20)), "too": File(os.urandom(8 << 20))}))
    sizes = [bench.usage(layer).size_bytes]
    bench.write(layer, lambda root: os.chmod(f"{root}/big", 0o600))
    sizes.append(bench.usage(layer).size_bytes)

    def write(root: str) -> None:
        with open(f"{root}/too", "r+b") as file:
            file.write(b"x")

    bench.write(layer, write)
    sizes.append(bench.usage(layer).size_bytes)
    bench.note(f"chmod took {sizes[1] - sizes[0]} bytes more, a write of one byte {sizes[2] - sizes[1]}")
    require(sizes[2] < sizes[0] + (17 << 20), f"two small changes took {sizes[2] - sizes[0]} bytes")
