"""Kill a command that is at networks at one of its system calls; the next command finds nothing half made, and nothing is left.

As `test_show_9_kill.py`, which kills everything else: strace(1) kills at the n-th call of a kind. The calls here are those by which
networks are made (messages to the kernel, locks, files, forks); all of them in the long form (`LAMINA_KILLS=all`, `make crash`), a
spread in the short one.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path

import leaks
import netspaces
import pytest
from packets import addresses, exchange

from lamina.engine import Engine
from lamina.linux import link, netlink, process
from lamina.model.network import parse_port

CHANGING = ("sendto", "flock", "clone", "clone3", "pwrite64", "setns", "ftruncate", "unlink", "rename", "bind", "listen", "kill")
"""SQLite's changes are among the pwrite64s, netlink's requests are sendtos."""
POINTS = 3
"""How many points of each scenario are tried in the short form."""

SCENARIOS = {
    "a start with a published port": "engine.containers.create('busybox', ['true'], network='mine', ports=PORTS).start()",
    "the first use of a network": "engine.containers.create('busybox', ['true'], network='bridge').start()",
    "connect": "engine.networks.connect('mine', engine.containers.get('kept').record, aliases=['moved'])",
    "disconnect": "engine.networks.disconnect('second', engine.containers.get('kept').record)",
    "stop": "engine.containers.get('kept').stop(timeout_s=0)",
    "repair": "engine.networks.repair()",
    "create and remove": "engine.networks.create('new'); engine.networks.remove('new')",
}
"""Each with an open engine; `kept` runs in the networks `first` and `second` and publishes port 4000."""

PROGRAM = """
import os, sys
from lamina.engine import Engine
from lamina.model.network import parse_port
PORTS = parse_port('5000:80')
engine = Engine(root_dir=sys.argv[1], storage_driver='overlay', warn=print)
{statement}
os._exit(0)
"""


@pytest.fixture
def root(tmp_path: Path, prepared_roots: dict[str, Path], own_mounts: None, own_network: None) -> Iterator[Path]:
    """A root directory with `busybox` and three networks."""
    root = tmp_path / "root"
    subprocess.run(["cp", "--archive", "--reflink=auto", str(prepared_roots["overlay"]), str(root)], check=True)
    with leaks.nothing_left(root):
        with Engine(root_dir=str(root), storage_driver="overlay", warn=lambda _text: None) as engine:
            for name in ("mine", "first", "second"):
                engine.networks.create(name)
        yield root


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.timeout(36000 if os.environ.get("LAMINA_KILLS") == "all" else 120)
def test_a_kill_at_any_call_leaves_nothing_of_networks(root: Path, tmp_path: Path, scenario: str) -> None:
    program = PROGRAM.format(statement=SCENARIOS[scenario])
    reset(root)
    calls = list(traced_calls(program, root, tmp_path / "trace"))
    assert len(calls) >= 4, f"strace saw only {calls}"
    step = 1 if os.environ.get("LAMINA_KILLS") == "all" else max(1, len(calls) // POINTS)
    killed = 0
    for name, number in calls[::step]:
        reset(root)
        before = leaks.descendants().keys()
        killed += run_killed(program, root, name, number)
        wait_until_alone(root, before, f"killed at {name} number {number}")
        check(root, f"killed at {name} number {number}")
    assert killed
    clear(root, "at the end")


def traced_calls(program: str, root: Path, trace: Path) -> Iterator[tuple[str, int]]:
    """Run the program whole and give each changing call of its first process as (name, which one of that name)."""
    subprocess.run(
        ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={','.join(CHANGING)}", sys.executable, "-c", program, str(root)],
        check=True, stdout=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    seen: Counter[str] = Counter()
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    first = lines[0].split()[0]
    for line in lines:
        pid, _, rest = line.partition(" ")
        name = rest.strip().partition("(")[0]
        if pid == first and name in CHANGING:
            seen[name] += 1
            yield name, seen[name]


def run_killed(program: str, root: Path, name: str, number: int) -> bool:
    """Run the program with its first process killed at its n-th call of that name; says whether it was."""
    kill = ["-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={number}"]
    done = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", *kill, sys.executable, "-c", program, str(root)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode != 0


def reset(root: Path) -> None:
    """Bring the store to where each scenario begins: `kept` runs, nobody else does."""
    if is_ready(root):
        return
    clear(root, "before a scenario")
    with Engine(root_dir=str(root), storage_driver="overlay", warn=lambda _text: None) as engine:
        kept = engine.containers.create(
            "busybox", ["sleep", "1000000"], name="kept", network="first", ports=parse_port("4000:80"), dns=["127.0.0.1"]
        )
        kept.start()
        engine.networks.connect("second", kept.record)


def is_ready(root: Path) -> bool:
    """Whether `kept` is as it was, which spares making it anew; of others nothing is kept."""
    with Engine(root_dir=str(root), storage_driver="overlay", warn=lambda _text: None) as engine:
        for container in engine.containers.all():
            if container.name != "kept":
                container.remove(force=True)
        return any(
            [network.name for network, _ in engine.networks.endpoints(container.record)] == ["first", "second"]
            for container in engine.containers.all(running_only=True)
        )


def clear(root: Path, when: str) -> None:
    """Remove all containers; then nothing of networks may be left."""
    with Engine(root_dir=str(root), storage_driver="overlay", warn=lambda _text: None) as engine:
        for container in engine.containers.all():
            container.remove(force=True)
        if "new" in {each.name for each in engine.networks.all()}:
            engine.networks.remove("new")
    for table in ("endpoints", "network_addresses", "published_ports", "operations"):
        assert leaks.rows(root, f"SELECT * FROM {table}") == [], when
    with netlink.Socket() as host:
        assert [each.name for each in link.links(host) if each.name != "lo"] == [], when
    assert netspaces.run("nft", "list", "tables") == "", when


def check(root: Path, when: str) -> None:
    """Open the store as the next command does, and hold the kernel against what it says."""
    warnings: list[str] = []
    with Engine(root_dir=str(root), storage_driver="overlay", warn=warnings.append) as engine:
        assert not warnings, f"{when}: {warnings}"
        rows = engine.context.database.connection
        assert not rows.execute("SELECT * FROM operations").fetchall(), f"{when}: operations are left"
        assert not rows.execute("SELECT * FROM endpoints WHERE operation IS NOT NULL").fetchall(), (
            f"{when}: half an endpoint is left"
        )
        for container in engine.containers.all():
            if container.status != "running":
                assert engine.networks.endpoints(container.record) == [], f"{when}: {container.name} has endpoints"
        running = {each.id for each in engine.containers.all(running_only=True)}
        used = engine.networks.records.in_use()
        endpoints = [each for network_id in used for each in engine.networks.records.endpoints_in(network_id)]
        assert {each.container_id for each in endpoints} <= running, f"{when}: endpoints of nobody"
        with netlink.Socket() as host:
            names = {each.name for each in link.links(host)} - {"lo"}
        assert {name for name in names if name.startswith("lv")} == {each.host_name for each in endpoints}, f"{when}: {names}"
        assert len([name for name in names if name.startswith("lb")]) == len(used), f"{when}: {names} for {len(used)} networks"
        assert not [name for name in names if name.startswith("lnew")], f"{when}: {names}"
        chains = [line.split()[-2] for line in netspaces.run("nft", "list", "chains").splitlines() if line.startswith("\tchain")]
        assert {chain.rpartition("-")[0] for chain in chains} == {name for name in names if name.startswith("lb")}, (
            f"{when}: {chains}"
        )
        kept = engine.containers.get("kept")
        if kept.status == "running":
            assert exchange(kept, "tcp", 80, "127.0.0.1", 4000), f"{when}: kept isn't reached"
            assert set(addresses(kept)) <= set(kept.exec_output(["ip", "address"]).replace("/", " ").split()), when


def wait_until_alone(root: Path, before: Set[int], when: str) -> None:
    """Give what was orphaned a moment to end by itself: whoever is new, and monitors whose container has ended."""
    deadline = time.monotonic() + 20
    while True:
        leaks.reap(set(before))
        left = {pid: words for pid, words in leaks.descendants().items() if pid not in before}
        for pid, started, monitor_pid, monitor_started in leaks.rows(
            root, "SELECT pid, pid_started, monitor_pid, monitor_started FROM containers WHERE status = 'running'"
        ):
            is_over = not process.is_alive(int(str(pid)), started and int(str(started)))
            if is_over and process.is_alive(int(str(monitor_pid)), monitor_started and int(str(monitor_started))):
                left[int(str(monitor_pid))] = "monitor"
        if not left:
            return
        assert time.monotonic() < deadline, f"{when}: processes are left: {left}"
        time.sleep(0.02)
