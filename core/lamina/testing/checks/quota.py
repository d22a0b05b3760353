"""The size of a container that was given one: what may be written, what isn't hindered by it, and what is free again afterwards.

Checked where the driver says that it can: on the file system that is there, else on one made for it in a file, with quotas on.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from lamina.errors import LaminaError
from lamina.linux import process
from lamina.testing import disks
from lamina.testing.bench import Bench, Layer
from lamina.testing.check import Skipped, check, require, same
from lamina.testing.samples import BASE
from lamina.testing.tree import File

_MIB = 1 << 20
_SIZE_BYTES = 4 * _MIB
_CAP_SYS_RESOURCE = 24  # who has it may exceed ext4's quotas; a container has it only if it is given
_FULL = {errno.EDQUOT, errno.ENOSPC}
_BELOW = {**BASE, "large": File(b"l" * (3 * _MIB))}


@contextlib.contextmanager
def _limiting(bench: Bench) -> Iterator[Bench]:
    """Give a bench whose driver claims quotas, and lose the right to exceed them."""
    process.set_capabilities(process.own_capabilities() - {_CAP_SYS_RESOURCE})
    if bench.claims.quota:
        yield bench
        return
    for fstype in (bench.filesystem,) if bench.filesystem else ("xfs", "ext4"):
        with contextlib.ExitStack() as stack:
            place = f"{bench.dir}/{fstype}-with-quotas"
            try:
                stack.enter_context(disks.disk_with_quotas(place, fstype))
                there = stack.enter_context(bench.elsewhere(f"{place}/{bench.name}"))
            except Skipped:
                continue
            if there.claims.quota:
                yield there
                return
    raise Skipped("the driver claims no quotas, here or on a file system with quotas, if one can be made here")


def _fill(root: str, name: str, size_bytes: int) -> bool:
    """Write a file as a container would; False if there is no room for all of it."""
    try:
        with open(f"{root}/{name}", "wb") as file:
            for _ in range(0, size_bytes, _MIB):
                file.write(os.urandom(_MIB))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        require(error.errno in _FULL, f"the error is {error.strerror}")
        return False
    return True


def _limited(bench: Bench, below: Layer | None = None) -> Layer:
    return bench.prepare(below, size_bytes=_SIZE_BYTES)


@check("resources", limit_s=120)
def a_quota_bounds_what_a_container_writes(bench: Bench) -> None:
    """moby: half of it fits, more than all of it gives EDQUOT or ENOSPC. Here also after a restart, and with room made again."""
    with _limiting(bench) as limiting:
        layer = _limited(limiting, limiting.made(_BELOW))
        with limiting.writing(layer) as root:
            require(_fill(root, "half", 2 * _MIB), "2 MiB don't fit into 4")
            require(not _fill(root, "more", 6 * _MIB), "8 MiB were written into 4")
            os.unlink(f"{root}/more")
            require(_fill(root, "less", 1 * _MIB), "what was deleted was not given back")
        with limiting.writing(layer) as root:
            require(not _fill(root, "more", 6 * _MIB), "9 MiB were written into 4 after a restart")
            same(os.path.getsize(f"{root}/half"), 2 * _MIB, "size of the first file")


@check("resources", limit_s=120)
def a_quota_counts_neither_the_image_nor_other_containers(bench: Bench) -> None:
    """moby's vfs counts the image, so that the same option means another thing on each driver."""
    with _limiting(bench) as limiting:
        base = limiting.made({**_BELOW, "larger": File(b"l" * (3 * _MIB))})
        layer, other, free = _limited(limiting, base), _limited(limiting, base), limiting.prepare(base)
        with limiting.writing(layer) as root:
            require(_fill(root, "half", 2 * _MIB), "2 MiB don't fit into 4 on top of an image of 6")
            require(not _fill(root, "more", 6 * _MIB), "8 MiB were written into 4")
        with limiting.writing(other) as root:
            require(_fill(root, "half", 2 * _MIB), "another limited container has no room")
        with limiting.writing(free) as root:
            require(_fill(root, "much", 6 * _MIB), "a container without a limit is limited")


@check("resources", limit_s=120)
def a_quota_holds_for_what_is_copied_up_and_made_in_directories_of_below(bench: Bench) -> None:
    """What a union driver does in its own directories for the container is the container's, and none of it fails for being so."""
    with _limiting(bench) as limiting:
        layer = _limited(limiting, limiting.made(_BELOW))
        with limiting.writing(layer) as root:
            with open(f"{root}/large", "r+b") as file:
                file.write(b"changed")
            os.rename(f"{root}/large", f"{root}/dir/large")
            os.mkdir(f"{root}/dir/new")
            os.rename(f"{root}/dir/large", f"{root}/dir/new/large")
            os.link(f"{root}/dir/new/large", f"{root}/again")
            os.unlink(f"{root}/file")
            require(not _fill(f"{root}/dir/new", "more", 6 * _MIB), "6 MiB were written into 4 in a directory")
        require(limiting.usage(layer).size_bytes <= _SIZE_BYTES + limiting.usage(Layer(key=layer.parents[0])).size_bytes, "usage")
        same([each for each in limiting.said(layer) if each.startswith("D ")], ["D file", "D large"], "deletions")


@check("resources", limit_s=120)
def a_quota_ends_with_its_layer(bench: Bench) -> None:
    """What a discarded layer was counted by must neither fill up nor go on counting."""
    with _limiting(bench) as limiting:
        base = limiting.made(BASE)
        limiting.discard(_limited(limiting, base))
        before = set(_names(limiting.driver.home))
        for _ in range(3):
            layer = _limited(limiting, base)
            with limiting.writing(layer) as root:
                require(_fill(root, "most", 3 * _MIB), "3 MiB don't fit into 4")
            limiting.discard(layer)
        same(set(_names(limiting.driver.home)), before, "the driver's folder")
        try:
            limiting.driver.prepare(layer.key, ("0" * 64,), {}, _SIZE_BYTES)
        except (OSError, LaminaError):
            same(set(_names(limiting.driver.home)), before, "the driver's folder after a failure")
        else:
            require(False, "a parent that isn't there was taken")


def _names(directory: str) -> Iterator[str]:
    for place, folders, files in os.walk(directory):
        yield from (os.path.join(place, name) for name in (*folders, *files))
