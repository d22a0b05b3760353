"""The command line: `make bench`, or `PYTHONPATH=bench .venv/bin/python -m lamina_bench`.

The exit code is 0 when all that was asked for was measured, whatever the figures; 1 if something failed or it was interrupted; 3 if
the machine is too busy.
"""

import argparse
import compileall
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lamina_bench import machine
from lamina_bench.catalogue import WORKS, chosen
from lamina_bench.chart import chart
from lamina_bench.document import document, read, together
from lamina_bench.lab import PEERS, Lab
from lamina_bench.pace import Pace, any_pace
from lamina_bench.report import Quiet, Report, WorkReport
from lamina_bench.rounds import measure
from lamina_bench.table import into_page, text
from lamina_bench.work import FailedError, Work

TOO_BUSY = 3


def main(words: Sequence[str]) -> int:
    """Measure what the words ask for."""
    asked = _parser().parse_args(words)
    if asked.list:
        _list()
        return 0
    if files := _split(asked.earlier):
        return _again(files, asked)
    try:
        works = chosen(_split(asked.works))
        engines = _split(asked.engines)
        if unknown := [name for name in engines if name not in ("lamina", *PEERS)]:
            raise FailedError(f"no engine is called '{unknown[0]}'; they are {', '.join(('lamina', *PEERS))}")
        if asked.rounds is not None and asked.rounds < 1:
            raise FailedError(f"'{asked.rounds}' rounds are too few")
        if os.geteuid() != 0:
            raise FailedError("containers need root: sudo make bench")
        program = asked.lamina or str(Path(sys.executable).with_name("lamina"))
        if not os.access(program, os.X_OK):
            raise FailedError(f"there is no program '{program}'")
    except FailedError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    load, busy = machine.load(), machine.busy_share()
    quiet = machine.is_quiet(load, busy)
    if not quiet:
        said = f"the load is {load:.2f} on {os.cpu_count()} cores, and {busy:.0%} of their time is used"
        if not asked.anyway:
            print(
                f"bench: {said}; wait until the machine is quiet, or take rough figures with --anyway (ANYWAY=1)", file=sys.stderr
            )
            return TOO_BUSY
        print(f"bench: {said}: the figures will be rough", file=sys.stderr)
    report = _measured(works, engines, asked, program, load=load, busy=busy, quiet=quiet)
    _write(report, asked)
    return 1 if report.failed or len(report.works) < len(works) else 0


def _again(paths: Sequence[str], asked: argparse.Namespace) -> int:
    """Show what earlier runs have measured."""
    reports = []
    for path in paths:
        try:
            reports.append(read(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            print(f"bench: '{path}' can't be read: {error}", file=sys.stderr)
            return 1
    _write(together(reports, [work.name for work in WORKS]), asked)
    return 0


def _measured(
    works: Sequence[Work], engines: Sequence[str], asked: argparse.Namespace, program: str, *, load: float, busy: float, quiet: bool
) -> Report:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken away
    for name in [name for name in os.environ if name.startswith("PYTHON")]:  # what a user's shell has not
        del os.environ[name]
    for folder in ("core", "plugins"):
        compileall.compile_dir(str(Path(__file__).parents[2] / folder), quiet=2)
    began, started = time.strftime("%Y-%m-%d %H:%M %Z"), time.monotonic()
    done: list[WorkReport] = []
    pace = Pace() if asked.steady else any_pace()
    with Lab(parent=asked.dir, chosen=engines, lamina_program=program) as lab:
        facts = machine.facts(lab)
        try:
            for work in works:
                done.append(measure(work, lab, rounds=asked.rounds or work.rounds, pace=pace, told=_told))
        except (KeyboardInterrupt, SystemExit):  # an hour's figures are not thrown away
            told = f"interrupted, so there is nothing of {', '.join(work.name for work in works[len(done) :])}"
            print(f"\nbench: {told}", file=sys.stderr)
        _told("taking away what was made")
    _told("")
    return Report(
        began=began,
        took_s=time.monotonic() - started,
        machine=facts,
        quiet=Quiet(load_before=load, busy_before=busy, load_after=machine.load(), is_quiet=quiet),
        works=tuple(done),
    )


def _write(report: Report, asked: argparse.Namespace) -> None:
    print(text(report), end="")
    for path, content in ((asked.json, document), (asked.plot, chart)):
        if path:
            Path(path).write_text(content(report), encoding="utf-8")
    if asked.page:
        page = Path(asked.page)
        page.write_text(into_page(page.read_text(encoding="utf-8"), report), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure Lamina beside the engines that are here.")
    parser.add_argument("--list", action="store_true", help="list the works and end")
    parser.add_argument("--works", default="", metavar="NAME,…", help="these works or groups alone (WORKS=)")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds of each work (ROUNDS=)")
    parser.add_argument(
        "--engines", default="", metavar="NAME,…", help=f"beside these alone: {', '.join(PEERS)}; lamina for none (ENGINES=)"
    )
    parser.add_argument("--anyway", action="store_true", help="measure on a busy machine, too (ANYWAY=1)")
    parser.add_argument(
        "--steady", action="store_true", help="do a turn again in which the cores were slower than they can be (STEADY=1)"
    )
    parser.add_argument("--json", default="", metavar="FILE", help="write every figure there (JSON=)")
    parser.add_argument("--plot", default="", metavar="FILE", help="draw the targets there, as SVG (PLOT=)")
    parser.add_argument("--page", default="", metavar="FILE", help="put the tables between the marks of this page (PAGE=)")
    parser.add_argument(
        "--from", dest="earlier", default="", metavar="FILE,…", help="measure nothing, show what --json wrote (FROM=)"
    )
    parser.add_argument("--dir", default="/var/tmp", metavar="DIR", help="where the benchmark makes its directory; on a disk")
    parser.add_argument("--lamina", default="", metavar="PROGRAM", help="the program to measure; this environment's own without it")
    return parser


def _list() -> None:
    width = max(len(work.name) for work in WORKS)
    for work in WORKS:
        print(f"{work.name:<{width}}  {work.title}, {work.rounds} rounds")


def _split(names: str) -> list[str]:
    return [name for name in names.replace(",", " ").split() if name]


def _told(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
    elif line:
        print(f"bench: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
