"""The pytest class that a driver author inherits: every check is a test of it."""

from pathlib import Path
from typing import ClassVar

import pytest

from lamina.testing.check import Check, all_checks
from lamina.testing.run import Outcome, Subject, Verdict, installed, run_check, subject

_CHECKS = all_checks()


class StorageDriverSuite:
    """Every check against one driver. Inherit, and say which.

    `plugin` is the plugin object, "module:attribute" of one, or the name of an installed driver; or override the fixture
    `storage_plugin`. `filesystem` is the type of file system that the driver needs below it ("btrfs"); each check makes one.
    """

    plugin: ClassVar[object] = None
    filesystem: ClassVar[str] = ""

    @pytest.fixture(scope="class")
    def storage_plugin(self) -> object:
        """The driver to test."""
        return self.plugin

    @pytest.fixture(scope="class")
    def storage_subject(self, storage_plugin: object) -> Subject:
        """The driver, registered as the engine registers it."""
        if storage_plugin is None:
            pytest.fail("the class has no 'plugin'")
        if isinstance(storage_plugin, str) and ":" not in storage_plugin:
            return installed(storage_plugin, filesystem=self.filesystem)
        return subject(storage_plugin, filesystem=self.filesystem)

    @pytest.mark.parametrize("lamina_check", _CHECKS, ids=[f"{check.group}: {check.name}" for check in _CHECKS])
    def test_driver(self, lamina_check: Check, storage_subject: Subject, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        """Run one check."""
        outcome = run_check(lamina_check, storage_subject, str(tmp_path))
        _remember(request, storage_subject.name, outcome)
        if outcome.verdict is Verdict.FAIL:
            pytest.fail(f"{outcome.reason}\n{lamina_check.about}", pytrace=False)
        if outcome.verdict is not Verdict.PASS:
            pytest.skip(f"{outcome.verdict.value}: {outcome.reason}" if outcome.verdict is Verdict.NOT_CLAIMED else outcome.reason)


def _remember(request: pytest.FixtureRequest, name: str, outcome: Outcome) -> None:
    """Give the outcome to the test's report, from which the plugin makes its table, also over several processes."""
    request.node.user_properties.append(
        (
            "lamina",
            [name, outcome.check.group, outcome.check.name, outcome.verdict.value, outcome.underclaimed, list(outcome.notes)],
        )
    )
