"""The conformance kit can fail: each driver that is broken on purpose fails the check meant for it, with the right words."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_drivers import BROKEN, Broken, ClaimsLittle, Overlay, Vfs

from lamina.api.types import Fidelity
from lamina.errors import PluginError
from lamina.testing import run as running
from lamina.testing.check import Check, all_checks
from lamina.testing.run import Verdict, run_check, subject

CHECKS = {check.name: check for check in all_checks()}


@pytest.mark.parametrize("broken", BROKEN, ids=[f"{each.driver.__name__}: {each.check}" for each in BROKEN])
def test_a_broken_driver_fails_the_check_meant_for_it(broken: Broken, tmp_path: Path) -> None:
    outcome = run_check(CHECKS[broken.check], subject(broken.driver()), str(tmp_path))
    assert outcome.verdict is Verdict.FAIL, outcome.reason
    assert broken.says in outcome.reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted({each.check for each in BROKEN}))
def test_the_drivers_that_the_broken_ones_are_made_of_pass_it(name: str, tmp_path: Path) -> None:
    for driver in (Vfs, Overlay):
        outcome = run_check(CHECKS[name], subject(driver()), str(tmp_path))
        assert outcome.verdict in {Verdict.PASS, Verdict.NOT_CLAIMED, Verdict.SKIPPED}, outcome.reason


def test_what_is_done_and_not_claimed_is_pointed_out_and_no_failure(tmp_path: Path) -> None:
    for name in ("kept-in-a-child[user xattr]", "renaming-a-directory-of-below"):
        outcome = run_check(CHECKS[name], subject(ClaimsLittle()), str(tmp_path))
        assert (outcome.verdict, outcome.underclaimed) == (Verdict.NOT_CLAIMED, True)


def _hang(_bench: object) -> None:
    time.sleep(100)


def _hang_for_good(bench: object) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])  # as one that waits in the kernel for a server of FUSE
    _hang(bench)


def _die(_bench: object) -> None:
    os._exit(3)


def test_a_driver_that_hangs_or_dies_is_a_failure_and_not_the_end(tmp_path: Path) -> None:
    for run, words in ((_hang, "took longer"), (_die, "died without a word")):
        outcome = run_check(_odd(run), subject(Vfs()), str(tmp_path))
        assert outcome.verdict is Verdict.FAIL
        assert words in outcome.reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("claim", [Fidelity.HOLES, None])
def test_what_is_not_claimed_may_hang_or_die_for_good_without_being_a_failure(
    claim: Fidelity | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_GRACE_S", 1)
    for run, words in ((_hang_for_good, "had to be killed"), (_die, "died without a word")):
        outcome = run_check(_odd(run, claim), subject(ClaimsLittle()), str(tmp_path))
        assert (outcome.verdict, outcome.underclaimed) == (Verdict.FAIL if claim is None else Verdict.NOT_CLAIMED, False)
        assert words in outcome.reason
    assert list(tmp_path.iterdir()) == []


def _odd(run: Callable[[object], None], claim: Fidelity | None = None) -> Check:
    return Check(group="crash", name="odd", about="", claim=claim, limit_s=1, run=run)


def test_what_is_no_plugin_is_refused_in_a_line() -> None:
    class Nameless:
        api_version = 1

    class Old(Vfs):
        api_version = 0

    class Empty:
        name, api_version = "empty", 1

    for plugin, words in (
        (Nameless(), "has no name"), (Old(), "version 0"), (Empty(), "doesn't implement the hook 'storage_probe'"),
        ("no.such.module:plugin", "can't be loaded"),
    ):  # fmt: skip
        with pytest.raises(PluginError, match=words):
            subject(plugin)
