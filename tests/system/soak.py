"""Workers that run lamina's commands all at once on one root directory, each knowing what must be true of what it has made.

A worker's model is what it has been told: a command that said it was done must have done it, for good, whatever the others do. What
belongs to all is what they meet in: the base image and its layers, the build cache, one contested tag, the registry, the locks.
"""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

FIRST_LINE = "the image's own file"


class Told(Protocol):
    """Who is told commands: `cases.Lamina`, or whoever understands them too."""

    driver: str

    def command(self, *words: str, driver: str = "") -> list[str]: ...


class Worker:
    """One seed's sequence of commands."""

    def __init__(
        self, lamina: Told, number: int, seed: int, *, contexts: Path, registry: str, deadline: float, patience_s: float
    ) -> None:
        self.lamina, self.number, self.registry = lamina, number, registry
        self.contexts, self.deadline, self.patience_s = contexts, deadline, patience_s
        self.draw = random.Random(seed * 1000 + number)
        self.driver = ("overlay", "aufs", "vfs")[number % 3] if number % 5 else lamina.driver
        self.count = 0
        self.commands = 0
        self.running: dict[str, str] = {}
        """Containers that run: name to what is in their /mark."""
        self.ended: dict[str, str] = {}
        """Containers that have ended: name to what they said."""
        self.images: dict[str, str] = {}
        """Images: name to what is in their /mark."""
        self.wrong: list[str] = []

    def name(self) -> str:
        self.count += 1
        return f"w{self.number}-{self.count}"

    def run(self, *words: str, may_fail: tuple[str, ...] = ()) -> str | None:
        """Run a command; None if it failed in a way that others may bring about. One that hangs is made to show its stacks."""
        self.commands += 1
        process = subprocess.Popen(
            self.lamina.command(*words, driver=self.driver), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=self.patience_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            try:
                out, err = process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = "", "and it can't be killed"
            self.wrong.append(f"{words} hung: {err}")
            return None
        if process.returncode == 0:
            return out.removesuffix("\n")
        if not any(text in err for text in may_fail):
            self.wrong.append(f"{words} ended with {process.returncode}: {out}{err}")
        return None

    def expect(self, got: str | None, wanted: str, what: str) -> None:
        if got is not None and got != wanted:
            self.wrong.append(f"{what}: {got!r} instead of {wanted!r}")

    def acts(self) -> tuple[Callable[[], None], ...]:
        """What a worker does, as often as it is named here."""
        return (
            self.run_once, self.run_once, self.start, self.start, self.execute, self.execute, self.log, self.stop, self.remove,
            self.commit, self.build, self.pull, self.tag, self.remove_image, self.prune, self.list_all, self.copy, self.check,
        )  # fmt: skip

    def is_done(self) -> bool:
        """Whether time is up or something is wrong."""
        return time.monotonic() >= self.deadline or bool(self.wrong)

    def work(self) -> None:
        """Go on until it is done."""
        acts = self.acts()
        while not self.is_done():
            self.draw.choice(acts)()

    def run_once(self) -> None:
        image = self.draw.choice(["base", *self.images])
        wanted = self.images.get(image, FIRST_LINE)
        path = "/mark" if image in self.images else "/single"
        self.expect(self.run("run", "--rm", "--network", "none", image, "cat", path), wanted, f"cat in {image}")

    def start(self) -> None:
        name = self.name()
        if self.draw.random() < 0.5 and len(self.running) < 3:
            words = ("sh", "-c", f"echo {name} >/mark; echo said {name}; exec sleep 100000")
            if (
                self.run("run", "-d", "--name", name, "--network", "none", "--label", f"worker={self.number}", "base", *words)
                is not None
            ):
                self.running[name] = name
        else:
            words = ("run", "--name", name, "--network", "none", "base", "sh", "-c", f"echo {name} >/mark; echo said {name}")
            self.expect(self.run(*words), f"said {name}", name)
            self.ended[name] = f"said {name}"

    def execute(self) -> None:
        for name, mark in self.running.items():
            # until `echo` has been run there is no /mark: run -d waits for the start, not for the program
            self.expect(self.run("exec", name, "sh", "-c", "until test -s /mark; do sleep 0.05; done; cat /mark"), mark, name)
            return

    def log(self) -> None:
        for name, said in self.ended.items():
            self.expect(self.run("logs", name), said, f"logs {name}")
            return

    def stop(self) -> None:
        if self.running:
            name = next(iter(self.running))
            if self.run("stop", "-t", "0", name) is not None:
                self.ended[name] = f"said {name}"
                del self.running[name]

    def remove(self) -> None:
        containers = self.draw.choice((self.running, self.ended))
        if containers:
            name = self.draw.choice(list(containers))
            if self.run("rm", "-f", name) is not None:
                del containers[name]

    def commit(self) -> None:
        marked = [*self.ended, *self.running]
        if marked and len(self.images) < 4:
            name = self.draw.choice(marked)
            if name in self.running:
                self.run("exec", name, "sh", "-c", "until test -s /mark; do sleep 0.05; done")
            image = self.name()
            if self.run("commit", name, image) is not None:
                self.images[image] = name

    def build(self) -> None:
        if len(self.images) < 4:
            image = self.name()
            shared = self.draw.randrange(4)  # the same step in several builds at once
            folder = self.contexts / image
            folder.mkdir()
            (folder / "mark").write_text(f"{image}\n", encoding="utf-8")
            recipe = f"FROM base\nRUN echo {shared} >/shared\nCOPY mark /mark\n"
            (folder / "Dockerfile").write_text(recipe, encoding="utf-8")
            if self.run("build", "-q", "--network", "none", "-t", image, str(folder)) is not None:
                self.images[image] = image

    def pull(self) -> None:
        """Several pull the same name, which somebody may remove meanwhile."""
        name = f"{self.registry}/shared:{self.draw.randrange(3)}"
        if self.run("pull", "-q", name) is not None and self.draw.random() < 0.5:
            self.run("rmi", name, may_fail=("no such image", "is used by"))

    def tag(self) -> None:
        self.run("tag", self.draw.choice(["base", *self.images]), "contested:latest", may_fail=("no such image",))

    def remove_image(self) -> None:
        if self.images:
            image = self.draw.choice(list(self.images))
            if self.run("rmi", "-f", image, may_fail=("is used by",)) is not None:
                del self.images[image]

    def prune(self) -> None:
        words = self.draw.choice((
            ("container", "prune", "-f", "--filter", f"label=worker={self.number}"), ("image", "prune", "-f"),
            ("builder", "prune", "-f"), ("volume", "prune", "-f"),
        ))  # fmt: skip
        if self.run(*words) is not None and words[0] == "container":
            stopped = [name for name in self.ended if name not in (self.run("ps", "-a", "--format", "{{.Names}}") or "").split()]
            for name in stopped:
                del self.ended[name]

    def list_all(self) -> None:
        shown = (self.run("ps", "-a", "--format", "{{.Names}}") or "").split()
        for name in [*self.running, *self.ended]:
            if name not in shown and not self.wrong:
                self.wrong.append(f"{name} is not in ps -a")

    def copy(self) -> None:
        for name, said in self.ended.items():
            place = self.contexts / f"copy-{self.number}"
            if self.run("cp", f"{name}:/mark", str(place)) is not None:
                self.expect(place.read_text(encoding="utf-8"), said.removeprefix("said ") + "\n", f"cp of {name}")
            return

    def check(self) -> None:
        """While all the others are at work, nothing is called damaged, lost or left behind."""
        self.expect(self.run("system", "check"), "", "system check")


def soak(
    lamina: Told,
    *,
    workers: int,
    length_s: float,
    seed: int,
    contexts: Path,
    registry: str,
    patience_s: float,
    kind: type[Worker] = Worker,
) -> list[Worker]:
    """Let the workers work; gives them, with what each has seen go wrong."""
    deadline = time.monotonic() + length_s
    made = [
        kind(lamina, number, seed, contexts=contexts, registry=registry, deadline=deadline, patience_s=patience_s)
        for number in range(workers)
    ]
    threads = [threading.Thread(target=worker.work) for worker in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made
