"""Kills at random moments of the same commands: what each engine's next start makes of it, and what is never removed any more.

With Docker its daemon is killed, or now and then containerd, and started again; with Lamina, which has none, the command itself.
"""

import shutil
import subprocess
import time
from pathlib import Path
from random import Random

from changing import Change
from cuts import rehearse
from engines import PATIENCE_S, Engine, StartError
from seen import Seen, Wrong, carry_out, differences, see, tell
from test_kill_commands import copy


def kill_at_random(kind: type[Engine], changes: list[Change], place: Path, *, count: int, seed: int) -> list[Wrong]:
    """Give what was wrong after each kill."""
    states = rehearse(kind, changes, place / "rehearsal")
    random = Random(seed)
    chosen = [random.randrange(len(changes)) for _ in range(count)]
    engine = kind(place / "root", place / "run", "overlay")
    before, after = place / "before", place / "after"
    found = []
    engine.root.mkdir(parents=True)
    try:
        for number, change in enumerate(changes):
            copy(engine.root, before)
            engine.start()
            began = time.monotonic()
            carry_out(engine, change)
            took_s = time.monotonic() - began
            engine.stop()
            if number in chosen:
                copy(engine.root, after)
                for _ in range(chosen.count(number)):
                    copy(before, engine.root)
                    delay_s = random.random() * took_s
                    wrong = killed(engine, change, delay_s, random, old=states[number], new=states[number + 1])
                    found.append(wrong)
                    tell(f"`{change.name}` killed after {delay_s * 1000:.0f} of {took_s * 1000:.0f} ms", wrong)
                copy(after, engine.root)
    finally:
        engine.close()
        for folder in (before, after):
            shutil.rmtree(folder, ignore_errors=True)
    return found


def killed(engine: Engine, change: Change, delay_s: float, random: Random, *, old: Seen, new: Seen) -> Wrong:
    """Kill during one command, come up again, and list what is wrong. The engine is at rest before and after."""
    engine.start()
    command = subprocess.Popen(
        engine.command(*change.words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(delay_s)
        engine.kill(command, random)
        command.wait(PATIENCE_S)
        engine.wait_until_it_answers()
        found = see(engine)
        wrong = differences(found, old, new)
        done = engine.result(*change.words)
        if found == old and done.returncode != change.code:
            wrong["can't be said again"] = [f"{done.returncode}: {(done.stderr.splitlines() or [''])[-1]}"]
        wrong["never removed"] = engine.remove_all()
    except StartError as error:
        return {"doesn't start": [str(error)]}
    except subprocess.TimeoutExpired:
        return {"hangs": [change.name]}
    finally:
        if command.poll() is None:
            command.kill()
            command.wait()
        engine.stop()
    return wrong
