"""Many commands at once: `soak.py`'s workers, with the commands that both engines have, and what is left when all is removed."""

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import archives
import leaks
from engines import Engine
from soak import Told, Worker, soak
from test_soak import size_of

PATIENCE_S = 120.0


class PlainWorker(Worker):
    """Says what both know, and goes on when something went wrong."""

    def __init__(self, lamina: Told, number: int, seed: int, **others: Any) -> None:
        super().__init__(lamina, number, seed, **others)
        self.driver = lamina.driver
        self.refusals = lamina.refusals if isinstance(lamina, Engine) else ()

    def acts(self) -> tuple[Callable[[], None], ...]:
        ours_alone = (self.pull, self.check)
        return (*(each for each in super().acts() if each not in ours_alone), self.load)

    def run(self, *words: str, may_fail: tuple[str, ...] = ()) -> str | None:
        may_be_refused = may_fail or "prune" in words
        return super().run(*words, may_fail=(*may_fail, *self.refusals) if may_be_refused else ())

    def is_done(self) -> bool:
        return time.monotonic() >= self.deadline

    def load(self) -> None:
        """Several load the same image, which somebody may remove meanwhile."""
        number = self.draw.randrange(3)
        if self.run("load", "-q", "-i", f"{self.contexts}/shared{number}.tar") is not None and self.draw.random() < 0.5:
            self.run("rmi", f"shared{number}", may_fail=("no such image", "is used by"))


def keep_busy(kind: type[Engine], place: Path, *, seconds: float, workers: int, seed: int) -> dict[str, str]:
    """Give how it went, as rows of a table."""
    contexts = place / "contexts"
    contexts.mkdir()
    base = archives.image(place / "base.tar", "base:latest", archives.base_layers())
    for number in range(3):
        layers = [archives.busybox_layer(), archives.layer({f"shared{number}": "shared\n" * 1000})]
        archives.image(contexts / f"shared{number}.tar", f"shared{number}:latest", layers)
    engine = kind(place / "root", place / "run", "overlay")
    engine.start()
    try:
        engine("load", "-q", "-i", str(base))
        engine("run", "--rm", "--network", "none", "base", "true")
        processes, before = leaks.descendants(), sizes(engine)
        began = time.monotonic()
        done = soak(
            engine, workers=workers, length_s=seconds, seed=seed, contexts=contexts, registry="", patience_s=PATIENCE_S,
            kind=PlainWorker,
        )  # fmt: skip
        took_s = time.monotonic() - began
        wrong = [each for worker in done for each in worker.wrong]
        hung = [each for each in wrong if "hung:" in each]
        lost = missing(engine, done)
        left = engine.remove_all()
        leaks.reap(set(processes))
        time.sleep(2)
        leaks.reap(set(processes))
        stayed = [words for pid, words in leaks.descendants().items() if pid not in processes]
        mounts = engine.mounts()
        after = sizes(engine)
    finally:
        engine.close()
    for text, count in Counter(kind_of(each) for each in wrong).most_common():
        print(f"  {count} times: {text}", flush=True)
    for each in [*lost, *left, *mounts, *stayed]:
        print(f"  {each}", flush=True)
    return {
        "commands finished": f"{sum(worker.commands for worker in done):,} in {took_s:.0f} s",
        "that failed and shouldn't have": str(len(wrong) - len(hung)),
        f"that hung for {PATIENCE_S:g} s": str(len(hung)),
        "containers and images that aren't as reported": str(len(lost)),
        "left on disk when all is removed": str(len(left)),
        "left mounted": str(len(mounts)),
        "processes left": str(len(stayed)),
        "memory that the daemons alone have changed, before and after": told(before, after, 0),
        "their descriptors": told(before, after, 1),
    }


def sizes(engine: Engine) -> dict[str, tuple[int, int]]:
    """Give each daemon's own memory, in bytes, and its descriptors."""
    return {name: size_of(pid) for name, pid in engine.daemons().items()}


def told(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], column: int) -> str:
    """Put two sizes of each process into words."""

    def text(size: int) -> str:
        return str(size) if column else f"{size / 1e6:.1f} MB"

    return ", ".join(
        f"{name} {text(before[name][column])} → {text(after[name][column])}" for name in before if name in after
    ) or "there are none"  # fmt: skip


def missing(engine: Engine, workers: list[Worker]) -> list[str]:
    """List where what there is differs from what was reported."""
    shown = set(engine("ps", "-a", "--format", "{{.Names}}").split())
    told_of = {name for worker in workers for name in (*worker.running, *worker.ended)}
    images = set(engine("images", "--format", "{{.Repository}}").split())
    made = {name for worker in workers for name in worker.images}
    wrong = [f"container {name} is gone" for name in told_of - shown]
    wrong += [f"container {name} was never reported" for name in shown - told_of]
    wrong += [f"image {name} is gone" for name in made - images]
    wrong += [f"image {name} was never reported" for name in images - made if name.startswith("w")]
    for worker in workers:
        for name, mark in worker.running.items():
            done = engine.result("exec", name, "cat", "/mark")
            wrong += [] if done.stdout == f"{mark}\n" else [f"container {name}: {done.stdout}{done.stderr}"]
    return sorted(wrong)


def kind_of(text: str) -> str:
    """Take names and numbers out of a message, so that like ones are counted together."""
    return re.sub(r"\b(w\d+-\d+|[0-9a-z]{25}|[0-9a-f]{12,64})\b", "X", text.replace("\n", " "))[:400]
