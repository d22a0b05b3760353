"""Take one defence of the engine out at a time and see that its tests fail: `make defences`, as root. `table.py` says what goes.

First the named tests run on the engine as it is, where all must pass. Then each defence's tests run on a copy of this machine's
files without that defence (`sandbox.sh`): each must fail, and by what the test itself looks for, not because something else broke.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from table import DEFENCES, KEPT, TOP, Defence

SANDBOX = Path(__file__).with_name("sandbox.sh")
REPORT = "/tmp/defences.xml"
TIMEOUT_S = 300
"""For one test: without its defence it may wait for ever."""
BY_THE_TEST = re.compile(r"AssertionError|assert |Failed: DID NOT RAISE")
"""How a failure begins that the test itself has found."""


def outcomes(tests: Sequence[str], changed: Path) -> dict[str, str]:
    """Run tests with the files in `changed` in place of the work tree's; gives how each failed, "" for one that passed."""
    pytest = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout", str(TIMEOUT_S), "--junit-xml", REPORT, *tests)
    command = ("sh", "-c", f'"$@" >&2; cat {REPORT}', "pytest", *pytest)
    done = subprocess.run([SANDBOX, changed, *command], cwd=TOP, capture_output=True, text=True, check=False)
    found: dict[str, str] = {}
    try:
        cases = ElementTree.fromstring(done.stdout).iter("testcase")
    except ElementTree.ParseError:
        raise SystemExit(f"pytest has made no report:\n{done.stderr}") from None
    for case in cases:
        name = f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}"
        for test in (name, name.partition("[")[0]):
            if test in tests and not found.get(test):
                found[test] = "".join(how(fault) for fault in case if fault.tag in {"failure", "error"})
    return {test: found.get(test, "it wasn't found") for test in tests}


def how(fault: ElementTree.Element) -> str:
    """Say in one line how a test failed."""
    message = " ".join(fault.attrib.get("message", "").split())
    return f"{'' if fault.tag == 'failure' else 'not in the test itself: '}{message}"


def faults(defence: Defence, found: dict[str, str]) -> Iterator[str]:
    """Say of which tests the failure shows nothing."""
    for test, message in found.items():
        if not message:
            yield f"{test} passes"
        elif not (re.search(defence.fails_with, message) if defence.fails_with else BY_THE_TEST.match(message)):
            yield f"{test} fails by something else"


def main() -> int:
    """Run what the command line asks for; gives the exit code."""
    options = argparse.ArgumentParser(description="Take one defence out at a time and see its tests fail.")
    options.add_argument("words", nargs="*", help="only defences whose entry in the table contains one of these words")
    options.add_argument("--only-without", action="store_true", help="don't run the tests on the engine as it is first")
    asked = options.parse_args()
    chosen = [each for each in DEFENCES if not asked.words or any(word in str(each) for word in asked.words)]
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as nothing:
        if not asked.only_without:
            tests = sorted({test for each in chosen for test in each.tests})
            print(f"with every defence: {len(tests)} tests", flush=True)
            wrong += [f"{test} fails as it is: {message}" for test, message in outcomes(tests, Path(nothing)).items() if message]
    for defence in chosen:
        with tempfile.TemporaryDirectory() as changed:
            defence.write_without(Path(changed))
            found = outcomes(defence.tests, Path(changed))
        faulty = list(faults(defence, found))
        wrong += [f"{defence.attack}: {defence.without}: {each}" for each in faulty]
        print(f"{'NOT SHOWN' if faulty else 'shown'}  {defence.attack}: without {defence.without}", flush=True)
        for test, message in found.items():
            print(f"       {textwrap.shorten(test.rpartition('::')[2] + ': ' + (message or 'passed'), 180)}", flush=True)
    for test, reason in KEPT.items():
        print(f"left   {test}: {reason}")
    tests = sorted({test for each in chosen for test in each.tests})
    print(f"{len(chosen)} defences taken out, {len(tests)} tests; {len(KEPT)} tests left out; {len(wrong)} faults")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
