"""Lamina beside Docker where it is not about speed: power cuts, kills, many commands at once, growth, confinement.

Each engine is given the same words and is asked the same questions, one engine after the other, and what came out is a table. It
needs root, and works in namespaces of its own.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from engines import ENGINES, Engine
from seen import common_script, tally

from lamina.linux import mount, namespace, process

Rows = dict[str, str]
"""What came out for one engine: what was asked, and the answer."""


def cuts(kind: type[Engine], place: Path, asked: argparse.Namespace) -> Rows:
    """Cut the power."""
    from cuts import cut_the_power

    found = cut_the_power(kind, common_script(place / "given"), place, count=asked.count, seed=asked.seed)
    return tally(found, "power cuts", ("doesn't start", "lost", "damaged", "left over"))


def kills(kind: type[Engine], place: Path, asked: argparse.Namespace) -> Rows:
    """Kill."""
    from kills import kill_at_random

    found = kill_at_random(kind, common_script(place / "given"), place, count=asked.count, seed=asked.seed)
    kinds = ("doesn't start", "hangs", "lost", "damaged", "left over", "can't be said again", "never removed")
    return tally(found, "kills", kinds)


def soak(kind: type[Engine], place: Path, asked: argparse.Namespace) -> Rows:
    """Run many commands at once."""
    from busy import keep_busy

    return keep_busy(kind, place, seconds=asked.seconds, workers=asked.workers, seed=asked.seed)


def growth(kind: type[Engine], place: Path, asked: argparse.Namespace) -> Rows:
    """See what grows."""
    from growth import grow

    return grow(kind, place, execs=asked.execs, log_bytes=asked.log_mb * 1_000_000)


def confinement(kind: type[Engine], place: Path, asked: argparse.Namespace) -> Rows:
    """Try what a container shouldn't be able to do."""
    from confined import probe

    return probe(kind, place)


WORKS: dict[str, Callable[[type[Engine], Path, argparse.Namespace], Rows]] = {
    work.__name__: work for work in (cuts, kills, soak, growth, confinement)
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/beside", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default=",".join(WORKS), help="%(default)s")
    parser.add_argument("--engines", default=",".join(name for name in ENGINES if name == "lamina" or shutil.which(f"{name}d")))
    parser.add_argument("--count", type=int, default=40, help="cuts, and kills, of each engine (%(default)s)")
    parser.add_argument("--seconds", type=float, default=120, help="how long commands are run at once (%(default)s)")
    parser.add_argument("--workers", type=int, default=50, help="how many at once (%(default)s)")
    parser.add_argument("--execs", type=int, default=1000, help="in one container (%(default)s)")
    parser.add_argument("--log-mb", type=int, default=100, help="that one container writes (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    asked = parser.parse_args()
    namespace.unshare(namespace.CLONE_NEWNS | namespace.CLONE_NEWNET)
    mount.make_private()
    namespace.loopback_up()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # engines are ended on the way out
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    names = asked.engines.split(",")
    for what in asked.what.split(","):
        columns = {}
        for name in names:
            print(f"{what} of {name}, {time.strftime('%H:%M:%S')}", flush=True)
            place = Path(tempfile.mkdtemp(prefix="lamina-beside-"))
            (place / "given").mkdir()
            try:
                columns[name] = WORKS[what](ENGINES[name], place, asked)
            finally:
                shutil.rmtree(place, ignore_errors=True)
        print_table(what, columns)
    return 0


def print_table(what: str, columns: dict[str, Rows]) -> None:
    """Print the engines' answers side by side, in Markdown."""
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    print(f"\n| {what}, load {os.getloadavg()[0]:.0f} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {row} | {' | '.join(column.get(row, '') for column in columns.values())} |")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
