"""One check, in a process and a mount namespace of its own, with a directory that is gone afterwards; and many of them.

A process each, because a broken driver may do anything: raise, hang, mount, change the umask. What it mounts is nowhere else.
"""

import contextlib
import io
import os
import pickle
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from types import FrameType
from typing import Any

from lamina.api.host import REQUIRED, PluginHost
from lamina.api.types import API_VERSION
from lamina.archive.fallback import fallback
from lamina.errors import NotUsableError, PluginError
from lamina.linux import mount as lm
from lamina.linux import mountinfo, namespace
from lamina.linux.fs import remove_tree
from lamina.testing import disks
from lamina.testing.bench import Bench
from lamina.testing.check import Check, Failed, Skipped, is_claimed

_GRACE_S = 10


class Verdict(StrEnum):
    """What came of a check."""

    PASS = "pass"
    FAIL = "fail"
    NOT_CLAIMED = "not claimed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A check's verdict, why, what was recorded beside it, and how long it took."""

    check: Check
    verdict: Verdict
    reason: str = ""
    notes: tuple[str, ...] = ()
    duration_s: float = 0.0
    underclaimed: bool = False
    """It works, and the driver doesn't claim it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A driver under test: where it was registered, and the type of file system that it wants below it ("": any)."""

    host: PluginHost
    name: str
    filesystem: str = ""


def subject(plugin: object, *, filesystem: str = "") -> Subject:
    """Take a plugin object, or "module:attribute" of one, as the engine would, which raises `PluginError`."""
    if isinstance(plugin, str):
        module, _, attribute = plugin.partition(":")
        try:
            loaded: Any = import_module(module)
            for part in attribute.split(".") if attribute else ():
                loaded = getattr(loaded, part)
        except Exception as error:
            raise PluginError(f"plugin '{plugin}' can't be loaded: {type(error).__name__}: {error}") from error
        plugin = loaded
    name = getattr(plugin, "name", None)
    if not isinstance(name, str) or not name:
        raise PluginError(f"plugin {plugin!r} has no name")
    version = getattr(plugin, "api_version", None)
    if version != API_VERSION:
        raise PluginError(f"plugin '{name}' is written for version {version} of the contract, this is version {API_VERSION}")
    for hook in REQUIRED["storage"]:
        if not hasattr(getattr(plugin, hook, None), "lamina_impl"):
            raise PluginError(f"plugin '{name}' doesn't implement the hook '{hook}'")
    host = PluginHost()
    host.register(fallback, "fallback.core")
    host.register(plugin, f"storage.{name}")
    host.manager.check_pending()
    return Subject(host=host, name=name, filesystem=filesystem)


def installed(name: str, *, filesystem: str = "") -> Subject:
    """Take a driver that is installed, by its name."""
    host = PluginHost()
    host.register(fallback, "fallback.core")
    return Subject(host=host, name=str(host.get("storage", name).name), filesystem=filesystem)


def check_usable(driver: Subject, place: str) -> None:
    """Raise `NotUsableError` if the driver can't work at all below `place`, a directory."""
    if not driver.filesystem:
        probe = Bench(host=driver.host, name=driver.name, dir=place)
        try:
            probe.driver_at(f"{place}/{driver.name}")
        except Skipped as why:
            raise NotUsableError(f"storage driver '{driver.name}': {why}", hint="give another --dir, or a --filesystem") from None


def run_all(checks: Sequence[Check], driver: Subject, place: str, *, jobs: int = 1) -> Iterator[Outcome]:
    """Run checks below the directory `place`, several at a time, and yield each outcome when it is there."""
    waiting = list(reversed(checks))
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Running.start(waiting.pop(), driver, place))
            for each in _ended(running):
                running.remove(each)
                yield each.outcome()
    finally:
        for each in running:
            each.kill()
            each.outcome()


def run_check(check: Check, driver: Subject, place: str) -> Outcome:
    """Run one check. Whatever it or the driver does, this returns, and leaves nothing."""
    return next(run_all([check], driver, place))


_Result = tuple[Verdict, str, tuple[str, ...], bool]


@dataclass(slots=True, kw_only=True, eq=False)
class _Running:
    """A check in its process, and what it has said so far."""

    check: Check
    directory: str
    pid: int
    read_fd: int
    started: float
    data: bytes = b""
    killed: bool = False

    @classmethod
    def start(cls, check: Check, driver: Subject, place: str) -> "_Running":
        directory = f"{os.path.abspath(place)}/{os.getpid():x}-{time.monotonic_ns():x}"
        os.mkdir(directory, 0o755)
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            os.close(read_fd)
            _be_child(check, driver, directory, write_fd)
        os.close(write_fd)
        return cls(check=check, directory=directory, pid=pid, read_fd=read_fd, started=time.monotonic())

    @property
    def left_s(self) -> float:
        """How long it may still take."""
        return max(0.0, self.started + self.check.limit_s + _GRACE_S - time.monotonic())

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.killed = True

    def outcome(self) -> Outcome:
        """Reap the process, remove the directory, and say what came of it."""
        os.close(self.read_fd)
        os.waitpid(self.pid, 0)
        with contextlib.suppress(OSError):
            remove_tree(self.directory)
        verdict, reason, notes, underclaimed = self._result()
        return Outcome(
            check=self.check,
            verdict=verdict,
            reason=reason,
            notes=notes,
            duration_s=time.monotonic() - self.started,
            underclaimed=underclaimed,
        )

    def _result(self) -> _Result:
        """Read what the process said: whether the driver claims what the check is about, then the result; maybe neither."""
        claimed, said = True, io.BytesIO(self.data)
        with contextlib.suppress(EOFError, pickle.UnpicklingError):  # the end, or where it was killed in the middle of a word
            while True:
                word: bool | _Result = pickle.load(said)  # from our own child
                if isinstance(word, tuple):
                    return word
                claimed = word
        too_long = f"it did not end within {self.check.limit_s} s, and had to be killed"
        why = too_long if self.killed else "its process died without a word"
        return (Verdict.FAIL if claimed else Verdict.NOT_CLAIMED), why, (), False


def _ended(running: list[_Running]) -> list[_Running]:
    """Read what the processes say; give those that are at their end, or past their time."""
    ready, _, _ = select.select([each.read_fd for each in running], [], [], min(each.left_s for each in running))
    ended = []
    for each in running:
        if each.read_fd in ready:
            piece = os.read(each.read_fd, 1 << 16)
            each.data += piece
            if not piece:
                ended.append(each)
        elif not each.left_s:
            each.kill()
            ended.append(each)
    return ended


def _be_child(check: Check, driver: Subject, directory: str, write_fd: int) -> None:
    """Live a check's life; what can't even be begun is told, too."""
    result: _Result
    try:
        with os.fdopen(write_fd, "wb", buffering=0) as out:
            try:
                signal.signal(signal.SIGALRM, _too_long)
                signal.alarm(check.limit_s)
                namespace.unshare(namespace.CLONE_NEWNS)
                lm.make_private()
                os.umask(0o022)
                result = _judge(check, driver, directory, lambda claimed: out.write(pickle.dumps(claimed)))
                signal.alarm(0)
            except BaseException as error:  # noqa: BLE001 - a child must not come back into its parent's code
                result = (Verdict.FAIL, f"the check could not be made: {type(error).__name__}: {error}", (), False)
            out.write(pickle.dumps(result))
    finally:
        os._exit(0)


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError("it took longer than it may")


def _judge(check: Check, driver: Subject, directory: str, tell: Callable[[bool], object]) -> _Result:
    """Make the check. `tell` gets to know whether the driver claims it before it may hang for good."""
    bench = Bench(host=driver.host, name=driver.name, dir=directory, filesystem=driver.filesystem)
    claimed = True
    try:
        with _place(bench):
            claimed = is_claimed(check.claim, bench.claims)
            tell(claimed)
            check.run(bench)
            left = [each.target for each in mountinfo.mounts() if each.target.startswith(f"{bench.dir}/")]
            if left:
                raise Failed(f"mounts were left behind: {left}")
    except Skipped as why:
        return Verdict.SKIPPED, str(why), tuple(bench.notes), False
    except Exception as error:  # noqa: BLE001 - whatever the driver raises is its verdict
        reason = str(error) if isinstance(error, Failed) else _told(error)
        return (Verdict.FAIL if claimed else Verdict.NOT_CLAIMED), reason, tuple(bench.notes), False
    if claimed:
        return Verdict.PASS, "", tuple(bench.notes), False
    return Verdict.NOT_CLAIMED, "it works, though the driver doesn't claim it", tuple(bench.notes), True


@contextlib.contextmanager
def _place(bench: Bench) -> Iterator[None]:
    """Give the bench its file system; at the end unmount all that is mounted below its directory."""
    directory = bench.dir
    try:
        if bench.filesystem:
            disks.make_image(f"{directory}/image", bench.filesystem)
            disks.mount_image(f"{directory}/image", f"{directory}/disk")
            bench.dir = f"{directory}/disk/work"
            os.mkdir(bench.dir)
        yield
    finally:
        for each in reversed([each.target for each in mountinfo.mounts() if each.target.startswith(f"{directory}/")]):
            with contextlib.suppress(OSError):
                lm.unmount(each, detach=True)


def _told(error: Exception) -> str:
    """Say an error that nobody expected: what, and the last place of ours and of the driver's."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{os.path.basename(frame.filename)}:{frame.lineno} ({frame.name})" for frame in frames]
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    ours = [place for place, frame in zip(places, frames, strict=True) if "/testing/checks/" in frame.filename]
    return f"{type(error).__name__}: {error}{notes} [{' ← '.join([places[-1], *ours[-1:]])}]"
