"""Storage drivers: vfs where the file system copies by reference, beside overlay on the same disk; and a mount of 400 layers."""

import os
import shutil
from collections.abc import Iterator

from lamina_bench.engines import Lamina
from lamina_bench.lab import Lab
from lamina_bench.measure import Command
from lamina_bench.work import Contender, Missing
from lamina_bench.works.running import InLibrary, RunTrue

DISK_BYTES = 4 << 30
SAMPLES = ("busybox", "files-8000")


def reflink(lab: Lab) -> Iterator[Contender | Missing]:
    """vfs and overlay on a btrfs in a file, a small image and one of 8,000 files."""
    if shutil.which("mkfs.btrfs") is None:
        yield Missing(label="vfs", reason="mkfs.btrfs is not installed")
        return
    place = f"{lab.dir}/btrfs"
    if not os.path.exists(place):
        os.makedirs(place)
        with open(f"{lab.dir}/btrfs.image", "wb") as file:
            file.truncate(DISK_BYTES)
        lab.spawner.run(Command(words=("mkfs.btrfs", "-q", f"{lab.dir}/btrfs.image")))
        lab.spawner.run(Command(words=("mount", "-o", "loop", f"{lab.dir}/btrfs.image", place)))
        lab.stack.callback(lab.spawner.run, Command(words=("umount", "-l", place)))
    for driver in ("vfs", "overlay"):
        lamina = Lamina(lab, root=f"{place}/lamina", driver=driver)
        if driver == "vfs":
            lab.stack.callback(lamina.close)
        for sample in SAMPLES:
            yield RunTrue(lamina, "none", label=f"{driver}, {sample}", image=sample)


def mount(lab: Lab) -> Iterator[Contender | Missing]:
    """400 layers, and two for comparison."""
    yield InLibrary(lab.lamina, "mount", label="400 layers", image="deep")
    yield InLibrary(lab.lamina, "mount", label="1 layer", image="busybox")
