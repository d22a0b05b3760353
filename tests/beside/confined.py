"""What a program in a container may do, asked in the same words in each engine's: capabilities, system calls, files, and tricks.

Nothing is written to what a container shouldn't reach: whether a file can be opened for writing is asked. What must hold is
tested in `test_confinement*.py` and `test_attacks.py`; here is only shown how two engines answer.
"""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import archives
from archives import Item, folder, link
from engines import Engine
from test_confinement import PYTHON, REFUSED, calls, capabilities, status

PATIENCE_S = 15.0
TELLING = (
    "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/latency_stats", "/proc/sched_debug", "/proc/interrupts", "/proc/kmsg",
    "/proc/sys/kernel/core_pattern", "/sys/kernel/notes", "/proc/config.gz", "/proc/slabinfo", "/proc/vmallocinfo",
)  # fmt: skip
STEERING = (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/panic_on_oom", "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity", "/proc/mtrr", "/proc/self/oom_score_adj", "/sys/kernel/profiling", "/sys/power/state",
    "/sys/kernel/mm/ksm/run",
)  # fmt: skip
DIRECTORIES = ("/sys/firmware", "/proc/acpi", "/proc/scsi", "/proc/asound", "/sys/devices/virtual/powercap", "/proc/bus")


def probe(kind: type[Engine], place: Path) -> dict[str, str]:
    """Give each question's answer."""
    engine = kind(place / "root", place / "run", "overlay")
    engine.start()
    try:
        load(engine, place, "base", {})
        rows = {}
        for question, answer in answers(engine, place):
            print(f"  {question}: {answer}", flush=True)
            rows[question] = answer
        return rows
    finally:
        engine.close()


def load(engine: Engine, place: Path, name: str, items: dict[str, Item | str], **config: object) -> None:
    """Give the engine an image of busybox and one more layer."""
    layers = [archives.busybox_layer(), archives.layer(items)] if items else archives.base_layers()
    engine("load", "-q", "-i", str(archives.image(place / f"{name}.tar", f"{name}:latest", layers, **config)))


def run(engine: Engine, *words: str) -> str:
    """Run a container; gives what it said, or that it failed or hung."""
    done = engine.result("run", "--rm", "--network", "none", *words, timeout_s=PATIENCE_S)
    if done.returncode == 124:
        return f"hangs ({PATIENCE_S:g} s)"
    return " ".join(done.stdout.split()) if done.returncode == 0 else f"an error ({done.returncode})"


def shell(engine: Engine, script: str, *words: str) -> str:
    """Run a shell's script in a container of `base`."""
    return run(engine, *words, "base", "sh", "-c", script)


def answers(engine: Engine, place: Path) -> Iterator[tuple[str, str]]:
    """Ask all questions."""
    for user in ("0", "1000"):
        told = engine("run", "--rm", "--network", "none", "--user", user, "base", "cat", "/proc/self/status")
        yield f"capabilities of user {user} (inheritable, permitted, effective, bounding, ambient)", " ".join(capabilities(told))
        yield f"seccomp, no-new-privileges of user {user}", f"{status(told)['Seccomp']}, {status(told)['NoNewPrivs']}"
    names = (*REFUSED, ("clone3", 0, 0), ("ptrace", 0, 0, 0, 0))
    for name, answer in json.loads(engine("run", "--rm", "--network", "none", *PYTHON, "base", *calls(*names))).items():
        yield f"system call {name}", str(answer)
    for path in TELLING:
        yield f"reading {path}", shell(engine, f"test -e {path} || echo absent; head -c 1 {path} 2>/dev/null | wc -c")
    for path in STEERING:
        yield (
            f"opening {path} to write",
            shell(engine, f"test -e {path} || echo absent; (: >> {path}) 2>/dev/null && echo yes || echo no"),
        )
    for path in DIRECTORIES:
        yield f"names in {path}", shell(engine, f"ls -A {path} 2>/dev/null | wc -l")
    yield "devices", shell(engine, "ls /dev")
    yield (
        "reading a disk by a node of one's own",
        shell(engine, f"mknod /disk b {disk()} && echo made; head -c 1 /disk 2>/dev/null | wc -c"),
    )
    yield (
        "mounting (tmpfs, proc, cgroup)",
        shell(
            engine, "mkdir -p /m; for each in tmpfs proc cgroup; do mount -t $each none /m 2>/dev/null && echo yes || echo no; done"
        ),
    )
    yield "making a cgroup", shell(engine, "mkdir /sys/fs/cgroup/*/mine 2>/dev/null && echo yes || echo no")
    yield "its cgroup as it sees it", shell(engine, "cut -d: -f3 /proc/self/cgroup | sort -u | head -3")
    yield "open files", shell(engine, "ls /proc/self/fd | wc -l")
    yield (
        "working directories /proc/self/fd/3 to 15 that are let in",
        str(sum(run(engine, "-w", f"/proc/self/fd/{number}", "base", "pwd")[:8] != "an error" for number in range(3, 16))),
    )
    yield "the same, of an exec", entered(engine)
    yield "working directory /proc/1/root with --pid host", run(engine, "--pid", "host", "-w", "/proc/1/root/tmp", "base", "pwd")
    yield "abstract sockets to be seen with --network host", str(abstract_sockets(engine))
    load(engine, place, "itself", {"evil": Item(content=b"#!/proc/self/exe\n", mode=0o755)})
    yield "a program whose interpreter is /proc/self/exe", run(engine, "itself", "/evil") or "runs"
    for name in ("proc", "sys", "dev"):
        load(engine, place, f"liar-{name}", {"elsewhere": folder(), name: link("/elsewhere")})
        script = f"readlink /{name} || echo runs, with a directory in its place"
        yield f"an image whose /{name} is a symlink", run(engine, f"liar-{name}", "sh", "-c", script)
    yield "a volume over /proc", run(engine, "-v", "/tmp:/proc", "base", "true") or "runs"
    yield "a volume over /proc/sys", run(engine, "-v", "/tmp:/proc/sys", "base", "true") or "runs"
    yield "the mode of its directory", f"{engine.root.stat().st_mode & 0o7777:o}"
    load(engine, place, "fifo", {"etc/passwd": Item(type=tarfile.FIFOTYPE)})
    yield "--user nobody where /etc/passwd is a FIFO", run(engine, "--user", "nobody", "fifo", "true") or "runs"


def entered(engine: Engine) -> str:
    """Count the same for `exec`."""
    engine("run", "-d", "--name", "one", "--network", "none", "base", "sleep", "1000000")
    codes = [engine.result("exec", "-w", f"/proc/self/fd/{number}", "one", "pwd").returncode for number in range(3, 16)]
    engine("rm", "-f", "one")
    return str(codes.count(0))


def abstract_sockets(engine: Engine) -> int:
    """Count those that listen in the network that a container shares with the engine."""
    words = ("run", "--rm", "--network", "host", "base", "cat", "/proc/net/unix")
    return sum(line.split()[-1].startswith("@") for line in engine(*words).splitlines())


def disk() -> str:
    """Give the numbers of a disk of the machine."""
    for line in Path("/proc/partitions").read_text(encoding="ascii").splitlines()[2:]:
        major, minor, _, name = line.split()
        if not name.startswith(("loop", "ram")):
            return f"{major} {minor}"
    return f"{os.major(os.stat('/').st_dev)} {os.minor(os.stat('/').st_dev)}"
