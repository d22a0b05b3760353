"""What a driver's hooks do to the process that calls them, and what several processes at once do to each other."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

from lamina.linux import mountinfo, ptrace
from lamina.testing.bench import Bench
from lamina.testing.check import Failed, Skipped, check, require, same
from lamina.testing.samples import BASE
from lamina.testing.tar import archive, archive_of, entry, whiteout
from lamina.testing.tree import File


def watched(function: Callable[[], object], *, kill_at: int | None = None) -> ptrace.Watched:
    """Watch a function's changing system calls; skip the check where ptrace isn't permitted."""
    sys.dont_write_bytecode = True
    try:
        return ptrace.watch(function, kill_at=kill_at)
    except OSError as error:
        raise Skipped(f"system calls can't be watched here: {error}") from error


def _whole_life(bench: Bench) -> None:
    """Have every hook called."""
    base = bench.applied(archive_of(BASE))
    layer = bench.prepare(base)
    bench.write(layer, {"new": File("new")})
    bench.changes(layer)
    bench.usage(layer)
    bench.driver.describe(layer.key, layer.parents)
    bench.driver.seal(layer.key)
    bench.tree(layer)
    bench.driver.keys()
    bench.discard(layer)


@check("life cycle")
def no_hook_leaves_a_descriptor_open(bench: Bench) -> None:
    """A long-lived monitor calls hooks, too."""
    _whole_life(bench)
    before = set(os.listdir("/proc/self/fd"))
    _whole_life(bench)
    same(len(os.listdir("/proc/self/fd")) - len(before), 0, "descriptors more than before")


@check("life cycle")
def no_hook_changes_the_process(bench: Bench) -> None:
    """Not its directory, umask, environment, signals or limits; and no process is left of it."""
    import signal

    def state() -> tuple[object, ...]:
        umask = os.umask(0o027)
        os.umask(umask)
        handlers = tuple(str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE))
        return os.getcwd(), umask, dict(os.environ), handlers, os.geteuid(), os.getpriority(os.PRIO_PROCESS, 0)

    before = state()
    _whole_life(bench)
    same(state(), before, "directory, umask, environment, signal handlers, user, priority")
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    raise Failed(f"a child process is left (waitpid says {pid})")


@check("life cycle")
def no_hook_mounts(bench: Bench) -> None:
    """A driver answers with mounts as data; the engine makes them, and can show and undo them."""
    base = bench.applied(archive_of(BASE))
    layer = bench.prepare(base)
    driver, before = bench.driver, mountinfo.mounts()
    for call in (
        lambda: driver.before_mount(layer.key, layer.parents),
        lambda: driver.after_unmount(layer.key),
        lambda: driver.seal(layer.key),
        lambda: driver.prepare(bench.new_key(), layer.chain, {}),
        driver.sweep,
        driver.keys,
        lambda: driver.discard(layer.key),
    ):
        call()
        same(mountinfo.mounts(), before, "mounts after a hook")


@check("life cycle")
def no_hook_prints(bench: Bench) -> None:
    """Standard output is the container's or the command's data."""
    with tempfile.TemporaryFile() as file, open(os.dup(file.fileno()), "w", encoding="utf-8", errors="replace") as text:
        saved = [os.dup(1), os.dup(2)]
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            # Python's own two may be somewhere else, such as in pytest's hands.
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                _whole_life(bench)
            text.flush()
        finally:
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
        file.seek(0)
        same(file.read(), b"", "what was written to standard output and error")


@check("life cycle")
def no_hook_starts_a_process(bench: Bench) -> None:
    """A driver that runs programs can't be traced, bounded or undone."""
    base = bench.made(BASE)
    layer = bench.prepare(base)
    driver, key = bench.driver, bench.new_key()

    def hooks() -> None:
        driver.prepare(key, base.chain, {})
        driver.before_mount(layer.key, layer.parents)
        driver.after_unmount(layer.key)
        driver.usage(layer.key, layer.parents)
        driver.discard(key)
        driver.sweep()

    seen = watched(hooks)
    require(not seen.error, seen.error)
    same([call for call in seen.calls if call in {"execve", "fork", "vfork"}], [], "processes started")


@check("life cycle")
def a_driver_writes_nowhere_but_in_its_folder(bench: Bench) -> None:
    """Two stores on one machine must not meet."""
    around = {*os.listdir(bench.dir), bench.name}
    temporary = set(os.listdir(tempfile.gettempdir()))
    _whole_life(bench)
    same(set(os.listdir(bench.dir)) - around, set(), "made beside the folder")
    mine = {name for name in set(os.listdir(tempfile.gettempdir())) - temporary if bench.name in name}
    same(mine, set(), "made in the directory for temporary files")


@check("life cycle", limit_s=60)
def many_processes_at_once_do_not_meet(bench: Bench) -> None:
    """Different keys run in parallel, without a lock: 4 processes prepare, write, discard and sweep 10 layers each."""
    base = bench.made(BASE)

    def work(number: int) -> None:
        for turn in range(10):
            layer = bench.prepare(base, key=f"p{number}-{turn}")
            if turn % 3 == 0:
                bench.write(layer, {f"p{number}": File("x")})
            if turn % 2:
                bench.driver.discard(layer.key)
                bench.driver.sweep()

    _in_processes(4, work)
    wanted = {f"p{number}-{turn}" for number in range(4) for turn in range(0, 10, 2)}
    same(set(bench.driver.keys()), {base.key, *wanted}, "keys")


@check("life cycle")
def several_processes_may_sweep_at_once(bench: Bench) -> None:
    """A name that another sweeper took away is no error."""
    for _ in range(6):
        layer = bench.made({f"d{number}/f": File("x") for number in range(60)})
        bench.driver.discard(layer.key)
    before = inodes(bench.driver.home)
    _in_processes(4, lambda _number: bench.driver.sweep())
    require(inodes(bench.driver.home) < before - 600, "the trash is not empty")


def inodes(place: str) -> int:
    """Count what is below a directory."""
    return sum(len(folders) + len(files) for _, folders, files in os.walk(place))


def _in_processes(count: int, work: Callable[[int], None]) -> None:
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                work(number)
            except BaseException as error:  # noqa: BLE001 - the parent tells it
                os.write(write_fd, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(0)
        pids.append(pid)
    os.close(write_fd)
    with os.fdopen(read_fd, encoding="utf-8", errors="replace") as told:
        errors = told.read()
    for pid in pids:
        os.waitpid(pid, 0)
    require(not errors, f"in one of {count} processes: {errors.strip()}")


@check("life cycle")
def another_process_sees_what_one_has_made(bench: Bench) -> None:
    """A driver that remembers in the process what it should have written down works until the next command."""
    base = bench.applied(archive(entry("f", File("x")), entry("gone", File("x"))))
    middle = bench.applied(archive(whiteout("gone"), entry("new", File("y"))), base)
    top = bench.prepare(middle)
    bench.write(top, {"top": File("z")})
    driver = bench.driver
    program = (
        "import sys; from lamina.testing.bench import Bench, Layer; from lamina.testing.run import {how}; "
        "subject = {how}(sys.argv[1]); bench = Bench(host=subject.host, name=subject.name, dir=sys.argv[2]); "
        "print(sorted(bench.tree(Layer(key=sys.argv[3], parents=tuple(sys.argv[4:])))))"
    )
    homes = [name for name, module in list(sys.modules.items()) if getattr(module, "plugin", None) is driver.plugin]
    if not homes:
        raise Skipped("no module has the plugin as its attribute 'plugin', by which another process could import it")
    target = f"{homes[0]}:plugin"
    done = subprocess.run(
        [sys.executable, "-c", program.format(how="subject"), target, bench.dir, top.key, *top.parents],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    require(done.returncode == 0, done.stderr.strip()[-500:])
    same(done.stdout.strip(), str(["", "f", "new", "top"]), "what another process sees")
