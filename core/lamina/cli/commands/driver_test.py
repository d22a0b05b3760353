"""`lamina driver test`: hold a storage driver against the conformance kit. Opens no store, works below a directory of its own."""

import fnmatch
import os
import sys
from typing import TYPE_CHECKING

import click

from lamina.cli.completion import complete_drivers
from lamina.cli.main import Settings
from lamina.cli.options import Command
from lamina.cli.output import printable

if TYPE_CHECKING:
    from lamina.testing.check import Check
    from lamina.testing.run import Outcome


@click.command(cls=Command)
@click.option("--format", "-f", "form", type=click.Choice(["text", "json"]), default="text", help="How to say the result.  [text]")
@click.option("--junit", default="", metavar="FILE", help="Write the result for continuous integration, too.")
@click.option(
    "--group", "-g", "groups", multiple=True, metavar="GROUP", help="Make only the checks of this group; may be given again."
)
@click.option(
    "--check", "-c", "patterns", multiple=True, metavar="NAME", help="Make only this check; * and ? stand for other letters."
)
@click.option("--list", "lists", is_flag=True, help="List the checks, and make none.")
@click.option("--dir", "place", default="", metavar="DIR", help="Where to work.  [the directory for temporary files]")
@click.option("--filesystem", default="", metavar="TYPE", help="Make a file system of this type for each check, such as btrfs.")
@click.option("--jobs", "-j", type=click.IntRange(1, 64), default=None, metavar="NUMBER", help="How many checks at a time.")
@click.argument("name", metavar="NAME", shell_complete=complete_drivers)
@click.pass_obj
def command(
    _settings: Settings, /, *, form: str, junit: str, groups: tuple[str, ...], patterns: tuple[str, ...], lists: bool, place: str,
    filesystem: str, jobs: int | None, name: str,
) -> int:  # fmt: skip
    """Hold a storage driver, by its name or as "module:attribute", against every check of the conformance kit.

    Ends with 1 if a check fails. What a driver doesn't claim to do may fail without harm; a claim that doesn't hold is a failure.
    """
    from lamina.testing.check import all_checks

    checks = _choose(all_checks(), groups, patterns)
    if lists:
        for each in checks:
            click.echo(f"{each.group}: {each.name}")
        return 0
    outcomes, own_name = _run(name, filesystem, place, jobs or min(8, 2 * (os.cpu_count() or 1)), checks)
    return _tell(own_name, outcomes, form, junit)


def _choose(checks: "list[Check]", groups: tuple[str, ...], patterns: tuple[str, ...]) -> "list[Check]":
    from lamina.errors import UsageError
    from lamina.testing.check import GROUPS

    for group in groups:
        if group not in GROUPS:
            raise UsageError(f"there is no group of checks '{group}'", hint=f"the groups are: {', '.join(GROUPS)}")
    chosen = [each for each in checks if not groups or each.group in groups]
    # a name may have brackets, which fnmatch takes for a set of letters
    literal = [pattern.replace("[", "[[]") for pattern in patterns]
    chosen = [each for each in chosen if not literal or any(fnmatch.fnmatchcase(each.name, pattern) for pattern in literal)]
    if not chosen:
        raise UsageError("no check is called so", hint="`lamina driver test --list NAME` lists them")
    return chosen


def _run(name: str, filesystem: str, place: str, jobs: int, checks: "list[Check]") -> "tuple[list[Outcome], str]":
    import tempfile

    from lamina.errors import NotUsableError
    from lamina.linux.fs import remove_tree
    from lamina.testing.run import check_usable, installed, run_all, subject

    if os.geteuid() != 0:
        raise NotUsableError("the checks mount, which needs root", hint="run as root")
    driver = subject(name, filesystem=filesystem) if ":" in name else installed(name, filesystem=filesystem)
    work = tempfile.mkdtemp(prefix="lamina-test-", dir=os.path.abspath(place) if place else None)
    try:
        check_usable(driver, work)
        outcomes = []
        for outcome in run_all(checks, driver, work, jobs=jobs):
            outcomes.append(outcome)
            if sys.stderr.isatty():
                click.echo(f"\r\x1b[K{len(outcomes)}/{len(checks)} {outcome.check.name[:80]}", nl=False, err=True)
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)
    finally:
        remove_tree(work)
    order = {each.name: number for number, each in enumerate(checks)}
    return sorted(outcomes, key=lambda each: order[each.check.name]), driver.name


def _tell(name: str, outcomes: "list[Outcome]", form: str, junit: str) -> int:
    from lamina.testing import report
    from lamina.testing.run import Verdict

    if junit:
        with open(junit, "w", encoding="utf-8") as file:
            file.write(report.to_junit(name, outcomes) + "\n")
    if form == "json":
        click.echo(report.to_json(name, outcomes))
    else:
        for line in report.lines(outcomes):
            click.echo(printable(line))
    return 1 if any(each.verdict is Verdict.FAIL for each in outcomes) else 0
