"""Power cuts: the same script on the same disk, cut after each command and at random moments; what the next start finds.

The disk is `crashdisk.py`'s, with a process that has the file system commit its journal meanwhile, as the rest of a machine does.
"""

import json
import shutil
from pathlib import Path
from random import Random

from changing import Change, in_a_fork
from crashdisk import CrashDisk, Replay, next_boot
from engines import Engine, StartError
from seen import Seen, Wrong, carry_out, differences, see, tell
from test_power_cut import others_at_work


def rehearse(kind: type[Engine], changes: list[Change], place: Path) -> list[Seen]:
    """Carry the script out in peace; gives what there is after 0, 1, … commands."""
    engine = kind(place / "root", place / "run", "overlay")
    engine.start()
    try:
        states = [see(engine)]
        for change in changes:
            carry_out(engine, change)
            states.append(see(engine))
    finally:
        engine.close()
        shutil.rmtree(place)
    return states


def cut_the_power(kind: type[Engine], changes: list[Change], place: Path, *, count: int, seed: int) -> list[Wrong]:
    """Give what was wrong after each cut."""
    states = rehearse(kind, changes, place / "rehearsal")
    random = Random(seed)
    disk = CrashDisk(place, "ext4")
    with disk.running():
        record(kind, changes, disk, place)
    replay = Replay(disk)
    done = {int(text): moment for moment, text in replay.marks()}
    moments = [(moment, False) for moment in done.values()]
    moments += [(random.randrange(done[0], len(replay.events) + 1), random.random() < 0.8) for _ in range(count)]
    found: list[Wrong] = []
    for moment, some in sorted(moments):
        number = max(each for each, at in done.items() if at <= moment)
        image = place / f"cut{len(found)}.img"
        replay.cut(moment, random if some else None, image)
        wrong = looked_at(kind, disk, image, place, old=states[number], new=states[min(number + 1, len(changes))])
        found.append(wrong)
        tell(f"cut {len(found)} after {number} of {len(changes)} commands", wrong)
    return found


def record(kind: type[Engine], changes: list[Change], disk: CrashDisk, place: Path) -> None:
    """Carry the script out on the disk, with a mark after each command."""
    engine = kind(disk.place / "root", place / "run", "overlay")
    engine.start()
    try:
        with others_at_work(disk):
            disk.mark("0")
            for number, change in enumerate(changes):
                carry_out(engine, change)
                disk.mark(f"{number + 1}")
    finally:
        engine.close()


def looked_at(kind: type[Engine], disk: CrashDisk, image: Path, place: Path, *, old: Seen, new: Seen) -> Wrong:
    """Come up with what a cut has left, in a mount namespace and with a boot of its own, and compare."""
    wrong = place / "wrong.json"

    def look() -> None:
        with next_boot(disk, image, place):
            engine = kind(disk.place / "root", place / "run", "overlay")
            try:
                engine.start()
                wrong.write_text(json.dumps(differences(see(engine), old, new)))
            except StartError as error:
                wrong.write_text(json.dumps({"doesn't start": [str(error)]}))
            finally:
                engine.close()

    output = place / "output"
    if in_a_fork(look, output):
        raise RuntimeError(output.read_text())
    found: Wrong = json.loads(wrong.read_text())
    return found
