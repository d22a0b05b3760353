"""Many commands at once on one root directory, for as long as asked; and monitors that neither grow nor keep what they opened.

The short forms are part of the suite; `make soak` runs the long ones: SOAK_S seconds, SOAK_WORKERS at once, from SOAK_SEED on.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import Lamina, wait_until
from registries import Registry
from soak import soak

SECONDS = float(os.environ.get("SOAK_S", "6"))
WORKERS = int(os.environ.get("SOAK_WORKERS", "15"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
IS_LONG = "SOAK_S" in os.environ
EXECS, LOG_BYTES = (10_000, 1 << 30) if IS_LONG else (25, 4 << 20)


@pytest.fixture
def driver() -> str:
    return "overlay"


@pytest.fixture
def registry(tmp_path: Path, own_mounts: None) -> Iterator[Registry]:
    registry = Registry(tmp_path / "registry")
    yield registry
    registry.stop()


@pytest.mark.timeout(36000)
def test_many_commands_at_once_lose_nothing_wait_for_ever_for_nothing_and_leave_nothing(
    registry: Registry, lamina: Lamina, tmp_path: Path
):
    for number in range(3):
        name = f"{registry.host}/shared:{number}"
        lamina("tag", ("busybox", "base", "base")[number], name)
        lamina("push", "-q", name)
        lamina("rmi", name)
    contexts = tmp_path / "contexts"
    contexts.mkdir()
    with lamina.library() as engine:
        workers = soak(
            lamina, workers=WORKERS, length_s=SECONDS, seed=SEED, contexts=contexts, registry=registry.host,
            patience_s=600 if IS_LONG else 100,
        )  # fmt: skip
        print(f"seed {SEED}: {sum(worker.commands for worker in workers)} commands of {WORKERS} workers in {SECONDS:g} s")
        wrong = "\n".join(each for worker in workers for each in worker.wrong)
        assert not wrong, wrong
        containers = {each.name: each for each in engine.containers.all()}
        assert containers.keys() == {name for worker in workers for name in (*worker.running, *worker.ended)}
        names = {name.familiar for name, _image in engine.images.store.all_names()}
        made = {f"{name}:latest" for worker in workers for name in worker.images}
        assert made == {name for name in names if name.startswith("w")}
        for worker in workers:
            for name, mark in worker.running.items():
                assert containers[name].exec_output(["cat", "/mark"]) == f"{mark}\n"
        assert engine.system.check() == []
        for each in containers.values():
            each.remove(force=True)
        engine.images.prune(all_images=True)
        engine.images.prune_build_cache(all_steps=True)
        engine.system.discard_unused_layers()
        assert engine.system.check() == []


def size_of(pid: int) -> tuple[int, int]:
    """How much memory a process alone has changed, in bytes, and how many descriptors it has."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    (size,) = [int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Private_Dirty:")]
    return size, len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.timeout(36000)
def test_a_monitor_grows_neither_with_execs_nor_with_its_log(lamina: Lamina):
    line = "x" * 99  # shorter ones make of a gigabyte of output forty of log
    script = (
        f"yes {line} | head -c {LOG_BYTES // 10}; until test -e /go; do sleep 0.1; done; "
        f"yes {line} | head -c {LOG_BYTES}; exec sleep 1000000"
    )
    lamina.background("--name", "one", "--network", "none", "base", "sh", "-c", script)
    with lamina.library() as engine:
        one = engine.containers.get("one")
        monitor, log = one.record.monitor_pid, Path(engine.context.log_path(one.id))
        wait_until(lambda: log.stat().st_size > LOG_BYTES // 10, "the beginning is in the log", timeout_s=9000)
        for _ in range(10):
            assert one.exec(["true"]) == 0
        before = size_of(monitor)
        for _ in range(EXECS):
            assert one.exec(["true"]) == 0
        between = size_of(monitor)
        assert one.exec(["touch", "/go"]) == 0
        wait_until(lambda: b"sleep\x001000000" in Path(f"/proc/{one.pid}/cmdline").read_bytes(), "all is written", timeout_s=9000)
        wait_until(lambda: log.stat().st_size > LOG_BYTES, "all is in the log", timeout_s=9000)
        after = size_of(monitor)
    print(f"a monitor's memory and descriptors: {before}; after {EXECS} execs {between}; after {LOG_BYTES} bytes of log {after}")
    assert between[0] < before[0] + (1 << 20)
    assert after[0] < before[0] + (1 << 20)
    assert before[1] == between[1] == after[1]
