"""The whole comparison: a place of its own, its images, every part, and nothing left at the end."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lamina.compare import disk, samples, timings
from lamina.compare.catalogue import Probe, catalogue
from lamina.compare.lab import Burials, ask
from lamina.compare.recorded import records
from lamina.compare.report import Answer, Comparison, DiskRow, ProbeRow, Recorded, Subject, TimingRow
from lamina.engine import Engine
from lamina.errors import LaminaError, NotFoundError, NotUsableError, UsageError
from lamina.linux.fs import filesystem_type, nearest_directory, remove_tree

PREFIX = "lamina-compare-"
PARTS = ("probes", "disk", "timings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done."""

    rounds: int = 3
    big_bytes: int = 1 << 30
    files: int = 10_000
    stored_bytes: int = 64 << 20
    containers: int = 10

    @classmethod
    def quick(cls) -> "Scale":
        """Enough to see the large differences."""
        return cls(rounds=2, big_bytes=64 << 20, files=1000, stored_bytes=8 << 20, containers=3)


def compare(
    names: Sequence[str],
    *,
    place: str,
    scale: Scale,
    parts: Sequence[str] = PARTS,
    told: Callable[[str], None] = lambda _text: None,
    warn: Callable[[str], None] = lambda _text: None,
) -> Comparison:
    """Compare drivers by name, all installed ones if none is named, in a new directory under `place`.

    `told` hears what is being done. Containers are mounted in this process's mount namespace. Raises `NotFoundError` for a driver
    that isn't installed, `NotUsableError` if none works here, `LaminaError` if the disk is too full.
    """
    began = time.monotonic()
    with _workplace(place) as directory, Engine(root_dir=os.path.join(directory, "root"), warn=warn) as engine:
        subjects = _subjects(engine, names)
        drivers = [subject.name for subject in subjects if subject.is_compared]
        if not drivers:
            reasons = "; ".join(f"{subject.name}: {subject.reason}" for subject in subjects)
            raise NotUsableError("none of these drivers works here", hint=reasons)
        _check_space(directory, len(drivers), scale, parts)
        with _own_driver(engine, drivers[0]):
            return Comparison(
                machine=_machine(directory),
                subjects=subjects,
                recorded=[record for record in records() if record.beside in drivers] if "probes" in parts else [],
                probes=_probes(engine, drivers, directory, told) if "probes" in parts else [],
                disk=_disk(engine, drivers, directory, scale, told) if "disk" in parts else [],
                timings=_timings(engine, drivers, directory, scale, told) if "timings" in parts else [],
                took_s=time.monotonic() - began,
            )


@contextlib.contextmanager
def _own_driver(engine: Engine, driver: str) -> Iterator[None]:
    """Have the engine use that driver where it asks for a default, so that no other is tried."""
    engine.context.chosen_driver = driver
    try:
        yield
    finally:
        for container in engine.containers.all():
            container.remove(force=True)


@contextlib.contextmanager
def _workplace(place: str) -> Iterator[str]:
    """Give a new directory while the block runs. What a comparison that was killed left behind there is removed first."""
    parent = nearest_directory(os.path.abspath(place))
    try:
        _sweep(parent)
        directory = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
    except OSError as error:
        raise LaminaError(
            f"'{parent}' can't be written: {(error.strerror or '').lower()}", hint="choose another place with --dir"
        ) from error
    lock_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield directory
    finally:
        os.close(lock_fd)
        remove_tree(directory)


def _sweep(parent: str) -> None:
    for name in os.listdir(parent):
        if not name.startswith(PREFIX):
            continue
        path = os.path.join(parent, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(path)
        except BlockingIOError:
            pass  # another comparison is at work there
        finally:
            os.close(fd)


def _subjects(engine: Engine, names: Sequence[str]) -> list[Subject]:
    known = engine.system.drivers()
    wanted: list[Subject] = []
    for name in names or [status.name for status in known]:
        status = next((each for each in known if name == each.name or name in each.aliases), None)
        if status is None:
            installed = ", ".join(each.name for each in known)
            raise NotFoundError(f"storage driver '{name}' is not installed", hint=f"installed are {installed}")
        if status.name in {subject.name for subject in wanted}:
            raise UsageError(f"storage driver '{status.name}' is named twice")
        if status.probe is None:
            wanted.append(Subject(name=status.name, reason=status.problem or "the plugin is broken"))
        elif not status.probe.usable:
            wanted.append(Subject(name=status.name, reason=status.probe.reason or "it gives no reason", hint=status.probe.hint))
        else:
            wanted.append(Subject(name=status.name, method=status.probe.method))
    return wanted


def _check_space(directory: str, drivers: int, scale: Scale, parts: Sequence[str]) -> None:
    """Refuse before anything is done what the disk can't hold; a driver without shared layers is reckoned with."""
    need = 256 << 20
    if "disk" in parts:
        need += scale.stored_bytes * (scale.containers + 4) + scale.stored_bytes * 2 * drivers
    if "timings" in parts:
        need += scale.big_bytes * (drivers + 2)  # unpacked once by each; one container at a time, and its first copy
    free = shutil.disk_usage(directory).free
    if free < need:
        raise LaminaError(
            f"{need / 1e9:.1f} GB are needed on the disk of '{os.path.dirname(directory)}', and {free / 1e9:.1f} GB are free",
            hint="take --quick, --only probes, or another place with --dir",
        )


def _machine(directory: str) -> dict[str, str]:
    found = os.uname()
    return {
        "Kernel": found.release,
        "Architecture": found.machine,
        "FileSystem": filesystem_type(directory),
        "CPUs": str(os.cpu_count() or 1),
        "Date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _probes(engine: Engine, drivers: Sequence[str], directory: str, told: Callable[[str], None]) -> list[ProbeRow]:
    told("making the image of the probes")
    samples.make_probed(engine, directory)
    known = records()
    known, burials, done = records(), Burials(), 0
    found: dict[str, ProbeRow] = {}
    for probes in _batches(catalogue()):
        told(f"probe {done + 1} of {len(catalogue())}: {probes[0].title}")
        answers = {driver: ask(engine, driver, probes, burials) for driver in drivers}
        for number, probe in enumerate(probes):
            found[probe.id] = _row(probe, {driver: answers[driver][number] for driver in drivers}, known, drivers)
        done += len(probes)
    burials.finish()
    engine.images.remove(samples.PROBED, force=True)
    return [found[probe.id] for probe in catalogue()]


def _batches(probes: Sequence[Probe]) -> list[list[Probe]]:
    """Say which probes share a container: as many as there are copies of the tree, and those alone that must be."""
    together = [probe for probe in probes if not probe.is_alone]
    shared = [together[start : start + samples.COPIES] for start in range(0, len(together), samples.COPIES)]
    return shared + [[probe] for probe in probes if probe.is_alone]


def _row(probe: Probe, answers: Mapping[str, Answer], known: Sequence[Recorded], drivers: Sequence[str]) -> ProbeRow:
    return ProbeRow(
        id=probe.id, group=probe.group, title=probe.title, why=probe.why, plain=probe.plain, answers=answers,
        recorded={each.name: each.answers[probe.id] for each in known if each.beside in drivers and probe.id in each.answers},
    )  # fmt: skip


def _disk(engine: Engine, drivers: Sequence[str], directory: str, scale: Scale, told: Callable[[str], None]) -> list[DiskRow]:
    told("making the images whose size is measured")
    samples.make_filled(engine, directory, samples.STORED, scale.stored_bytes)
    samples.make_second(engine, directory, samples.STORED, f"{samples.STORED}-more")
    found = {}
    for driver in drivers:
        told(f"disk: {driver}")
        found[driver] = disk.measure(engine, driver, containers=scale.containers)
    for name in (f"{samples.STORED}-more", samples.STORED):
        engine.images.remove(name, force=True)
    return disk.rows(found, file_bytes=scale.stored_bytes, containers=scale.containers)


def _timings(engine: Engine, drivers: Sequence[str], directory: str, scale: Scale, told: Callable[[str], None]) -> list[TimingRow]:
    told("making the images that are timed")
    samples.make_filled(engine, directory, samples.SMALL, 1 << 20)
    samples.make_filled(engine, directory, samples.BIG, scale.big_bytes)
    for driver in drivers:
        for image in (samples.SMALL, samples.BIG):
            told(f"unpacking: {driver}")
            engine.containers.create(image, ["true"], driver=driver).remove()

    def small(engine: Engine, driver: str) -> timings.Seconds:
        return timings.small_turn(engine, driver, files=scale.files)

    found = [
        *timings.rounds(engine, drivers, small, number=scale.rounds, place=directory, told=told),
        *timings.rounds(engine, drivers, timings.big_turn, number=scale.rounds, place=directory, told=told),
    ]
    return timings.rows(found, drivers, big_bytes=scale.big_bytes, files=scale.files)
