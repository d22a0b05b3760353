"""What a container has written becomes a list and a layer: diff and commit."""

import os
import shutil
from collections.abc import Callable, Iterator

from lamina_bench.engines import Engine, Lamina
from lamina_bench.lab import Lab
from lamina_bench.measure import Command
from lamina_bench.report import Figures
from lamina_bench.work import Contender, Missing

FILES = 3000
WRITE_FILES = (
    "line=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde; "
    "text=$(for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do echo $line; done); n=0; "
    f"while [ $n -lt {FILES} ]; do [ $((n % 100)) = 0 ] && mkdir -p /new/$((n / 100)); "
    'echo "$n $text" > /new/$((n / 100))/$n; n=$((n + 1)); done'
)
"""3,000 files of 1 KiB in 30 directories, by the shell alone."""
FORMS = ("overlay", "aufs", "aufs by fuse-overlayfs")
"""Drivers; the last one is aufs on a directory where overlayfs can't be, so that it takes its last way to mount."""


class OnWritten(Contender):
    """A command on a container that has written and ended."""

    def __init__(self, engine: Engine, script: str, *, label: str = "", sample: str = "busybox") -> None:
        super().__init__(label or engine.name)
        self.engine, self._script, self._sample = engine, script, sample
        self._name = engine.container(f"written-{self.label.replace(' ', '-').replace(',', '')}")

    def set_up(self) -> None:
        """Run the container."""
        engine = self.engine
        image = engine.image(self._sample)
        engine.run("run", "--name", self._name, "--net", "none", *engine.run_options, image, "sh", "-c", self._script)

    def tear_down(self) -> None:
        """Remove it."""
        self.engine.remove(self._name)


class Diff(OnWritten):
    """`diff`."""

    def run(self) -> Figures:
        """List the changes."""
        return self.engine.run("diff", self._name)


class Commit(OnWritten):
    """`commit`; the image goes again."""

    def run(self) -> Figures:
        """Make the image."""
        quiet = ("-q",) if self.engine.name == "podman" else ()
        return self.engine.run("commit", *quiet, self._name, self.engine.tag("made"))

    def after(self) -> None:
        """Remove the image."""
        self.engine.forget("made")


def written(kind: type[OnWritten]) -> Callable[[Lab], Iterator[Contender | Missing]]:
    """A command on 3,000 new files."""
    return lambda lab: lab.each(("lamina", "docker", "podman"), lambda engine: kind(engine, WRITE_FILES))


def commit_one(lab: Lab) -> Iterator[Contender | Missing]:
    """One changed file over a small and a big image, by driver."""
    for form in FORMS:
        driver, _, fuse = form.partition(" ")
        if fuse and shutil.which("fuse-overlayfs") is None:
            yield Missing(label=form, reason="fuse-overlayfs is not installed")
            continue
        lamina = Lamina(lab, root=_on_overlay(lab) if fuse else "", driver=driver)
        if fuse:
            lab.stack.callback(lamina.close)
        for files in (100, 8000):
            yield Commit(lamina, "echo changed > /files/0/0", label=f"{form} {files:,}", sample=f"files-{files}")


def _on_overlay(lab: Lab) -> str:
    """A root directory that lies on an overlay."""
    place = f"{lab.dir}/on-overlay"
    if not os.path.exists(place):
        for name in ("", "/lower", "/upper", "/work", "/merged"):
            os.mkdir(f"{place}{name}")
        options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
        lab.spawner.run(Command(words=("mount", "-t", "overlay", "-o", options, "overlay", f"{place}/merged")))
    return f"{place}/merged/lamina"
