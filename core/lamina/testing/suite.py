"""The pytest class that a driver author inherits: every check is a test of it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from lamina.testing.check import Check, all_checks
from lamina.testing.run import Outcome, Subject, Verdict, installed, run_check, subject

_CHECKS = all_checks()
_SUBJECTS: dict[tuple[object, str], Subject] = {}
"""Registering a driver takes longer than many a check."""


class StorageDriverSuite:
    """Every check against one driver. Inherit, and say which.

    `plugin` is the plugin object, "module:attribute" of one, or the name of an installed driver; or override the fixture
    `storage_plugin`. `filesystem` is the type of file system that the driver needs below it ("btrfs"); each check makes one.
    With `explained`, a check's name to the reason why it is no pass, every check that isn't there must pass, and no other may.
    """

    plugin: ClassVar[object] = None
    filesystem: ClassVar[str] = ""
    explained: ClassVar[Mapping[str, str] | None] = None

    @pytest.fixture
    def storage_plugin(self) -> object:
        """The driver to test."""
        return self.plugin

    @pytest.fixture
    def storage_subject(self, storage_plugin: object) -> Subject:
        """The driver, registered as the engine registers it."""
        if os.geteuid() != 0:
            pytest.fail("the checks mount, which needs root", pytrace=False)
        if storage_plugin is None:
            pytest.fail("the class has no 'plugin'")
        key = (storage_plugin if isinstance(storage_plugin, str) else id(storage_plugin), self.filesystem)
        if key not in _SUBJECTS:
            if isinstance(storage_plugin, str) and ":" not in storage_plugin:
                _SUBJECTS[key] = installed(storage_plugin, filesystem=self.filesystem)
            else:
                _SUBJECTS[key] = subject(storage_plugin, filesystem=self.filesystem)
        return _SUBJECTS[key]

    @pytest.mark.parametrize("lamina_check", _CHECKS, ids=[f"{check.group}: {check.name}" for check in _CHECKS])
    def test_driver(self, lamina_check: Check, storage_subject: Subject, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        """Run one check."""
        outcome = run_check(lamina_check, storage_subject, str(tmp_path))
        _remember(request, storage_subject.name, outcome)
        if outcome.verdict is Verdict.FAIL:
            pytest.fail(f"{outcome.reason}\n{lamina_check.about}", pytrace=False)
        why = outcome.reason if outcome.verdict is Verdict.SKIPPED else f"{outcome.verdict.value}: {outcome.reason}"
        if self.explained is not None and (outcome.verdict is Verdict.PASS) is (lamina_check.name in self.explained):
            pytest.fail(
                "it passes, though an explanation says why it can't" if outcome.verdict is Verdict.PASS else why, pytrace=False
            )
        if outcome.verdict is not Verdict.PASS:
            pytest.skip(why if self.explained is None else f"{self.explained[lamina_check.name]} ({why})")


def _remember(request: pytest.FixtureRequest, name: str, outcome: Outcome) -> None:
    """Give the outcome to the test's report, from which the plugin makes its table, also over several processes."""
    request.node.user_properties.append(
        (
            "lamina",
            [name, outcome.check.group, outcome.check.name, outcome.verdict.value, outcome.underclaimed, list(outcome.notes)],
        )
    )
