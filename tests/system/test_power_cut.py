"""Cut the power at any moment of any command: what was reported done is there, what was in flight is as it was or is to be.

The disk is `crashdisk.py`'s, the commands are `changing.py`'s script, what is compared is `states.py`'s. While the script runs, a
process makes the file system commit its journal again and again, as the rest of a machine does: so metadata reaches the disk
without the data that it is about, which is what a file system may do and what finds those who forgot to wait.

The short form cuts at a few moments on one file system; the long one (`make crash`) at as many as `LAMINA_CUTS` says, on all, with
the seed `LAMINA_SEED`.
"""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from cases import DRIVERS
from changing import Change, command_line, in_a_fork, script
from crashdisk import FORMS, CrashDisk, Replay, next_boot
from states import contradictions, database_rows, neither, sealed_layers, state_of

from lamina.engine import Engine

LONG = os.environ.get("LAMINA_KILLS") == "all"
SEED = int(os.environ.get("LAMINA_SEED", "1"))
CUTS = int(os.environ.get("LAMINA_CUTS", "200" if LONG else "8"))
_BTRFS_START_SYNC, _BTRFS_WAIT_SYNC = 0x80089418, 0x40089416  # linux/btrfs.h: a transaction's commit, without anybody's data


@pytest.mark.parametrize("form", FORMS if LONG else ["ext4"])
@pytest.mark.parametrize("driver", DRIVERS if LONG else ["overlay"])
@pytest.mark.timeout(36000 if LONG else 400)
def test_a_power_cut_at_any_moment_loses_nothing_that_was_done(driver: str, form: str, tmp_path: Path, own_mounts: None) -> None:
    random = Random(f"{SEED} {driver} {form}")
    (tmp_path / "given").mkdir()
    changes = script(tmp_path / "given", driver, DRIVERS[DRIVERS.index(driver) - 1])
    disk = CrashDisk(tmp_path, form)
    with disk.running():
        states, layers = run_script(disk, driver, changes, tmp_path, with_others=random.random() < 0.5 or not LONG)
    replay = Replay(disk)
    done = {text: moment for moment, text in replay.marks()}
    first = done["0"]
    moments = {(moment, False) for text, moment in done.items() if text.isdigit()}
    moments |= {(random.randrange(first, len(replay.events) + 1), random.random() < 0.8) for _ in range(CUTS if LONG else CUTS * 9)}
    failures = []
    for moment, some in sorted(moments if LONG else random.sample(sorted(moments), CUTS)):
        number = max(int(text) for text, at in done.items() if text.isdigit() and at <= moment)
        image = tmp_path / f"cut{moment}{some}.img"  # of its own: the kernel may still be letting go of the last one
        lost = replay.cut(moment, random if some else None, image)
        when = f"cut after event {moment} of {len(replay.events)}, {lost} writes in doubt, {'some' if some else 'none'} kept, "
        when += f"after `{changes[number - 1].name if number else 'nothing'}`"
        when += f", in `{changes[number].name}`" if number < len(changes) else ""
        expected = {"old": states[number], "new": states[min(number + 1, len(changes))], "layers": layers}
        (tmp_path / "expected.json").write_text(json.dumps(expected))
        failures += [
            f"{when}: {each}"
            for each in looked_at(disk, image, driver, changes[number] if number < len(changes) else None, tmp_path)
        ]
    print(f"seed {SEED}: {len(moments)} cuts of {driver} on {form}")
    assert not failures, f"{len(failures)} of {len(moments)} cuts:\n" + "\n".join(failures)


def run_script(
    disk: CrashDisk, driver: str, changes: list[Change], tmp_path: Path, *, with_others: bool
) -> tuple[list[dict[str, object]], dict[str, str]]:
    """Carry the script out; gives what there was after 0, 1, … commands, and the tree of every layer that was ever sealed."""
    root, output = disk.place / "root", tmp_path / "output"
    states: list[dict[str, object]] = []
    layers: dict[str, str] = {}

    def look() -> None:
        with Engine(root_dir=str(root), storage_driver=driver) as engine:
            layers_now = {" ".join(key): digest for key, digest in sealed_layers(engine).items()}
            (tmp_path / "state.json").write_text(json.dumps([state_of(engine), layers_now, contradictions(engine)]))

    def note() -> None:
        assert in_a_fork(look, output) == 0, output.read_text()
        found, sealed, wrong = json.loads((tmp_path / "state.json").read_text())
        assert not wrong, wrong
        states.append(found)
        layers.update(sealed)

    with others_at_work(disk) if with_others else contextlib.nullcontext():
        note()
        disk.mark("0")
        for number, each in enumerate(changes):
            code = in_a_fork(lambda each=each: command_line(root, driver, each.words), output)
            disk.mark(f"{number + 1}")
            assert code == each.code, f"{each.name}: {output.read_text()}"
            note()
    return states, layers


@contextlib.contextmanager
def others_at_work(disk: CrashDisk) -> Iterator[None]:
    """Have a process make the file system write its own data down, as others' fsync(2) does."""
    pid = os.fork()
    if pid == 0:
        place = disk.place / "others"
        fd = os.open(place, os.O_RDWR | os.O_CREAT)
        random = Random(SEED)
        while True:
            if disk.fstype == "btrfs":
                transaction = bytearray(8)
                fcntl.ioctl(fd, _BTRFS_START_SYNC, transaction)
                fcntl.ioctl(fd, _BTRFS_WAIT_SYNC, transaction)
            else:
                os.pwrite(fd, b"x", 0)
                os.fsync(fd)
            time.sleep(random.random() * 0.05)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def looked_at(disk: CrashDisk, image: Path, driver: str, in_flight: Change | None, tmp_path: Path) -> list[str]:
    """Come up again with what a cut has left, and list what is wrong."""
    output = tmp_path / "output"

    def look() -> None:
        with next_boot(disk, image, tmp_path):
            expected = json.loads((tmp_path / "expected.json").read_text())
            wrong = find_wrong(disk.place / "root", driver, in_flight, expected)
            (tmp_path / "wrong.json").write_text(json.dumps(wrong))

    if in_a_fork(look, output):
        return [output.read_text()]
    wrong: list[str] = json.loads((tmp_path / "wrong.json").read_text())
    return wrong


def is_litter(contradiction: str) -> bool:
    """Whether something is only left over, by a name that never comes again: the bytes are there, the record isn't.

    Of a container that went with its end (`--rm`), or was being made, no record need ever have been on disk, and yet its layer may
    have been half made or set aside: a driver's trash is emptied by the next removal, the rest by `system check --repair`.
    """
    name = contradiction.removeprefix("volumes/")
    is_anonymous = name != contradiction and len(name) == 64
    is_set_aside = contradiction.startswith("/") and ("/trash/" in contradiction or "/vfs/tmp/" in contradiction)
    return (
        is_anonymous
        or is_set_aside
        or contradiction.startswith(("a layer that nobody knows", "containers/", "run/containers/", "tmp/"))
    )


def find_wrong(root: Path, driver: str, in_flight: Change | None, expected: dict[str, dict[str, object]]) -> list[str]:
    """Do as the next command does: recover, twice; look; say the broken-off command again; run every image."""
    old, new = expected["old"], expected["new"]
    wrong: list[str] = []

    def seen() -> dict[str, object]:
        with Engine(root_dir=str(root), storage_driver=driver, warn=lambda text: wrong.append(f"warning: {text}")) as engine:
            wrong.extend(each for each in contradictions(engine) if not is_litter(each))
            layers = {" ".join(key): digest for key, digest in sealed_layers(engine).items()}
            wrong.extend(
                f"layer {key} isn't whole" for key, digest in layers.items() if expected["layers"].get(key, digest) != digest
            )
            return json.loads(json.dumps(state_of(engine)))

    found = seen()
    is_partial = in_flight is not None and in_flight.is_partial
    wrong += [each for each in neither(found, old, new) if not (is_partial and each.startswith("container "))]
    rows = database_rows(root)
    if seen() != found or database_rows(root) != rows:
        wrong.append("recovering again isn't the same as once")
    if in_flight is not None:
        code = command_line(root, driver, in_flight.words)
        if code not in in_flight.again:
            wrong.append(f"`{in_flight.name}` said again ended with {code}")
        seen()
    for name in [name for name in seen() if name.startswith("name ")]:
        code = command_line(root, driver, ("run", "--rm", name.removeprefix("name "), "true"))
        if code not in {0, 127, 125 if "imported" in name or "pulled" in name else 0}:
            wrong.append(f"{name} doesn't run: {code}")
    return list(dict.fromkeys(wrong))
